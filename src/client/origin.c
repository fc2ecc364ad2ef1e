/*
 * Where a request to the local service begins. Which HTTP carries it: for "http" HTTP/1.1, for "h2c" HTTP/2, for
 * "https" what the service chose when a connection was made (ALPN), and for an upgrade what the service takes one over.
 */
#include "client/origin.h"

#include "base/limits.h"
#include "client/origin_h1.h"
#include "client/origin_h2.h"
#include "client/origin_pool.h"

int origin_start(struct origin *o, struct origin_pool *pool, const struct head *request,
                 const struct origin_framing *framing, unsigned response_ms, const struct origin_events *events,
                 void *owner)
{
    *o = (struct origin){
        .pool = pool,
        .events = events,
        .owner = owner,
        .request = request,
        .response_ms = response_ms,
        .framing = framing->framing,
        .length_left = framing->length,
        .in = BUFFER_INIT(LIMIT_HEAD_BYTES + LIMIT_READ_BYTES),
        .upgrade = request->protocol.len > 0,
    };
    struct origin_muxes *muxes = origin_pool_muxes(pool);
    return muxes && origin_muxes_apply(muxes, o->upgrade) ? origin_h2_start(o, muxes) : origin_h1_start(o);
}
