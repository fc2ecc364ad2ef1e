/*
 * The two ends between which a forwarder stands: a visitor, which is a half on the worker that writes down what it
 * hears, and the local service, played by the test on the main thread, byte for byte.
 */
#ifndef KV_TEST_FORWARDING_H
#define KV_TEST_FORWARDING_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/limits.h"
#include "client/forward.h"
#include "io/on_worker.h"
#include "tunnel/exchange.h"

#define TEXT_MAX 8192

struct fixture {
    struct worker_group *group;
    struct worker *worker;
    struct forwarder *forwarder;
    int listener;
    struct forward_options options;
};

/* A visitor's end of one exchange. Written on the worker; read by the test after one of the semaphores. */
struct visitor {
    struct fixture *f;
    struct half half;
    const char *method, *protocol, *field, *value;
    size_t credit, promised; /* room for the answer, and for the request without waiting */
    char body[TEXT_MAX];
    size_t body_len;
    unsigned status, interims;
    char trailer[64];
    bool ended;
    size_t granted;
    enum close_reason reason;
    sem_t heard_head, heard_data, heard_end;
};

/* ---- the visitor ----------------------------------------------------------------------------------------------- */

static inline void on_head(void *owner, struct head *head)
{
    struct visitor *v = owner;
    if (head->status < 200 && head->status != 101)
        v->interims++;
    else
        v->status = head->status;
    head_free(head);
    sem_post(&v->heard_head);
}

static inline void on_data(void *owner, struct chunk *chunk)
{
    struct visitor *v = owner;
    assert_true(chunk->len <= v->credit);
    v->credit -= chunk->len;
    memcpy(v->body + v->body_len, chunk->data + chunk->off, chunk->len);
    v->body_len += chunk->len;
    chunk_free(chunk);
    sem_post(&v->heard_data);
}

static inline void on_credit(void *owner, size_t bytes)
{
    ((struct visitor *)owner)->granted += bytes;
}

static inline void on_end(void *owner, struct head *trailers)
{
    struct visitor *v = owner;
    v->ended = true;
    if (trailers && trailers->count > 0)
        snprintf(v->trailer, sizeof(v->trailer), "%.*s", (int)trailers->fields[0].value.len,
                 trailers->fields[0].value.data);
    head_free(trailers);
    sem_post(&v->heard_end);
}

static inline void on_reset(void *owner, enum close_reason reason, const char *text)
{
    struct visitor *v = owner;
    (void)text;
    v->reason = reason;
    half_close(&v->half, reason, NULL);
    sem_post(&v->heard_end);
}

static const struct half_events visitor_events = {
    .head = on_head,
    .data = on_data,
    .credit = on_credit,
    .end = on_end,
    .reset = on_reset,
};

static inline void do_open(struct worker *worker, void *arg)
{
    struct visitor *v = arg;
    struct exchange_open open = {.credit = v->credit, .promised = v->promised, .id = "test-1"};
    open.head = head_new(4, 256);
    open.head->method = head_intern(open.head, slice_of(v->method ? v->method : "GET"));
    open.head->target = head_intern(open.head, SLICE("/x?y"));
    open.head->protocol = head_intern(open.head, slice_of(v->protocol ? v->protocol : ""));
    head_add(open.head, SLICE("host"), SLICE("app.test"));
    if (v->field)
        head_add(open.head, slice_of(v->field), slice_of(v->value));
    assert_int_equal(half_open(&v->half, worker, forwarder_address(v->f->forwarder), &open, &visitor_events, v), 0);
}

static inline void visitor_open(struct fixture *f, struct visitor *v)
{
    v->f = f;
    v->promised = LIMIT_WINDOW_BYTES;
    if (v->credit == 0)
        v->credit = TEXT_MAX;
    sem_init(&v->heard_head, 0, 0);
    sem_init(&v->heard_data, 0, 0);
    sem_init(&v->heard_end, 0, 0);
    on_worker(f->worker, do_open, v);
}

struct send {
    struct visitor *v;
    const char *text; /* NULL: the end */
    bool at_once;     /* the end follows in the same turn */
};

static inline void do_send(struct worker *worker, void *arg)
{
    struct send *s = arg;
    (void)worker;
    if (s->text)
        half_send_data(&s->v->half, chunk_copy(s->text, strlen(s->text)));
    if (!s->text || s->at_once)
        half_send_end(&s->v->half, NULL);
}

static inline void visitor_send(struct visitor *v, const char *text)
{
    on_worker(v->f->worker, do_send, &(struct send){v, text, false});
}

static inline void visitor_end(struct visitor *v)
{
    on_worker(v->f->worker, do_send, &(struct send){v, NULL, false});
}

static inline void do_send_trailers(struct worker *worker, void *arg)
{
    struct visitor *v = arg;
    struct head *trailers = head_new(1, 64);
    (void)worker;
    head_add(trailers, SLICE("x-sum"), SLICE("7"));
    half_send_end(&v->half, trailers);
}

static inline void do_grant(struct worker *worker, void *arg)
{
    struct visitor *v = arg;
    (void)worker;
    v->credit += 5;
    half_grant(&v->half, 5);
}

static inline void do_leave(struct worker *worker, void *arg)
{
    struct visitor *v = arg;
    (void)worker;
    half_close(&v->half, REASON_VISITOR_GONE, "gone");
}

static inline void visitor_close(struct visitor *v)
{
    on_worker(v->f->worker, do_leave, v);
    sem_destroy(&v->heard_head);
    sem_destroy(&v->heard_data);
    sem_destroy(&v->heard_end);
}

static inline void expect_answer(struct visitor *v, unsigned status, const char *body)
{
    assert_true(wait_for(&v->heard_end));
    assert_int_equal(v->reason, REASON_NONE);
    assert_int_equal(v->status, status);
    assert_int_equal(v->body_len, strlen(body));
    assert_memory_equal(v->body, body, strlen(body));
}

static inline void expect_failure(struct visitor *v, enum close_reason reason)
{
    assert_true(wait_for(&v->heard_end));
    assert_false(v->ended);
    assert_int_equal(v->reason, reason);
}

/* ---- the service ----------------------------------------------------------------------------------------------- */

static inline int service_accept(struct fixture *f)
{
    const struct timeval patience = {.tv_sec = TEST_PATIENCE_S};
    setsockopt(f->listener, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    int fd = accept(f->listener, NULL, NULL);
    assert_true(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    return fd;
}

/* Exactly this comes next. */
static inline void service_expect(int fd, const char *text)
{
    char got[TEXT_MAX];
    size_t have = 0, want = strlen(text);
    while (have < want) {
        ssize_t n = recv(fd, got + have, want - have, 0);
        if (n <= 0)
            fail_msg("only %.*s", (int)have, got);
        have += (size_t)n;
    }
    got[have] = '\0';
    assert_string_equal(got, text);
}

static inline void service_send(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static inline void service_expect_end(int fd, bool abrupt)
{
    char byte;
    ssize_t n = recv(fd, &byte, 1, 0);
    if (abrupt)
        assert_true(n < 0 && errno == ECONNRESET);
    else
        assert_int_equal(n, 0);
}

#define GET_HEAD "GET /x?y HTTP/1.1\r\nhost: app.test\r\n\r\n"
#define OK_5     "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"

/* ---- fixture --------------------------------------------------------------------------------------------------- */

static inline void do_start(struct worker *worker, void *arg)
{
    struct fixture *f = arg;
    f->forwarder = forwarder_new(worker, &f->options);
    assert_non_null(f->forwarder);
}

static inline void do_stop(struct worker *worker, void *arg)
{
    struct fixture *f = arg;
    (void)worker;
    forwarder_free(f->forwarder);
}

static inline int set_up(void **state)
{
    struct fixture *f = test_calloc(1, sizeof(*f));
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    char text[32], error[URL_ERROR_LEN];
    f->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(f->listener, (struct sockaddr *)&address, len), 0);
    assert_int_equal(listen(f->listener, 16), 0);
    assert_int_equal(getsockname(f->listener, (struct sockaddr *)&address, &len), 0);
    snprintf(text, sizeof(text), "127.0.0.1:%u", ntohs(address.sin_port));
    assert_int_equal(url_parse_service(slice_of(text), &f->options.target.url, error), 0);
    f->options.target.connect_ms = 5000;
    f->options.response_ms = 60000;
    assert_int_equal(worker_group_start(1, &f->group), 0);
    f->worker = worker_at(f->group, 0);
    on_worker(f->worker, do_start, f);
    *state = f;
    return 0;
}

static inline int tear_down(void **state)
{
    struct fixture *f = *state;
    on_worker(f->worker, do_stop, f);
    worker_group_stop(f->group, 5000);
    if (f->listener >= 0)
        close(f->listener);
    assert_int_equal(chunk_live_count(), 0);
    test_free(f);
    return 0;
}

#endif
