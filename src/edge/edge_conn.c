/* A visitor's connection until it is known which HTTP it speaks: TLS, then the codec by ALPN. */
#include <stdlib.h>

#include "base/log.h"
#include "edge/edge_impl.h"
#include "io/conn.h"

struct newcomer {
    struct edge *edge;
    struct conn *conn;
    struct free_node free;
};

static void free_newcomer(struct free_node *node)
{
    free((char *)node - offsetof(struct newcomer, free));
}

static void leave(struct newcomer *n)
{
    n->free.free = free_newcomer;
    worker_free_later(conn_worker(n->conn), &n->free);
}

static void on_ready(void *owner)
{
    struct newcomer *n = owner;
    leave(n);
    edge_h1_start(n->edge, n->conn, (struct slice){0});
}

static void on_data(void *owner, struct slice bytes)
{
    struct newcomer *n = owner;
    leave(n);
    edge_h1_start(n->edge, n->conn, bytes);
}

static void on_eof(void *owner)
{
    struct newcomer *n = owner;
    leave(n);
    conn_abort(n->conn, false);
}

static void on_closed(void *owner, int error)
{
    struct newcomer *n = owner;
    log_debug("visitor left during the handshake", log_str("error", kv_strerror(error)),
              log_str("text", conn_error_text(n->conn)));
    leave(n);
}

static const struct conn_events events = {.ready = on_ready, .data = on_data, .eof = on_eof, .closed = on_closed};

void edge_accept(struct edge *edge, int fd)
{
    struct newcomer *n = calloc(1, sizeof(*n));
    if (!n) {
        log_warn("a visitor was turned away: no memory");
        return;
    }
    n->edge = edge;
    if (conn_accept(worker_current(), fd, edge->settings.tls, &events, n, &n->conn) != KV_OK) {
        free(n);
        return;
    }
    if (!conn_is_tls(n->conn))
        on_ready(n); /* plain connections are ready as they are made */
}
