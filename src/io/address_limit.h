/*
 * Limits by a peer's address: connections at once, connections and requests a second. An IPv4 address stands for
 * itself, an IPv6 address for its /64, which is what one household or one rented machine has.
 *
 * The memory is fixed when limits are made: a table of 65536 addresses, in which a new one takes the place of the one
 * that has been silent longest and has no connection. A crowd that has driven all others out of a place is not limited:
 * by then addresses are no measure any more.
 *
 * Any thread; a call takes one of 64 locks for some tens of nanoseconds.
 */
#ifndef KV_IO_ADDRESS_LIMIT_H
#define KV_IO_ADDRESS_LIMIT_H

#include <stdbool.h>
#include <stdint.h>

#include "io/network.h"

struct address_limit;
struct conn;
struct networks;

/* 0: no limit. Over a moment five times the rate may come. */
struct address_rates {
    uint32_t connections;            /* at once */
    uint32_t connections_per_second; /* at most ADDRESS_RATE_MAX, as the next */
    uint32_t requests_per_second;
};
#define ADDRESS_RATE_MAX 100000

/* NULL without memory. */
struct address_limit *address_limit_new(const struct address_rates *rates);
/* NULL is legal. */
void address_limit_free(struct address_limit *limit);

/* A connection was made, at this time in milliseconds of a monotonic clock. True if it may stay; *counted then tells
 * whether address_limit_disconnect has to follow. */
bool address_limit_connect(struct address_limit *limit, const struct ip *ip, uint64_t now_ms, bool *counted);
void address_limit_disconnect(struct address_limit *limit, const struct ip *ip);

/* A connection's place among those of its address. Zeroed when nothing is held. */
struct address_hold {
    struct ip ip;
    bool held;
};
/* The same as connect, for the peer of a connection; those of `exempt` (NULL: none), which speak for many, are not
 * counted. A limit of NULL has room for everyone. False if it is one too many. */
bool address_hold_take(struct address_limit *limit, const struct networks *exempt, const struct conn *conn,
                       struct address_hold *hold);
/* Legal when nothing is held. */
void address_hold_drop(struct address_limit *limit, struct address_hold *hold);

/* A request came. True if it may be served. */
bool address_limit_request(struct address_limit *limit, const struct ip *ip, uint64_t now_ms);

#endif
