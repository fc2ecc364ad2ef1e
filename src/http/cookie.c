/* An attribute at a time, as browsers split them: at semicolons, whatever stands between (RFC 6265, 5.2). */
#include "http/cookie.h"

#include <string.h>

#include "http/syntax.h"

/* True if the attribute is a Domain, and then its value without the dots that browsers drop. */
static bool read_domain(struct slice attribute, struct slice *domain)
{
    const char *equals = attribute.len ? memchr(attribute.data, '=', attribute.len) : NULL;
    if (!equals)
        return false;
    struct slice name = slice_trim((struct slice){attribute.data, (size_t)(equals - attribute.data)});
    struct slice value = slice_trim((struct slice){equals + 1, attribute.len - (size_t)(equals - attribute.data) - 1});
    while (value.len > 0 && value.data[0] == '.')
        value = (struct slice){value.data + 1, value.len - 1};
    while (value.len > 0 && value.data[value.len - 1] == '.')
        value.len--;
    *domain = value;
    return slice_equals_nocase(name, SLICE("domain"));
}

/* An empty one is none to browsers. */
static bool reaches_neighbours(struct slice domain, struct slice base)
{
    if (http_span(domain, HTTP_CHAR_HOST) != domain.len)
        return true;
    if (domain.len == 0 || domain.len > base.len)
        return false;
    struct slice end = {base.data + base.len - domain.len, domain.len};
    return slice_equals_nocase(end, domain) && (domain.len == base.len || end.data[-1] == '.');
}

size_t cookie_confine(char *value, size_t len, struct slice base)
{
    const char *semicolon = len ? memchr(value, ';', len) : NULL;
    size_t at = semicolon ? (size_t)(semicolon - value) : len; /* of the semicolon before the next attribute */
    while (at < len) {
        const char *next = memchr(value + at + 1, ';', len - at - 1);
        size_t end = next ? (size_t)(next - value) : len;
        struct slice domain;
        if (read_domain((struct slice){value + at + 1, end - at - 1}, &domain) && reaches_neighbours(domain, base)) {
            memmove(value + at, value + end, len - end);
            len -= end - at;
        } else {
            at = end;
        }
    }
    return len;
}
