/*
 * The operator's side of a server: a small HTTP/1.1 service on the admin listener.
 *
 *     GET  /metrics                         Prometheus text format
 *     GET  /admin/tunnels                   the live tunnels, a JSON array
 *     POST /admin/tunnels/<subdomain>/kick  closes one
 *     GET  /healthz, /readyz                is the process alive; should it be sent visitors
 *
 *     listener ── ops_conn (bytes) ── ops_route (who may ask, what is asked) ── ops_metrics | ops_tunnels
 *
 * It only reads what the other rooms publish, and asks the registry to close a session. Nobody is authenticated here:
 * the listener is meant for loopback or a private network. docs/OPERATE.md is the operator's view.
 */
#ifndef KV_OPS_OPS_H
#define KV_OPS_OPS_H

#include <stddef.h>
#include <stdint.h>

struct control;
struct edge;
struct ops;
struct registry;
struct store_thread;
struct tls_server;
struct worker_group;

struct ops_settings {
    struct worker_group *group;
    struct registry *registry;
    struct edge *edge;
    struct control *control;
    struct store_thread *store;
    const char *public_scheme; /* "http" or "https"; with the next two: how clients were told their URLs */
    uint16_t public_port;      /* 0: the scheme's own */
    const char *base_host;
    struct tls_server *tls; /* NULL: without */
};

/* What /readyz goes by, besides the store. */
enum ops_state {
    OPS_STARTING, /* after ops_new */
    OPS_SERVING,  /* every listener is up */
    OPS_DRAINING,
};

/* What it needs is borrowed and outlives it. NULL without memory. The workers have been started. */
struct ops *ops_new(const struct ops_settings *settings);
/* After the workers have ended. NULL is legal. */
void ops_free(struct ops *ops);

/* A connection of an operator or a scraper; its socket is ours from here on. On the worker that is to serve it. */
void ops_accept(struct ops *ops, int fd);

/* Any thread. */
void ops_set_state(struct ops *ops, enum ops_state state);

/* Closes every connection and turns new ones away; answers under way are still sent. Any thread; returns at once, with
 * the work queued at each worker: what is sent to a worker after this finds nothing of ops running there. */
void ops_stop(struct ops *ops);

/* Connections alive on all workers. Any thread. */
size_t ops_alive(const struct ops *ops);

#endif
