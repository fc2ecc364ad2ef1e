/*
 * CONNECT (RFC 9110, 9.3.6), by which an HTTP proxy leads a client to another host: the request as bytes, and its
 * answer read from bytes. No I/O.
 */
#ifndef KV_CLIENT_CONNECT_H
#define KV_CLIENT_CONNECT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buffer.h"
#include "base/slice.h"
#include "client/proxy.h"

#define CONNECT_TEXT_LEN 256

struct connect_answer {
    unsigned status;             /* 2xx: what follows is the connection's; 1xx but 101: another answer follows */
    bool refused_credentials;    /* 407: waiting heals nothing */
    char text[CONNECT_TEXT_LEN]; /* otherwise: why not, as the rest of a sentence about the proxy */
};

/* The request for host (without brackets) and port, with the proxy's credentials (Basic, RFC 7617) if it has any. The
 * buffer, which is to be wiped, is overwritten. 0, KV_ENOMEM or KV_ELIMIT. */
int connect_write(const struct proxy *proxy, const char *host, uint16_t port, struct buffer *out);

/* Reads one answer's head at the start of `in`. Returns its length; 0 while it is not complete, and *scanned, 0 at
 * first for each head, is the reader's note; KV_EPROTO with the rest of a sentence in answer->text for bytes that are
 * no HTTP answer, or a head over LIMIT_ANSWER_HEAD_BYTES. */
ssize_t connect_read(const struct proxy *proxy, struct slice in, size_t *scanned, struct connect_answer *answer);

#endif
