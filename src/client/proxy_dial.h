/*
 * Making a connection to the server by way of a proxy: the proxy is dialled (TLS to it, if it is an https one), asked
 * for the connection, and its answer read. What comes out is a connection that is the server's from there on.
 */
#ifndef KV_CLIENT_PROXY_DIAL_H
#define KV_CLIENT_PROXY_DIAL_H

#include <stdint.h>

#include "base/slice.h"

struct conn;
struct proxy;
struct proxy_dial;
struct tls_context;
struct url;
struct worker;

#define PROXY_DIAL_TEXT_LEN 768

struct proxy_dial_events {
    /* The way stands: `conn` is the callee's, who sets its owner before returning; `first` has bytes of the server's
     * that were read already, valid until return. The proxy_dial is over. */
    void (*ready)(void *owner, struct conn *conn, struct slice first);
    /* There is no way: `text` is a whole sentence that begins with the proxy and names no password. KV_EREFUSED: the
     * proxy wants other credentials, which waiting does not heal; other errors may pass. The proxy_dial is over. */
    void (*failed)(void *owner, int error, const char *text);
};

/* Starts; one event comes, never from inside this call, within LIMIT_CONNECT_MS for the dial and LIMIT_PROXY_MS for the
 * proxy's answer. `tls` is for the proxy, NULL unless proxy->url.tls. Everything pointed to outlives the dial. NULL
 * without memory. */
struct proxy_dial *proxy_dial_start(struct worker *worker, const struct proxy *proxy, struct tls_context *tls,
                                    const struct url *server, const struct proxy_dial_events *events, void *owner);

/* No event comes. NULL is legal; not once an event came. */
void proxy_dial_cancel(struct proxy_dial *dial);

#endif
