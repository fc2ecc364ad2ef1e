/*
 * A link is one end of a tunnel's gRPC stream: it carries many exchanges at once, each under its own id. Both programs
 * use the same link; they differ in who opens exchanges (the server, for visitors) and where they go (on the client, to
 * the local service).
 *
 *     edge half ⇄ link half ── stream ══ network ══ stream ── link half ⇄ origin half
 *
 * Its life: `greeting` (Hello and Welcome pass through the owner) ── link_start ── open ── `ended` once ── freed.
 * Messages of the tunnel itself (request id 0) other than Ping and Pong go to the owner. Liveness is watched here: a
 * PING goes out each LIMIT_PING_MS, and when nothing at all was heard for LIMIT_DEAD_MS the link ends.
 *
 * What goes out: heads, credit and other small messages at once and in order; body bytes wait with their exchange and
 * take turns (round robin, LIMIT_DATA_FRAME_BYTES each), so that one large answer does not delay the others.
 *
 * A peer that announced no credit is served in the old form, see link_legacy.h.
 */
#ifndef KV_TUNNEL_LINK_H
#define KV_TUNNEL_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/reason.h"
#include "base/slice.h"
#include "io/worker.h"
#include "tunnel/exchange.h"
#include "tunnel/wire.h"

struct h2_stream;
struct link;

struct link_events {
    /* A message with request id 0: Hello, Welcome, Cancel, Drain. Valid until return. */
    void (*message)(void *owner, const struct wire_message *message);
    /* The link ended by itself: broken protocol, silence, or the stream is gone. Every exchange was reset before. The
     * owner closes the stream or the connection, and frees the link. */
    void (*ended)(void *owner, enum close_reason reason, const char *text);
    /* The last exchange ended while link_drain is on. May be NULL. */
    void (*idle)(void *owner);
};

/* What the two sides agreed on in their greeting. */
struct link_terms {
    uint32_t features;           /* of both */
    uint32_t peer_credit;        /* the peer's initial credit: bytes of a body that we may send at first */
    uint32_t max_concurrent;     /* exchanges at work; above it the opener gets REASON_TUNNEL_BUSY (server) */
    uint32_t max_still;          /* exchanges that are answered and carry nothing (server) */
    struct exchange_clock clock; /* of its exchanges (server) */
    struct slice session;        /* for exchange ids and the log; at most WIRE_SESSION_LEN */
    struct address requests;     /* client: where OPEN goes */
    unsigned ping_ms;            /* between PINGs; 0: LIMIT_PING_MS */
    unsigned dead_ms;            /* silence that ends the link; 0: LIMIT_DEAD_MS */
};

/* How long a server waits for answers over a link of these features: told_ms is what the client says that it waits,
 * cap_ms the operator's own bound, default_ms that for clients that do not tell; 0 for ever. Any thread. */
struct exchange_clock link_clock(uint32_t features, uint32_t told_ms, uint32_t cap_ms, uint32_t default_ms);

/* A link on a stream that is open for both directions; the stream's events are to be passed on with the functions
 * below. NULL without memory. */
struct link *link_new(struct worker *worker, struct h2_stream *stream, enum wire_side side,
                      const struct link_events *events, void *owner);

/* Exchanges may flow from here on. 0 or KV_ENOMEM. */
int link_start(struct link *link, const struct link_terms *terms);

/* Where exchanges for this tunnel are opened (server). Set after link_start. */
struct address link_address(const struct link *link);

/* ---- the stream's events --------------------------------------------------------------------------------------- */

void link_data(struct link *link, struct slice bytes);
/* `fill`: the exchanges take turns with what they have to send. */
void link_top_up(struct link *link);
/* The peer ended its direction or the stream is gone: ends the link. */
void link_stream_ended(struct link *link, const char *text);
/* A PING of ours was answered. */
void link_pong(struct link *link, uint64_t opaque);

/* ---- for the owner --------------------------------------------------------------------------------------------- */

/* Sends a message with request id 0. 0, KV_EINVAL, KV_ELIMIT or KV_ENOMEM. */
int link_send(struct link *link, const struct wire_message *message);

/* New exchanges are refused with REASON_DRAINING; `idle` tells when there are none. */
void link_drain(struct link *link);

/* Exchanges alive, those included whose far end has not confirmed its end. */
size_t link_exchanges(const struct link *link);
/* Smoothed round trip in milliseconds; 0 before the first. */
uint32_t link_round_trip(const struct link *link);

/* Resets every exchange with this reason and frees at the end of the turn; no event comes after. NULL is legal. */
void link_free(struct link *link, enum close_reason reason, const char *text);

#endif
