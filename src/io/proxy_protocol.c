/* One function a version. Both see all bytes so far at each call: a header is a hundred bytes that come at once. */
#include "io/proxy_protocol.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

#include "base/error.h"
#include "base/limits.h"

#define V1_MAX         107 /* the longest line, CRLF included (2.1) */
#define V2_HEAD        16  /* signature, version and command, family and transport, length (2.2) */
#define V2_ADDRESS_V4  12
#define V2_ADDRESS_V6  36
#define V2_ADDRESS_UN  216
#define TLV_HEAD       3
#define TLV_CRC32C     0x03
#define CRC32C_LEN     4
#define CRC32C_REVERSE 0x82f63b78U /* the Castagnoli polynomial, bits reversed (RFC 3309) */

static const char v1_start[] = "PROXY ";
static const char v2_signature[] = "\r\n\r\n\0\r\nQUIT\n";
#define V1_START_LEN     (sizeof(v1_start) - 1)
#define V2_SIGNATURE_LEN (sizeof(v2_signature) - 1)

static int refuse(struct proxy_header *out, const char *why)
{
    out->error = why;
    out->has_source = false;
    return KV_EPROTO;
}

/* ---- version 1 ------------------------------------------------------------------------------------------------- */

/* The next word of a line whose words have one space between them, and the rest behind that space. A word is empty
 * where there is none. */
static struct slice next_word(struct slice *line)
{
    const char *space = memchr(line->data, ' ', line->len);
    struct slice word = {line->data, space ? (size_t)(space - line->data) : line->len};
    size_t taken = word.len + (space ? 1 : 0);
    *line = (struct slice){line->data + taken, line->len - taken};
    return word;
}

/* inet_pton takes exactly what the text asks for: dotted decimals without leading zeros, or RFC 4291's forms. */
static bool parse_address(struct slice word, int family, void *out)
{
    char copy[INET6_ADDRSTRLEN];
    if (word.len >= sizeof(copy) || memchr(word.data, '\0', word.len))
        return false;
    memcpy(copy, word.data, word.len);
    copy[word.len] = '\0';
    return inet_pton(family, copy, out) == 1;
}

static bool parse_port(struct slice word, in_port_t *out)
{
    uint64_t port;
    if (!slice_to_u64(word, &port) || port > UINT16_MAX || (word.len > 1 && word.data[0] == '0'))
        return false;
    *out = htons((uint16_t)port);
    return true;
}

static bool parse_v1_addresses(struct slice line, int family, struct proxy_header *out)
{
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&out->source;
    struct sockaddr_in *v4 = (struct sockaddr_in *)&out->source;
    bool is_v6 = family == AF_INET6;
    struct in6_addr destination;
    in_port_t destination_port;
    out->source.ss_family = (sa_family_t)family;
    out->has_source = true;
    return parse_address(next_word(&line), family, is_v6 ? (void *)&v6->sin6_addr : (void *)&v4->sin_addr) &&
           parse_address(next_word(&line), family, &destination) &&
           parse_port(next_word(&line), is_v6 ? &v6->sin6_port : &v4->sin_port) &&
           parse_port(next_word(&line), &destination_port) && line.len == 0;
}

static ssize_t parse_v1(struct slice bytes, struct proxy_header *out)
{
    size_t seen = bytes.len < V1_MAX ? bytes.len : V1_MAX;
    const char *end = memchr(bytes.data, '\r', seen);
    if (memchr(bytes.data, '\n', end ? (size_t)(end - bytes.data) : seen))
        return refuse(out, "the line does not end with CRLF");
    if (!end || end + 1 == bytes.data + V1_MAX)
        return seen < V1_MAX ? 0 : refuse(out, "the line is too long");
    if (end + 1 == bytes.data + seen)
        return 0;
    if (end[1] != '\n')
        return refuse(out, "the line does not end with CRLF");

    struct slice line = {bytes.data + V1_START_LEN, (size_t)(end - bytes.data) - V1_START_LEN};
    bool last_is_space = line.len > 0 && line.data[line.len - 1] == ' ';
    struct slice protocol = next_word(&line);
    if (slice_equals(protocol, SLICE("TCP4")) || slice_equals(protocol, SLICE("TCP6"))) {
        if (last_is_space || !parse_v1_addresses(line, protocol.data[3] == '4' ? AF_INET : AF_INET6, out))
            return refuse(out, "malformed addresses or ports");
    } else if (!slice_equals(protocol, SLICE("UNKNOWN"))) {
        return refuse(out, "the protocol is neither TCP4, TCP6 nor UNKNOWN");
    }
    return end + 2 - bytes.data;
}

/* ---- version 2 ------------------------------------------------------------------------------------------------- */

static size_t number16(const char *at)
{
    return (size_t)(unsigned char)at[0] << 8 | (unsigned char)at[1];
}

/* CRC32c of the header with the four bytes of the sum itself, at `skip`, taken for 0 (2.2.3). */
static uint32_t checksum(struct slice header, size_t skip)
{
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < header.len; i++) {
        bool is_sum = i >= skip && i < skip + CRC32C_LEN;
        crc ^= is_sum ? 0 : (unsigned char)header.data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? CRC32C_REVERSE : 0);
    }
    return ~crc;
}

/* Walks the extensions from `at` to the header's end. NULL, or what is wrong with them. */
static const char *check_extensions(struct slice header, size_t at)
{
    while (at < header.len) {
        if (header.len - at < TLV_HEAD)
            return "an extension is cut short";
        size_t len = number16(header.data + at + 1), value = at + TLV_HEAD;
        if (len > header.len - value)
            return "an extension is longer than the header";
        if (header.data[at] == TLV_CRC32C) {
            if (len != CRC32C_LEN)
                return "the checksum is not four bytes long";
            size_t sum = number16(header.data + value) << 16 | number16(header.data + value + 2);
            if (sum != checksum(header, value))
                return "the checksum is wrong";
        }
        at = value + len;
    }
    return NULL;
}

static void take_v4(const char *at, struct proxy_header *out)
{
    struct sockaddr_in *source = (struct sockaddr_in *)&out->source;
    source->sin_family = AF_INET;
    memcpy(&source->sin_addr, at, sizeof(source->sin_addr));
    memcpy(&source->sin_port, at + 8, sizeof(source->sin_port));
    out->has_source = true;
}

static void take_v6(const char *at, struct proxy_header *out)
{
    struct sockaddr_in6 *source = (struct sockaddr_in6 *)&out->source;
    source->sin6_family = AF_INET6;
    memcpy(&source->sin6_addr, at, sizeof(source->sin6_addr));
    memcpy(&source->sin6_port, at + 32, sizeof(source->sin6_port));
    out->has_source = true;
}

/* Everything behind the head of a PROXY command. */
static int take_block(struct slice header, unsigned family, struct proxy_header *out)
{
    static const size_t sizes[] = {0, V2_ADDRESS_V4, V2_ADDRESS_V6, V2_ADDRESS_UN};
    const char *address = header.data + V2_HEAD;
    if (family == 0)
        return KV_OK; /* whatever stands there does not count */
    if (header.len - V2_HEAD < sizes[family])
        return refuse(out, "too short for its addresses");
    const char *wrong = check_extensions(header, V2_HEAD + sizes[family]);
    if (wrong)
        return refuse(out, wrong);
    if (family == 1)
        take_v4(address, out);
    else if (family == 2)
        take_v6(address, out);
    return KV_OK;
}

static ssize_t parse_v2(struct slice bytes, struct proxy_header *out)
{
    if (bytes.len > V2_SIGNATURE_LEN && (bytes.data[12] & 0xf0) != 0x20)
        return refuse(out, "the version is not 2");
    if (bytes.len < V2_HEAD)
        return 0;
    unsigned command = bytes.data[12] & 0x0f;
    unsigned family = (unsigned char)bytes.data[13] >> 4, transport = bytes.data[13] & 0x0f;
    if (command > 1)
        return refuse(out, "the command is neither LOCAL nor PROXY");
    if (command == 1 && (family > 3 || transport > 2))
        return refuse(out, "unknown address family or transport");
    size_t len = V2_HEAD + number16(bytes.data + 14);
    if (len > LIMIT_PROXY_HEADER_BYTES) {
        out->error = "the header is too long";
        return KV_ELIMIT;
    }
    if (bytes.len < len)
        return 0;
    if (command == 1) {
        /* A family without a transport, or the other way round, is as good as none of both. */
        int error = take_block((struct slice){bytes.data, len}, transport == 0 ? 0 : family, out);
        if (error)
            return error;
    }
    return (ssize_t)len;
}

/* ---- which of them --------------------------------------------------------------------------------------------- */

static bool may_begin(struct slice bytes, const char *with, size_t len)
{
    return memcmp(bytes.data, with, bytes.len < len ? bytes.len : len) == 0;
}

ssize_t proxy_protocol_parse(struct slice bytes, struct proxy_header *out)
{
    *out = (struct proxy_header){0};
    if (bytes.len == 0)
        return 0;
    if (may_begin(bytes, v1_start, V1_START_LEN))
        return bytes.len < V1_START_LEN ? 0 : parse_v1(bytes, out);
    if (may_begin(bytes, v2_signature, V2_SIGNATURE_LEN))
        return parse_v2(bytes, out);
    return refuse(out, "no PROXY header");
}
