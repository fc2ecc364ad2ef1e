/*
 * SOCKS5 (RFC 1928) as a client speaks it, with user name and password (RFC 1929): messages as bytes, and answers read
 * from bytes. No I/O.
 *
 *     greeting ── method ──┬──────────────────────── request ── reply ── the bytes of the connection
 *                          └── credentials ── verdict ──┘
 *
 * The readers take a prefix of what has come: they return the length of the message at its start, 0 while it is not
 * complete (call again with more behind it), or KV_EPROTO for bytes that are no such message. None is longer than
 * SOCKS5_REPLY_MAX, so whoever collects them needs no more room.
 */
#ifndef KV_CLIENT_SOCKS5_H
#define KV_CLIENT_SOCKS5_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/slice.h"

union resolve_address;

#define SOCKS5_TEXT_MAX    255                       /* of a name, a user, a password: its length is one byte */
#define SOCKS5_REQUEST_MAX (3 + 2 * SOCKS5_TEXT_MAX) /* the longest message that is written: credentials */
#define SOCKS5_REPLY_MAX   (4 + 1 + SOCKS5_TEXT_MAX + 2)

enum socks5_method {
    SOCKS5_NO_CREDENTIALS = 0,
    SOCKS5_CREDENTIALS = 2,
    SOCKS5_NO_METHOD = 0xff, /* the proxy wants what was not offered */
};

/* The writers fill out[SOCKS5_REQUEST_MAX] and return the length; names and credentials have 1 to SOCKS5_TEXT_MAX
 * bytes. */

/* Offers no credentials, and user name and password too where there are any. */
size_t socks5_greeting(bool with_credentials, uint8_t *out);
size_t socks5_credentials(struct slice user, struct slice password, uint8_t *out);
/* CONNECT to a name that the proxy resolves, or to an address, whose port is in it. */
size_t socks5_connect_name(struct slice name, uint16_t port, uint8_t *out);
size_t socks5_connect_address(const union resolve_address *address, uint8_t *out);

ssize_t socks5_read_method(struct slice in, enum socks5_method *method);
ssize_t socks5_read_verdict(struct slice in, bool *accepted);
/* *code is 0 for a connection that stands. */
ssize_t socks5_read_reply(struct slice in, uint8_t *code);

/* "host unreachable" (RFC 1928, 6); "unknown error" for codes that have no name. */
const char *socks5_reply_text(uint8_t code);

#endif
