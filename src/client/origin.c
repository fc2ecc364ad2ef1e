/*
 * Where a request to the local service begins. Which HTTP carries it: for "http" HTTP/1.1, for "h2c" HTTP/2, for
 * "https" what the service chose when a connection was made (ALPN), and for an upgrade what the service takes one over.
 */
#include "client/origin.h"

#include "base/limits.h"
#include "client/origin_h1.h"
#include "client/origin_h2.h"
#include "client/origin_pool.h"

/* A login that belongs to a connection needs one that is not shared: HTTP/1.1, where the service speaks that too. */
static bool needs_own_connection(const struct origin *o)
{
    return origin_pool_is_tls(o->pool) && (o->personal || origin_pool_has_personal(o->pool, o->visitor));
}

int origin_start(struct origin *o, struct origin_pool *pool, const struct origin_request *request,
                 const struct origin_events *events, void *owner)
{
    *o = (struct origin){
        .pool = pool,
        .events = events,
        .owner = owner,
        .request = request->head,
        .response_ms = request->response_ms,
        .framing = request->framing.framing,
        .length_left = request->framing.length,
        .in = BUFFER_INIT(LIMIT_ANSWER_HEAD_BYTES + LIMIT_READ_BYTES),
        .upgrade = request->head->protocol.len > 0,
        .visitor = request->visitor,
        .personal = origin_head_binds_connection(request->head),
    };
    struct origin_muxes *muxes = origin_pool_muxes(pool);
    /* An extended CONNECT has no body of its own (RFC 9113, 8.5): over HTTP/2 alone it is the plain request that a
     * service may always take it for. */
    bool over_h1 = needs_own_connection(o) || (o->upgrade && o->length_left > 0 && origin_pool_is_tls(pool));
    if (muxes && !origin_pool_is_tls(pool) && o->length_left > 0)
        o->upgrade = false;
    bool shares = muxes && origin_muxes_apply(muxes, o->upgrade) && !over_h1;
    return shares ? origin_h2_start(o, muxes) : origin_h1_start(o);
}
