/* The walk over X-Forwarded-For, and the writer of Forwarded. */
#include "http/forwarded.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "http/head.h"
#include "http/syntax.h"

#define SCHEME_MAX 16

/* ---- the way here ---------------------------------------------------------------------------------------------- */

/* The last element of a comma-separated list, which is cut off it. */
static struct slice take_last(struct slice *list)
{
    size_t at = list->len;
    while (at > 0 && list->data[at - 1] != ',')
        at--;
    struct slice element = {list->data + at, list->len - at};
    list->len = at > 0 ? at - 1 : 0;
    return slice_trim(element);
}

/* "a.b.c.d", "a.b.c.d:port", "v6", "[v6]" or "[v6]:port". */
static bool parse_hop(struct slice text, struct ip *out)
{
    const char *colon = memchr(text.data, ':', text.len);
    const char *bracket = memchr(text.data, ']', text.len);
    if (bracket && text.data[0] == '[') {
        size_t behind = text.len - (size_t)(bracket + 1 - text.data);
        text = (struct slice){text.data + 1, (size_t)(bracket - text.data) - 1};
        if (behind > 0 && bracket[1] != ':')
            return false;
    } else if (colon && !memchr(colon + 1, ':', text.len - (size_t)(colon + 1 - text.data))) {
        text.len = (size_t)(colon - text.data);
    }
    return ip_parse(text, out) == KV_OK;
}

void forward_path_find(const struct head *request, const struct ip *peer, const struct networks *trusted,
                       struct forward_path *out)
{
    out->hops[0] = *peer;
    out->count = 1;
    for (size_t i = request->count; i > 0; i--) {
        struct slice list = request->fields[i - 1].value;
        if (field_id(&request->fields[i - 1]) != FIELD_X_FORWARDED_FOR)
            continue;
        while (list.len > 0) {
            struct slice element = take_last(&list);
            if (element.len == 0)
                continue; /* RFC 9110, 5.6.1.2: empty elements are none */
            if (out->count == FORWARD_HOPS_MAX || !networks_contain(trusted, forward_path_visitor(out)) ||
                !parse_hop(element, &out->hops[out->count]))
                return;
            out->count++;
        }
    }
}

/* ---- Forwarded ------------------------------------------------------------------------------------------------- */

size_t forwarded_format(const struct forward_path *path, struct slice host, struct slice scheme,
                        char out[FORWARDED_MAX])
{
    size_t len = 0;
    for (size_t i = path->count; i > 0; i--) {
        char address[IP_TEXT_LEN];
        const struct ip *hop = &path->hops[i - 1];
        const char *before = i < path->count ? ", " : "";
        ip_format(hop, address);
        len += (size_t)snprintf(out + len, FORWARDED_MAX - len, ip_is_v4(hop) ? "%sfor=%s" : "%sfor=\"[%s]\"", before,
                                address);
        if (i < path->count)
            continue;
        if (host.len <= LIMIT_HOST_BYTES && http_is_authority(host))
            len += (size_t)snprintf(out + len, FORWARDED_MAX - len,
                                    http_is_token(host) ? ";host=%.*s" : ";host=\"%.*s\"", (int)host.len, host.data);
        if (scheme.len <= SCHEME_MAX && http_is_token(scheme))
            len += (size_t)snprintf(out + len, FORWARDED_MAX - len, ";proto=%.*s", (int)scheme.len, scheme.data);
    }
    return len;
}
