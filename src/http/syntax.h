/*
 * The character rules that every HTTP codec here shares: tokens, field values, targets and hosts (RFC 9110, 5.1, 5.5,
 * 7.2; RFC 3986, 3.2.2). Tables and scans only, no state; any thread.
 */
#ifndef KV_HTTP_SYNTAX_H
#define KV_HTTP_SYNTAX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/slice.h"

enum http_char {
    HTTP_CHAR_TOKEN = 1 << 0,  /* tchar (RFC 9110, 5.6.2) */
    HTTP_CHAR_TARGET = 1 << 1, /* visible ASCII but '#', which starts what no request may carry (RFC 9110, 4.2.5) */
    HTTP_CHAR_HOST = 1 << 2,   /* letters, digits, '-', '_' and '.' */
    HTTP_CHAR_HEX = 1 << 3,
    HTTP_CHAR_DIGIT = 1 << 4,
    HTTP_CHAR_QUOTED = 1 << 5, /* qdtext without obs-text (RFC 9110, 5.6.4) */
    HTTP_CHAR_LOWER = 1 << 6,  /* tchar without capital letters: a name as HTTP/2 and the tunnel write it */
};
extern const uint8_t http_char_table[256];

static inline bool http_char_is(char c, enum http_char what)
{
    return (http_char_table[(unsigned char)c] & what) != 0;
}

/* OWS (RFC 9110, 5.6.3). */
static inline bool http_is_space(char c)
{
    return c == ' ' || c == '\t';
}

/* Length of the longest prefix of s whose characters are all of this kind. */
static inline size_t http_span(struct slice s, enum http_char what)
{
    size_t n = 0;
    while (n < s.len && http_char_is(s.data[n], what))
        n++;
    return n;
}

/* Position of the first control byte other than HTAB (0x00-0x1f, 0x7f) at or behind `from`, or s.len. Many bytes a
 * step: this is the scan that every byte of every head goes through. */
size_t http_find_control(struct slice s, size_t from);

/* 1*tchar. */
bool http_is_token(struct slice s);

/* 1*tchar without capital letters. */
bool http_is_lower_token(struct slice s);

/* No CTL but HTAB, no DEL; bytes above 0x7f pass (obs-text). Empty is fine. */
bool http_is_field_value(struct slice s);

/* Visible ASCII alone, ' ' not among it; empty is fine. */
bool http_is_visible(struct slice s);

/* 1*visible ASCII without '#'. */
bool http_is_target(struct slice s);

/* host [":" port] with a registered name, IPv4 or bracketed IPv6 literal; ASCII only, no user info, no empty host or
 * label, port at most 65535 or empty (RFC 3986, 3.2.3). A name is narrower than RFC 3986 has it: letters, digits, '-',
 * '_' and
 * '.', because percent-encoding and sub-delims are no part of any host that can be looked up. */
bool http_is_authority(struct slice s);

/* The same, and *host is the part in front of the port, without a trailing dot; an IPv6 literal keeps its brackets. */
bool http_split_authority(struct slice s, struct slice *host);

/* Lower-cases and cuts the port and a trailing dot: "App.Example.com.:8080" -> "app.example.com". An IPv6 literal keeps
 * its brackets. `out` has LIMIT_HOST_BYTES + 1 bytes. Length, or 0 when it is no authority by the rule above. */
size_t http_host_of(struct slice authority, char *out);

/* `protocol *( OWS "," OWS protocol )`, protocol = token ["/" token] (RFC 9110, 7.8): what Upgrade may carry. */
bool http_is_protocol_list(struct slice s);

#endif
