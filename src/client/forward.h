/*
 * Where the tunnel's requests go: the receiver that links open exchanges with, the pool of connections to the local
 * service, and the exchanges in flight (one relay each, see relay.h). It lives as long as the client, across sessions:
 * a new session finds the connections warm.
 *
 * All functions run on its worker.
 */
#ifndef KV_CLIENT_FORWARD_H
#define KV_CLIENT_FORWARD_H

#include <stdbool.h>
#include <stddef.h>

#include "client/origin_pool.h"
#include "io/worker.h"

struct forwarder;

struct forward_options {
    struct origin_target target;
    const char *host_header; /* replaces Host, NULL: as the visitor sent it; lives as long as the forwarder */
    bool no_rewrite;         /* leave fields alone that hold the public URL (rewrite.h) */
    unsigned response_ms;    /* from the request's end to the answer's head; 0: no bound */
};

/* NULL without memory. */
struct forwarder *forwarder_new(struct worker *worker, const struct forward_options *options);

/* Where links open exchanges (link_terms.requests). */
struct address forwarder_address(const struct forwarder *forwarder);

/* Exchanges in flight. */
size_t forwarder_active(const struct forwarder *forwarder);

/* From here on new exchanges are refused; those in flight go on. */
void forwarder_stop(struct forwarder *forwarder);

/* Aborts what is in flight, closes every connection and frees. NULL is legal. */
void forwarder_free(struct forwarder *forwarder);

#endif
