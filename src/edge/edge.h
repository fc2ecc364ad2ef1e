/*
 * The public edge: visitors' HTTP requests go to the tunnel that has their host, and the answers come back.
 *
 *     listener ── edge_conn (TLS, which HTTP) ── edge_h1 ── edge_route (host → link) ── exchange
 *
 * It knows nothing of accounts. Every worker has its own listeners and connections; what they share is read-only
 * settings, the registry's copies and counters that only their owner writes.
 */
#ifndef KV_EDGE_EDGE_H
#define KV_EDGE_EDGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "io/address_limit.h"

struct edge;
struct h2_events;
struct h2_stream;
struct head;
struct networks;
struct registry;
struct tls_context;
struct worker_group;

/* Streams on the edge's port, to a host that is no tunnel's, that are no visitor's: tunnel clients behind networks that
 * let nothing but 443 out. The edge knows no more of them than this. */
struct edge_guest {
    bool (*wants)(const struct head *head);
    /* The stream's user data, or NULL when it was answered at once; `finished` is called once, and the connection is
     * then closed. */
    void *(*open)(void *arg, struct h2_stream *stream, const struct head *head, const char *peer,
                  void (*finished)(void *finished_arg), void *finished_arg);
    void (*pong)(void *user, uint64_t opaque);
    const struct h2_events *events; /* of its streams */
    void *arg;
};

struct edge_settings {
    struct worker_group *group;
    struct registry *registry;
    struct tls_context *tls;    /* NULL: in the clear. Referenced, not owned */
    const char *base_host;      /* lower case */
    uint64_t max_request_body;  /* bytes; UINT64_MAX: no limit */
    struct address_rates rates; /* of one visitor's address */
    unsigned head_timeout_ms;   /* from a connection, TLS included, or a head's first byte to its end */
    unsigned idle_timeout_ms;   /* a connection without a request */
    unsigned stall_timeout_ms;  /* a body of which nothing moves, either way, while memory is short; 0: for ever */
    unsigned upgrade_idle_ms;   /* an upgraded connection that carries nothing for so long is closed; 0: never */
    /* Connections from these begin with a PROXY header. Referenced, not owned; NULL: from nobody */
    const struct networks *proxy_senders;
    /* HTTP proxies whose X-Forwarded-* are believed. As above */
    const struct networks *trusted_proxies;
    const char *hsts;        /* Strict-Transport-Security of every answer that has none; NULL: none. With `tls` only */
    uint16_t https_port;     /* where edge_accept_redirect sends visitors; 0: https's own */
    const char *upgrades;    /* protocols that visitors may switch to, comma-separated; NULL: any but HTTP's own */
    bool shared_cookies;     /* tenants may set cookies for the base host and above it */
    bool forwarded;          /* tell the local service in Forwarded (RFC 7239) too */
    struct edge_guest guest; /* `wants` NULL: none */
};

/* What it needs is borrowed and outlives it. NULL without memory. */
struct edge *edge_new(const struct edge_settings *settings);
/* After the workers have ended. NULL is legal. */
void edge_free(struct edge *edge);

/* A visitor's connection; its socket is the edge's. On the worker that is to serve it. */
void edge_accept(struct edge *edge, int fd);

/* The same for a visitor in the clear who is to come back over https. */
void edge_accept_redirect(struct edge *edge, int fd);

/* Each connection's next request is its last: a client that keeps connections alive hears it with an answer, instead of
 * finding a connection closed while it sends. Any thread; returns at once. */
void edge_announce_drain(struct edge *edge);
/* Closes idle connections and lets the others close after their answer. Any thread; returns at once. */
void edge_drain(struct edge *edge);
/* Closes everything now. Any thread; returns at once. */
void edge_stop(struct edge *edge);

/* Connections alive on all workers. Any thread. */
size_t edge_alive(const struct edge *edge);

#define EDGE_STATUS_MAX 600

/* Totals since the start. */
struct edge_counts {
    uint64_t requests;
    uint64_t responses[EDGE_STATUS_MAX]; /* by status code */
    uint64_t body_limit_exceeded;
    uint64_t connections_refused, requests_limited; /* by edge_settings.rates */
    uint64_t floods;                                /* HTTP/2 connections that were ended for them */
    uint64_t proxy_headers_refused;                 /* connections that did not begin with the PROXY header they owed */
    uint64_t waited;                                /* requests that had to wait for their tunnel to come over */
};

/* Sums what the workers counted. Any thread. */
void edge_count(const struct edge *edge, struct edge_counts *out);

#endif
