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
    uint64_t hello_by;        /* worker_now() when Hello has to have come */
    struct address_hold hold; /* until it is known */
    bool known;
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

/* It has its place among strangers no longer. */
static void leave_strangers(struct control_conn *cc)
{
    struct control *control = cc->control;
    address_hold_drop(control->limit, &cc->hold);
    DL_DELETE(control_local(control)->strangers, cc);
    atomic_fetch_sub_explicit(&control->strangers, 1, memory_order_relaxed);
}

static void dispose(struct control_conn *cc)
{
    deadline_cancel(&cc->deadline);
    if (cc->known)
        DL_DELETE(control_local(cc->control)->conns, cc);
    else
        leave_strangers(cc);
    atomic_fetch_sub_explicit(&cc->control->conns, 1, memory_order_relaxed);
    cc->free.free = free_conn;
    worker_free_later(cc->worker, &cc->free);
}

static void on_known(void *arg)
{
    struct control_conn *cc = arg;
    if (cc->known) /* a further try for a random name */
        return;
    leave_strangers(cc);
    cc->known = true;
    DL_APPEND(control_local(cc->control)->conns, cc);
}

/* Closes at once and without a word: it has to make room. */
static void turn_away(struct control_conn *cc)
{
    void *session = cc->session;
    atomic_fetch_add_explicit(&cc->control->refused, 1, memory_order_relaxed);
    log_debug("a stranger on the control port was turned away", log_str("peer", cc->peer));
    if (session)
        control_session_drop(session);
    if (cc->h2)
        h2_conn_abort(cc->h2);
    else
        conn_abort(cc->conn, true);
    dispose(cc);
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
    uint64_t now = worker_now(cc->worker);
    const struct control_carrier carrier = {
        .known = on_known,
        .finished = on_finished,
        .arg = cc,
        .hello_ms = cc->hello_by > now ? (unsigned)(cc->hello_by - now) : 1,
    };
    void *session = control_session_open(cc->control, stream, head, cc->peer, &carrier);
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

/* A client needs some milliseconds to be known. Where strangers are too many, the one that has taken longest goes. */
static void make_room(struct control *control)
{
    struct control_conn *oldest = control_local(control)->strangers;
    if (oldest && atomic_load_explicit(&control->strangers, memory_order_relaxed) >= control->settings.max_strangers)
        turn_away(oldest);
}

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
    cc->hello_by = worker_now(worker) + LIMIT_HELLO_MS;
    sockaddr_format(conn_peer(cc->conn), cc->peer);
    make_room(control);
    DL_APPEND(control_local(control)->strangers, cc);
    atomic_fetch_add_explicit(&control->conns, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&control->strangers, 1, memory_order_relaxed);
    deadline_arm(worker, &cc->deadline, LIMIT_HELLO_MS);
    if (!address_hold_take(control->limit, control->settings.trusted_proxies, cc->conn, &cc->hold))
        turn_away(cc);
}

void control_conns_close_idle(struct control *control)
{
    struct control_conn *cc, *next;
    DL_FOREACH_SAFE (control_local(control)->strangers, cc, next) {
        if (!cc->session)
            on_expired(&cc->deadline);
    }
}
