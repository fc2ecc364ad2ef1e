/* Where a request to the local service begins; which HTTP carries it is decided here. */
#include "client/origin.h"

#include "base/limits.h"
#include "client/origin_h1.h"

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
    return origin_h1_start(o);
}
