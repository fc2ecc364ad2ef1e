/*
 * Who the visitor is behind HTTP proxies, and RFC 7239's way of saying so. Each proxy appends the address it was called
 * from to X-Forwarded-For, so the list is worth as much as those who wrote it: read from the right, an element counts
 * while the one that wrote it, which is the next hop towards us, is a proxy that the operator named. Any thread.
 */
#ifndef KV_HTTP_FORWARDED_H
#define KV_HTTP_FORWARDED_H

#include <stddef.h>

#include "base/slice.h"
#include "io/network.h"

struct head;

/* Named proxies one behind the other, the visitor included; a longer way ends at the last that fits. */
#define FORWARD_HOPS_MAX 8

struct forward_path {
    struct ip hops[FORWARD_HOPS_MAX]; /* from the peer of the connection to the visitor, who is the last */
    size_t count;                     /* at least 1 */
};

/* Walks the request's X-Forwarded-For from `peer` on. It ends at the first hop that `trusted` does not have, at an
 * element that is no address ("unknown", an obfuscated name), or with the list. An element may carry a port, and an
 * IPv6 address brackets. */
void forward_path_find(const struct head *request, const struct ip *peer, const struct networks *trusted,
                       struct forward_path *out);

static inline const struct ip *forward_path_visitor(const struct forward_path *path)
{
    return &path->hops[path->count - 1];
}

/* Room for every value that forwarded_format makes. */
#define FORWARDED_MAX 1024

/*
 * Writes the value of Forwarded (RFC 7239, 4): one element a hop, the visitor's first with the host that was asked for
 * and the scheme, `for=192.0.2.43;host=a.example;proto=https, for="[2001:db8::17]"`. What is no token is quoted (6). A
 * host that is no authority and a scheme that is no token are left out. Returns the length.
 */
size_t forwarded_format(const struct forward_path *path, struct slice host, struct slice scheme,
                        char out[FORWARDED_MAX]);

#endif
