/* PROXY headers as the published text has them, and everything near them that is none. Each case is read byte by byte,
 * in memory of exactly its size: no prefix may be taken for more than it is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/limits.h"
#include "io/listener.h"
#include "io/proxy_protocol.h"

/* Reads every prefix of `whole`, which must say nothing before `len` bytes are there, and then the whole, which must
 * give `result`. */
static struct proxy_header read_growing(struct slice whole, size_t len, ssize_t result)
{
    struct proxy_header header = {.error = NULL};
    for (size_t n = 0; n <= whole.len; n++) {
        char *copy = malloc(n ? n : 1);
        assert_non_null(copy);
        memcpy(copy, whole.data, n);
        ssize_t got = proxy_protocol_parse((struct slice){copy, n}, &header);
        free(copy);
        if (got != (n < len ? 0 : result))
            fail_msg("%zu of %zu bytes: %zd (%s)", n, whole.len, got, header.error ? header.error : "");
    }
    return header;
}

static void assert_source(const struct proxy_header *header, const char *expected)
{
    char text[SOCKADDR_TEXT_LEN] = "";
    if (header->has_source)
        sockaddr_format((const struct sockaddr *)&header->source, text);
    assert_string_equal(text, expected);
}

/* ---- version 1 ------------------------------------------------------------------------------------------------- */

static void reads_lines(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n", "192.168.0.1:56324"},
        {"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255:65535"},
        {"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", "0.0.0.0:0"},
        {"PROXY TCP6 2001:db8::1 2001:db8::2 56324 443\r\n", "[2001:db8::1]:56324"},
        {"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
         "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"},
        {"PROXY TCP6 ::ffff:10.0.0.1 ::1 1 2\r\n", "10.0.0.1:1"},
        {"PROXY UNKNOWN\r\n", ""},
        {"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", ""},
        /* the longest line there can be: 107 bytes */
        {"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 "
         "65535\r\n",
         ""},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[256];
        size_t len = strlen(cases[i][0]);
        snprintf(text, sizeof(text), "%sGET / HTTP/1.1\r\n", cases[i][0]);
        struct proxy_header header = read_growing(slice_of(text), len, (ssize_t)len);
        assert_source(&header, cases[i][1]);
    }
    assert_int_equal(strlen(cases[8][0]), 107);
}

static void refuses_other_lines(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "GET / HTTP/1.1\r\n",
        "proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY\tTCP4 1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY  TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY tcp4 1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY \r\n",
        "PROXY TCP4\r\n",
        "PROXY TCP4 1.2.3.4\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n",
        "PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1  2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 -1 2\r\n",
        "PROXY TCP4 1.2.3.04 1.2.3.4 1 2\r\n",
        "PROXY TCP4 1.2.3.256 1.2.3.4 1 2\r\n",
        "PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n",
        "PROXY TCP4 1.2.3.4 x 1 2\r\n",
        "PROXY TCP4 ::1 ::1 1 2\r\n",
        "PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n",
        "PROXY TCP6 ::1%lo ::1 1 2\r\n",
        "PROXY TCP6 [::1] ::1 1 2\r\n",
        "PROXY UNKNOWNX\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\rx",
        "PROXY UNKNOWN a\nb\r\n",
        "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 "
        "655350\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535",
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct proxy_header header;
        ssize_t got = proxy_protocol_parse(slice_of(cases[i]), &header);
        if (got != KV_EPROTO || !header.error || header.has_source)
            fail_msg("%zd for %s", got, cases[i]);
    }
}

/* Whoever speaks something else is told at the first byte that shows it, not after the time for a header. */
static void refuses_early(void **state)
{
    (void)state;
    struct proxy_header header;
    assert_int_equal(proxy_protocol_parse(SLICE("G"), &header), KV_EPROTO);
    assert_int_equal(proxy_protocol_parse(SLICE("\x16"), &header), KV_EPROTO);
    assert_int_equal(proxy_protocol_parse(SLICE("PRI * HTTP/2.0"), &header), KV_EPROTO);
    assert_int_equal(proxy_protocol_parse(SLICE("\r\n\r\nG"), &header), KV_EPROTO);
    assert_int_equal(proxy_protocol_parse(SLICE("\r\n\r\n\0\r\nQUIT\n\x11"), &header), KV_EPROTO);
    assert_int_equal(proxy_protocol_parse(SLICE("P"), &header), 0);
}

/* ---- version 2 ------------------------------------------------------------------------------------------------- */

#define V4 "\x7f\0\0\1\xc0\0\2\1\x1f\x90\1\xbb" /* 127.0.0.1:8080 to 192.0.2.1:443 */
#define V6                                                                                                             \
    "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1"                                                                         \
    "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\2\x1f\x90\1\xbb"
#define ALPN_TLV "\1\0\2h2"
#define NOOP_TLV "\4\0\0"

struct case_v2 {
    const char *name;
    uint8_t command, family;
    struct slice block;
    const char *source; /* NULL: refused */
};

static size_t write_v2(char out[LIMIT_PROXY_HEADER_BYTES + 512], uint8_t command, uint8_t family, struct slice block)
{
    memcpy(out, "\r\n\r\n\0\r\nQUIT\n", 12);
    out[12] = (char)command;
    out[13] = (char)family;
    out[14] = (char)(block.len >> 8);
    out[15] = (char)block.len;
    memcpy(out + 16, block.data, block.len);
    return 16 + block.len;
}

static void reads_blocks(void **state)
{
    (void)state;
    static const char unix_names[216] = "/run/x";
    const struct case_v2 cases[] = {
        {"TCP over IPv4", 0x21, 0x11, SLICE(V4), "127.0.0.1:8080"},
        {"UDP over IPv4", 0x21, 0x12, SLICE(V4), "127.0.0.1:8080"},
        {"TCP over IPv6", 0x21, 0x21, SLICE(V6), "[2001:db8::1]:8080"},
        {"UDP over IPv6", 0x21, 0x22, SLICE(V6), "[2001:db8::1]:8080"},
        {"extensions", 0x21, 0x11, SLICE(V4 ALPN_TLV NOOP_TLV), "127.0.0.1:8080"},
        {"extensions behind IPv6", 0x21, 0x21, SLICE(V6 NOOP_TLV "\xea\0\3abc"), "[2001:db8::1]:8080"},
        {"AF_UNIX", 0x21, 0x31, {unix_names, sizeof(unix_names)}, ""},
        {"AF_UNSPEC", 0x21, 0x00, SLICE(""), ""},
        {"AF_UNSPEC with something", 0x21, 0x00, SLICE("whatever"), ""},
        {"a family without a transport", 0x21, 0x10, SLICE("short"), ""},
        {"a transport without a family", 0x21, 0x01, SLICE("short"), ""},
        {"LOCAL", 0x20, 0x00, SLICE(""), ""},
        {"LOCAL with addresses", 0x20, 0x11, SLICE(V4), ""},
        {"LOCAL with anything", 0x20, 0xff, SLICE("x"), ""},
        {"an unknown version", 0x31, 0x11, SLICE(V4), NULL},
        {"an unknown command", 0x22, 0x11, SLICE(V4), NULL},
        {"an unknown family", 0x21, 0x41, SLICE(V4), NULL},
        {"an unknown transport", 0x21, 0x13, SLICE(V4), NULL},
        {"no room for IPv4", 0x21, 0x11, {V4, 11}, NULL},
        {"no room for IPv6", 0x21, 0x21, {V6, 35}, NULL},
        {"no room for AF_UNIX", 0x21, 0x31, {unix_names, 215}, NULL},
        {"half an extension's head", 0x21, 0x11, SLICE(V4 "\1\0"), NULL},
        {"an extension over the end", 0x21, 0x11, SLICE(V4 "\1\0\2h"), NULL},
        {"a checksum of three bytes", 0x21, 0x11, SLICE(V4 "\3\0\3abc"), NULL},
        {"a wrong checksum", 0x21, 0x11, SLICE(V4 "\3\0\4abcd"), NULL},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char bytes[LIMIT_PROXY_HEADER_BYTES + 512];
        const struct case_v2 *c = &cases[i];
        size_t len = write_v2(bytes, c->command, c->family, c->block);
        if (c->source) {
            memcpy(bytes + len, "rest", 4);
            struct proxy_header header = read_growing((struct slice){bytes, len + 4}, len, (ssize_t)len);
            assert_source(&header, c->source);
        } else {
            struct proxy_header header;
            ssize_t got = proxy_protocol_parse((struct slice){bytes, len}, &header);
            if (got != KV_EPROTO || !header.error || header.has_source)
                fail_msg("%s: %zd", c->name, got);
        }
    }
}

/* The sum was made with another implementation, which gives e3069283 for "123456789" (RFC 3720's CRC). */
static void checks_the_checksum(void **state)
{
    (void)state;
    static const unsigned char sum[4] = {0x6b, 0x40, 0x7c, 0x49};
    char bytes[LIMIT_PROXY_HEADER_BYTES + 512];
    struct proxy_header header;
    unsigned found = 0;
    size_t len = write_v2(bytes, 0x21, 0x11, SLICE(V4 "\3\0\4\0\0\0\0"));
    memcpy(bytes + len - sizeof(sum), sum, sizeof(sum));
    assert_int_equal(proxy_protocol_parse((struct slice){bytes, len}, &header), (ssize_t)len);
    assert_source(&header, "127.0.0.1:8080");
    for (size_t at = 16; at < len; at++) {
        if (at == len - 7)
            continue; /* the extension's type: with another one there is no checksum */
        bytes[at] = (char)(bytes[at] ^ 0x10);
        found += proxy_protocol_parse((struct slice){bytes, len}, &header) == KV_EPROTO;
        bytes[at] = (char)(bytes[at] ^ 0x10);
    }
    assert_int_equal(found, len - 16 - 1);
}

static void bounds_the_length(void **state)
{
    (void)state;
    static char block[LIMIT_PROXY_HEADER_BYTES] = V4;
    char bytes[LIMIT_PROXY_HEADER_BYTES + 512];
    struct proxy_header header;
    size_t most = LIMIT_PROXY_HEADER_BYTES - 16, padding = most - 12 - 3;
    block[12] = 4; /* a NOOP that fills the rest */
    block[13] = (char)(padding >> 8);
    block[14] = (char)padding;
    size_t len = write_v2(bytes, 0x21, 0x11, (struct slice){block, most});
    assert_int_equal(proxy_protocol_parse((struct slice){bytes, len}, &header), (ssize_t)len);
    assert_source(&header, "127.0.0.1:8080");
    bytes[15]++;
    assert_int_equal(proxy_protocol_parse((struct slice){bytes, 16}, &header), KV_ELIMIT);
    assert_non_null(header.error);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_lines),  cmocka_unit_test(refuses_other_lines), cmocka_unit_test(refuses_early),
        cmocka_unit_test(reads_blocks), cmocka_unit_test(checks_the_checksum), cmocka_unit_test(bounds_the_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
