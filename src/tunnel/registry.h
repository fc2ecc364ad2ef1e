/*
 * Which subdomain is served by which link, for the whole server. One table under a lock decides who holds a name; a
 * copy at every worker answers "where does this host go" without one, so visitors never wait for each other.
 *
 * A claim is decided at once and published to every worker before its holder is told, so that the first visitor who
 * reads the URL finds the tunnel whichever worker takes the connection. Updates carry a name, not a state: a worker
 * that gets one copies what the table says at that moment, so their order does not matter.
 *
 * Every entry carries its session; only the session that holds an entry can release it. An evicted client that cleans
 * up late cannot remove its successor.
 */
#ifndef KV_TUNNEL_REGISTRY_H
#define KV_TUNNEL_REGISTRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/limits.h"
#include "base/reason.h"
#include "base/slice.h"
#include "io/worker.h"
#include "tunnel/wire.h"

struct registry;

#define REGISTRY_TEXT_LEN 64

/* A session that holds, or wants to hold, a name. Texts are NUL-terminated and cut to fit by whoever fills them. */
struct registry_session {
    char subdomain[LIMIT_LABEL_BYTES + 1];
    char session[WIRE_SESSION_LEN + 1];
    char user_id[REGISTRY_TEXT_LEN];
    char email[LIMIT_EMAIL_BYTES + 1];
    char client_version[REGISTRY_TEXT_LEN];
    char peer[REGISTRY_TEXT_LEN];
    uint8_t instance[WIRE_INSTANCE_LEN];
    bool has_instance;
    bool named;
    bool no_subdomains;   /* hosts with labels in front of its own are nobody's */
    int64_t connected_at; /* seconds since 1970, UTC */
    struct address link;  /* where exchanges are opened */
    struct address owner; /* gets registry_evicted messages */
};

enum registry_verdict {
    REGISTRY_CLAIMED,
    REGISTRY_TAKEN, /* live in another session; nothing was changed */
};

/* Sent to a session's owner when somebody else gets its name, or an operator closes it. */
struct registry_eviction {
    struct message message;
    enum close_reason reason; /* REASON_REPLACED (the same process came back), REASON_TAKEN_OVER or REASON_KICKED */
};

/* NULL without memory. Workers have been started. */
struct registry *registry_new(struct worker_group *group);
/* After the workers have ended. NULL is legal. */
void registry_free(struct registry *registry);

/*
 * Claims session->subdomain. A holder of the same user with the same instance id is a ghost and is replaced; with
 * `takeover` any holder of the same user is; the old holder gets an eviction. When claimed, `published` runs once on
 * the calling worker after every worker knows, or with KV_ENOMEM if one of them has no memory for it: the claim stands
 * and is to be released, because visitors of that worker would not find the tunnel. It must stay callable until then.
 * 0 with *verdict, or KV_ENOMEM. Any worker's thread.
 */
int registry_claim(struct registry *registry, const struct registry_session *session, bool takeover,
                   enum registry_verdict *verdict, void (*published)(void *arg, int error), void *arg);

/* Gives a name back if this session still holds it. Any worker's thread. */
void registry_release(struct registry *registry, const char *subdomain, const char *session);

/* The link that serves this subdomain, from the calling worker's copy: no lock. `below`: the host has further labels in
 * front of it. False when there is none. */
bool registry_find(struct registry *registry, struct slice subdomain, bool below, struct address *link);

/* Calls `each` for every live session, under the lock: copy and return. Any thread. */
void registry_list(struct registry *registry, void (*each)(void *arg, const struct registry_session *session),
                   void *arg);

/* Sends REASON_KICKED to the holder of a subdomain. False when there is none. Any thread. */
bool registry_kick(struct registry *registry, struct slice subdomain);

/* True if any session holds it (random names are checked with this before they are claimed). Any thread. */
bool registry_is_live(struct registry *registry, const char *subdomain);

size_t registry_count(struct registry *registry);

/* ---- sessions that are expected: a server that takes over from another one (tunnel/arrivals.h) ------------------ */

/* A session that was live at the predecessor: until its client has come, nobody else gets its name. 0 or KV_ENOMEM. Any
 * thread. */
int registry_expect(struct registry *registry, const struct registry_session *session);
/* For how long, from now. With `anyone` it is not known which sessions there were, so any name may come. Any thread. */
void registry_expect_until(struct registry *registry, unsigned patience_ms, bool anyone);
/* True while it still matters: somebody has not come, and the time is not over. Any thread. */
bool registry_awaits_sessions(struct registry *registry);
/* True while anybody may be expected: a load, for visitors' requests. Any thread. */
bool registry_is_expecting(const struct registry *registry);
/* True if no link serves this subdomain yet and one is expected to. Any worker's thread. */
bool registry_expects(struct registry *registry, struct slice subdomain);
/* The random name that this session's client had at the predecessor; false for none. Any thread. */
bool registry_expected_name(struct registry *registry, const struct registry_session *session,
                            char out[LIMIT_LABEL_BYTES + 1]);

#endif
