/*
 * Fields that hold a URL or a host, seen from both sides. A visitor knows the tunnel by its public URL, and the local
 * service knows itself by the scheme that it is spoken to in and the Host that it is sent. Where they differ, one
 * side's words make no sense to the other:
 *
 *     Destination (RFC 4918, 10.3)             up    COPY and MOVE name the public URL; a service compares it with its
 * own Location, Content-Location, Refresh      down  with --host-header: the service names that host Domain of
 * Set-Cookie                     down  the same
 *
 * URLs of other hosts stay as they are, as do paths. No state; any thread.
 */
#ifndef KV_CLIENT_REWRITE_H
#define KV_CLIENT_REWRITE_H

#include <stdbool.h>

#include "base/slice.h"
#include "http/head.h"

/* How each side has it. Authorities are host[:port]; a port that is the scheme's own may be left out. */
struct rewrite {
    struct slice public_scheme, public_authority;
    struct slice service_scheme, service_authority; /* what the service is sent as Host */
    struct slice dialled;                           /* the authority of --url, which some services name themselves by */
};

/* Changes what a request says to what the service knows. *head owns, and is replaced by a copy if something changes. 0
 * or KV_ENOMEM, and then it is as it was. */
int rewrite_request(const struct rewrite *rewrite, struct head **head);

/* Changes what an answer says to what the visitor knows. As above. */
int rewrite_answer(const struct rewrite *rewrite, struct head **head);

#endif
