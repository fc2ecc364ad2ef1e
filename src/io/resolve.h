/*
 * Host names to addresses, without blocking the loop: getaddrinfo(3) on libuv's pool, so that the system's own
 * configuration (hosts file, search list, resolver) counts. Nothing is remembered here; who dials often keeps the
 * answer, which is a plain value, for as long as it sees fit.
 *
 * Two kinds of names never leave the thread: literal addresses, and localhost with everything below it (RFC 6761, 6.3),
 * which is 127.0.0.1 and then [::1], since a service on a laptop listens on either.
 */
#ifndef KV_IO_RESOLVE_H
#define KV_IO_RESOLVE_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/slice.h"

struct resolve;
struct worker;

#define RESOLVE_ADDRESSES_MAX 16 /* more are of no use within a dial's deadline */

union resolve_address {
    struct sockaddr any; /* any.sa_family says which of the two it is */
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

/* Addresses in the order in which to try them (RFC 8305, 4): the system's preference (RFC 6724), with the families
 * alternating. A plain value: copy it freely. */
struct resolve_answer {
    unsigned count;
    union resolve_address addresses[RESOLVE_ADDRESSES_MAX];
};

static inline socklen_t resolve_address_len(const union resolve_address *address)
{
    return address->any.sa_family == AF_INET6 ? (socklen_t)sizeof(address->v6) : (socklen_t)sizeof(address->v4);
}

/* Puts another port into every address: answers are remembered by host, dialled by host and port. */
void resolve_set_port(struct resolve_answer *answer, uint16_t port);

/* Answers what needs no asking: a literal IPv4 or IPv6 address (without brackets; "fe80::1%eth0" has a zone) or a
 * localhost name. 0, or KV_EAGAIN for any other name, which resolve_start has to be asked about. Any thread. */
int resolve_at_once(struct slice host, uint16_t port, struct resolve_answer *answer);

/* Whether every address is this machine's own. Any thread. */
bool resolve_is_loopback(const struct resolve_answer *answer);

/*
 * Asks for the addresses of a host; the name is copied. `done` runs once on the worker, never inside resolve_start, not
 * even for a literal address. Its error is 0 (and then answer->count > 0), KV_ENOTFOUND (no such name, or a name
 * without addresses), KV_EUNAVAIL (no answer from the name service), KV_EINVAL (no host name) or KV_ENOMEM, with
 * `text` in words for the log ("no such host name"); the answer is valid during the call. There is no deadline of its
 * own: the caller has one and cancels. The worker's thread. NULL without memory.
 */
struct resolve *resolve_start(struct worker *worker, struct slice host, uint16_t port,
                              void (*done)(void *arg, int error, const char *text, const struct resolve_answer *answer),
                              void *arg);

/* `done` will not be called; a lookup that is running ends by itself and is forgotten. Before `done` ran or from inside
 * it, on the worker's thread. NULL is legal. */
void resolve_cancel(struct resolve *resolve);

#endif
