/*
 * Exchanges against a local service that the test plays itself, byte for byte, on the main thread; the visitor's end is
 * a half on the worker that writes down what it hears.
 */
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

static void on_head(void *owner, struct head *head)
{
    struct visitor *v = owner;
    if (head->status < 200 && head->status != 101)
        v->interims++;
    else
        v->status = head->status;
    head_free(head);
    sem_post(&v->heard_head);
}

static void on_data(void *owner, struct chunk *chunk)
{
    struct visitor *v = owner;
    assert_true(chunk->len <= v->credit);
    v->credit -= chunk->len;
    memcpy(v->body + v->body_len, chunk->data + chunk->off, chunk->len);
    v->body_len += chunk->len;
    chunk_free(chunk);
    sem_post(&v->heard_data);
}

static void on_credit(void *owner, size_t bytes)
{
    ((struct visitor *)owner)->granted += bytes;
}

static void on_end(void *owner, struct head *trailers)
{
    struct visitor *v = owner;
    v->ended = true;
    if (trailers && trailers->count > 0)
        snprintf(v->trailer, sizeof(v->trailer), "%.*s", (int)trailers->fields[0].value.len,
                 trailers->fields[0].value.data);
    head_free(trailers);
    sem_post(&v->heard_end);
}

static void on_reset(void *owner, enum close_reason reason, const char *text)
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

static void do_open(struct worker *worker, void *arg)
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

static void visitor_open(struct fixture *f, struct visitor *v)
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

static void do_send(struct worker *worker, void *arg)
{
    struct send *s = arg;
    (void)worker;
    if (s->text)
        half_send_data(&s->v->half, chunk_copy(s->text, strlen(s->text)));
    if (!s->text || s->at_once)
        half_send_end(&s->v->half, NULL);
}

static void visitor_send(struct visitor *v, const char *text)
{
    on_worker(v->f->worker, do_send, &(struct send){v, text, false});
}

static void visitor_end(struct visitor *v)
{
    on_worker(v->f->worker, do_send, &(struct send){v, NULL, false});
}

static void do_send_trailers(struct worker *worker, void *arg)
{
    struct visitor *v = arg;
    struct head *trailers = head_new(1, 64);
    (void)worker;
    head_add(trailers, SLICE("x-sum"), SLICE("7"));
    half_send_end(&v->half, trailers);
}

static void do_grant(struct worker *worker, void *arg)
{
    struct visitor *v = arg;
    (void)worker;
    v->credit += 5;
    half_grant(&v->half, 5);
}

static void do_leave(struct worker *worker, void *arg)
{
    struct visitor *v = arg;
    (void)worker;
    half_close(&v->half, REASON_VISITOR_GONE, "gone");
}

static void visitor_close(struct visitor *v)
{
    on_worker(v->f->worker, do_leave, v);
    sem_destroy(&v->heard_head);
    sem_destroy(&v->heard_data);
    sem_destroy(&v->heard_end);
}

static void expect_answer(struct visitor *v, unsigned status, const char *body)
{
    assert_true(wait_for(&v->heard_end));
    assert_int_equal(v->reason, REASON_NONE);
    assert_int_equal(v->status, status);
    assert_int_equal(v->body_len, strlen(body));
    assert_memory_equal(v->body, body, strlen(body));
}

static void expect_failure(struct visitor *v, enum close_reason reason)
{
    assert_true(wait_for(&v->heard_end));
    assert_false(v->ended);
    assert_int_equal(v->reason, reason);
}

/* ---- the service ----------------------------------------------------------------------------------------------- */

static int service_accept(struct fixture *f)
{
    const struct timeval patience = {.tv_sec = TEST_PATIENCE_S};
    setsockopt(f->listener, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    int fd = accept(f->listener, NULL, NULL);
    assert_true(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    return fd;
}

/* Exactly this comes next. */
static void service_expect(int fd, const char *text)
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

static void service_send(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static void service_expect_end(int fd, bool abrupt)
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

static void do_start(struct worker *worker, void *arg)
{
    struct fixture *f = arg;
    f->forwarder = forwarder_new(worker, &f->options);
    assert_non_null(f->forwarder);
}

static void do_stop(struct worker *worker, void *arg)
{
    struct fixture *f = arg;
    (void)worker;
    forwarder_free(f->forwarder);
}

static int set_up(void **state)
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

static int tear_down(void **state)
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

/* ---- whole exchanges ------------------------------------------------------------------------------------------- */

static void test_get(void **state)
{
    struct fixture *f = *state;
    struct visitor v = {0};
    visitor_open(f, &v);
    int fd = service_accept(f);
    service_expect(fd, GET_HEAD);
    visitor_end(&v);
    service_send(fd, "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" OK_5);
    expect_answer(&v, 200, "hello");
    assert_int_equal(v.interims, 1);
    visitor_close(&v);
    close(fd);
}

/* However the answer is cut, it is the same answer. */
static void test_answer_in_single_bytes(void **state)
{
    struct fixture *f = *state;
    struct visitor v = {0};
    const char *answer =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n";
    visitor_open(f, &v);
    int fd = service_accept(f);
    visitor_end(&v);
    service_expect(fd, GET_HEAD);
    for (const char *c = answer; *c; c++)
        service_send(fd, (char[]){*c, '\0'});
    expect_answer(&v, 200, "abcde");
    assert_string_equal(v.trailer, "5");
    visitor_close(&v);
    close(fd);
}

static void test_answer_until_close(void **state)
{
    struct fixture *f = *state;
    struct visitor v = {0};
    visitor_open(f, &v);
    int fd = service_accept(f);
    service_expect(fd, GET_HEAD);
    visitor_end(&v);
    service_send(fd, "HTTP/1.0 200 OK\r\n\r\nhello");
    close(fd);
    expect_answer(&v, 200, "hello");
    visitor_close(&v);
}

static void test_upload_with_length(void **state)
{
    struct fixture *f = *state;
    struct visitor v = {.method = "POST", .field = "content-length", .value = "6"};
    visitor_open(f, &v);
    visitor_send(&v, "abc");
    on_worker(f->worker, do_send, &(struct send){&v, "def", true});
    int fd = service_accept(f);
    service_expect(fd, "POST /x?y HTTP/1.1\r\nhost: app.test\r\ncontent-length: 6\r\n\r\nabcdef");
    service_send(fd, OK_5);
    expect_answer(&v, 200, "hello");
    visitor_close(&v);
    close(fd);
}

static void test_upload_with_trailers(void **state)
{
    struct fixture *f = *state;
    struct visitor v = {.method = "PUT", .field = "transfer-encoding", .value = "chunked"};
    visitor_open(f, &v);
    visitor_send(&v, "abc");
    on_worker(f->worker, do_send_trailers, &v);
    int fd = service_accept(f);
    service_expect(fd, "PUT /x?y HTTP/1.1\r\nhost: app.test\r\ntransfer-encoding: chunked\r\n\r\n"
                       "3\r\nabc\r\n0\r\nx-sum: 7\r\n\r\n");
    service_send(fd, OK_5);
    expect_answer(&v, 200, "hello");
    visitor_close(&v);
    close(fd);
}

/* A deployed server's POST from HTTP/2: neither length nor coding. The first frame decides. */
static void test_upload_of_unknown_kind(void **state)
{
    struct fixture *f = *state;
    struct visitor with = {.method = "POST"}, without = {.method = "POST"};
    visitor_open(f, &with);
    visitor_send(&with, "abc");
    int fd = service_accept(f);
    service_expect(fd, "POST /x?y HTTP/1.1\r\nhost: app.test\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n");
    visitor_end(&with);
    assert_int_equal(with.granted, 3); /* what has left makes room, framing not counted */
    service_expect(fd, "0\r\n\r\n");
    service_send(fd, OK_5);
    expect_answer(&with, 200, "hello");
    visitor_open(f, &without);
    visitor_end(&without);
    service_expect(fd, "POST /x?y HTTP/1.1\r\nhost: app.test\r\ncontent-length: 0\r\n\r\n");
    service_send(fd, OK_5);
    expect_answer(&without, 200, "hello");
    visitor_close(&with);
    visitor_close(&without);
    close(fd);
}

static void test_upgrade(void **state)
{
    struct fixture *f = *state;
    struct visitor v = {.protocol = "echo"};
    visitor_open(f, &v);
    visitor_send(&v, "early");
    int fd = service_accept(f);
    service_expect(fd, "GET /x?y HTTP/1.1\r\nhost: app.test\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n");
    service_send(fd, "HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nfirst");
    service_expect(fd, "early");
    visitor_send(&v, " and late");
    visitor_end(&v);
    service_expect(fd, " and late");
    service_expect_end(fd, false); /* half-closed: our words still arrive */
    service_send(fd, " and last");
    close(fd);
    expect_answer(&v, 101, "first and last");
    visitor_close(&v);
}

/* What was meant for the other protocol does not become a second request. */
static void test_refused_upgrade(void **state)
{
    struct fixture *f = *state;
    struct visitor v = {.protocol = "echo"}, next = {0};
    visitor_open(f, &v);
    visitor_send(&v, "GET /smuggled HTTP/1.1\r\n\r\n");
    int fd = service_accept(f);
    service_expect(fd, "GET /x?y HTTP/1.1\r\nhost: app.test\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n");
    service_send(fd, OK_5);
    expect_answer(&v, 200, "hello");
    visitor_open(f, &next);
    service_expect(fd, GET_HEAD);
    visitor_close(&v);
    visitor_close(&next);
    close(fd);
}

/* ---- credit ---------------------------------------------------------------------------------------------------- */

static void test_answer_within_credit(void **state)
{
    struct fixture *f = *state;
    struct visitor v = {.credit = 5};
    visitor_open(f, &v);
    int fd = service_accept(f);
    visitor_end(&v);
    service_expect(fd, GET_HEAD);
    service_send(fd, "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nabcdefghijkl");
    assert_true(wait_for(&v.heard_data));
    assert_int_equal(v.body_len, 5); /* more would have failed in on_data */
    on_worker(f->worker, do_grant, &v);
    assert_true(wait_for(&v.heard_data));
    assert_int_equal(v.body_len, 10);
    assert_false(v.ended);
    on_worker(f->worker, do_grant, &v);
    expect_answer(&v, 200, "abcdefghijkl");
    visitor_close(&v);
    close(fd);
}

/* ---- kept connections ------------------------------------------------------------------------------------------ */

static void test_connection_is_kept(void **state)
{
    struct fixture *f = *state;
    struct visitor a = {0}, b = {0};
    visitor_open(f, &a);
    int fd = service_accept(f);
    visitor_end(&a);
    service_expect(fd, GET_HEAD);
    service_send(fd, OK_5);
    expect_answer(&a, 200, "hello");
    visitor_open(f, &b);
    visitor_end(&b);
    service_expect(fd, GET_HEAD);
    service_send(fd, OK_5);
    expect_answer(&b, 200, "hello");
    visitor_close(&a);
    visitor_close(&b);
    close(fd);
}

/* Bytes behind an answer are nobody's: the connection is not used again. */
static void test_surplus_ends_the_connection(void **state)
{
    struct fixture *f = *state;
    struct visitor v = {0};
    visitor_open(f, &v);
    int fd = service_accept(f);
    visitor_end(&v);
    service_expect(fd, GET_HEAD);
    service_send(fd, OK_5 "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    expect_answer(&v, 200, "hello");
    service_expect_end(fd, false);
    visitor_close(&v);
    close(fd);
}

/* A kept connection on which the next request meets a closed service. */
static int stale_connection(struct fixture *f, struct visitor *first, struct visitor *second)
{
    visitor_open(f, first);
    int fd = service_accept(f);
    visitor_end(first);
    service_expect(fd, GET_HEAD);
    service_send(fd, OK_5);
    expect_answer(first, 200, "hello");
    visitor_open(f, second);
    return fd;
}

static void test_get_is_sent_again(void **state)
{
    struct fixture *f = *state;
    struct visitor a = {0}, b = {0};
    int fd = stale_connection(f, &a, &b);
    visitor_end(&b);
    service_expect(fd, GET_HEAD);
    close(fd);
    fd = service_accept(f);
    service_expect(fd, GET_HEAD);
    service_send(fd, OK_5);
    expect_answer(&b, 200, "hello");
    close(fd);
    visitor_close(&a);
    visitor_close(&b);
}

static void test_post_is_not_sent_again(void **state)
{
    struct fixture *f = *state;
    struct visitor a = {0}, b = {.method = "POST", .field = "content-length", .value = "0"};
    int fd = stale_connection(f, &a, &b);
    visitor_end(&b);
    service_expect(fd, "POST /x?y HTTP/1.1\r\nhost: app.test\r\ncontent-length: 0\r\n\r\n");
    close(fd);
    expect_failure(&b, REASON_ORIGIN_CLOSED);
    visitor_close(&a);
    visitor_close(&b);
}

/* ---- failures -------------------------------------------------------------------------------------------------- */

static void test_refused(void **state)
{
    struct fixture *f = *state;
    struct visitor v = {0};
    close(f->listener);
    f->listener = -1;
    visitor_open(f, &v);
    expect_failure(&v, REASON_ORIGIN_REFUSED);
    visitor_close(&v);
}

static void service_answers(struct fixture *f, const char *answer, enum close_reason reason)
{
    struct visitor v = {0};
    visitor_open(f, &v);
    int fd = service_accept(f);
    visitor_end(&v);
    service_expect(fd, GET_HEAD);
    service_send(fd, answer);
    shutdown(fd, SHUT_WR);
    expect_failure(&v, reason);
    close(fd);
    visitor_close(&v);
}

static void test_bad_answers(void **state)
{
    struct fixture *f = *state;
    service_answers(f, "", REASON_ORIGIN_CLOSED);
    service_answers(f, "HTTP/1.1 200 OK\r\nContent-Le", REASON_ORIGIN_CLOSED);
    service_answers(f, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", REASON_ORIGIN_CLOSED);
    service_answers(f, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", REASON_ORIGIN_CLOSED);
    service_answers(f, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", REASON_ORIGIN_BAD_RESPONSE);
    service_answers(f, "SSH-2.0-OpenSSH\r\n", REASON_ORIGIN_BAD_RESPONSE);
    service_answers(f, "HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", REASON_ORIGIN_BAD_RESPONSE);
}

static void test_interims_have_an_end(void **state)
{
    struct fixture *f = *state;
    struct visitor v = {0};
    visitor_open(f, &v);
    int fd = service_accept(f);
    visitor_end(&v);
    service_expect(fd, GET_HEAD);
    for (unsigned i = 0; i < 65; i++)
        service_send(fd, "HTTP/1.1 102 Processing\r\n\r\n");
    expect_failure(&v, REASON_ORIGIN_BAD_RESPONSE);
    visitor_close(&v);
    close(fd);
}

static int set_up_hasty(void **state)
{
    set_up(state);
    struct fixture *f = *state;
    on_worker(f->worker, do_stop, f);
    f->options.response_ms = 100;
    on_worker(f->worker, do_start, f);
    return 0;
}

static void test_no_answer_in_time(void **state)
{
    struct fixture *f = *state;
    struct visitor v = {0};
    visitor_open(f, &v);
    int fd = service_accept(f);
    service_expect(fd, GET_HEAD);
    visitor_end(&v);
    expect_failure(&v, REASON_ORIGIN_TIMEOUT);
    visitor_close(&v);
    close(fd);
}

/* More or less body than announced never looks like a request to the service. */
static void test_dishonest_lengths(void **state)
{
    struct fixture *f = *state;
    struct visitor more = {.method = "POST", .field = "content-length", .value = "2"};
    struct visitor less = {.method = "POST", .field = "content-length", .value = "4"};
    visitor_open(f, &more);
    visitor_send(&more, "abc");
    expect_failure(&more, REASON_BAD_REQUEST);
    visitor_open(f, &less);
    visitor_send(&less, "abc");
    visitor_end(&less);
    expect_failure(&less, REASON_BAD_REQUEST);
    visitor_close(&more);
    visitor_close(&less);
}

/* ---- one side early -------------------------------------------------------------------------------------------- */

static void test_answer_before_the_request_ends(void **state)
{
    struct fixture *f = *state;
    struct visitor v = {.method = "POST", .field = "content-length", .value = "1000"};
    visitor_open(f, &v);
    visitor_send(&v, "abc");
    int fd = service_accept(f);
    service_expect(fd, "POST /x?y HTTP/1.1\r\nhost: app.test\r\ncontent-length: 1000\r\n\r\nabc");
    service_send(fd, "HTTP/1.1 413 No\r\nContent-Length: 5\r\n\r\nhello");
    expect_answer(&v, 413, "hello");
    size_t before = v.granted;
    visitor_send(&v, "dropped, but granted back");
    visitor_end(&v);
    assert_int_equal(v.reason, REASON_NONE);
    assert_int_equal(v.granted - before, strlen("dropped, but granted back"));
    visitor_close(&v);
    close(fd);
}

static void test_visitor_leaves(void **state)
{
    struct fixture *f = *state;
    struct visitor v = {0};
    visitor_open(f, &v);
    int fd = service_accept(f);
    service_expect(fd, GET_HEAD);
    visitor_end(&v);
    visitor_close(&v);
    service_expect_end(fd, true);
    close(fd);
}

static void do_refuse_new(struct worker *worker, void *arg)
{
    struct fixture *f = arg;
    (void)worker;
    forwarder_stop(f->forwarder);
}

static void test_stopping(void **state)
{
    struct fixture *f = *state;
    struct visitor running = {0}, late = {0};
    visitor_open(f, &running);
    int fd = service_accept(f);
    visitor_end(&running);
    service_expect(fd, GET_HEAD);
    on_worker(f->worker, do_refuse_new, f);
    visitor_open(f, &late);
    expect_failure(&late, REASON_CLIENT_GONE);
    service_send(fd, OK_5);
    expect_answer(&running, 200, "hello");
    visitor_close(&running);
    visitor_close(&late);
    close(fd);
}

/* The forwarder goes while an exchange runs: both ends are told. */
static void test_freed_in_the_middle(void **state)
{
    struct fixture *f = *state;
    struct visitor v = {0};
    visitor_open(f, &v);
    int fd = service_accept(f);
    service_expect(fd, GET_HEAD);
    on_worker(f->worker, do_stop, f);
    expect_failure(&v, REASON_CLIENT_GONE);
    service_expect_end(fd, true);
    on_worker(f->worker, do_start, f);
    visitor_close(&v);
    close(fd);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_get),
        TEST(test_answer_in_single_bytes),
        TEST(test_answer_until_close),
        TEST(test_upload_with_length),
        TEST(test_upload_with_trailers),
        TEST(test_upload_of_unknown_kind),
        TEST(test_upgrade),
        TEST(test_refused_upgrade),
        TEST(test_answer_within_credit),
        TEST(test_connection_is_kept),
        TEST(test_surplus_ends_the_connection),
        TEST(test_get_is_sent_again),
        TEST(test_post_is_not_sent_again),
        TEST(test_refused),
        TEST(test_bad_answers),
        TEST(test_interims_have_an_end),
        cmocka_unit_test_setup_teardown(test_no_answer_in_time, set_up_hasty, tear_down),
        TEST(test_dishonest_lengths),
        TEST(test_answer_before_the_request_ends),
        TEST(test_visitor_leaves),
        TEST(test_stopping),
        TEST(test_freed_in_the_middle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
