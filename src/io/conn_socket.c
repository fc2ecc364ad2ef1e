/*
 * A connection's socket: what the loop reports, receives and sends that are made together with those of others
 * (transfer.h), output coalesced to one send a turn.
 *
 *     on_poll ─ transfers_receive ─ on_received ─ (TLS) ─ the owner's `data`
 *     conn_write ... on_flush: the owner's `fill`, (TLS) ─ transfers_send ─ on_sent ─ the owner's `sent`
 *
 * Output waits in `out` until the kernel takes it. When it took less than it was offered, further output waits for the
 * socket to be writable. Reading goes through buffers that the worker's connections share, so a connection owns memory
 * only while it has something to send.
 */
#include <errno.h>
#include <sys/socket.h>

#include "base/limits.h"
#include "io/conn_impl.h"

/* ---- watching -------------------------------------------------------------------------------------------------- */

static void on_poll(uv_poll_t *poll, int status, int events);

static int wanted_events(const struct conn *c)
{
    bool reads = !c->socket_ended && !c->read_ended && !(c->paused && c->state == CONN_OPEN);
    bool writes = c->blocked && !c->send_error;
    int waits = c->breaking ? UV_PRIORITIZED : 0; /* never comes, and keeps the loop going until the reset */
    return (reads ? UV_READABLE : 0) | (writes ? UV_WRITABLE : 0) | waits;
}

static void watch_exactly(struct conn *c, int events)
{
    if (events != c->watched)
        uv_poll_start(&c->poll, events, on_poll);
    c->watched = events;
}

void conn_watch(struct conn *c)
{
    if (c->receive.fd >= 0)
        watch_exactly(c, c->watched | wanted_events(c));
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct conn *c = poll->data;
    if (c->state == CONN_CLOSED)
        return;
    if (status < 0 && c->breaking) {
        conn_stop_lingering(c);
        return;
    }
    if (status < 0) { /* whatever is wrong: reading or writing tells. libuv has stopped watching. */
        c->watched = 0;
        c->broken = true;
        events = UV_READABLE | UV_WRITABLE;
    }
    int wanted = wanted_events(c);
    if (events & ~wanted)
        watch_exactly(c, c->watched & wanted);
    if (events & wanted & UV_WRITABLE) {
        c->blocked = false; /* and watched on: a socket that was full once is full again */
        worker_flush_later(c->worker, &c->flush);
    }
    if (events & wanted & UV_READABLE)
        worker_receive_later(c->worker, &c->receive); /* may end the connection */
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

void conn_deliver(struct conn *c, struct slice bytes)
{
    if (c->state == CONN_LINGERING) {
        if (bytes.len > c->linger_left) {
            conn_stop_lingering(c);
            return;
        }
        c->linger_left -= bytes.len;
        return;
    }
    c->events->data(c->owner, bytes);
}

void conn_deliver_eof(struct conn *c)
{
    c->read_ended = true;
    if (c->state == CONN_LINGERING) {
        if (conn_unsent(c) == 0 && !c->breaking)
            conn_dispose(c);
        return;
    }
    if (c->state == CONN_OPEN)
        c->events->eof(c->owner);
}

/* Another connection of the same burst may have had this one paused after its bytes were taken. */
static void keep(struct conn *c, struct slice bytes)
{
    if (chain_append(&c->kept, bytes.data, bytes.len) != KV_OK)
        conn_fail(c, KV_ENOMEM, "no memory for input");
}

static void deliver_kept(struct conn *c)
{
    while (c->kept.head && !c->paused && c->state != CONN_CLOSED) {
        struct chunk *chunk = chain_pop(&c->kept);
        conn_deliver(c, chunk_slice(chunk));
        chunk_free(chunk);
    }
}

static void take(struct conn *c, struct slice bytes)
{
    if (c->preamble && c->state != CONN_LINGERING && (!conn_preamble_read(c, &bytes) || bytes.len == 0))
        return;
    if (c->tls)
        conn_tls_read(c, bytes);
    else if (c->kept.head || (c->paused && c->state == CONN_OPEN))
        keep(c, bytes);
    else
        conn_deliver(c, bytes);
}

static void take_end(struct conn *c)
{
    if (c->paused && c->state == CONN_OPEN)
        return; /* it will be there still */
    c->socket_ended = true;
    if (c->tls)
        conn_tls_eof(c);
    else
        conn_deliver_eof(c);
}

static void fail_by(struct conn *c, int error)
{
    conn_fail(c, error == -ETIMEDOUT ? KV_ETIMEDOUT : KV_ECLOSED, uv_strerror(error));
}

/* Nothing more can be read from a peer that takes no more. At the end of what it said, sending has told how it left:
 * EPIPE says that it had ended its direction first, and that end counts. */
static void end_unsendable(struct conn *c, bool at_end)
{
    if (c->paused && c->state == CONN_OPEN)
        return; /* it will be so still */
    if (at_end && c->send_error == -EPIPE)
        take_end(c);
    fail_by(c, c->send_error); /* unless that was the owner's end already */
}

static bool on_received(struct receive *receive, char *bytes, ssize_t n)
{
    struct conn *c = (struct conn *)((char *)receive - offsetof(struct conn, receive));
    bool later = n == -EAGAIN || n == -EINTR;
    if (n > 0)
        take(c, (struct slice){bytes, (size_t)n});
    else if (later && !c->broken)
        ; /* the loop will tell */
    else if (c->send_error)
        end_unsendable(c, n == 0);
    else if (n == 0)
        take_end(c);
    else
        fail_by(c, later ? -ECONNRESET : (int)n);
    if (c->state == CONN_CLOSED)
        return false;
    if (c->send_error)
        worker_flush_later(c->worker, &c->flush); /* the owner may have paused, or TLS have ended */
    conn_watch(c);
    return wanted_events(c) & UV_READABLE;
}

/* ---- writing --------------------------------------------------------------------------------------------------- */

static void end_our_direction(struct conn *c)
{
    c->shutdown_sent = true;
    shutdown(c->send.fd, SHUT_WR);
    if (c->state == CONN_LINGERING && c->read_ended)
        conn_dispose(c);
}

/* With nothing left to send: the end of our direction, if it was asked for. */
static void finish(struct conn *c)
{
    if (!c->shutdown_wanted || c->shutdown_sent || c->state == CONN_HANDSHAKE || conn_unsent(c) > 0)
        return;
    if (c->tls && conn_tls_shutdown(c))
        worker_send_later(c->worker, &c->send);
    else if (c->state != CONN_CLOSED)
        end_our_direction(c);
}

static void tell_progress(struct conn *c)
{
    if (!c->progressed || c->state != CONN_OPEN)
        return;
    c->progressed = false;
    if (c->events->sent)
        c->events->sent(c->owner);
}

/* The peer has left, and what it said before may be waiting in the socket: an answer to a request that it did not want
 * to read. What cannot be sent stays where it is. */
static void stop_sending(struct conn *c, int error)
{
    c->send_error = error;
    c->blocked = true;
    conn_watch(c);
    worker_flush_later(c->worker, &c->flush);
    if (c->state == CONN_OPEN && c->events->unsendable)
        c->events->unsendable(c->owner);
}

/* Something of the peer's may still come to the owner. */
static bool listens(const struct conn *c)
{
    if (c->state == CONN_LINGERING || c->read_ended)
        return false;
    return c->state == CONN_OPEN && c->paused ? c->events->unsendable != NULL : !c->socket_ended;
}

static void on_sent(struct send *send, ssize_t n, size_t offered)
{
    struct conn *c = (struct conn *)((char *)send - offsetof(struct conn, send));
    if (n == -EAGAIN || n == -EINTR || n == -ENOBUFS)
        n = 0;
    if (n == -EPIPE || n == -ECONNRESET) {
        stop_sending(c, (int)n);
        return;
    }
    if (n < 0) {
        fail_by(c, (int)n);
        return;
    }
    c->progressed |= n > 0;
    c->given += (size_t)n;
    chain_consume(&c->out, (size_t)n);
    if ((size_t)n < offered) {
        c->blocked = true;
        conn_watch(c);
    } else if (conn_unsent(c) > 0) {
        worker_flush_later(c->worker, &c->flush);
    }
    finish(c);
    tell_progress(c);
}

/* The turn's end for one connection: ask the owner for bytes, encrypt, send. */
static void on_flush(struct flush_node *node)
{
    struct conn *c = (struct conn *)((char *)node - offsetof(struct conn, flush));
    if (c->state == CONN_CLOSED || c->state == CONN_DIALLING)
        return;
    if (c->tls && !c->paused)
        conn_tls_read(c, (struct slice){0});
    deliver_kept(c);
    if (c->send_error && c->state != CONN_CLOSED && !listens(c))
        fail_by(c, c->send_error);
    if (c->state == CONN_OPEN && c->events->fill)
        c->events->fill(c->owner);
    if (c->tls && c->state != CONN_CLOSED)
        conn_tls_write(c);
    if (c->state == CONN_CLOSED || c->blocked)
        return;
    if (c->out.head)
        worker_send_later(c->worker, &c->send);
    else
        finish(c);
}

void conn_offer_output(struct conn *c)
{
    if (c->send.fd >= 0 && !c->blocked && c->out.head)
        transfers_send_now(c->send.fd, &c->out);
}

/* ---- the socket ------------------------------------------------------------------------------------------------ */

void conn_socket_init(struct conn *c)
{
    c->poll.data = c;
    c->flush.flush = on_flush;
    c->receive = (struct receive){.fd = -1, .received = on_received};
    c->send = (struct send){.fd = -1, .chain = &c->out, .sent = on_sent};
}

bool conn_is_silent(const struct conn *c)
{
    return c->state == CONN_OPEN && !c->read_ended && !c->send_error && !c->broken && !c->kept.head &&
           !c->receive.queued; /* the loop tells of a whole turn's sockets before the first of them is read */
}

int conn_socket_open(struct conn *c, int fd)
{
    if (uv_poll_init(worker_loop(c->worker), &c->poll, fd) != 0)
        return KV_EIO;
    c->poll.data = c;
    c->receive.fd = c->send.fd = fd;
    return KV_OK;
}
