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
    struct control_conn *conns;
    bool draining, stopping;
};

struct control {
    struct control_settings settings;
    struct control_local *locals;
    atomic_size_t alive;
    atomic_uint_fast64_t welcomed;
};

static inline struct control_local *control_local(struct control *control)
{
    return &control->locals[worker_index(worker_current())];
}

/* ---- control_conn.c -------------------------------------------------------------------------------------------- */

/* Applies draining or stopping to the calling worker's connections. */
void control_conns_apply(struct control *control);
/* A session has had its last word: sends it and closes the connection. */
void control_conn_finish(struct control_conn *conn);

/* ---- control_session.c ----------------------------------------------------------------------------------------- */

/* A stream to Open; the request's head has been looked at. `conn` is told of the end; peer is "address:port". NULL
 * without memory. */
struct control_session *control_session_new(struct control *control, struct control_conn *conn,
                                            struct h2_stream *stream, const char *peer);
void control_session_data(struct control_session *session, struct slice bytes);
void control_session_writable(struct control_session *session);
/* The client ended its direction. */
void control_session_half_closed(struct control_session *session);
/* The stream is gone; the session is freed after the turn. */
void control_session_closed(struct control_session *session);
void control_session_pong(struct control_session *session, uint64_t opaque);
void control_session_drain(struct control_session *session);
/* Ends it with this status and sentence. */
void control_session_finish(struct control_session *session, enum grpc_status status, const char *sentence,
                            enum close_reason reason);

/* Answers a stream with grpc-status alone (trailers-only); `reason_code` adds kavilo-reason when it is not NULL. */
void control_refuse(struct h2_stream *stream, enum grpc_status status, const char *sentence, const char *reason_code);

#endif
