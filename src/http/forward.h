/*
 * What an intermediary does to heads (RFC 9110, 7.6; RFC 7239's predecessors): hop-by-hop fields go, forwarding fields
 * come, everything else passes as it is. Called once per head at the server's edge, in both directions. The character
 * rules that codecs share are in http/syntax.h.
 */
#ifndef KV_HTTP_FORWARD_H
#define KV_HTTP_FORWARD_H

#include <stdbool.h>

#include "base/slice.h"
#include "http/forwarded.h"
#include "http/head.h"
#include "http/syntax.h"

/* What the edge knows of the visitor's connection. */
struct forward_facts {
    struct slice peer_address;       /* "203.0.113.7", without the port */
    struct slice visitor_address;    /* the same, or who stands behind named proxies */
    struct slice scheme;             /* "http" or "https" as the visitor spoke to us */
    struct slice version;            /* of HTTP as the visitor spoke it, for Via: "1.1"; empty: no pass is noted */
    struct slice host;               /* that was asked for, in lower case and without port */
    bool peer_trusted;               /* a named proxy: its X-Forwarded-* are kept and appended to, not replaced */
    const struct forward_path *path; /* for a Forwarded field; NULL: none is wanted */
};

/* Field names of Connection that are heeded beyond the hop-by-hop ones; what is named behind them passes. A bound,
 * because each is compared with every field. */
#define FORWARD_OPTIONS_MAX 32
/* Fields that forward_request may add. */
#define FORWARD_ADDED_MAX   9

/*
 * An owning head for the tunnel made from a visitor's request: method, target, authority, protocol and fields copied,
 * scheme set from the facts.
 *
 * - `host` is placed first with the authority as sent; other Host fields go.
 * - Removed: what forward_is_hop_by_hop names, Expect (the edge answers for it), Proxy (CGI programs take it for their
 *   own setting), any `kavilo-*` field, which only we may set, and every other field that Connection names. A
 *   Connection that names host, content-length, cookie or a forwarding field removes none of these.
 * - "te: trailers" is passed on if TE has it; Trailer is kept. Upgrade lives on in head.protocol.
 * - Content-Length stays as a field (the wire has no other place for it).
 * - Several Cookie fields, as HTTP/2 sends them, become one with "; " (RFC 9113, 8.2.3).
 * - X-Forwarded-For gets the peer's address behind what is there (lines joined with ", "), X-Forwarded-Proto and
 *   X-Forwarded-Host are set. What an untrusted peer says is dropped before, with every other X-Forwarded-*; a trusted
 *   peer's last word stands where it says something.
 * - X-Real-IP and Forwarded are made anew from the facts, whoever said something in them: proxies pass on what they do
 *   not know, so a trusted one may carry a stranger's word.
 * - Via and CDN-Loop pass whatever Connection says, and get this pass from the facts (http/loop.h).
 * - A name that becomes one of the above when '_' is read as '-' goes too: CGI and its heirs cannot tell them apart.
 *
 * NULL without memory.
 */
struct head *forward_request(const struct head *request, const struct forward_facts *facts);

/* An owning head made from an origin's response: hop-by-hop fields, those that Connection names (but Content-Length)
 * and `kavilo-*` removed; Content-Length kept once, and not with 1xx, 204 and 205. A 101 keeps head.protocol, from its
 * Upgrade field if it was not set. NULL without memory. */
struct head *forward_response(const struct head *response);

/* Trailers: fields of framing, routing, authentication, request and response control and content format, hop-by-hop and
 * forwarding fields are dropped (RFC 9110, 6.5.1). NULL without memory. */
struct head *forward_trailers(const struct head *trailers);

/* True for a field that must not cross a hop whatever Connection says: Connection, Keep-Alive, Proxy-Connection,
 * Proxy-Authenticate, Proxy-Authorization, TE, Transfer-Encoding, Upgrade, HTTP2-Settings. */
static inline bool forward_is_hop_by_hop(enum field_id id)
{
    const uint32_t hop_by_hop =
        field_bit(FIELD_CONNECTION) | field_bit(FIELD_KEEP_ALIVE) | field_bit(FIELD_PROXY_CONNECTION) |
        field_bit(FIELD_PROXY_AUTHENTICATE) | field_bit(FIELD_PROXY_AUTHORIZATION) | field_bit(FIELD_TE) |
        field_bit(FIELD_TRANSFER_ENCODING) | field_bit(FIELD_UPGRADE) | field_bit(FIELD_HTTP2_SETTINGS);
    return (hop_by_hop & field_bit(id)) != 0;
}

#endif
