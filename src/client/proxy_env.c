/* The proxy that the environment names, and the hosts that it exempts, see proxy.h. */
#include "client/proxy.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "io/resolve.h"

/* The longest element that can match: a name, a port, brackets. */
#define ELEMENT_MAX (LIMIT_HOST_BYTES + 16)

/* ---- addresses and networks ------------------------------------------------------------------------------------- */

struct address_bytes {
    size_t len; /* 4, 16, or 0 for what is no address */
    uint8_t bytes[16];
};

static struct address_bytes address_of(const char *text)
{
    struct address_bytes a = {0};
    if (inet_pton(AF_INET, text, a.bytes) == 1)
        a.len = 4;
    else if (inet_pton(AF_INET6, text, a.bytes) == 1)
        a.len = 16;
    return a;
}

static bool same_prefix(const uint8_t *a, const uint8_t *b, unsigned bits)
{
    unsigned whole = bits / 8, rest = bits % 8;
    return memcmp(a, b, whole) == 0 && (rest == 0 || (a[whole] ^ b[whole]) >> (8 - rest) == 0);
}

/* "10.0.0.0/8", the slash cut away already. */
static bool is_in_network(const char *network, struct slice prefix, const char *host)
{
    struct address_bytes a = address_of(network), b = address_of(host);
    uint64_t bits;
    return a.len > 0 && a.len == b.len && slice_to_u64(prefix, &bits) && bits <= 8 * a.len &&
           same_prefix(a.bytes, b.bytes, (unsigned)bits);
}

/* ---- the list --------------------------------------------------------------------------------------------------- */

static bool is_name_or_below(const char *name, const char *host)
{
    while (*name == '*' || *name == '.')
        name++;
    size_t name_len = strlen(name), host_len = strlen(host);
    while (name_len > 0 && name[name_len - 1] == '.')
        name_len--;
    if (name_len == 0 || host_len < name_len)
        return false;
    struct slice tail = {host + host_len - name_len, name_len};
    return slice_equals_nocase(tail, (struct slice){name, name_len}) &&
           (host_len == name_len || host[host_len - name_len - 1] == '.');
}

/* Cuts ":port" and brackets off an element. False if it has a port that is another one. */
static bool cut_port(char *element, uint16_t port)
{
    char *colon = strrchr(element, ':');
    size_t len = strlen(element);
    uint64_t number;
    if (address_of(element).len == 16 || strchr(element, '/'))
        return true; /* the colons are the address's own */
    if (colon && (colon == element || colon[-1] == ']' || strchr(element, ':') == colon)) {
        if (!slice_to_u64(slice_of(colon + 1), &number) || number != port)
            return false;
        *colon = '\0';
        len = (size_t)(colon - element);
    }
    if (len >= 2 && element[0] == '[' && element[len - 1] == ']') {
        memmove(element, element + 1, len - 2);
        element[len - 2] = '\0';
    }
    return true;
}

static bool matches(struct slice text, const char *host, uint16_t port)
{
    char element[ELEMENT_MAX];
    if (slice_equals(text, SLICE("*")))
        return true;
    if (text.len >= sizeof(element))
        return false;
    memcpy(element, text.data, text.len);
    element[text.len] = '\0';
    if (!cut_port(element, port))
        return false;
    char *slash = strchr(element, '/');
    if (slash) {
        *slash = '\0';
        return is_in_network(element, slice_of(slash + 1), host);
    }
    struct address_bytes a = address_of(element), b = address_of(host);
    if (a.len > 0 || b.len > 0)
        return a.len == b.len && memcmp(a.bytes, b.bytes, a.len) == 0;
    return is_name_or_below(element, host);
}

bool proxy_is_exempt(const char *list, const char *host, uint16_t port)
{
    static const char separators[] = ", \t";
    for (list += strspn(list, separators); *list; list += strspn(list, separators)) {
        struct slice element = {list, strcspn(list, separators)};
        if (matches(element, host, port))
            return true;
        list += element.len;
    }
    return false;
}

/* ---- the environment -------------------------------------------------------------------------------------------- */

/* The value of the first of these variables that is set and not empty. */
static const char *first_of(const char *const *names, const char **variable)
{
    for (; *names; names++) {
        const char *value = getenv(*names);
        if (value && value[0]) {
            *variable = *names;
            return value;
        }
    }
    return NULL;
}

static bool is_on_this_machine(const struct url *endpoint)
{
    struct resolve_answer answer;
    return resolve_at_once(slice_of(endpoint->host), endpoint->port, &answer) == 0 && resolve_is_loopback(&answer);
}

const char *proxy_from_environment(const struct url *endpoint, const char **variable)
{
    /* HTTP_PROXY is for plain requests, and the way to the server is CONNECT whatever the endpoint's scheme. */
    static const char *const proxies[] = {"https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", NULL};
    static const char *const exemptions[] = {"no_proxy", "NO_PROXY", NULL};
    const char *ignored, *value = first_of(proxies, variable);
    if (!value || is_on_this_machine(endpoint))
        return NULL;
    const char *list = first_of(exemptions, &ignored);
    return list && proxy_is_exempt(list, endpoint->host, endpoint->port) ? NULL : value;
}
