/*
 * Which protocols a request may switch its connection to (RFC 9110, 7.8; RFC 8441). One rule for every codec and for
 * both programs: what follows a switch escapes every rule for requests, so it must never be requests again.
 *
 * No state; any thread.
 */
#ifndef KV_HTTP_UPGRADE_H
#define KV_HTTP_UPGRADE_H

#include <stdbool.h>

#include "base/slice.h"

/* True for exactly one protocol, `token ["/" token]`, that is not HTTP in any version (h2c, h2, h3, HTTP/2.0) and not
 * TLS (RFC 2817), inside which HTTP goes on. The value is that of an Upgrade field or of `:protocol`. A request whose
 * wish is not allowed may be served as if it had none. */
bool http_upgrade_is_allowed(struct slice value);

/* True if a protocol is one of a comma-separated list: by its name, or by name and version where an element has one.
 * Without case. */
bool http_upgrade_is_listed(struct slice value, struct slice list);

#endif
