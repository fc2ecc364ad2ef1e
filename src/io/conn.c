/*
 * Connections: their life, from accept or dial to the last callback, and what owners ask of them. conn_socket.c reads
 * and writes the socket, conn_tls.c stands between when there is TLS. States and events are told in conn.h.
 */
#include "io/conn.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/limits.h"
#include "io/conn_impl.h"
#include "io/descriptors.h"
#include "io/dial.h"
#include "io/socket.h"
#include "io/worker.h"

#define COPY_BYTES     1536 /* chunks up to this are copied behind others, if there is room */
#define LINGER_LOOK_MS (LIMIT_LINGER_MS / 2)
#define BREAK_LOOK_MS  50 /* the first look whether the output before a reset has arrived; then after twice that */

static void on_expired(struct deadline *deadline);

/* ---- the end --------------------------------------------------------------------------------------------------- */

static void on_handle_closed(uv_handle_t *handle)
{
    struct conn *c = handle->data;
    conn_tls_free(c->tls);
    chain_free(&c->out);
    chain_free(&c->kept);
    free(c->preamble);
    free(c->error_text);
    free(c);
}

static void free_without_handle(struct free_node *node)
{
    struct conn *c = (struct conn *)((char *)node - offsetof(struct conn, free));
    on_handle_closed((uv_handle_t *)&c->poll);
}

static void uncount(struct conn *c)
{
    if (c->counted)
        atomic_fetch_sub_explicit(&c->patience->sending, 1, memory_order_relaxed);
    c->counted = false;
}

void conn_dispose(struct conn *c)
{
    if (c->state == CONN_CLOSED)
        return;
    c->state = CONN_CLOSED;
    c->events = NULL;
    uncount(c);
    worker_flush_cancel(c->worker, &c->flush);
    deadline_cancel(&c->deadline);
    dial_cancel(c->dial);
    c->dial = NULL;
    if (c->receive.fd >= 0) {
        uv_close((uv_handle_t *)&c->poll, on_handle_closed);
        descriptors_close(c->receive.fd);
    } else {
        c->free.free = free_without_handle;
        worker_free_later(c->worker, &c->free);
    }
    c->receive.fd = c->send.fd = -1; /* they may be queued: the turn passes them by */
}

void conn_fail(struct conn *c, int error, const char *text)
{
    if (c->state == CONN_CLOSED)
        return;
    const struct conn_events *events = c->events;
    void *owner = c->owner;
    if (text && !c->error_text)
        c->error_text = strdup(text);
    conn_dispose(c); /* only queues: c and its error text live until the turn's end */
    if (events && events->closed)
        events->closed(owner, error);
}

/* The close that follows is seen as RST. */
static void close_hard(struct conn *c)
{
    const struct linger hard = {.l_onoff = 1, .l_linger = 0};
    if (c->receive.fd >= 0)
        setsockopt(c->receive.fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
}

void conn_abort(struct conn *conn, bool reset)
{
    if (!conn || conn->state == CONN_CLOSED)
        return;
    if (reset)
        close_hard(conn);
    conn_dispose(conn);
}

void conn_stop_lingering(struct conn *c)
{
    if (conn_unsent(c) > 0 || c->breaking)
        close_hard(c);
    conn_dispose(c);
}

/* The peer may still be taking our last bytes: only silence ends the wait. */
static bool is_delivering(struct conn *c)
{
    struct conn_progress progress;
    uint64_t now = worker_now(c->worker);
    conn_progress(c, &progress);
    if (conn_unsent(c) == 0)
        uncount(c);
    if (progress.queued - progress.acknowledged <= (c->shutdown_sent ? 1 : 0)) /* the end counts as a byte */
        return false;
    bool first = c->linger_acknowledged == UINT64_MAX, moved = progress.acknowledged != c->linger_acknowledged;
    c->linger_acknowledged = progress.acknowledged;
    if (moved && !first)
        c->linger_moved_at = now;
    uint64_t silent_ms = now - c->linger_moved_at;
    return silent_ms < LIMIT_LINGER_MS || (c->patience && !c->patience->is_spent(c->patience, silent_ms));
}

static void look_later(struct conn *c)
{
    deadline_arm(c->worker, &c->deadline, c->linger_look_ms);
    c->linger_look_ms = c->linger_look_ms * 2 < LINGER_LOOK_MS ? c->linger_look_ms * 2 : LINGER_LOOK_MS;
}

/* Takes the connection from its owner; false if that was its end already. */
static bool linger(struct conn *conn)
{
    if (conn->state == CONN_CLOSED)
        return false;
    if (conn->state != CONN_OPEN || conn->send_error || (conn->shutdown_sent && conn->read_ended)) {
        conn_dispose(conn);
        return false;
    }
    conn->events = NULL;
    conn->state = CONN_LINGERING;
    conn->linger_left = LIMIT_LINGER_BYTES;
    conn->linger_moved_at = worker_now(conn->worker);
    conn->linger_look_ms = LINGER_LOOK_MS;
    conn->linger_acknowledged = UINT64_MAX;
    if (conn->patience && conn_unsent(conn) > 0) {
        conn->counted = true;
        atomic_fetch_add_explicit(&conn->patience->sending, 1, memory_order_relaxed);
    }
    conn_resume(conn);
    return true;
}

void conn_close(struct conn *conn)
{
    if (!linger(conn))
        return;
    conn_shutdown(conn);
    look_later(conn);
}

void conn_break(struct conn *conn)
{
    if (conn->state != CONN_OPEN || conn->send_error) {
        conn_abort(conn, true);
        return;
    }
    if (!linger(conn))
        return;
    conn->breaking = true;
    conn_watch(conn);
    conn->linger_look_ms = BREAK_LOOK_MS;
    look_later(conn);
}

void conn_set_patience(struct conn *conn, struct conn_patience *patience)
{
    conn->patience = patience;
}

void conn_part(struct conn *conn)
{
    if (!linger(conn))
        return;
    if (conn->read_ended)
        conn_shutdown(conn);
    conn_flush_later(conn);
    look_later(conn);
}

static void on_expired(struct deadline *deadline)
{
    struct conn *c = (struct conn *)((char *)deadline - offsetof(struct conn, deadline));
    if (c->state == CONN_LINGERING) {
        if (is_delivering(c))
            look_later(c);
        else
            conn_stop_lingering(c);
        return;
    }
    const char *late = c->state == CONN_HANDSHAKE ? "the TLS handshake took too long" : "timed out";
    conn_fail(c, KV_ETIMEDOUT, c->preamble ? "no PROXY header in time" : late);
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

/* The loop is not told: most pauses end before it has something to report, and if not, that is the time to stop. */
void conn_pause(struct conn *conn)
{
    conn->paused = true;
    if (conn->send_error) /* its end was to be seen by reading */
        worker_flush_later(conn->worker, &conn->flush);
}

void conn_resume(struct conn *conn)
{
    if (!conn->paused || conn->state == CONN_CLOSED)
        return;
    conn->paused = false;
    if (conn->kept.head || (conn->tls && conn_tls_has_input(conn)))
        worker_flush_later(conn->worker, &conn->flush); /* what came while we were paused is delivered from there */
    conn_watch(conn);
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

size_t conn_unsent(const struct conn *conn)
{
    return conn->out.bytes + (conn->tls ? conn_tls_unsent(conn->tls) : 0);
}

void conn_progress(const struct conn *conn, struct conn_progress *out)
{
    struct socket_progress socket = {0};
    if (conn->receive.fd >= 0)
        socket_progress(conn->receive.fd, &socket);
    *out = (struct conn_progress){
        .queued = conn->given + conn_unsent(conn),
        .acknowledged = conn->given - (socket.unacknowledged < conn->given ? socket.unacknowledged : conn->given),
        .sending = socket.unacknowledged > 0 || conn_unsent(conn) > 0,
        .window_shut = socket.window_shut,
    };
}

void conn_set_user_timeout(struct conn *conn, unsigned ms)
{
    if (conn->receive.fd >= 0)
        socket_set_user_timeout(conn->receive.fd, ms);
}

void conn_shutdown(struct conn *conn)
{
    if (conn->shutdown_wanted || conn->state == CONN_CLOSED)
        return;
    conn->shutdown_wanted = true;
    worker_flush_later(conn->worker, &conn->flush);
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
    c->deadline.expired = on_expired;
    conn_socket_init(c);
    return c;
}

void conn_become_ready(struct conn *c)
{
    bool dialled = c->dialled || c->tls;
    c->state = CONN_OPEN;
    deadline_cancel(&c->deadline);
    if (dialled && c->events->ready)
        c->events->ready(c->owner);
    if (c->state == CONN_CLOSED)
        return;
    conn_watch(c);
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
        descriptors_close(fd);
        return KV_ENOMEM;
    }
    getpeername(fd, (struct sockaddr *)&peer, &peer_len);
    conn_remember_peer(c, (struct sockaddr *)&peer);
    int error = conn_socket_open(c, fd);
    if (error) {
        descriptors_close(fd);
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
    conn_watch(c);
    *out = c;
    return KV_OK;

fail:
    conn_dispose(c);
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
    if (conn_socket_open(c, fd) != KV_OK) {
        close(fd);
        conn_fail(c, KV_EIO, "the socket could not be opened");
        return;
    }
    if (c->tls) {
        c->state = CONN_HANDSHAKE; /* the dial's deadline covers the handshake too */
        conn_watch(c);
        conn_tls_start(c);
    } else {
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
    conn_dispose(c);
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
