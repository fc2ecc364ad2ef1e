/*
 * What an intermediary does to heads (RFC 9110, 7.6; RFC 7239's predecessors): hop-by-hop fields go, forwarding fields
 * come, everything else passes as it is.
 */
#ifndef KV_HTTP_FORWARD_H
#define KV_HTTP_FORWARD_H

#include <stdbool.h>

#include "base/slice.h"
#include "http/head.h"

/* What the edge knows of the visitor's connection. */
struct forward_facts {
    struct slice peer_address;  /* "203.0.113.7", without the port */
    struct slice scheme;        /* "http" or "https" as the visitor spoke to us */
    bool peer_trusted;          /* a named proxy: its X-Forwarded-* are kept and appended to, not replaced */
};

/*
 * An owning head for the tunnel made from a visitor's request: method, target, authority and fields copied; removed are
 * Connection, everything Connection names, Keep-Alive, Proxy-Connection, Proxy-Authorization, Proxy-Authenticate, TE
 * (but "te: trailers" is passed on), Trailer kept, Transfer-Encoding, Upgrade, Expect (the edge answers for it), HTTP2-Settings, and any
 * `kavilo-*` field, which only we may set. `host` is placed first with the authority as sent. X-Forwarded-For is
 * appended to (replaced if the peer is not trusted), X-Forwarded-Proto, X-Forwarded-Host and X-Real-IP are set.
 * A request that upgrades keeps head.protocol. Content-Length stays as a field (the wire has no other place for it).
 * NULL without memory.
 */
struct head *forward_request(const struct head *request, const struct forward_facts *facts);

/* An owning head made from an origin's response: hop-by-hop fields removed as above. A 101 keeps head.protocol from its
 * Upgrade field. NULL without memory. */
struct head *forward_response(const struct head *response);

/* Trailers: framing, routing and hop-by-hop fields are dropped (RFC 9110, 6.5.1). NULL without memory. */
struct head *forward_trailers(const struct head *trailers);

/* True for a field name that must not cross a hop whatever Connection says. */
bool forward_is_hop_by_hop(struct slice name);

/* ---- checks that more than one codec needs (RFC 9110, 5.1, 5.5; RFC 3986, 3.2.2) ---- */

bool http_is_token(struct slice s);
/* No CTL but HTAB, no DEL; bytes above 0x7f pass (obs-text). */
bool http_is_field_value(struct slice s);
/* host [":" port] with a registered name, IPv4 or bracketed IPv6 literal; ASCII only, no user info, no empty host. */
bool http_is_authority(struct slice s);
/* Lower-cases and cuts the port and a trailing dot: "App.Example.com.:8080" -> "app.example.com". `out` has
 * LIMIT_HOST_BYTES + 1 bytes. Length, or 0 when it is no host. */
size_t http_host_of(struct slice authority, char *out);

#endif
