/* The inside of the control plane, shared by control.c, control_conn.c and control_session.c; nobody else includes it.
 */
#ifndef KV_CONTROL_CONTROL_IMPL_H
#define KV_CONTROL_CONTROL_IMPL_H

#include <stdatomic.h>

#include "base/reason.h"
#include "control/control.h"
#include "grpc/grpc.h"
#include "http/h2.h"
#include "io/worker.h"

struct control_session;
struct control_conn;

/* How far a drain has come; it only ever goes on. */
enum control_drain {
    CONTROL_SERVING,
    CONTROL_ANNOUNCED, /* clients are sent elsewhere, links still take exchanges */
    CONTROL_DRAINING,  /* no new exchanges; each session ends with its last one */
    CONTROL_STOPPING,  /* they end now */
};

/* What one worker has of it; touched by that worker alone. */
struct control_local {
    struct control_conn *conns;       /* of the control port: those that are known */
    struct control_conn *strangers;   /* and those that are not, oldest first */
    struct control_session *sessions; /* of any port */
    enum control_drain drain;
    struct flush_node wipe; /* of what a Hello was read into */
    bool succeeded;         /* another process has the ports now */
};

struct control {
    struct control_settings settings;
    struct control_local *locals;
    struct address_limit *limit; /* NULL: none is set */
    atomic_size_t conns;         /* of the control port */
    atomic_size_t strangers;     /* of them: not known yet */
    atomic_uint_fast64_t refused;
    atomic_size_t sessions; /* of any port */
    atomic_uint_fast64_t welcomed;
};

static inline struct control_local *control_local(struct control *control)
{
    return &control->locals[worker_index(worker_current())];
}

/* ---- control_conn.c ---- */

/* Closes the calling worker's connections that have no session. */
void control_conns_close_idle(struct control *control);

/* ---- control_session.c ---- */

#define LINK_WINDOW_BYTES (16 * 1024 * 1024) /* exchanges are limited by credit; this only has to be out of the way */

/* What a session tells the connection that its stream is on. */
struct control_carrier {
    void (*known)(void *arg);    /* its token is good; NULL: nobody needs to know */
    void (*finished)(void *arg); /* its last word is queued: close */
    void *arg;
    unsigned hello_ms; /* for Hello to come */
};
/* control_open for any carrier. */
void *control_session_open(struct control *control, struct h2_stream *stream, const struct head *head, const char *peer,
                           const struct control_carrier *carrier);

/* Ends a session without a word, on a connection that ends so; its carrier hears nothing. */
void control_session_drop(void *session);

/* Applies the calling worker's state to its sessions. */
void control_sessions_apply(struct control *control);

#endif
