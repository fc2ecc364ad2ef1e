/* Character classes as one table, and the few grammars that more than one codec checks. */
#include "http/syntax.h"

#include <arpa/inet.h>

#include "base/limits.h"

#define TOK HTTP_CHAR_TOKEN
#define TGT HTTP_CHAR_TARGET
#define HST HTTP_CHAR_HOST
#define HEX HTTP_CHAR_HEX
#define DIG HTTP_CHAR_DIGIT
#define QUO HTTP_CHAR_QUOTED

/* clang-format off */
const uint8_t http_char_table[256] = {
    ['\t'] = QUO, [' '] = QUO,
    ['!'] = TOK | TGT | QUO, ['"'] = TGT, ['#'] = TOK | QUO, ['$'] = TOK | TGT | QUO, ['%'] = TOK | TGT | QUO,
    ['&'] = TOK | TGT | QUO, ['\''] = TOK | TGT | QUO, ['('] = TGT | QUO, [')'] = TGT | QUO,
    ['*'] = TOK | TGT | QUO, ['+'] = TOK | TGT | QUO, [','] = TGT | QUO, ['-'] = TOK | TGT | HST | QUO,
    ['.'] = TOK | TGT | HST | QUO, ['/'] = TGT | QUO,
    ['0' ... '9'] = TOK | TGT | HST | HEX | DIG | QUO,
    [':' ... '@'] = TGT | QUO,
    ['A' ... 'F'] = TOK | TGT | HST | HEX | QUO, ['G' ... 'Z'] = TOK | TGT | HST | QUO,
    ['['] = TGT | QUO, ['\\'] = TGT, [']'] = TGT | QUO, ['^'] = TOK | TGT | QUO, ['_'] = TOK | TGT | HST | QUO,
    ['`'] = TOK | TGT | QUO,
    ['a' ... 'f'] = TOK | TGT | HST | HEX | QUO, ['g' ... 'z'] = TOK | TGT | HST | QUO,
    ['{'] = TGT | QUO, ['|'] = TOK | TGT | QUO, ['}'] = TGT | QUO, ['~'] = TOK | TGT | QUO,
};
/* clang-format on */

static bool is_control(char c)
{
    unsigned char u = (unsigned char)c;
    return (u < 0x20 && u != '\t') || u == 0x7f;
}

/* The usual word tricks: a byte below 0x20 borrows into its top bit when 0x20 is taken from it, a byte equal to 0x7f is
 * zero after the exclusive or. A borrow may also mark bytes above a true hit, and HTAB is marked: so a marked word is
 * looked at byte by byte. */
static bool word_has_control(uint64_t word)
{
    const uint64_t ones = UINT64_C(0x0101010101010101), tops = ones * 0x80;
    uint64_t del = word ^ (ones * 0x7f);
    return (((word - ones * 0x20) & ~word) | ((del - ones) & ~del)) & tops;
}

size_t http_find_control(struct slice s, size_t from)
{
    size_t i = from;
    for (; i + 8 <= s.len; i += 8) {
        uint64_t word;
        memcpy(&word, s.data + i, 8);
        if (!word_has_control(word))
            continue;
        for (size_t j = i; j < i + 8; j++)
            if (is_control(s.data[j]))
                return j;
    }
    for (; i < s.len; i++)
        if (is_control(s.data[i]))
            return i;
    return s.len;
}

bool http_is_token(struct slice s)
{
    return s.len > 0 && http_span(s, HTTP_CHAR_TOKEN) == s.len;
}

bool http_is_field_value(struct slice s)
{
    return http_find_control(s, 0) == s.len;
}

bool http_is_target(struct slice s)
{
    return s.len > 0 && http_span(s, HTTP_CHAR_TARGET) == s.len;
}

static bool is_port(struct slice s)
{
    uint64_t port;
    return s.len <= 5 && slice_to_u64(s, &port) && port <= 65535;
}

/* Dotted labels, none of them empty but for the one behind a trailing dot. */
static bool is_name(struct slice s)
{
    if (s.len > 0 && s.data[s.len - 1] == '.')
        s.len--;
    if (s.len == 0 || s.len > LIMIT_HOST_BYTES || s.data[0] == '.' || s.data[s.len - 1] == '.')
        return false;
    return http_span(s, HTTP_CHAR_HOST) == s.len && memmem(s.data, s.len, "..", 2) == NULL;
}

static bool is_ipv6(struct slice s)
{
    char text[INET6_ADDRSTRLEN];
    struct in6_addr address;
    if (s.len >= sizeof(text) || memchr(s.data, '\0', s.len))
        return false;
    memcpy(text, s.data, s.len);
    text[s.len] = '\0';
    return inet_pton(AF_INET6, text, &address) == 1;
}

/* Splits an authority into its host (brackets kept) and tells whether the whole is well-formed. */
static bool split_authority(struct slice s, struct slice *host)
{
    if (s.len > 0 && s.data[0] == '[') {
        const char *close = memchr(s.data, ']', s.len);
        if (!close)
            return false;
        size_t inner = (size_t)(close - s.data) - 1;
        if (!is_ipv6((struct slice){s.data + 1, inner}))
            return false;
        *host = (struct slice){s.data, inner + 2};
    } else {
        const char *colon = s.len ? memchr(s.data, ':', s.len) : NULL;
        *host = (struct slice){s.data, colon ? (size_t)(colon - s.data) : s.len};
        if (!is_name(*host))
            return false;
    }
    if (host->len == s.len)
        return true;
    return s.data[host->len] == ':' && is_port((struct slice){s.data + host->len + 1, s.len - host->len - 1});
}

bool http_is_authority(struct slice s)
{
    struct slice host;
    return split_authority(s, &host);
}

size_t http_host_of(struct slice authority, char *out)
{
    struct slice host;
    if (!split_authority(authority, &host))
        return 0;
    if (host.data[host.len - 1] == '.')
        host.len--;
    for (size_t i = 0; i < host.len; i++) {
        char c = host.data[i];
        out[i] = (char)(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
    }
    out[host.len] = '\0';
    return host.len;
}

bool http_is_protocol_list(struct slice s)
{
    struct slice protocol;
    bool any = false;
    while (slice_next_element(&s, &protocol)) {
        size_t name = http_span(protocol, HTTP_CHAR_TOKEN);
        if (name == 0)
            return false;
        if (name < protocol.len) {
            struct slice version = {protocol.data + name + 1, protocol.len - name - 1};
            if (protocol.data[name] != '/' || !http_is_token(version))
                return false;
        }
        any = true;
    }
    return any;
}
