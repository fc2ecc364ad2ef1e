/*
 * Requests that come round: a tunnel whose service is, perhaps by way of others, the tunnel itself. Each pass is noted
 * in Via (RFC 9110, 7.6.3) and CDN-Loop (RFC 8586) under the host that was asked for, so a chain of different tunnels
 * is no loop. Any thread.
 */
#ifndef KV_HTTP_LOOP_H
#define KV_HTTP_LOOP_H

#include <stdbool.h>

#include "base/slice.h"

struct head;

/* Whether a request has passed a tunnel of this host: one of the two fields names it, whichever its port. */
bool loop_has_passed(const struct head *request, struct slice host);

#endif
