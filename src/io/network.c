/* Addresses as sixteen bytes, and prefixes of them. */
#include "io/network.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

#include "base/error.h"

#define V4_BITS 96 /* of the mapped form, in front of the IPv4 address */

static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

bool ip_is_v4(const struct ip *ip)
{
    return memcmp(ip->bytes, mapped, sizeof(mapped)) == 0;
}

bool ip_is_loopback(const struct ip *ip)
{
    static const struct ip v6 = {{[15] = 1}};
    return ip_is_v4(ip) ? ip->bytes[12] == 127 : memcmp(ip, &v6, sizeof(v6)) == 0;
}

uint64_t ip_site(const struct ip *ip)
{
    uint64_t site;
    memcpy(&site, ip->bytes + (ip_is_v4(ip) ? 8 : 0), sizeof(site));
    return site;
}

int ip_parse(struct slice text, struct ip *out)
{
    char copy[IP_TEXT_LEN];
    struct ip ip = {0};
    if (text.len == 0 || text.len >= sizeof(copy) || memchr(text.data, '\0', text.len))
        return KV_EINVAL;
    memcpy(copy, text.data, text.len);
    copy[text.len] = '\0';
    if (inet_pton(AF_INET, copy, ip.bytes + sizeof(mapped)) == 1)
        memcpy(ip.bytes, mapped, sizeof(mapped));
    else if (inet_pton(AF_INET6, copy, ip.bytes) != 1)
        return KV_EINVAL;
    *out = ip;
    return KV_OK;
}

struct ip ip_of(const struct sockaddr *address)
{
    struct ip ip = {0};
    if (address->sa_family == AF_INET6) {
        memcpy(ip.bytes, &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr, sizeof(ip.bytes));
    } else if (address->sa_family == AF_INET) {
        memcpy(ip.bytes, mapped, sizeof(mapped));
        memcpy(ip.bytes + sizeof(mapped), &((const struct sockaddr_in *)(const void *)address)->sin_addr, 4);
    }
    return ip;
}

size_t ip_format(const struct ip *ip, char out[IP_TEXT_LEN])
{
    if (ip_is_v4(ip))
        inet_ntop(AF_INET, ip->bytes + sizeof(mapped), out, IP_TEXT_LEN);
    else
        inet_ntop(AF_INET6, ip->bytes, out, IP_TEXT_LEN);
    return strlen(out);
}

/* ---- lists ----------------------------------------------------------------------------------------------------- */

static bool bits_are_equal(const struct ip *a, const struct ip *b, unsigned bits)
{
    unsigned bytes = bits / 8, rest = bits % 8;
    if (memcmp(a->bytes, b->bytes, bytes) != 0)
        return false;
    return rest == 0 || (a->bytes[bytes] ^ b->bytes[bytes]) >> (8 - rest) == 0;
}

/* Whether all bits behind the prefix are 0. */
static bool ends_with_prefix(const struct network *network)
{
    for (unsigned bit = network->bits; bit < 128; bit++)
        if (network->ip.bytes[bit / 8] >> (7 - bit % 8) & 1)
            return false;
    return true;
}

/* NULL, or why the text is no network. */
static const char *parse_network(struct slice text, struct network *out)
{
    const char *slash = memchr(text.data, '/', text.len);
    struct slice address = {text.data, slash ? (size_t)(slash - text.data) : text.len};
    uint64_t prefix;
    if (ip_parse(address, &out->ip) != KV_OK)
        return "it is neither an address nor a network such as 192.0.2.0/24";
    unsigned most = ip_is_v4(&out->ip) && !memchr(address.data, ':', address.len) ? 32 : 128;
    if (!slash)
        prefix = most;
    else if (!slice_to_u64((struct slice){slash + 1, text.len - address.len - 1}, &prefix) || prefix > most)
        return most == 32 ? "the prefix of an IPv4 network is a number from 0 to 32"
                          : "the prefix of an IPv6 network is a number from 0 to 128";
    out->bits = (uint8_t)(most == 32 ? V4_BITS + prefix : prefix);
    return ends_with_prefix(out) ? NULL : "the address has bits behind its prefix";
}

int networks_add(struct networks *networks, struct slice list, struct slice *wrong, const char **why)
{
    while (true) {
        const char *comma = memchr(list.data, ',', list.len);
        *wrong = slice_trim((struct slice){list.data, comma ? (size_t)(comma - list.data) : list.len});
        if (networks->count == NETWORKS_MAX) {
            *why = "there are too many networks in the list";
            return KV_ELIMIT;
        }
        *why = parse_network(*wrong, &networks->list[networks->count]);
        if (*why)
            return KV_EINVAL;
        networks->count++;
        if (!comma)
            return KV_OK;
        list = (struct slice){comma + 1, list.len - (size_t)(comma + 1 - list.data)};
    }
}

bool networks_contain(const struct networks *networks, const struct ip *ip)
{
    for (unsigned i = 0; i < networks->count; i++)
        if (bits_are_equal(&networks->list[i].ip, ip, networks->list[i].bits))
            return true;
    return false;
}
