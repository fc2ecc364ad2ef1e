/*
 * Connections to the local service. Those for HTTP/1.1 are dialled when a request needs one and kept for the next when
 * it is done; the newest idle one is taken first, so that a burst's surplus ages and goes (LIMIT_ORIGIN_IDLE_MS,
 * LIMIT_ORIGIN_IDLE_MAX). Services close idle connections after a time of theirs (2 s, 5 s), and a request that is on
 * its way then is lost: one that cannot be sent again gets a connection that is young for this service, or a new one.
 * Those for HTTP/2, which requests share, are in origin_mux.h.
 *
 * A connection on which somebody has logged in (origin_head_binds_connection) is kept for the visitor's connection that
 * it serves, and given to no other.
 *
 * One pool a client; all functions run on its worker.
 */
#ifndef KV_CLIENT_ORIGIN_POOL_H
#define KV_CLIENT_ORIGIN_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/reason.h"
#include "client/url.h"

struct conn;
struct conn_events;
struct origin_muxes;
struct origin_pool;
struct tls_context;
struct worker;

struct origin_target {
    struct url url;
    struct tls_context *tls;    /* for https, with ALPN "h2" and "http/1.1"; the pool takes a reference of its own */
    struct tls_context *tls_h1; /* the same with "http/1.1" alone */
    unsigned connect_ms;        /* name, all addresses and the TLS handshake together */
};

/* NULL without memory. */
struct origin_pool *origin_pool_new(struct worker *worker, const struct origin_target *target);
/* Closes the idle connections. Those handed out are their users' to close. NULL is legal. */
void origin_pool_free(struct origin_pool *pool);

/* The youngest idle connection that is anyone's, now the caller's, with how long it was idle; or NULL when there is
 * none. For a request that cannot be sent again it is one that the service is not about to close, as far as the pool
 * has learned how long this service keeps connections: call origin_pool_learn with what became of it. */
struct conn *origin_pool_take(struct origin_pool *pool, bool repeatable, uint64_t *idle_ms,
                              const struct conn_events *events, void *owner);
/* A connection that was idle for so long answered, or was found closed. */
void origin_pool_learn(struct origin_pool *pool, uint64_t idle_ms, bool answered);
/* An idle connection that was kept for this visitor's connection. */
struct conn *origin_pool_take_personal(struct origin_pool *pool, uint64_t visitor, const struct conn_events *events,
                                       void *owner);
bool origin_pool_has_personal(const struct origin_pool *pool, uint64_t visitor);
/* A new connection, see conn_dial; for https one that offers HTTP/2 as well or speaks HTTP/1.1 alone. */
struct conn *origin_pool_dial(struct origin_pool *pool, bool with_h2, const struct conn_events *events, void *owner);
/* Why a connection could not be made, from the error in `closed`. */
enum close_reason origin_pool_reason(int error);
/* Keeps a connection whose last exchange is complete in both directions, for at most idle_ms: for anyone, or for this
 * visitor's connection alone if that is not 0. */
void origin_pool_put(struct origin_pool *pool, struct conn *conn, uint64_t visitor, uint64_t idle_ms);

/* The connections for HTTP/2; NULL for a service that is spoken to over HTTP/1.1 alone. */
struct origin_muxes *origin_pool_muxes(const struct origin_pool *pool);

bool origin_pool_is_tls(const struct origin_pool *pool);
unsigned origin_pool_connect_ms(const struct origin_pool *pool);
struct worker *origin_pool_worker(const struct origin_pool *pool);
/* An empty buffer to write a head into; its content is valid until the next call. */
struct buffer *origin_pool_scratch(struct origin_pool *pool);

#endif
