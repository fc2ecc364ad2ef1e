/*
 * HTTP/2 connections to the local service: few, shared by all requests. A request asks for a seat, which is a place for
 * one stream; when all connections are full another is made, and at LIMIT_ORIGIN_MUX_MAX of them it waits its turn.
 *
 *     take ── (waits) ── granted ── leave
 *              └── plain: the service chose HTTP/1.1 (ALPN) | failed: no connection
 *
 * Nothing is sent on a connection before the service's SETTINGS have come: so the first requests heed its limit of
 * streams, a service that speaks something else has seen no request, and it is known whether extended CONNECT is
 * allowed. A connection without a stream is closed after LIMIT_ORIGIN_IDLE_MS; until then its end is noticed when it
 * comes. It is never pinged: gRPC's servers end connections for pings between calls, and a service that stands in a
 * debugger is not dead. TCP's keepalive finds the dead ones.
 *
 * All functions run on the pool's worker.
 */
#ifndef KV_CLIENT_ORIGIN_MUX_H
#define KV_CLIENT_ORIGIN_MUX_H

#include <stdbool.h>

#include "base/reason.h"

struct h2_session;
struct origin_mux;
struct origin_muxes;
struct origin_pool;
struct origin_seat;

struct origin_seat_events {
    /* seat->mux is set: one stream may be opened. */
    void (*granted)(struct origin_seat *seat);
    /* The wait is over because the service speaks HTTP/1.1; a connection may be in the pool. */
    void (*plain)(struct origin_seat *seat);
    /* The wait is over because there is no connection. */
    void (*failed)(struct origin_seat *seat, enum close_reason reason, const char *text);
};

/* Embedded in its request; zeroed when unused. */
struct origin_seat {
    const struct origin_seat_events *events;
    struct origin_muxes *muxes; /* NULL: neither waits nor sits */
    struct origin_mux *mux;     /* where it sits; NULL: waits */
    struct origin_seat *prev, *next;
};

/* NULL without memory. */
struct origin_muxes *origin_muxes_new(struct origin_pool *pool);
/* Aborts the connections. Nobody sits or waits any more. NULL is legal. */
void origin_muxes_free(struct origin_muxes *muxes);

/* Whether a request should ask for a seat. False when the service has chosen HTTP/1.1, and for an upgrade that it would
 * take over HTTP/1.1 alone. */
bool origin_muxes_apply(const struct origin_muxes *muxes, bool upgrade);
/* What the service speaks has to be found out anew: a connection for HTTP/1.1 failed. */
void origin_muxes_forget(struct origin_muxes *muxes);

/* Asks for a seat. With seat->mux set on return it is granted already; otherwise an event will tell, and none comes
 * from inside. 0, or KV_ENOMEM and then nobody waits. */
int origin_mux_take(struct origin_muxes *muxes, struct origin_seat *seat);
/* Gives the seat, or the place in the queue, back. Legal on an unused one. */
void origin_mux_leave(struct origin_seat *seat);

/* The session of a seat's connection. */
struct h2_session *origin_mux_session(const struct origin_mux *mux);
/* No further stream can be opened on it. */
void origin_mux_spend(struct origin_mux *mux);
/* 0 while the connection lives; otherwise why it ended, and in its text. For a stream's `closed`. */
enum close_reason origin_mux_error(const struct origin_mux *mux, const char **text);

#endif
