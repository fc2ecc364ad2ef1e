/*
 * Cookies that a service sets for more hosts than its own (RFC 6265, 5.2.3). Under a common base host every tenant is a
 * neighbour, and a cookie whose Domain is the base host, or above it, reaches all of them. Any thread.
 */
#ifndef KV_HTTP_COOKIE_H
#define KV_HTTP_COOKIE_H

#include <stddef.h>

#include "base/slice.h"

/* Takes each Domain attribute out of a Set-Cookie's value that is equal to `base` or above it, or that browsers may
 * read as something else than it looks (percent-encoding, quotes, other scripts). The cookie is then one of its host
 * alone. `value` is changed in place. Returns the new length. */
size_t cookie_confine(char *value, size_t len, struct slice base);

#endif
