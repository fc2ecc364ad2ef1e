/*
 * Connections: sockets through libuv's streams, output coalesced to one write a turn, TLS between the two when there is
 * any (conn_tls.c). States and events are told in conn.h.
 *
 * Output waits in `out`. A flush hands as much of it as the kernel takes at once; what is left goes to libuv as one
 * pending write that owns its chunks, and further output waits until that has left. Reading goes through the worker's
 * scratch buffer, so a connection owns memory only while it has something to send.
 */
#include "io/conn.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/limits.h"
#include "io/conn_impl.h"
#include "io/dial.h"
#include "io/socket.h"
#include "io/worker.h"

#define WRITE_SLICES 64   /* iovecs of one write; a 64 KiB turn of 1 KiB answers fits */
#define COPY_BYTES   1536 /* chunks up to this are copied behind others, if there is room */

/* What the kernel did not take at once: libuv writes it when it can. */
struct pending_write {
    uv_write_t request;
    struct conn *conn; /* NULL after the connection ended */
    struct chain chain;
};

static void on_flush(struct flush_node *node);
static void on_expired(struct deadline *deadline);

/* ---- the end --------------------------------------------------------------------------------------------------- */

static void on_handle_closed(uv_handle_t *handle)
{
    struct conn *c = handle->data;
    conn_tls_free(c->tls);
    chain_free(&c->out);
    free(c->preamble);
    free(c->error_text);
    free(c);
}

static void free_without_handle(struct free_node *node)
{
    struct conn *c = (struct conn *)((char *)node - offsetof(struct conn, free));
    on_handle_closed((uv_handle_t *)&c->tcp);
}

/* Takes the connection apart; nothing is delivered after this. */
static void dispose(struct conn *c)
{
    if (c->state == CONN_CLOSED)
        return;
    c->state = CONN_CLOSED;
    c->events = NULL;
    worker_flush_cancel(c->worker, &c->flush);
    deadline_cancel(&c->deadline);
    dial_cancel(c->dial);
    c->dial = NULL;
    if (c->pending) {
        c->pending->conn = NULL;
        c->pending = NULL;
    }
    c->tcp.data = c;
    if (c->has_handle)
        uv_close((uv_handle_t *)&c->tcp, on_handle_closed);
    else {
        c->free.free = free_without_handle;
        worker_free_later(c->worker, &c->free);
    }
}

void conn_fail(struct conn *c, int error, const char *text)
{
    if (c->state == CONN_CLOSED)
        return;
    const struct conn_events *events = c->events;
    void *owner = c->owner;
    if (text && !c->error_text)
        c->error_text = strdup(text);
    dispose(c); /* only queues: c and its error text live until the turn's end */
    if (events && events->closed)
        events->closed(owner, error);
}

/* The close that follows is seen as RST. */
static void close_hard(struct conn *c)
{
    uv_os_fd_t fd;
    const struct linger hard = {.l_onoff = 1, .l_linger = 0};
    if (c->has_handle && uv_fileno((uv_handle_t *)&c->tcp, &fd) == 0)
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
}

void conn_abort(struct conn *conn, bool reset)
{
    if (!conn || conn->state == CONN_CLOSED)
        return;
    if (reset)
        close_hard(conn);
    dispose(conn);
}

/* Ends the wait for the peer. What it has not taken by now is lost, and must not look complete. */
static void stop_lingering(struct conn *c)
{
    if (conn_unsent(c) > 0)
        close_hard(c);
    dispose(c);
}

/* Takes the connection from its owner; false if that was its end already. */
static bool linger(struct conn *conn)
{
    if (conn->state == CONN_CLOSED)
        return false;
    if (conn->state != CONN_OPEN || (conn->shutdown_sent && conn->read_ended)) {
        dispose(conn);
        return false;
    }
    conn->events = NULL;
    conn->state = CONN_LINGERING;
    conn->linger_left = LIMIT_LINGER_BYTES;
    conn_resume(conn);
    deadline_arm(conn->worker, &conn->deadline, LIMIT_LINGER_MS);
    return true;
}

void conn_close(struct conn *conn)
{
    if (linger(conn))
        conn_shutdown(conn);
}

void conn_part(struct conn *conn)
{
    if (!linger(conn))
        return;
    if (conn->read_ended)
        conn_shutdown(conn);
    conn_flush_later(conn);
}

static void on_expired(struct deadline *deadline)
{
    struct conn *c = (struct conn *)((char *)deadline - offsetof(struct conn, deadline));
    if (c->state == CONN_LINGERING) {
        /* The peer may still be taking our last bytes: only silence ends the wait. */
        if (conn_unsent(c) > 0 && c->linger_unsent != conn_unsent(c)) {
            c->linger_unsent = conn_unsent(c);
            deadline_arm(c->worker, &c->deadline, LIMIT_LINGER_MS);
            return;
        }
        stop_lingering(c);
        return;
    }
    const char *late = c->state == CONN_HANDSHAKE ? "the TLS handshake took too long" : "timed out";
    conn_fail(c, KV_ETIMEDOUT, c->preamble ? "no PROXY header in time" : late);
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    (void)suggested;
    struct conn *c = handle->data;
    *buffer = uv_buf_init(worker_scratch(c->worker), LIMIT_READ_BYTES);
}

void conn_deliver(struct conn *c, struct slice bytes)
{
    if (c->state == CONN_LINGERING) {
        if (bytes.len > c->linger_left) {
            stop_lingering(c);
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
    uv_read_stop((uv_stream_t *)&c->tcp);
    if (c->state == CONN_LINGERING) {
        if (conn_unsent(c) == 0)
            dispose(c);
        return;
    }
    if (c->state == CONN_OPEN)
        c->events->eof(c->owner);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer)
{
    struct conn *c = stream->data;
    if (n == 0 || c->state == CONN_CLOSED)
        return;
    if (n == UV_EOF) {
        if (c->tls)
            conn_tls_eof(c);
        else
            conn_deliver_eof(c);
        return;
    }
    if (n < 0) {
        conn_fail(c, n == UV_ETIMEDOUT ? KV_ETIMEDOUT : KV_ECLOSED, uv_strerror((int)n));
        return;
    }
    struct slice bytes = {buffer->base, (size_t)n};
    if (c->preamble && c->state != CONN_LINGERING && (!conn_preamble_read(c, &bytes) || bytes.len == 0))
        return;
    if (c->tls)
        conn_tls_read(c, bytes);
    else
        conn_deliver(c, bytes);
}

void conn_pause(struct conn *conn)
{
    if (conn->paused || conn->state == CONN_CLOSED)
        return;
    conn->paused = true;
    if (conn->state == CONN_OPEN)
        uv_read_stop((uv_stream_t *)&conn->tcp);
}

void conn_resume(struct conn *conn)
{
    if (!conn->paused || conn->state == CONN_CLOSED)
        return;
    conn->paused = false;
    if (conn->state != CONN_OPEN && conn->state != CONN_LINGERING)
        return;
    if (conn->tls && conn_tls_has_input(conn))
        worker_flush_later(conn->worker, &conn->flush); /* what came while we were paused is delivered from there */
    if (!conn->read_ended)
        uv_read_start((uv_stream_t *)&conn->tcp, on_alloc, on_read);
}

/* ---- writing --------------------------------------------------------------------------------------------------- */

void conn_write(struct conn *conn, struct chunk *chunk)
{
    if (conn->state == CONN_CLOSED) {
        chunk_free(chunk);
        return;
    }
    struct chain *out = conn->tls ? conn_tls_plain(conn->tls) : &conn->out;
    worker_flush_later(conn->worker, &conn->flush);
    /* A small body behind its head: copying it costs the kernel less than a list of two. */
    if (chunk->len <= COPY_BYTES && out->tail && chunk->len <= chunk_room(out->tail)) {
        (void)chain_append(out, chunk->data + chunk->off, chunk->len); /* there is room: it cannot fail */
        chunk_free(chunk);
        return;
    }
    chain_push(out, chunk);
}

int conn_write_copy(struct conn *conn, const void *data, size_t len)
{
    if (conn->state == CONN_CLOSED)
        return KV_ECLOSED;
    worker_flush_later(conn->worker, &conn->flush);
    return chain_append(conn->tls ? conn_tls_plain(conn->tls) : &conn->out, data, len);
}

void conn_write_chain(struct conn *conn, struct chain *chain)
{
    struct chunk *c;
    while ((c = chain_pop(chain)))
        conn_write(conn, c);
}

void conn_flush_later(struct conn *conn)
{
    if (conn->state != CONN_CLOSED)
        worker_flush_later(conn->worker, &conn->flush);
}

/* libuv's own count shrinks with every byte of a pending write, not only with its end. */
size_t conn_unsent(const struct conn *conn)
{
    size_t pending = conn->pending ? uv_stream_get_write_queue_size((const uv_stream_t *)&conn->tcp) : 0;
    return conn->out.bytes + pending + (conn->tls ? conn_tls_unsent(conn->tls) : 0);
}

void conn_progress(const struct conn *conn, struct conn_progress *out)
{
    uv_os_fd_t fd;
    struct socket_progress socket = {0};
    size_t behind = 0;
    if (conn->has_handle && conn->state != CONN_CLOSED && uv_fileno((const uv_handle_t *)&conn->tcp, &fd) == 0) {
        socket_progress(fd, &socket);
        behind = socket.unacknowledged + uv_stream_get_write_queue_size((const uv_stream_t *)&conn->tcp);
    }
    *out = (struct conn_progress){
        .acknowledged = conn->given - (behind < conn->given ? behind : conn->given),
        .sending = behind > 0 || conn_unsent(conn) > 0,
        .window_shut = socket.window_shut,
    };
}

void conn_set_user_timeout(struct conn *conn, unsigned ms)
{
    uv_os_fd_t fd;
    if (conn->has_handle && conn->state != CONN_CLOSED && uv_fileno((uv_handle_t *)&conn->tcp, &fd) == 0)
        socket_set_user_timeout(fd, ms);
}

void conn_shutdown(struct conn *conn)
{
    if (conn->shutdown_wanted || conn->state == CONN_CLOSED)
        return;
    conn->shutdown_wanted = true;
    worker_flush_later(conn->worker, &conn->flush);
}

static void on_written(uv_write_t *request, int status)
{
    struct pending_write *pending = (struct pending_write *)request;
    struct conn *c = pending->conn;
    chain_free(&pending->chain);
    free(pending);
    if (!c)
        return;
    c->pending = NULL;
    if (status < 0) {
        conn_fail(c, KV_ECLOSED, uv_strerror(status));
        return;
    }
    c->progressed = true;
    worker_flush_later(c->worker, &c->flush);
}

static unsigned gather(const struct chain *chain, uv_buf_t *slices)
{
    unsigned n = 0;
    for (struct chunk *c = chain->head; c && n < WRITE_SLICES; c = c->next)
        slices[n++] = uv_buf_init(c->data + c->off, c->len);
    return n;
}

/* Gives the rest of `out` to libuv, at most WRITE_SLICES chunks; it calls back when all of that has left. */
static int write_pending(struct conn *c)
{
    struct pending_write *pending = malloc(sizeof(*pending));
    if (!pending)
        return KV_ENOMEM;
    *pending = (struct pending_write){.conn = c};
    for (unsigned i = 0; i < WRITE_SLICES && c->out.head; i++)
        chain_push(&pending->chain, chain_pop(&c->out));
    uv_buf_t slices[WRITE_SLICES];
    unsigned n = gather(&pending->chain, slices);
    c->given += pending->chain.bytes;
    c->pending = pending;
    int result = uv_write(&pending->request, (uv_stream_t *)&c->tcp, slices, n, on_written);
    if (result < 0) {
        c->pending = NULL;
        chain_free(&pending->chain);
        free(pending);
        return KV_EIO;
    }
    return KV_OK;
}

/* Writes until the kernel takes no more. 0, or negative after which the connection has failed already. */
static int write_out(struct conn *c)
{
    while (c->out.head && !c->pending) {
        uv_buf_t slices[WRITE_SLICES];
        unsigned n = gather(&c->out, slices);
        size_t offered = 0;
        for (unsigned i = 0; i < n; i++)
            offered += slices[i].len;
        int taken = uv_try_write((uv_stream_t *)&c->tcp, slices, n);
        if (taken > 0) {
            c->progressed = true;
            c->given += (size_t)taken;
            chain_consume(&c->out, (size_t)taken);
            if ((size_t)taken == offered)
                continue;
        } else if (taken < 0 && taken != UV_EAGAIN) {
            conn_fail(c, KV_ECLOSED, uv_strerror(taken));
            return KV_ECLOSED;
        }
        if (write_pending(c) != KV_OK) {
            conn_fail(c, KV_ENOMEM, "no memory for output");
            return KV_ENOMEM;
        }
    }
    return KV_OK;
}

void conn_offer_output(struct conn *c)
{
    uv_buf_t slices[WRITE_SLICES];
    if (c->state == CONN_CLOSED || !c->has_handle || c->pending || !c->out.head)
        return;
    unsigned n = gather(&c->out, slices);
    uv_try_write((uv_stream_t *)&c->tcp, slices, n);
}

/* Encrypts and writes in turns until nothing is left or the kernel takes no more. Errors as write_out. */
static int send_output(struct conn *c)
{
    if (!c->tls)
        return write_out(c);
    do {
        conn_tls_write(c);
        if (c->state == CONN_CLOSED)
            return KV_ECLOSED;
        int error = write_out(c);
        if (error)
            return error;
    } while (!c->pending && c->state != CONN_HANDSHAKE && conn_tls_unsent(c->tls) > 0);
    return KV_OK;
}

static void end_our_direction(struct conn *c)
{
    uv_os_fd_t fd;
    c->shutdown_sent = true;
    if (uv_fileno((uv_handle_t *)&c->tcp, &fd) == 0)
        shutdown(fd, SHUT_WR);
    if (c->state == CONN_LINGERING && c->read_ended)
        dispose(c);
}

/* The turn's end for one connection: ask the owner for bytes, encrypt, write, tell what has left. */
static void on_flush(struct flush_node *node)
{
    struct conn *c = (struct conn *)((char *)node - offsetof(struct conn, flush));
    if (c->state == CONN_CLOSED || c->state == CONN_DIALLING)
        return;
    if (c->tls && !c->paused)
        conn_tls_read(c, (struct slice){0});
    if (c->state == CONN_OPEN && c->events->fill)
        c->events->fill(c->owner);
    if (c->state == CONN_CLOSED || send_output(c) != KV_OK)
        return;
    if (c->shutdown_wanted && !c->shutdown_sent && c->state != CONN_HANDSHAKE && conn_unsent(c) == 0) {
        if (c->tls && conn_tls_shutdown(c) && write_out(c) != KV_OK)
            return;
        if (conn_unsent(c) == 0)
            end_our_direction(c);
    }
    if (c->progressed && c->state == CONN_OPEN) {
        c->progressed = false;
        if (c->events->sent)
            c->events->sent(c->owner);
    }
}

/* ---- making one ------------------------------------------------------------------------------------------------ */

static struct conn *conn_new(struct worker *worker, const struct conn_events *events, void *owner)
{
    struct conn *c = calloc(1, sizeof(*c));
    if (!c)
        return NULL;
    c->worker = worker;
    c->events = events;
    c->owner = owner;
    c->flush.flush = on_flush;
    c->deadline.expired = on_expired;
    c->tcp.data = c;
    return c;
}

/* Gives the socket to libuv, which closes it from here on. */
static int open_handle(struct conn *c, int fd)
{
    if (uv_tcp_init(worker_loop(c->worker), &c->tcp) != 0)
        return KV_ENOMEM;
    c->has_handle = true;
    c->tcp.data = c;
    return uv_tcp_open(&c->tcp, fd) == 0 ? KV_OK : KV_EIO;
}

static void start_reading(struct conn *c)
{
    if (!c->paused)
        uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read);
}

void conn_become_ready(struct conn *c)
{
    bool dialled = c->dialled || c->tls;
    c->state = CONN_OPEN;
    deadline_cancel(&c->deadline);
    if (c->paused)
        uv_read_stop((uv_stream_t *)&c->tcp);
    if (dialled && c->events->ready)
        c->events->ready(c->owner);
    if (c->state != CONN_CLOSED)
        worker_flush_later(c->worker, &c->flush);
}

void conn_remember_peer(struct conn *c, const struct sockaddr *address)
{
    size_t len = address->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    memcpy(&c->peer, address, len);
}

int conn_accept(struct worker *worker, int fd, struct tls_context *tls, const struct conn_events *events, void *owner,
                struct conn **out)
{
    struct sockaddr_storage peer = {0};
    socklen_t peer_len = sizeof(peer);
    struct conn *c = conn_new(worker, events, owner);
    if (!c) {
        close(fd);
        return KV_ENOMEM;
    }
    getpeername(fd, (struct sockaddr *)&peer, &peer_len);
    conn_remember_peer(c, (struct sockaddr *)&peer);
    int error = open_handle(c, fd);
    if (error) {
        close(fd);
        goto fail;
    }
    if (tls) {
        c->tls = conn_tls_new(tls, true, (struct slice){0});
        if (!c->tls) {
            error = KV_ENOMEM;
            goto fail;
        }
        c->state = CONN_HANDSHAKE;
        deadline_arm(worker, &c->deadline, LIMIT_HEAD_MS);
    } else {
        c->state = CONN_OPEN;
    }
    start_reading(c);
    *out = c;
    return KV_OK;

fail:
    dispose(c);
    return error;
}

static void on_dialled(void *arg, int fd, const struct sockaddr *address, int error, const char *text)
{
    struct conn *c = arg;
    c->dial = NULL;
    if (error) {
        conn_fail(c, error, text);
        return;
    }
    conn_remember_peer(c, address);
    socket_set_options(fd);
    if (open_handle(c, fd) != KV_OK) {
        close(fd);
        conn_fail(c, KV_EIO, "the socket could not be opened");
        return;
    }
    if (c->tls) {
        c->state = CONN_HANDSHAKE; /* the dial's deadline covers the handshake too */
        start_reading(c);
        conn_tls_start(c);
    } else {
        start_reading(c);
        conn_become_ready(c);
    }
}

struct conn *conn_dial(struct worker *worker, const struct dial_options *options, const struct conn_events *events,
                       void *owner)
{
    struct conn *c = conn_new(worker, events, owner);
    if (!c)
        return NULL;
    c->state = CONN_DIALLING;
    c->dialled = true;
    if (options->tls) {
        c->tls = conn_tls_new(options->tls, false, options->tls_name.len ? options->tls_name : options->host);
        if (!c->tls)
            goto fail;
    }
    c->dial = dial_start(worker, options->host, options->port, on_dialled, c);
    if (!c->dial)
        goto fail;
    deadline_arm(worker, &c->deadline, options->timeout_ms);
    return c;

fail:
    dispose(c);
    return NULL;
}

int conn_start_tls(struct conn *conn, struct tls_context *tls, struct slice name, struct slice first)
{
    if (conn->state != CONN_OPEN)
        return KV_ECLOSED;
    struct conn_tls *layer = conn_tls_new(tls, false, name);
    if (!layer)
        return KV_ENOMEM;
    conn->state = CONN_HANDSHAKE;
    deadline_arm(conn->worker, &conn->deadline, LIMIT_HEAD_MS);
    conn_tls_lay(conn, layer, first);
    return KV_OK;
}

void conn_set_owner(struct conn *conn, const struct conn_events *events, void *owner)
{
    conn->events = events;
    conn->owner = owner;
}

/* ---- facts ----------------------------------------------------------------------------------------------------- */

struct worker *conn_worker(const struct conn *conn)
{
    return conn->worker;
}

bool conn_is_tls(const struct conn *conn)
{
    return conn->tls != NULL;
}

struct slice conn_alpn(const struct conn *conn)
{
    return conn->tls ? conn_tls_alpn(conn->tls) : (struct slice){0};
}

const struct sockaddr *conn_peer(const struct conn *conn)
{
    return (const struct sockaddr *)&conn->peer;
}

const char *conn_error_text(const struct conn *conn)
{
    return conn->error_text ? conn->error_text : "connection closed";
}
