/*
 * The PROXY protocol's header, version 1 (a line) and 2 (binary): what a TCP proxy writes in front of a connection's
 * own bytes to say whose connection it is. After "The PROXY protocol", W. Tarreau, HAProxy, 2020/03/05; section numbers
 * in these files are of that text. A codec: bytes in, an address out; any thread.
 */
#ifndef KV_IO_PROXY_PROTOCOL_H
#define KV_IO_PROXY_PROTOCOL_H

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "base/slice.h"

struct proxy_header {
    bool has_source;                /* false: the peer speaks for itself (LOCAL), or for nobody that has an address */
    struct sockaddr_storage source; /* AF_INET or AF_INET6 */
    const char *error;              /* why it was refused: a clause for the log */
};

/*
 * Reads the header that `bytes` has to begin with. Returns its length; 0 when it may still become one with more bytes;
 * KV_EPROTO when it cannot, or KV_ELIMIT when it is longer than LIMIT_PROXY_HEADER_BYTES, both with out->error.
 *
 * Version 1: TCP4, TCP6, and UNKNOWN, whose addresses do not count (2.1). One space between the parts, ports without
 * leading zeros, CRLF within 107 bytes. Version 2: LOCAL and PROXY; addresses of IPv4 and IPv6 count, over STREAM as
 * over DGRAM; AF_UNSPEC and AF_UNIX have none that would (2.2). Extensions behind the address are skipped, but they
 * have to fit, and a CRC32c among them has to be right (2.2.3).
 */
ssize_t proxy_protocol_parse(struct slice bytes, struct proxy_header *out);

#endif
