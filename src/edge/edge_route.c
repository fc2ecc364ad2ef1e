/* From the host a visitor asked for to the link that serves it: the label in front of the base host is the tunnel's,
 * and further ones in front of that are its service's business. */
#include <string.h>

#include "base/limits.h"
#include "edge/edge_impl.h"
#include "http/forward.h"
#include "tunnel/registry.h"

struct slice edge_subdomain(struct slice host, struct slice base)
{
    if (host.len <= base.len + 1 || host.data[host.len - base.len - 1] != '.' ||
        memcmp(host.data + host.len - base.len, base.data, base.len) != 0)
        return (struct slice){0};
    struct slice label = {host.data, host.len - base.len - 1};
    const char *dot = memrchr(label.data, '.', label.len);
    if (dot)
        label = (struct slice){dot + 1, label.len - (size_t)(dot + 1 - label.data)};
    return label;
}

struct slice edge_label_of(struct edge *edge, struct slice authority, char host[LIMIT_HOST_BYTES + 1])
{
    size_t len = http_host_of(authority, host);
    return edge_subdomain((struct slice){host, len}, slice_of(edge->settings.base_host));
}

enum close_reason edge_route(struct edge *edge, const struct head *request, struct address *link,
                             struct slice *tunnel_host)
{
    char host[LIMIT_HOST_BYTES + 1];
    struct slice asked = head_host(request);
    if (asked.len == 0 || asked.len > LIMIT_HOST_BYTES)
        return REASON_BAD_REQUEST;
    slice_lower(asked, host);
    struct slice label = edge_subdomain((struct slice){host, asked.len}, slice_of(edge->settings.base_host));
    if (label.len == 0 || !registry_find(edge->settings.registry, label, label.data > host, link))
        return REASON_NO_TUNNEL;
    size_t front = (size_t)(label.data - host);
    *tunnel_host = (struct slice){asked.data + front, asked.len - front};
    return REASON_NONE;
}

struct slice edge_tunnel_host(const struct edge *edge, const struct head *request, char out[LIMIT_HOST_BYTES])
{
    struct slice asked = head_host(request);
    slice_lower(asked, out); /* routing has found it to be no longer */
    struct slice label = edge_subdomain((struct slice){out, asked.len}, slice_of(edge->settings.base_host));
    return (struct slice){label.data, asked.len - (size_t)(label.data - out)};
}
