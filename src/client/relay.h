/*
 * One exchange on the client: its half towards the link joined to a request to the local service.
 *
 *     link ── half ⇄ relay ⇄ origin ── local service
 *
 * Bytes cross in both directions under credit: those of the request are granted back when they have left for the
 * service, those of the answer are taken from it only as far as the half's credit goes. Whichever side fails, the other
 * hears why.
 *
 * It begins with the link's OPEN and frees itself when both directions have ended or either end is gone.
 */
#ifndef KV_CLIENT_RELAY_H
#define KV_CLIENT_RELAY_H

#include "base/reason.h"
#include "base/slice.h"
#include "io/worker.h"

struct half;
struct head;
struct origin_pool;
struct relay;

/* What relays share; the forwarder's, outlives them. */
struct relay_context {
    struct origin_pool *pool;
    struct slice host_header; /* empty: Host as it came */
    struct slice authority;   /* the local service's own, for requests without Host */
    bool tls;                 /* it is spoken to by https */
    bool rewrites;            /* fields that hold the public URL (rewrite.h) */
    unsigned response_ms;
    struct relay *relays; /* in flight */
    size_t count;
    /* The local service let a visitor down: for the log. */
    void (*failed)(struct relay_context *context, const struct half *half, const struct head *request,
                   enum close_reason reason, const char *text);
};

/* Takes an OPEN, or refuses it. */
void relay_start(struct relay_context *context, struct message *message);

/* The path of a request without its query, which may hold secrets: for the log. */
struct slice relay_path(const struct head *request);

/* Ends every relay; the visitors are told this reason. */
void relay_abort_all(struct relay_context *context, enum close_reason reason, const char *text);

#endif
