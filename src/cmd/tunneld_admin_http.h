/*
 * One request to the admin listener of a running server, for the commands that look at live tunnels: a connection, an
 * answer, and one deadline for all of it. Blocking, on the main thread.
 */
#ifndef KV_CMD_TUNNELD_ADMIN_HTTP_H
#define KV_CMD_TUNNELD_ADMIN_HTTP_H

#include <stdint.h>

#include "base/buffer.h"
#include "base/limits.h"
#include "cmd/cli.h"

#define ADMIN_HTTP_URL     "http://127.0.0.1:9090" /* where `serve` listens unless told otherwise */
#define ADMIN_HTTP_MS      10000                   /* names, connecting and the whole answer */
#define ADMIN_ANSWER_BYTES (64UL * 1024 * 1024)    /* what the server would send at most */

struct admin_http_url {
    char host[LIMIT_HOST_BYTES + 1]; /* a name or an address, without brackets */
    char port[6];
};

/* "http://host[:port][/]" or the same without the scheme; the port is 80 unless given. 0, or KV_EINVAL with the end of
 * a sentence in error[CLI_ERROR_LEN]. */
int admin_http_parse_url(const char *text, struct admin_http_url *url, char *error);

struct admin_http_answer {
    unsigned status;
    struct buffer body;
};

/* Sends `method target` without a body and reads the answer, whose body is the caller's to free. Host carries the
 * address that was connected to, never a name: servers refuse those (docs/OPERATE.md, "The admin listener"). 0, or a
 * negative kv_error with a whole sentence in error[CLI_ERROR_LEN], and then there is no body. */
int admin_http_request(const struct admin_http_url *url, const char *method, const char *target,
                       struct admin_http_answer *answer, char *error);

#endif
