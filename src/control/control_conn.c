/*
 * A connection of the control port: TLS if there is any, HTTP/2, and on it one Open stream. Deployed clients and ours
 * use a connection for one stream, and its end is the connection's: a client whose stream was ended with a status would
 * otherwise go on writing into it.
 */
#include <stdlib.h>
#include <utlist.h>

#include "base/error.h"
#include "base/limits.h"
#include "base/log.h"
#include "control/control_impl.h"
#include "http/h2_conn.h"
#include "io/conn.h"
#include "io/descriptors.h"
#include "io/listener.h"

#define LINK_MAX_FRAME_BYTES (1024 * 1024)
#define STREAMS_PER_CONN     8 /* retries of a stream that was refused; one is a tunnel */

struct control_conn {
    struct control *control;
    struct worker *worker;
    struct conn *conn; /* until HTTP/2 takes over */
    struct h2_conn *h2;
    void *session;            /* of its Open stream */
    struct deadline deadline; /* from accept to the Open stream */
    struct free_node free;
    struct control_conn *prev, *next;
    char peer[SOCKADDR_TEXT_LEN];
};

static const struct h2_conn_events h2_events;

/* ---- the end --------------------------------------------------------------------------------------------------- */

static void free_conn(struct free_node *node)
{
    free((char *)node - offsetof(struct control_conn, free));
}

static void dispose(struct control_conn *cc)
{
    deadline_cancel(&cc->deadline);
    DL_DELETE(control_local(cc->control)->conns, cc);
    atomic_fetch_sub_explicit(&cc->control->conns, 1, memory_order_relaxed);
    cc->free.free = free_conn;
    worker_free_later(cc->worker, &cc->free);
}

/* The session has queued its last word. */
static void on_finished(void *arg)
{
    struct control_conn *cc = arg;
    cc->session = NULL;
    h2_conn_part(cc->h2);
    dispose(cc);
}

static void on_ended(void *owner, int error, const char *text)
{
    struct control_conn *cc = owner;
    if (!cc->session)
        log_debug("control connection closed", log_str("peer", cc->peer), log_str("error", kv_strerror(error)),
                  log_str("text", text));
    dispose(cc);
}

static void on_raw_closed(void *owner, int error)
{
    struct control_conn *cc = owner;
    log_debug("control connection failed before HTTP/2", log_str("peer", cc->peer),
              log_str("error", kv_strerror(error)), log_str("text", conn_error_text(cc->conn)));
    dispose(cc);
}

/* No Open in time: whatever this is, it is no tunnel client. */
static void on_expired(struct deadline *deadline)
{
    struct control_conn *cc = (struct control_conn *)((char *)deadline - offsetof(struct control_conn, deadline));
    if (cc->h2)
        h2_conn_close(cc->h2, H2_NO_ERROR);
    else
        conn_abort(cc->conn, false);
    dispose(cc);
}

/* ---- streams ---------------------------------------------------------------------------------------------------- */

static void answer_plain(struct h2_stream *stream, uint16_t status)
{
    struct field fields[1];
    struct head head;
    head_borrow(&head, fields, 1);
    head.status = status;
    h2_respond(stream, &head, true);
}

static void *on_request(void *owner, struct h2_stream *stream, const struct head *head, bool end)
{
    struct control_conn *cc = owner;
    (void)end;
    if (!control_wants(head) || cc->session) {
        answer_plain(stream, cc->session ? 429 : 404);
        return NULL;
    }
    void *session = control_open(cc->control, stream, head, cc->peer, on_finished, cc);
    if (session) {
        cc->session = session;
        h2_hand_over(stream, &control_stream_events);
        deadline_cancel(&cc->deadline);
    }
    return session;
}

static void on_pong(void *owner, uint64_t opaque)
{
    struct control_conn *cc = owner;
    if (cc->session)
        control_pong(cc->session, opaque);
}

static const struct h2_conn_events h2_events = {
    .h2 =
        {
            .request = on_request,
            .pong = on_pong,
        },
    .ended = on_ended,
};

/* ---- accepting ------------------------------------------------------------------------------------------------- */

static void start_h2(struct control_conn *cc, struct slice first)
{
    const struct h2_options options = {
        .server = true,
        .stream_window = LINK_WINDOW_BYTES,
        .connection_window = LINK_WINDOW_BYTES,
        .max_frame_size = LINK_MAX_FRAME_BYTES,
        .max_concurrent = STREAMS_PER_CONN,
    };
    struct conn *conn = cc->conn;
    if (h2_conn_new(conn, &options, &h2_events, cc, first, &cc->h2) != KV_OK) {
        conn_abort(conn, false);
        dispose(cc);
    }
}

static void on_ready(void *owner)
{
    start_h2(owner, (struct slice){0});
}

static void on_raw_data(void *owner, struct slice bytes)
{
    start_h2(owner, bytes);
}

static void on_raw_eof(void *owner)
{
    struct control_conn *cc = owner;
    conn_abort(cc->conn, false);
    dispose(cc);
}

static const struct conn_events raw_events = {
    .ready = on_ready,
    .data = on_raw_data,
    .eof = on_raw_eof,
    .closed = on_raw_closed,
};

void control_accept(struct control *control, int fd)
{
    struct worker *worker = worker_current();
    struct control_conn *cc = calloc(1, sizeof(*cc));
    if (!cc)
        descriptors_close(fd);
    if (!cc || conn_accept(worker, fd, control->settings.tls, &raw_events, cc, &cc->conn) != KV_OK) {
        free(cc);
        return;
    }
    cc->control = control;
    cc->worker = worker;
    cc->deadline.expired = on_expired;
    sockaddr_format(conn_peer(cc->conn), cc->peer);
    DL_APPEND(control_local(control)->conns, cc);
    atomic_fetch_add_explicit(&control->conns, 1, memory_order_relaxed);
    deadline_arm(worker, &cc->deadline, LIMIT_HELLO_MS);
}

void control_conns_close_idle(struct control *control)
{
    struct control_conn *cc, *next;
    DL_FOREACH_SAFE (control_local(control)->conns, cc, next) {
        if (!cc->session)
            on_expired(&cc->deadline);
    }
}
