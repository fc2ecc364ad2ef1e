/* Two connected sockets with an owner's connection on one, and what tests have it do on its worker. */
#ifndef KV_TEST_CONN_STAGE_H
#define KV_TEST_CONN_STAGE_H

#include <errno.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/chunk.h"
#include "base/limits.h"
#include "io/conn.h"
#include "io/on_worker.h"

static struct worker_group *group;

static inline struct worker *worker(void)
{
    return worker_at(group, 0);
}

/* ---- two connected sockets, an owner on one ---------------------------------------------------------------------- */

static inline void connected_pair(int fds[2])
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, len), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &len), 0);
    fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int small = 4096;
    setsockopt(fds[0], SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    assert_int_equal(connect(fds[0], (struct sockaddr *)&address, len), 0);
    fds[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    assert_true(fds[1] >= 0);
    setsockopt(fds[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
    struct timeval patience = {.tv_sec = TEST_PATIENCE_S};
    setsockopt(fds[0], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    close(listener);
}

struct owner {
    struct conn *conn;
    size_t received;
    char first[64]; /* of what was received */
    atomic_size_t sent_events;
    int closed, error, eofs;
    bool ready_seen, pause_in_data;
    struct owner *pauses; /* in `data`: another connection's */
    size_t unsent_at_closed;
    size_t to_write; /* in `ready` */
    sem_t ready, data, eof, end;
    struct tls_context *tls;
    int fd;
};

static inline void on_ready(void *arg)
{
    struct owner *o = arg;
    o->ready_seen = true;
    sem_post(&o->ready);
}

static inline void on_data(void *arg, struct slice bytes)
{
    struct owner *o = arg;
    assert_int_equal(o->closed, 0);
    for (size_t i = 0; i < bytes.len && o->received + i < sizeof(o->first); i++)
        o->first[o->received + i] = bytes.data[i];
    o->received += bytes.len;
    if (o->pause_in_data)
        conn_pause(o->conn);
    if (o->pauses)
        conn_pause(o->pauses->conn);
    sem_post(&o->data);
}

static inline void on_eof(void *arg)
{
    struct owner *o = arg;
    o->eofs++;
    sem_post(&o->eof);
}

static inline void on_sent(void *arg)
{
    struct owner *o = arg;
    atomic_fetch_add(&o->sent_events, 1);
}

static inline void on_closed(void *arg, int error)
{
    struct owner *o = arg;
    o->closed++;
    o->error = error;
    assert_non_null(conn_error_text(o->conn));
    sem_post(&o->end);
}

static const struct conn_events events = {
    .ready = on_ready, .data = on_data, .eof = on_eof, .sent = on_sent, .closed = on_closed};

static inline void owner_init(struct owner *o)
{
    *o = (struct owner){0};
    sem_init(&o->ready, 0, 0);
    sem_init(&o->data, 0, 0);
    sem_init(&o->eof, 0, 0);
    sem_init(&o->end, 0, 0);
}

static inline void accept_it(struct worker *w, void *arg)
{
    struct owner *o = arg;
    assert_int_equal(conn_accept(w, o->fd, o->tls, &events, o, &o->conn), KV_OK);
}

static inline void owner_accept(struct owner *o, int fd, struct tls_context *tls)
{
    owner_init(o);
    o->fd = fd;
    o->tls = tls;
    on_worker(worker(), accept_it, o);
}

/* ---- what tests do on the worker --------------------------------------------------------------------------------- */

static inline void do_pause(struct worker *w, void *arg)
{
    (void)w;
    conn_pause(((struct owner *)arg)->conn);
}

static inline void do_resume(struct worker *w, void *arg)
{
    (void)w;
    conn_resume(((struct owner *)arg)->conn);
}

static inline void do_shutdown(struct worker *w, void *arg)
{
    (void)w;
    conn_shutdown(((struct owner *)arg)->conn);
}

static inline void do_close(struct worker *w, void *arg)
{
    (void)w;
    conn_close(((struct owner *)arg)->conn);
}

static inline void do_abort(struct worker *w, void *arg)
{
    (void)w;
    conn_abort(((struct owner *)arg)->conn, false);
}

static inline void do_reset(struct worker *w, void *arg)
{
    (void)w;
    conn_abort(((struct owner *)arg)->conn, true);
}

#define BULK_BYTES (3 * 1024 * 1024 + 17)

static inline char bulk_byte(size_t at)
{
    return (char)(at * 31 >> 3);
}

/* In chunks of every size, so that writes end inside them. */
static inline void do_write_bulk(struct worker *w, void *arg)
{
    struct owner *o = arg;
    (void)w;
    size_t at = 0;
    for (size_t size = 1; at < BULK_BYTES; size = size * 3 % 70001 + 1) {
        size_t n = size < BULK_BYTES - at ? size : BULK_BYTES - at;
        struct chunk *c = chunk_alloc(n);
        for (size_t i = 0; i < n; i++)
            c->data[i] = bulk_byte(at + i);
        c->len = (uint32_t)n;
        conn_write(o->conn, c);
        at += n;
    }
    assert_int_equal(conn_unsent(o->conn) >= BULK_BYTES, 1);
}

static inline void do_write_hello(struct worker *w, void *arg)
{
    (void)w;
    assert_int_equal(conn_write_copy(((struct owner *)arg)->conn, "hello", 5), KV_OK);
}

static inline void nothing(struct worker *w, void *arg)
{
    (void)w;
    (void)arg;
}

static inline void send_text(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

/* ---- dialling --------------------------------------------------------------------------------------------------- */

struct call {
    struct owner *owner;
    struct dial_options options;
};

static inline void do_dial(struct worker *w, void *arg)
{
    struct call *call = arg;
    call->owner->conn = conn_dial(w, &call->options, &events, call->owner);
    assert_non_null(call->owner->conn);
    assert_false(call->owner->ready_seen); /* never from inside */
}

static inline int listening(uint16_t *port, int family)
{
    struct sockaddr_storage address = {.ss_family = (sa_family_t)family};
    if (family == AF_INET6)
        ((struct sockaddr_in6 *)&address)->sin6_addr = in6addr_loopback;
    else
        ((struct sockaddr_in *)&address)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t len = family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, len) != 0)
        return -1;
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
    *port = ntohs(((struct sockaddr_in *)&address)->sin_port);
    return fd;
}

#endif
