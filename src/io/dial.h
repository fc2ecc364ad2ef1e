/*
 * Making one TCP connection out of a name: resolve, try the addresses, the first that answers wins (RFC 8305). A slow
 * address is overtaken by the next after 250 ms; a refusal moves on at once.
 */
#ifndef KV_IO_DIAL_H
#define KV_IO_DIAL_H

#include <stdint.h>
#include <sys/socket.h>

#include "base/slice.h"

struct dial;
struct worker;

/* Calls `done` once, later than this returns: a connected non-blocking socket that is now the callee's and the address
 * it leads to, or error KV_EREFUSED (every address refused), KV_ENOTFOUND (the name has no address), KV_EIO, and text
 * that says why in the system's words. There is no time-out: whoever waits cancels. NULL without memory. */
struct dial *dial_start(struct worker *worker, struct slice host, uint16_t port,
                        void (*done)(void *arg, int fd, const struct sockaddr *address, int error, const char *text),
                        void *arg);

/* `done` is not called after this. Legal with NULL, illegal once done was called. */
void dial_cancel(struct dial *dial);

#endif
