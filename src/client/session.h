/*
 * One session of the tunnel, from the dial to the end: a connection to the server, HTTP/2 on it, the Open stream, Hello
 * and Welcome, and then a link on which the server opens exchanges.
 *
 *     session_start ── dialling ── greeting ── `welcomed` ── open ─┬─ `ended` (once) ── freed
 *                                                                  └─ session_close | session_finish
 *
 * It tries once and says how it went; whether and when to try again is client.c's business. The worker's thread.
 */
#ifndef KV_CLIENT_SESSION_H
#define KV_CLIENT_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "base/slice.h"
#include "client/url.h"
#include "io/worker.h"
#include "tunnel/wire.h"

struct proxy;
struct session;
struct tls_context;

enum session_result {
    SESSION_LOST,       /* whatever it was, it may be over at the next try */
    SESSION_CONFLICT,   /* another client holds the name */
    SESSION_TAKEN_OVER, /* another client took the name from this session */
    SESSION_BAD_TOKEN,  /* these two and the next ones will be the same at every try */
    SESSION_BAD_NAME,   /* no name of a tunnel */
    SESSION_NAME_TAKEN, /* the subdomain belongs to another account */
    SESSION_BAD_PROXY,  /* the proxy wants other credentials */
};

#define SESSION_TEXT_LEN 1024

struct session_end {
    enum session_result result;
    const char *text;   /* the server's own words, or what happened */
    const char *status; /* name of the grpc-status; "" when there was none */
    bool welcomed;      /* it worked, for lived_ms */
    uint64_t lived_ms;
};

struct session_events {
    /* The tunnel is up. Slices are valid until return; `id` is never empty. */
    void (*welcomed)(void *owner, struct session *session, struct slice public_url, struct slice id);
    /* The server is going away within grace_ms: a new session should take over, this one can be retired. */
    void (*draining)(void *owner, struct session *session, uint32_t grace_ms);
    /* The session is over and gone on return. */
    void (*ended)(void *owner, struct session *session, const struct session_end *end);
};

struct session_options {
    const struct url *endpoint;
    struct tls_context *tls;       /* NULL for http endpoints */
    const struct proxy *proxy;     /* on the way to it; NULL or PROXY_NONE: straight */
    struct tls_context *proxy_tls; /* for an https proxy */
    const char *token;
    const char *name; /* NULL: a random one */
    bool takeover, no_subdomains;
    const uint8_t *instance;   /* WIRE_INSTANCE_LEN bytes */
    struct address requests;   /* where exchanges are opened */
    unsigned ping_ms, dead_ms; /* of the link (struct link_terms) */
    unsigned response_ms;      /* how long answers are waited for; 0: for ever */
};

/* The options and what they point to outlive the session. NULL without memory. */
struct session *session_start(struct worker *worker, const struct session_options *options,
                              const struct session_events *events, void *owner);

/* Lets exchanges in flight finish, for at most patience_ms, and closes then (`ended`). False if there are none: the
 * session is closed at once and no event comes. */
bool session_finish(struct session *session, uint64_t patience_ms);

/* Leaves the session to the server, which is draining it and ends it; after patience_ms it is ended here. */
void session_retire(struct session *session, uint64_t patience_ms);

/* Says goodbye and ends at once; exchanges in flight are reset. No event comes. NULL is legal. */
void session_close(struct session *session);

/* The id that both logs know it by; "" before Welcome. */
const char *session_id(const struct session *session);

#endif
