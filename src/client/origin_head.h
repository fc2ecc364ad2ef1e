/*
 * A request's head as it came over the wire, made ready for the local service, and what the two heads of an exchange
 * say about framing and keep-alive. Our server has applied the forwarding rules already (http/forward.h); a deployed
 * one has not, so what must not cross a hop is removed here once more. No state; any thread.
 */
#ifndef KV_CLIENT_ORIGIN_HEAD_H
#define KV_CLIENT_ORIGIN_HEAD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/limits.h"
#include "base/slice.h"
#include "http/head.h"
#include "http/http1.h"

/* How a request's body is delimited, as far as its head tells. */
struct origin_framing {
    enum http1_framing framing; /* HTTP1_NO_BODY, HTTP1_LENGTH or HTTP1_CHUNKED */
    uint64_t length;
    bool open; /* the head does not say whether there is a body: the first frame behind it does */
};

/*
 * A body is announced by Content-Length or by `transfer-encoding: chunked`, which the server leaves in the head for
 * that purpose. Without either, GET and its like have none; any other method may have one of unknown length, because a
 * deployed server passes HTTP/2 requests on as they come. 0, or KV_EINVAL for a length that is none, or
 * several, and for an upgrade with a body of unknown length.
 */
int origin_head_framing(const struct head *head, struct origin_framing *out);

/* Takes the wish to upgrade out of an owning head if http_upgrade_is_allowed denies it, or its body has no length
 * to end by: the service gets an ordinary request. Our server has asked that already; a deployed one passes every wish
 * on. To be called first. */
void origin_head_settle_upgrade(struct head *head);

/*
 * Changes an owning head in place: `host_header` (may be empty) replaces Host; a request without any Host gets
 * `authority`, the local service's own. Expect, what Connection names, and TE other than "trailers" go. Both slices
 * have to outlive the head. Fields of framing and connection are left for the writer, which makes its own.
 */
void origin_head_prepare(struct head *head, struct slice host_header, struct slice authority);

/* Fields of a request over HTTP/2: those that the wire lets through. */
#define ORIGIN_H2_FIELDS_MAX (LIMIT_HEAD_FIELDS + 32)

/*
 * The same request for HTTP/2 (RFC 9113, 8.2.2 and 8.3.1): scheme and authority for the pseudo fields, and the fields
 * without Host, those of the connection, and a length that does not delimit the body; "te: trailers" stays. An upgrade
 * becomes an extended CONNECT for its first protocol if `connect`, and without it the plain request that a service may
 * always take it for (RFC 9110, 7.8). `out` borrows from `request` and over storage for ORIGIN_H2_FIELDS_MAX fields. 0,
 * or KV_EINVAL for more fields than that.
 */
int origin_head_for_h2(const struct head *request, enum http1_framing framing, bool tls, bool connect,
                       struct head *out);

/* The 101 that an upgrade's visitor waits for, made of the 2xx with which the service took an extended CONNECT: with
 * the protocol and, for a WebSocket, the answer to the visitor's key (RFC 6455, 4.2.2). NULL without memory. */
struct head *origin_head_switched(const struct head *request, const struct head *answer);

/* True for a method whose requests usually have no body. A service may leave such a body unread, and would then take it
 * for the next request on the same connection (RFC 9110, 9.3.1). */
bool origin_head_has_usually_no_body(const struct head *head);

/* True for a request that logs its connection in, or an answer that offers that: by NTLM or Negotiate, whose logins
 * last as long as the connection (RFC 4559, 6), although HTTP's are to concern one request (RFC 9110, 3.3). */
bool origin_head_binds_connection(const struct head *head);

/* True if sending the request twice is sending it once (RFC 9110, 9.2.2). */
bool origin_head_is_idempotent(const struct head *head);

/* How long a connection may idle after this answer: LIMIT_ORIGIN_IDLE_MS, or a little less than its Keep-Alive field
 * promises, so that the service does not close under a request that is on its way. */
uint64_t origin_head_idle_ms(const struct head *answer);

#endif
