/*
 * Which proxy leads to the server, if any, and how a proxy's URL reads:
 *
 *     http://[user[:password]@]host[:port]       CONNECT (RFC 9110, 9.3.6); port 80
 *     https://...                                the same inside TLS to the proxy; port 443
 *     socks5://..., socks5h://...                SOCKS5; port 1080. With the h the proxy looks the server's name up
 *
 * User and password are percent-encoded where they have to be (RFC 3986, 2.1). Without a scheme it is http.
 */
#ifndef KV_CLIENT_PROXY_H
#define KV_CLIENT_PROXY_H

#include <stdbool.h>
#include <stdint.h>

#include "client/socks5.h"
#include "client/url.h"

enum proxy_kind {
    PROXY_NONE,
    PROXY_CONNECT,
    PROXY_SOCKS5,
};

struct proxy {
    enum proxy_kind kind;
    bool remote_dns;         /* SOCKS5: the proxy looks names up */
    struct url url;          /* its own host and port; url.tls: TLS to it */
    char text[URL_TEXT_LEN]; /* as shown, without user and password */
    bool has_user;
    char user[SOCKS5_TEXT_MAX + 1], password[SOCKS5_TEXT_MAX + 1]; /* decoded */
};

/* Parses a proxy's URL; "none" is PROXY_NONE. 0, or KV_EINVAL with the reason in error[URL_ERROR_LEN], as the rest of a
 * sentence; neither the value nor a part that may be its password is in it. Any thread. */
int proxy_parse(struct slice text, struct proxy *out, char *error);

/* Wipes what is secret. */
void proxy_wipe(struct proxy *proxy);

/* The value of the environment that is for this endpoint, and the name of its variable: https_proxy, HTTPS_PROXY,
 * all_proxy, ALL_PROXY, the first that is set and not empty, unless the endpoint is on this machine or no_proxy,
 * NO_PROXY exempts it. NULL for none. Main thread. */
const char *proxy_from_environment(const struct url *endpoint, const char **variable);

/*
 * True if a list as in NO_PROXY exempts this host and port. Elements are separated by commas or spaces:
 *
 *     *                           everything
 *     example.com .example.com    that name and all below it ("*.example.com" is the same)
 *     10.1.2.3 2001:db8::1        that address, [::1] too
 *     10.0.0.0/8 fd00::/8         addresses in that network
 *     example.com:7777 [::1]:443  the same for this port alone
 *
 * Names are not looked up, so networks and addresses are for hosts that are addresses. What is none of these exempts
 * nothing. Any thread.
 */
bool proxy_is_exempt(const char *list, const char *host, uint16_t port);

#endif
