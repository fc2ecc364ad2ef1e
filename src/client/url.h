/*
 * The two URLs of a client: the local service that requests go to (--url) and the server that the tunnel leads to
 * (--endpoint). Both are a scheme, a host and a port and nothing else (RFC 3986, 3); what a request's path is, the
 * visitor decides.
 */
#ifndef KV_CLIENT_URL_H
#define KV_CLIENT_URL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/limits.h"
#include "base/slice.h"

#define URL_TEXT_LEN  (LIMIT_HOST_BYTES + 24) /* "https://", brackets, ":65535", the NUL, and room to spare */
#define URL_ERROR_LEN 512

struct url {
    bool tls;
    bool h2c; /* HTTP/2 without TLS and without asking (RFC 9113, 3.3); services only */
    /* A bare port was given, so the service is "on this machine": the text says 127.0.0.1, and [::1] is tried too. */
    bool local;
    uint16_t port;
    char host[LIMIT_HOST_BYTES + 1]; /* lower case, without brackets and trailing dot */
    char text[URL_TEXT_LEN];         /* as shown: "http://127.0.0.1:3000"; without the scheme's own port */
};

/* What --url takes: "http://host[:port]", "https://host[:port]", "h2c://host[:port]", "host:port" and "port", the
 * latter two for http; an IPv6 host stands in brackets; a single "/" may follow. 0, or KV_EINVAL with the reason in
 * error[URL_ERROR_LEN], as the rest of a sentence that begins with the value. Any thread. */
int url_parse_service(struct slice text, struct url *out, char *error);

/* What --endpoint takes: a URL with "http://" or "https://"; the port is 80 or 443 when there is none. As above. */
int url_parse_endpoint(struct slice text, struct url *out, char *error);

/* "host[:port]" alone, for URLs of other schemes; `tls` decides what is shown in front of it. As above. */
int url_parse_authority(struct slice authority, bool tls, uint16_t default_port, struct url *out, char *error);

/* The host to hand to a dialer: "localhost", which is both loopback addresses, for a bare port. */
struct slice url_dial_host(const struct url *url);

#endif
