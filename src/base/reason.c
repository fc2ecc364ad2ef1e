/*
 * The table of close reasons. Codes are an interface: operators alert on them and scripts read them from the
 * kavilo-error header, so a row may be added, never renamed. Sentences are read by visitors, who know neither the
 * tunnel nor the service behind it: they say what is wrong and on whose side, and name nothing internal.
 *
 * Statuses follow RFC 9110, 15.5 and 15.6: 502 where the way to the service is broken, 503 where it is full and a retry
 * makes sense, 504 where somebody behind us was too slow.
 */
#include "base/reason.h"

#include <stddef.h>

static const struct reason_text texts[REASON_COUNT] = {
    [REASON_NONE] = {"none", "the exchange ended as it should", SIDE_NOBODY, 0},
    [REASON_INTERNAL] = {"internal", "the tunnel server could not handle this request", SIDE_SERVER, 500},

    [REASON_VISITOR_GONE] = {"visitor_gone", "the visitor closed the connection", SIDE_VISITOR, 0},
    [REASON_VISITOR_SLOW] = {"visitor_slow", "the request did not arrive in time", SIDE_VISITOR, 408},
    [REASON_BAD_REQUEST] = {"bad_request", "the request is not valid HTTP", SIDE_VISITOR, 400},
    [REASON_NOT_IMPLEMENTED] = {"not_implemented",
                                "the request's body has a transfer coding that this server does not know", SIDE_VISITOR,
                                501},
    [REASON_HEAD_TOO_LARGE] = {"head_too_large", "the request's header fields are too large", SIDE_VISITOR, 431},
    [REASON_TARGET_TOO_LONG] = {"target_too_long", "the request's URL is too long", SIDE_VISITOR, 414},
    [REASON_RATE_LIMITED] = {"rate_limited", "too many requests came from this address; please try again in a moment",
                             SIDE_VISITOR, 429},
    [REASON_VISITOR_BUSY] = {"visitor_busy",
                             "too many requests from this address are in flight; please try again when some "
                             "have been answered",
                             SIDE_VISITOR, 429},
    [REASON_BODY_TOO_LARGE] = {"body_too_large", "the request's body is larger than this server accepts", SIDE_VISITOR,
                               413},

    [REASON_NO_TUNNEL] = {"no_tunnel", "no active tunnel for this hostname", SIDE_TUNNEL, 502},
    [REASON_LOOP] = {"loop", "this tunnel leads back to itself", SIDE_TUNNEL, 508},
    [REASON_TUNNEL_BUSY] = {"tunnel_busy", "tunnel is at its concurrent-request capacity", SIDE_TUNNEL, 503},
    [REASON_SERVER_BUSY] = {"server_busy", "the tunnel server is at its capacity; please try again in a moment",
                            SIDE_SERVER, 503},
    [REASON_DRAINING] = {"draining", "the tunnel server is restarting; please try again in a moment", SIDE_SERVER, 503},
    [REASON_CLIENT_GONE] = {"client_gone", "the tunnel was disconnected before the answer was complete", SIDE_TUNNEL,
                            502},
    [REASON_CLIENT_TIMEOUT] = {"client_timeout", "the tunnel did not answer in time", SIDE_TUNNEL, 504},
    [REASON_SERVER_TIMEOUT] = {"server_timeout", "there was no answer in the time that this tunnel server allows",
                               SIDE_SERVER, 504},

    [REASON_ORIGIN_REFUSED] = {"origin_refused", "the local service is not accepting connections", SIDE_SERVICE, 502},
    [REASON_ORIGIN_UNREACHABLE] = {"origin_unreachable", "the local service cannot be reached", SIDE_SERVICE, 502},
    [REASON_ORIGIN_CONNECT_TIMEOUT] = {"origin_connect_timeout",
                                       "the local service did not accept a connection in time", SIDE_SERVICE, 504},
    [REASON_ORIGIN_TIMEOUT] = {"origin_timeout", "the local service did not answer in the time that this tunnel allows",
                               SIDE_SERVICE, 504},
    [REASON_ORIGIN_CLOSED] = {"origin_closed", "the local service closed the connection before its answer was complete",
                              SIDE_SERVICE, 502},
    [REASON_ORIGIN_BAD_RESPONSE] = {"origin_bad_response", "the local service's answer is not valid HTTP", SIDE_SERVICE,
                                    502},
    [REASON_ORIGIN_HEAD_TOO_LARGE] = {"origin_head_too_large",
                                      "the header of the local service's answer is larger than 64 KiB or 256 fields",
                                      SIDE_SERVICE, 502},
    [REASON_ORIGIN_TLS] = {"origin_tls", "the TLS connection to the local service failed", SIDE_SERVICE, 502},
    [REASON_ORIGIN_OTHER] = {"origin_other", "the local service could not answer this request", SIDE_SERVICE, 502},

    /* Sessions end for these reasons. A visitor caught by one had a tunnel that is gone now, and may have a new one at
     * the next try. */
    [REASON_PROTOCOL] = {"protocol", "the tunnel failed before the answer was complete", SIDE_TUNNEL, 502},
    [REASON_TAKEN_OVER] = {"taken_over", "another client took over this tunnel; please try again", SIDE_TUNNEL, 502},
    [REASON_REPLACED] = {"replaced", "this tunnel has just reconnected; please try again", SIDE_TUNNEL, 502},
    [REASON_REVOKED] = {"revoked", "this tunnel is no longer allowed to connect", SIDE_TUNNEL, 502},
    [REASON_KICKED] = {"kicked", "this tunnel was closed by the operator", SIDE_SERVER, 502},
    [REASON_IDLE] = {"idle", "the connection was idle for too long", SIDE_NOBODY, 0},
};

const struct reason_text *reason_text(enum close_reason reason)
{
    /* The value may come from a peer's frame, and an enum's signedness is the compiler's choice. */
    size_t row = (size_t)reason;
    return row < REASON_COUNT ? &texts[row] : &texts[REASON_INTERNAL];
}

const char *reason_side_name(enum reason_side side)
{
    switch (side) {
    case SIDE_VISITOR:
        return "visitor";
    case SIDE_SERVER:
        return "server";
    case SIDE_TUNNEL:
        return "tunnel";
    case SIDE_SERVICE:
        return "local service";
    case SIDE_NOBODY:
        break;
    }
    return "nobody";
}
