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
#define LOW HTTP_CHAR_LOWER

/* clang-format off */
const uint8_t http_char_table[256] = {
    ['\t'] = QUO, [' '] = QUO,
    ['!'] = TOK | LOW | TGT | QUO, ['"'] = TGT, ['#'] = TOK | LOW | QUO, ['$'] = TOK | LOW | TGT | QUO, ['%'] = TOK | LOW | TGT | QUO,
    ['&'] = TOK | LOW | TGT | QUO, ['\''] = TOK | LOW | TGT | QUO, ['('] = TGT | QUO, [')'] = TGT | QUO,
    ['*'] = TOK | LOW | TGT | QUO, ['+'] = TOK | LOW | TGT | QUO, [','] = TGT | QUO, ['-'] = TOK | LOW | TGT | HST | QUO,
    ['.'] = TOK | LOW | TGT | HST | QUO, ['/'] = TGT | QUO,
    ['0' ... '9'] = TOK | LOW | TGT | HST | HEX | DIG | QUO,
    [':' ... '@'] = TGT | QUO,
    ['A' ... 'F'] = TOK | TGT | HST | HEX | QUO, ['G' ... 'Z'] = TOK | TGT | HST | QUO,
    ['['] = TGT | QUO, ['\\'] = TGT, [']'] = TGT | QUO, ['^'] = TOK | LOW | TGT | QUO, ['_'] = TOK | LOW | TGT | HST | QUO,
    ['`'] = TOK | LOW | TGT | QUO,
    ['a' ... 'f'] = TOK | LOW | TGT | HST | HEX | QUO, ['g' ... 'z'] = TOK | LOW | TGT | HST | QUO,
    ['{'] = TGT | QUO, ['|'] = TOK | LOW | TGT | QUO, ['}'] = TGT | QUO, ['~'] = TOK | LOW | TGT | QUO,
};
/* clang-format on */

static bool is_control(char c)
{
    unsigned char u = (unsigned char)c;
    return (u < 0x20 && u != '\t') || u == 0x7f;
}

/* Sixteen bytes at once, in the compilers' own vectors: a machine without them gets plain words. */
#define BLOCK 16
typedef uint8_t block_t __attribute__((vector_size(BLOCK)));

/* Position of the first byte of a word in memory order that is not zero. */
static size_t first_byte(uint64_t word)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    return (size_t)__builtin_ctzll(word) / 8;
#else
    return (size_t)__builtin_clzll(word) / 8;
#endif
}

/* Ones where a block has control bytes. */
static block_t controls(block_t bytes)
{
    return (block_t)(((bytes < 0x20) & (bytes != '\t')) | (bytes == 0x7f));
}

static block_t block_at(const char *data)
{
    block_t bytes;
    memcpy(&bytes, data, BLOCK);
    return bytes;
}

/* A word without its first n bytes (fewer than eight) in memory order. */
static uint64_t without(uint64_t word, size_t n)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    return word >> 8 * n << 8 * n;
#else
    return word << 8 * n >> 8 * n;
#endif
}

/* Position of the first mark at or behind `from` in a block; BLOCK if there is none. */
static inline size_t first_mark(block_t marks, size_t from)
{
    uint64_t words[2];
    memcpy(words, &marks, BLOCK);
    uint64_t first = from < 8 ? without(words[0], from) : 0, second = from > 8 ? without(words[1], from - 8) : words[1];
    return first ? first_byte(first) : second ? 8 + first_byte(second) : BLOCK;
}

/* The last block overlaps the one before it; what is shorter than one goes byte by byte. */
size_t http_find_control(struct slice s, size_t from)
{
    size_t i = from;
    for (; i + BLOCK <= s.len; i += BLOCK) {
        size_t found = first_mark(controls(block_at(s.data + i)), 0);
        if (found < BLOCK)
            return i + found;
    }
    if (s.len >= BLOCK && i < s.len) {
        size_t start = s.len - BLOCK, found = first_mark(controls(block_at(s.data + start)), i - start);
        return start + found;
    }
    while (i < s.len && !is_control(s.data[i]))
        i++;
    return i;
}

bool http_is_token(struct slice s)
{
    return s.len > 0 && http_span(s, HTTP_CHAR_TOKEN) == s.len;
}

/* A text of 4 to 16 bytes as one block, some of it more than once. */
static block_t short_block(struct slice s)
{
    block_t bytes;
    uint64_t words[2];
    if (s.len >= sizeof(words[0])) {
        memcpy(&words[0], s.data, sizeof(words[0]));
        memcpy(&words[1], s.data + s.len - sizeof(words[1]), sizeof(words[1]));
    } else {
        uint32_t first, last;
        memcpy(&first, s.data, sizeof(first));
        memcpy(&last, s.data + s.len - sizeof(last), sizeof(last));
        words[0] = words[1] = (uint64_t)first << 32 | last;
    }
    memcpy(&bytes, words, BLOCK);
    return bytes;
}

static bool any(block_t marks)
{
    uint64_t words[2];
    memcpy(words, &marks, BLOCK);
    return (words[0] | words[1]) != 0;
}

/* Nearly all names are letters and '-': one look at up to sixteen of them. The table knows the others. */
bool http_is_lower_token(struct slice s)
{
    if (s.len >= 4 && s.len <= BLOCK) {
        block_t bytes = short_block(s);
        if (!any((block_t)(((bytes < 'a') | (bytes > 'z')) & (bytes != '-'))))
            return true;
    }
    return s.len > 0 && http_span(s, HTTP_CHAR_LOWER) == s.len;
}

/* The last block overlaps the one before it: a short value costs one step, not one a byte. */
bool http_is_field_value(struct slice s)
{
    if (s.len < 4)
        return http_find_control(s, 0) == s.len;
    if (s.len < BLOCK)
        return !any(controls(short_block(s)));
    for (size_t i = 0; i < s.len; i += BLOCK)
        if (any(controls(block_at(s.data + (i + BLOCK <= s.len ? i : s.len - BLOCK)))))
            return false;
    return true;
}

bool http_is_visible(struct slice s)
{
    if (s.len >= 4 && s.len < BLOCK) {
        block_t bytes = short_block(s);
        return !any((block_t)((bytes <= ' ') | (bytes > '~')));
    }
    for (size_t i = 0; i < s.len; i++)
        if (s.data[i] <= ' ' || s.data[i] > '~')
            return false;
    return true;
}

bool http_is_target(struct slice s)
{
    return s.len > 0 && http_span(s, HTTP_CHAR_TARGET) == s.len;
}

static bool is_port(struct slice s)
{
    uint64_t port;
    return s.len == 0 || (s.len <= 5 && slice_to_u64(s, &port) && port <= 65535);
}

/* Dotted labels, none of them empty but for the one behind a trailing dot. */
static bool is_name(struct slice s)
{
    if (s.len > 0 && s.data[s.len - 1] == '.')
        s.len--;
    if (s.len == 0 || s.len > LIMIT_HOST_BYTES || s.data[0] == '.' || s.data[s.len - 1] == '.')
        return false;
    if (http_span(s, HTTP_CHAR_HOST) != s.len)
        return false;
    const char *end = s.data + s.len, *dot = s.data; /* neither the first nor the last is one */
    while ((dot = memchr(dot, '.', (size_t)(end - dot))))
        if (*++dot == '.')
            return false;
    return true;
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

bool http_split_authority(struct slice s, struct slice *host)
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
    size_t end = host->len;
    if (host->data[end - 1] == '.')
        host->len--;
    if (end == s.len)
        return true;
    return s.data[end] == ':' && is_port((struct slice){s.data + end + 1, s.len - end - 1});
}

bool http_is_authority(struct slice s)
{
    struct slice host;
    return http_split_authority(s, &host);
}

size_t http_host_of(struct slice authority, char *out)
{
    struct slice host;
    if (!http_split_authority(authority, &host))
        return 0;
    slice_lower(host, out);
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
