/*
 * The admin listener asks nobody for a password: being able to connect is the right to ask. A browser on the operator's
 * machine can connect too, and runs pages of strangers. Two checks keep those out:
 *
 *   Host    A page can reach loopback under a name of its own, by answering DNS with 127.0.0.1 once it is loaded (DNS
 *           rebinding); then it may even read the answers. Such a request carries that name. So Host has to be
 *           "localhost", a name under it (RFC 6761, 6.3), or a literal address, which no resolver stands behind.
 *   Origin  A page may send simple requests anywhere, without reading the answer. Browsers tell its origin with every
 *           POST (Fetch, 3.2), programs tell none: it has to be this listener or absent.
 */
#include <arpa/inet.h>

#include "http/syntax.h"
#include "ops/ops_impl.h"

/* `host` as http_host_of gives it: lower case, no port, IPv6 in brackets, NUL-terminated by us. */
static bool is_literal_address(const char *host, size_t len)
{
    struct in_addr v4;
    return host[0] == '[' ? len > 2 : inet_pton(AF_INET, host, &v4) == 1;
}

static bool is_localhost(struct slice host)
{
    const struct slice name = SLICE("localhost"), under = SLICE(".localhost");
    if (slice_equals(host, name))
        return true;
    return host.len > under.len && slice_equals((struct slice){host.data + host.len - under.len, under.len}, under);
}

static bool is_own_host(struct slice authority)
{
    char host[LIMIT_HOST_BYTES + 1];
    size_t len = http_host_of(authority, host);
    host[len] = '\0';
    return len > 0 && (is_literal_address(host, len) || is_localhost((struct slice){host, len}));
}

static bool is_own_origin(struct slice origin, struct slice authority)
{
    const struct slice scheme = SLICE("http://");
    return slice_starts_with(origin, scheme) &&
           slice_equals_nocase((struct slice){origin.data + scheme.len, origin.len - scheme.len}, authority);
}

const char *ops_guard(const struct head *request)
{
    if (!is_own_host(request->authority))
        return "ask this listener by its address or as localhost: other names in Host are refused, because any web "
               "page could make one up";
    if (slice_equals(request->method, SLICE("GET")) || slice_equals(request->method, SLICE("HEAD")))
        return NULL;
    for (unsigned i = 0; i < request->count; i++) {
        if (slice_equals_nocase(request->fields[i].name, SLICE("origin")) &&
            !is_own_origin(request->fields[i].value, request->authority))
            return "web pages of other origins may change nothing here";
    }
    return NULL;
}
