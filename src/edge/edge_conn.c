/*
 * A visitor's connection until it is known which HTTP it speaks: by ALPN after a TLS handshake; in the clear by its
 * first bytes, which are HTTP/2's preface (RFC 9113, 3.4, prior knowledge) or anything else. Behind a named TCP proxy a
 * PROXY header comes first and says who the visitor is; from anybody else it is no HTTP and refused as that.
 */
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/error.h"
#include "base/limits.h"
#include "base/log.h"
#include "edge/edge_impl.h"
#include "io/conn.h"
#include "io/descriptors.h"
#include "io/listener.h"
#include "io/network.h"

#define PROXY_WARNING_MS 10000 /* a misconfigured proxy fails all connections: one line is enough */

static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
#define PREFACE_LEN (sizeof(preface) - 1)

struct newcomer {
    struct edge *edge;
    struct conn *conn;
    struct deadline deadline; /* to the first bytes */
    char seen[PREFACE_LEN];   /* of the preface so far */
    size_t seen_len;
    struct address_hold hold;
    bool proxied; /* its visitor is known with the first bytes */
    struct newcomer *prev, *next;
    struct free_node free;
};

/* Counted to the turn's end: a drain never sees nobody between a newcomer and what it has become. */
static void free_newcomer(struct free_node *node)
{
    struct newcomer *n = (struct newcomer *)((char *)node - offsetof(struct newcomer, free));
    atomic_fetch_sub_explicit(&edge_local(n->edge)->alive, 1, memory_order_relaxed);
    free(n);
}

static void leave(struct newcomer *n)
{
    deadline_cancel(&n->deadline);
    address_hold_drop(n->edge->limit, &n->hold);
    DL_DELETE(edge_local(n->edge)->newcomers, n);
    n->free.free = free_newcomer;
    worker_free_later(conn_worker(n->conn), &n->free);
}

static void on_expired(struct deadline *deadline)
{
    struct newcomer *n = (struct newcomer *)((char *)deadline - offsetof(struct newcomer, deadline));
    leave(n);
    conn_close(n->conn);
}

static void turn_away(struct newcomer *n)
{
    leave(n);
    conn_abort(n->conn, true);
}

/* It is known who it is and what it speaks: that takes over the connection and its place. */
static void go_on(struct newcomer *n,
                  void (*start)(struct edge *edge, struct conn *conn, struct address_hold hold, struct slice first),
                  struct slice first)
{
    if (n->proxied && !edge_hold_take(n->edge, n->conn, &n->hold)) {
        turn_away(n);
        return;
    }
    struct address_hold hold = n->hold;
    n->hold.held = false;
    leave(n);
    start(n->edge, n->conn, hold, first);
}

static void on_ready(void *owner)
{
    struct newcomer *n = owner;
    bool h2 = slice_equals(conn_alpn(n->conn), SLICE("h2"));
    go_on(n, h2 ? edge_h2_start : edge_h1_start, (struct slice){0});
}

/* The bytes so far, joined with what was held back while they could still become the preface. */
static void on_data(void *owner, struct slice bytes)
{
    struct newcomer *n = owner;
    char joined[PREFACE_LEN + LIMIT_READ_BYTES];
    if (n->seen_len > 0) {
        memcpy(joined, n->seen, n->seen_len);
        memcpy(joined + n->seen_len, bytes.data, bytes.len);
        bytes = (struct slice){joined, n->seen_len + bytes.len};
    }
    size_t compared = bytes.len < PREFACE_LEN ? bytes.len : PREFACE_LEN;
    if (memcmp(bytes.data, preface, compared) != 0) {
        go_on(n, edge_h1_start, bytes);
    } else if (bytes.len >= PREFACE_LEN) {
        go_on(n, edge_h2_start, bytes);
    } else {
        memcpy(n->seen, bytes.data, bytes.len);
        n->seen_len = bytes.len;
    }
}

static void on_eof(void *owner)
{
    struct newcomer *n = owner;
    leave(n);
    conn_abort(n->conn, false);
}

/* A proxy that does not do what was agreed on: nothing works through it, and only the operator can mend that. */
static void count_refused_proxy(const struct newcomer *n)
{
    struct edge_local *local = edge_local(n->edge);
    uint64_t now = worker_now(conn_worker(n->conn));
    char peer[SOCKADDR_TEXT_LEN];
    edge_counter_add(&local->proxy_headers_refused, 1);
    if (local->proxy_warned_at && now - local->proxy_warned_at < PROXY_WARNING_MS)
        return;
    local->proxy_warned_at = now;
    sockaddr_format(conn_peer(n->conn), peer);
    log_warn("a connection without a sound PROXY header was closed: --proxy-protocol-from names its address",
             log_str("peer", peer), log_str("cause", conn_error_text(n->conn)));
}

static void on_closed(void *owner, int error)
{
    struct newcomer *n = owner;
    if (error == KV_EPROTO)
        count_refused_proxy(n);
    log_debug("visitor left before its first request", log_str("error", kv_strerror(error)),
              log_str("text", conn_error_text(n->conn)));
    leave(n);
}

static const struct conn_events events = {.ready = on_ready, .data = on_data, .eof = on_eof, .closed = on_closed};

bool edge_expect_proxy_header(const struct edge *edge, struct conn *conn)
{
    struct ip peer = ip_of(conn_peer(conn));
    bool owes = edge->settings.proxy_senders && networks_contain(edge->settings.proxy_senders, &peer);
    if (owes)
        conn_expect_proxy_header(conn);
    return owes;
}

void edge_accept(struct edge *edge, int fd)
{
    struct newcomer *n = calloc(1, sizeof(*n));
    if (!n)
        descriptors_close(fd);
    if (!n || conn_accept(worker_current(), fd, edge->settings.tls, &events, n, &n->conn) != KV_OK) {
        log_warn("a visitor was turned away: no memory or no descriptor");
        free(n);
        return;
    }
    n->edge = edge;
    DL_APPEND(edge_local(edge)->newcomers, n);
    atomic_fetch_add_explicit(&edge_local(edge)->alive, 1, memory_order_relaxed);
    n->deadline.expired = on_expired;
    deadline_arm(worker_current(), &n->deadline, edge->settings.head_timeout_ms);
    n->proxied = edge_expect_proxy_header(edge, n->conn);
    if (!n->proxied && !edge_hold_take(edge, n->conn, &n->hold))
        turn_away(n);
}

void edge_newcomers_close(struct edge *edge)
{
    struct newcomer *n, *next;
    DL_FOREACH_SAFE (edge_local(edge)->newcomers, n, next) {
        leave(n);
        conn_abort(n->conn, false);
    }
}
