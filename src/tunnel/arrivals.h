/*
 * Sessions that are expected: a server that takes over from another is told which tunnels were live there, and until
 * their clients have come over, for a bounded time, it keeps their names for them. A visitor of such a name waits
 * instead of being told that there is no tunnel; a client of another instance cannot slip in between; a random name
 * goes to the client that had it.
 *
 * Times are milliseconds of any monotonic clock, given by the caller. It has no lock: the registry, which owns it, has
 * one.
 */
#ifndef KV_TUNNEL_ARRIVALS_H
#define KV_TUNNEL_ARRIVALS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/slice.h"

struct arrival;
struct registry_session;

/* Zeroed: nobody is expected. */
struct arrivals {
    struct arrival *table;   /* by name */
    struct arrival *unnamed; /* those with a random name whose client can be told, by who that is */
    uint64_t until;          /* nobody is expected from this moment on */
    bool anyone;             /* it is not known who: any name may yet come */
};

/* This session's successor is expected. A name that is expected already stays as it is. 0 or KV_ENOMEM. */
int arrivals_add(struct arrivals *arrivals, const struct registry_session *session);

/* True if a tunnel of this name may yet come. */
bool arrivals_has(const struct arrivals *arrivals, struct slice subdomain, uint64_t now);

/* True if this session may have its name: nobody else is expected under it, or, with `takeover`, nobody of another
 * user. */
bool arrivals_allow(const struct arrivals *arrivals, const struct registry_session *session, bool takeover,
                    uint64_t now);

/* The random name that this user's instance had; NULL for none. Valid until the table changes. */
const char *arrivals_name_of(const struct arrivals *arrivals, const struct registry_session *session, uint64_t now);

/* Somebody has the name now. */
void arrivals_remove(struct arrivals *arrivals, const char *subdomain);

size_t arrivals_count(const struct arrivals *arrivals);

/* Forgets all; it is as zeroed. */
void arrivals_clear(struct arrivals *arrivals);

#endif
