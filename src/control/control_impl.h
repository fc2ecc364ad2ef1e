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

/* What one worker has of it; touched by that worker alone. */
struct control_local {
    struct control_conn *conns;       /* of the control port */
    struct control_session *sessions; /* of any port */
    bool draining, stopping;
};

struct control {
    struct control_settings settings;
    struct control_local *locals;
    atomic_size_t conns;    /* of the control port */
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

/* Applies draining or stopping to the calling worker's sessions. */
void control_sessions_apply(struct control *control);

#endif
