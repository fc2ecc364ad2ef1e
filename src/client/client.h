/*
 * A tunnel client: keeps one session with the server alive for as long as it runs, and forwards what comes over it.
 *
 *     client_start ── session ──┬── lost ── back-off ── session ...        for ever
 *                               ├── refused for good ── `finished` with a sentence
 *                               └── client_stop ── `finished` without
 *
 * All functions run on its worker.
 */
#ifndef KV_CLIENT_CLIENT_H
#define KV_CLIENT_CLIENT_H

#include <stdbool.h>

#include "client/forward.h"
#include "client/url.h"

struct client;
struct proxy;
struct tls_context;
struct worker;

struct client_options {
    struct url endpoint;
    struct tls_context *tls;   /* NULL for http endpoints */
    const struct proxy *proxy; /* as in struct session_options */
    struct tls_context *proxy_tls;
    const char *token;
    const char *name;   /* NULL: a random one at each session */
    bool no_subdomains; /* hosts with labels in front of the tunnel's are not the tunnel's */
    bool takeover;      /* of the first session that works; a client that lost its name does not fight for it */
    struct forward_options forward;
    unsigned ping_ms, dead_ms; /* of the sessions' links (struct link_terms) */
    /* The client is over and freed; `sentence` (valid until return) says why, NULL after client_stop. */
    void (*finished)(void *arg, const char *sentence);
    void *arg;
};

/* The options and what they point to outlive the client. NULL without memory. */
struct client *client_start(struct worker *worker, const struct client_options *options);

/* No new requests; those in flight may finish within patience_ms (0: they are cut off); then the session is closed in
 * order, so that the name is free at once, and `finished` is called, possibly before this returns. May be called again
 * with less patience. */
void client_stop(struct client *client, unsigned patience_ms);

#endif
