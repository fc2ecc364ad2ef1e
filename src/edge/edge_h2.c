/*
 * HTTP/2 to a visitor: many requests at once on one connection, each an exchange of its own.
 *
 *     request ── route ── exchange: body up ⇄ answer down ── closed
 *                    └── extended CONNECT (RFC 8441) ── 200 ── raw bytes both ways
 *
 * Body bytes that the tunnel has no room for wait in `pending`, which the stream's window bounds: the window is given
 * back as bytes leave for the tunnel. Answer bytes wait in the stream's output; room goes back to the tunnel when the
 * connection has taken them.
 */
#include <stdlib.h>
#include <utlist.h>

#include "base/error.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/pool.h"
#include "edge/edge_h2_impl.h"
#include "http/forward.h"
#include "http/h2_conn.h"
#include "io/conn.h"
#include "io/listener.h"

#define STREAMS_MAX     128 /* as nginx */
#define STREAM_WINDOW   LIMIT_WINDOW_BYTES
#define CONN_WINDOW     (1024 * 1024)
#define MAX_FRAME_BYTES (16 * 1024)
#define DRAIN_PING      UINT64_C(0x6e6961726420766b) /* "kv drain" */

/* ---- the end of a stream --------------------------------------------------------------------------------------- */

static void free_stream(struct free_node *node)
{
    struct edge_stream *s = (struct edge_stream *)((char *)node - offsetof(struct edge_stream, free));
    chain_free(&s->pending);
    head_free(s->trailers);
    head_free(s->held);
    head_free(s->waiting_head);
    pool_free(s, sizeof(*s));
}

static void close_h2(struct edge_h2 *h2);
static bool leave_streams(struct edge_h2 *h2);
static void dispose(struct edge_h2 *h2);

/* The connection's idle time begins if this was its last stream. */
static void rest(struct edge_h2 *h2)
{
    if (h2->streams > 0 || h2->guest || h2->closed)
        return;
    if (h2->draining)
        close_h2(h2);
    else
        deadline_arm(h2->worker, &h2->idle, h2->edge->settings.idle_timeout_ms);
}

static void leave_exchange(struct edge_stream *s, enum close_reason reason, const char *text)
{
    half_close(&s->half, reason, text);
    edge_wait_cancel(s->h2->edge, &s->waiter);
    edge_stall_cancel(&s->upload);
    deadline_cancel(&s->raw_idle);
    deadline_cancel(&s->answer);
}

void edge_h2_leave(struct edge_stream *s, enum close_reason reason, const char *text)
{
    leave_exchange(s, reason, text);
    s->over = true;
    h2_consume(s->stream, s->pending.bytes); /* the window is not ours to keep */
    chain_free(&s->pending);
    h2_drop_input(s->stream);
    if (h2_stream_output(s->stream)->bytes > 0)
        edge_h2_await_visitor(s);
}

static void on_stream_closed(void *user, uint32_t error_code)
{
    struct edge_stream *s = user;
    struct edge_h2 *h2 = s->h2;
    if (error_code != H2_NO_ERROR && !s->over)
        log_debug("visitor left", log_str("request", s->half.id), log_uint("h2_error", error_code));
    s->stream = NULL;
    leave_exchange(s, REASON_VISITOR_GONE, "the visitor reset the stream");
    edge_stall_cancel(&s->answer_out);
    h2->streams--;
    s->free.free = free_stream;
    worker_free_later(h2->worker, &s->free);
    rest(h2);
}

/* ---- error answers --------------------------------------------------------------------------------------------- */

/* A gRPC call that has had messages, or at least a head, can still be told why there will be no more. A visitor that
 * does not read would not read that either. */
static bool end_grpc_call(struct edge_stream *s, enum close_reason reason)
{
    return s->manner.is_grpc && reason_text(reason)->side != SIDE_VISITOR &&
           edge_h2_end_grpc(s->stream, reason, s->half.id);
}

/* The request fails: the visitor is told, or the stream is reset so that nobody takes it for complete. What was good of
 * the answer goes out before, unless it is the visitor that takes nothing. */
void edge_h2_fail(struct edge_stream *s, enum close_reason reason, const char *text)
{
    struct edge_h2 *h2 = s->h2;
    bool told =
        s->answered ? end_grpc_call(s, reason) : edge_h2_refuse(h2->edge, s->stream, reason, s->manner, s->half.id);
    if (!told && reason == REASON_VISITOR_SLOW)
        h2_reset(s->stream, H2_INTERNAL_ERROR);
    else if (!told)
        h2_reset_behind(s->stream, H2_INTERNAL_ERROR);
    log_debug("request failed", log_str("request", s->half.id), log_str("reason", reason_text(reason)->code),
              log_str("text", text ? text : ""));
    edge_h2_leave(s, reason, text);
}

/* ---- what does not move ---------------------------------------------------------------------------------------- */

/* Who holds the body up: a tunnel that gives no room for what has come, or the visitor. */
static void on_upload_look(struct deadline *deadline)
{
    struct edge_stream *s = (struct edge_stream *)((char *)deadline - offsetof(struct edge_stream, upload.look));
    uint64_t passed_on = s->body_bytes - s->pending.bytes;
    if (!edge_stall_look(s->h2->worker, &s->upload, s->h2->edge->settings.stall_timeout_ms, s->body_bytes + passed_on))
        return;
    if (s->pending.bytes > 0)
        edge_h2_fail(s, REASON_CLIENT_TIMEOUT, "the tunnel takes nothing of the request's body");
    else
        edge_h2_fail(s, REASON_VISITOR_SLOW, "the request's body made no progress");
}

static void on_raw_idle(struct deadline *deadline)
{
    struct edge_stream *s = (struct edge_stream *)((char *)deadline - offsetof(struct edge_stream, raw_idle));
    edge_h2_fail(s, REASON_IDLE, "nothing came either way");
}

void edge_h2_await_visitor(struct edge_stream *s)
{
    edge_stall_watch(s->h2->worker, &s->answer_out, s->h2->edge->settings.stall_timeout_ms);
}

/* Progress is what the connection takes of the stream, and then, up to the fence, what the visitor's machine
 * acknowledges: behind it come other streams' bytes alone. */
static void on_answer_look(struct deadline *deadline)
{
    struct edge_stream *s = (struct edge_stream *)((char *)deadline - offsetof(struct edge_stream, answer_out.look));
    size_t waiting = h2_stream_output(s->stream)->bytes;
    uint64_t taken = s->queued - waiting;
    struct conn_progress progress;
    conn_progress(h2_conn_conn(s->h2->conn), &progress);
    if (taken != s->taken)
        s->fence = progress.queued;
    s->taken = taken;
    uint64_t arrived = progress.acknowledged < s->fence ? progress.acknowledged : s->fence;
    if (waiting == 0 && arrived == s->fence)
        return; /* nobody waits for this visitor */
    if (!edge_stall_look(s->h2->worker, &s->answer_out, s->h2->edge->settings.stall_timeout_ms, taken + arrived))
        return;
    if (s->over)
        h2_reset(s->stream, H2_INTERNAL_ERROR);
    else
        edge_h2_fail(s, REASON_VISITOR_SLOW, "the visitor takes nothing");
}

static void on_answer_expired(struct deadline *deadline)
{
    struct edge_stream *s = (struct edge_stream *)((char *)deadline - offsetof(struct edge_stream, answer));
    edge_h2_fail(s, s->half.clock.reason, "no answer in time");
}

/* ---- bodies going up ------------------------------------------------------------------------------------------- */

/* A visitor that sends nothing holds a place in the tunnel. Once the service has answered, how long to wait for more is
 * its business: a gRPC stream may be silent for hours, and so may raw bytes. */
void edge_h2_await_body(struct edge_stream *s)
{
    unsigned idle_ms = s->h2->edge->settings.upgrade_idle_ms;
    if (s->connects && s->answered && idle_ms > 0)
        deadline_arm(s->h2->worker, &s->raw_idle, idle_ms);
    if (s->body_sent || s->connects || s->answered)
        edge_stall_cancel(&s->upload);
    else
        edge_stall_watch(s->h2->worker, &s->upload, s->h2->edge->settings.stall_timeout_ms);
}

void edge_h2_await_answer(struct edge_stream *s)
{
    if (!s->answered && s->half.clock.ms > 0)
        deadline_arm(s->h2->worker, &s->answer, s->half.clock.ms);
}

/* Sends up as much as there is room for; true unless the stream failed. */
bool edge_h2_send_up(struct edge_stream *s)
{
    if (edge_waits(&s->waiter))
        return true;
    while (s->pending.bytes > 0 && half_credit(&s->half) > 0) {
        struct chain part = {0};
        size_t n = s->pending.bytes < half_credit(&s->half) ? s->pending.bytes : half_credit(&s->half);
        if (chain_move(&part, &s->pending, n) != KV_OK) {
            chain_free(&part);
            edge_h2_fail(s, REASON_INTERNAL, "no memory");
            return false;
        }
        struct chunk *chunk;
        while ((chunk = chain_pop(&part)))
            half_send_data(&s->half, chunk);
        h2_consume(s->stream, n);
        if (s->connects)
            edge_h2_await_body(s);
    }
    bool waits_for_switch = s->connects && !s->answered;
    if (s->body_ended && s->pending.bytes == 0 && !s->body_sent && !waits_for_switch) {
        s->body_sent = true;
        half_send_end(&s->half, s->trailers);
        s->trailers = NULL;
        edge_h2_await_body(s);
        if (!s->connects)
            edge_h2_await_answer(s);
    }
    return true;
}

static void on_data(void *user, struct slice bytes)
{
    struct edge_stream *s = user;
    s->body_bytes += bytes.len;
    if (!s->connects && s->body_bytes > s->h2->edge->settings.max_request_body) {
        edge_count_body_limit(edge_local(s->h2->edge));
        edge_h2_fail(s, REASON_BODY_TOO_LARGE, "the body is over the limit");
        return;
    }
    /* Into what waits already: many small frames must not cost more memory than the window says. */
    struct chunk *chunk = s->pending.bytes == 0 ? chunk_copy(bytes.data, bytes.len) : NULL;
    if (chunk)
        chain_push(&s->pending, chunk);
    else if (chain_append(&s->pending, bytes.data, bytes.len) != KV_OK) {
        edge_h2_fail(s, REASON_INTERNAL, "no memory");
        return;
    }
    edge_h2_send_up(s);
}

static void on_request_trailers(void *user, const struct head *trailers)
{
    struct edge_stream *s = user;
    head_free(s->trailers);
    s->trailers = forward_trailers(trailers);
}

static void on_request_end(void *user)
{
    struct edge_stream *s = user;
    s->body_ended = true;
    edge_h2_send_up(s);
}

/* ---- requests -------------------------------------------------------------------------------------------------- */

static struct edge_stream *stream_new(struct edge_h2 *h2, struct h2_stream *stream, const struct head *head, bool end)
{
    struct edge_stream *s = pool_zalloc(sizeof(*s));
    if (!s)
        return NULL;
    s->h2 = h2;
    s->stream = stream;
    s->body_ended = s->body_sent = end;
    s->manner = edge_manner_of(head);
    s->no_body = s->manner.is_head;
    s->connects = head->protocol.len > 0;
    s->expects_continue = !end && slice_equals_nocase(head_value(head, SLICE("expect")), SLICE("100-continue"));
    s->upload.look.expired = on_upload_look;
    s->answer_out.look.expired = on_answer_look;
    s->raw_idle.expired = on_raw_idle;
    s->answer.expired = on_answer_expired;
    return s;
}

/* Opens the exchange. REASON_NONE, or why not. */
static enum close_reason open_exchange(struct edge_stream *s, const struct edge_request *request)
{
    struct address link;
    struct edge_h2 *h2 = s->h2;
    enum close_reason reason = edge_find_tunnel(h2->edge, request, &link);
    if (reason == REASON_NONE && edge_open(h2->edge, request, h2_conn_conn(h2->conn), &h2->peer, link, &s->half,
                                           &edge_h2_half_events, s) != KV_OK)
        reason = REASON_INTERNAL;
    if (reason != REASON_NONE)
        return reason;
    if (s->body_ended || s->connects)
        edge_h2_await_answer(s);
    edge_h2_await_body(s);
    return REASON_NONE;
}

/* The tunnel has come, or will not. What came of the body since lies in `pending`. */
static void on_arrival(struct edge_waiter *waiter)
{
    struct edge_stream *s = (struct edge_stream *)((char *)waiter - offsetof(struct edge_stream, waiter));
    struct edge_request request = s->waiting;
    request.head = s->waiting_head;
    enum close_reason reason = open_exchange(s, &request);
    head_free(s->waiting_head);
    s->waiting_head = NULL;
    if (reason != REASON_NONE)
        edge_h2_fail(s, reason, "no tunnel has come");
    else
        edge_h2_send_up(s);
}

/* True if the request waits for its tunnel. Without memory for its head it does not. */
static bool waits(struct edge_stream *s, const struct edge_request *request)
{
    s->waiter.again = on_arrival;
    if (!edge_wait(s->h2->edge, &s->waiter, request->head->authority))
        return false;
    s->waiting = *request;
    s->waiting_head = head_copy(request->head, 0, 0);
    if (!s->waiting_head)
        edge_wait_cancel(s->h2->edge, &s->waiter);
    return s->waiting_head != NULL;
}

static void *begin_stream(struct edge_h2 *h2, struct h2_stream *stream, const struct edge_request *request, bool end)
{
    enum close_reason reason = REASON_INTERNAL;
    struct edge_stream *s = stream_new(h2, stream, request->head, end);
    if (s)
        reason = edge_admit(h2->edge, request->head, h2_conn_conn(h2->conn), &h2->peer);
    if (reason == REASON_NONE && !waits(s, request))
        reason = open_exchange(s, request);
    if (reason != REASON_NONE) {
        if (!edge_h2_refuse(h2->edge, stream, reason, edge_manner_of(request->head), NULL))
            h2_reset(stream, H2_INTERNAL_ERROR);
        pool_free(s, sizeof(*s));
        return NULL;
    }
    h2->streams++;
    deadline_cancel(&h2->idle);
    return s;
}

static void on_guest_finished(void *arg)
{
    struct edge_h2 *h2 = arg;
    h2->guest = NULL;
    if (!leave_streams(h2))
        return;
    h2_conn_part(h2->conn);
    dispose(h2);
}

static void *begin_guest(struct edge_h2 *h2, struct h2_stream *stream, const struct head *head)
{
    const struct edge_guest *guest = &h2->edge->settings.guest;
    if (h2->guest) {
        h2_reset(stream, H2_REFUSED_STREAM); /* one tunnel a connection: its end is the connection's */
        return NULL;
    }
    h2->guest = guest->open(guest->arg, stream, head, h2->peer.text, on_guest_finished, h2);
    if (!h2->guest)
        return NULL;
    h2_hand_over(stream, guest->events);
    deadline_cancel(&h2->idle);
    return h2->guest;
}

/* The visitor has read the first GOAWAY: what it sent before has arrived, and the last one can name it. */
static void finish_notice(struct edge_h2 *h2)
{
    deadline_cancel(&h2->notice);
    h2_goaway(h2_conn_session(h2->conn), H2_NO_ERROR);
}

static void on_notice_expired(struct deadline *deadline)
{
    finish_notice((struct edge_h2 *)((char *)deadline - offsetof(struct edge_h2, notice)));
}

static void on_pong(void *owner, uint64_t opaque)
{
    struct edge_h2 *h2 = owner;
    if (opaque == DRAIN_PING && deadline_armed(&h2->notice))
        finish_notice(h2);
    else if (h2->guest)
        h2->edge->settings.guest.pong(h2->guest, opaque);
}

/* Answers a request that goes no further than its head. */
static void refuse_unread(struct edge_h2 *h2, struct h2_stream *stream, const struct head *head,
                          enum close_reason reason)
{
    edge_counter_add(&edge_local(h2->edge)->requests, 1);
    if (!edge_h2_refuse(h2->edge, stream, reason, edge_manner_of(head), NULL))
        h2_reset(stream, H2_ENHANCE_YOUR_CALM);
}

/* Resets come a moment after the answers. */
static void on_leftover(void *owner)
{
    struct edge_h2 *h2 = owner;
    if (!deadline_armed(&h2->leftovers))
        deadline_arm(h2->worker, &h2->leftovers, LIMIT_LINGER_MS);
}

static void on_leftovers_expired(struct deadline *deadline)
{
    struct edge_h2 *h2 = (struct edge_h2 *)((char *)deadline - offsetof(struct edge_h2, leftovers));
    if (h2_end_leftovers(h2_conn_session(h2->conn)))
        on_leftover(h2);
}

/* A head over the limits is answered too: a visitor with too many cookies sees why nothing works. */
static void on_oversized(void *owner, struct h2_stream *stream, const struct head *head, bool target_too_long)
{
    struct edge_h2 *h2 = owner;
    enum close_reason reason = target_too_long ? REASON_TARGET_TOO_LONG : REASON_HEAD_TOO_LARGE;
    refuse_unread(h2, stream, head, reason);
}

/* The guest's paths are its own on every host but a tunnel's, whose service may have the same. */
static bool is_for_guest(struct edge *edge, const struct head *head)
{
    const struct edge_guest *guest = &edge->settings.guest;
    struct address link;
    struct slice host;
    return guest->wants && guest->wants(head) && edge_route(edge, head, &link, &host) != REASON_NONE;
}

static void *on_request(void *owner, struct h2_stream *stream, const struct head *head, bool end)
{
    struct edge_h2 *h2 = owner;
    if (is_for_guest(h2->edge, head))
        return begin_guest(h2, stream, head);
    bool connect = slice_equals(head->method, SLICE("CONNECT"));
    if (connect != (head->protocol.len > 0)) {
        h2_reset(stream, H2_PROTOCOL_ERROR); /* we are nobody's way to other hosts */
        return NULL;
    }
    if (connect && !edge_allows_upgrade(h2->edge, head->protocol)) {
        refuse_unread(h2, stream, head, REASON_BAD_REQUEST);
        return NULL;
    }
    struct slice length = head_value(head, SLICE("content-length"));
    struct edge_request request = {.head = head, .version = SLICE("2"), .complete = end};
    if (length.data && !slice_to_u64(length, &request.length)) {
        h2_reset(stream, H2_PROTOCOL_ERROR);
        return NULL;
    }
    request.unknown_length = !connect && !end && !length.data;
    if (!connect)
        return begin_stream(h2, stream, &request, end);
    struct head *upgrade = edge_make_upgrade(head);
    request.head = upgrade;
    void *user = NULL;
    if (upgrade)
        user = begin_stream(h2, stream, &request, end);
    else
        h2_reset(stream, H2_INTERNAL_ERROR);
    head_free(upgrade);
    return user;
}

/* ---- the connection -------------------------------------------------------------------------------------------- */

static void free_h2(struct free_node *node)
{
    free((char *)node - offsetof(struct edge_h2, free));
}

static void dispose(struct edge_h2 *h2)
{
    struct edge_local *local = edge_local(h2->edge);
    deadline_cancel(&h2->idle);
    deadline_cancel(&h2->notice);
    deadline_cancel(&h2->leftovers);
    address_hold_drop(h2->edge->limit, &h2->hold);
    DL_DELETE(local->h2_conns, h2);
    atomic_fetch_sub_explicit(&local->alive, 1, memory_order_relaxed);
    h2->free.free = free_h2;
    worker_free_later(h2->worker, &h2->free);
}

static void on_ended(void *owner, int error, const char *text)
{
    struct edge_h2 *h2 = owner;
    if (error == KV_ELIMIT)
        edge_counter_add(&edge_local(h2->edge)->floods, 1);
    log_debug("visitor's HTTP/2 connection ended", log_str("error", kv_strerror(error)), log_str("text", text));
    dispose(h2);
}

static const struct h2_conn_events h2_events = {
    .h2 =
        {
            .request = on_request,
            .oversized = on_oversized,
            .trailers = on_request_trailers,
            .data = on_data,
            .end = on_request_end,
            .closed = on_stream_closed,
            .writable = edge_h2_on_writable,
            .leftover = on_leftover,
            .pong = on_pong,
        },
    .ended = on_ended,
};

/* Visitors' streams may still be there when a guest's end closes the connection: each has to leave its exchange. False
 * if that has been done. */
static bool leave_streams(struct edge_h2 *h2)
{
    if (h2->closed)
        return false;
    h2->closed = true;
    h2_close_streams(h2_conn_session(h2->conn), H2_CANCEL);
    return true;
}

static void close_h2(struct edge_h2 *h2)
{
    if (!leave_streams(h2))
        return;
    h2_conn_close(h2->conn, H2_NO_ERROR);
    dispose(h2);
}

static void on_idle_expired(struct deadline *deadline)
{
    close_h2((struct edge_h2 *)((char *)deadline - offsetof(struct edge_h2, idle)));
}

void edge_h2_start(struct edge *edge, struct conn *conn, struct address_hold hold, struct slice first)
{
    const struct h2_options options = {
        .server = true,
        .extended_connect = true,
        .stream_window = STREAM_WINDOW,
        .connection_window = CONN_WINDOW,
        .max_frame_size = MAX_FRAME_BYTES,
        .max_concurrent = STREAMS_MAX,
    };
    struct edge_local *local = edge_local(edge);
    struct edge_h2 *h2 = calloc(1, sizeof(*h2));
    if (!h2) {
        address_hold_drop(edge->limit, &hold);
        conn_abort(conn, false);
        return;
    }
    h2->edge = edge;
    h2->hold = hold;
    h2->worker = conn_worker(conn);
    edge_peer_of(edge, conn, &h2->peer);
    h2->idle.expired = on_idle_expired;
    h2->notice.expired = on_notice_expired;
    h2->leftovers.expired = on_leftovers_expired;
    DL_APPEND(local->h2_conns, h2);
    atomic_fetch_add_explicit(&local->alive, 1, memory_order_relaxed);
    deadline_arm(h2->worker, &h2->idle, edge->settings.head_timeout_ms);
    conn_set_patience(conn, &edge->patience);
    if (h2_conn_new(conn, &options, &h2_events, h2, first, &h2->conn) != KV_OK) {
        conn_abort(conn, false);
        dispose(h2);
    } else if (local->draining) {
        edge_h2_last_call(h2);
    }
}

void edge_h2_last_call(struct edge_h2 *h2)
{
    h2_shutdown_notice(h2_conn_session(h2->conn));
}

void edge_h2_drain(struct edge_h2 *h2, bool now)
{
    struct h2_session *session = h2_conn_session(h2->conn);
    bool told = h2->draining;
    h2->draining = true;
    if (h2->streams == 0 && !h2->guest) {
        close_h2(h2);
    } else if (now) {
        h2_close_streams(session, H2_CANCEL); /* the last one closes the connection */
    } else if (!told) {
        /* In two steps, so that requests that are on their way are served and not lost (RFC 9113, 6.8). */
        h2_shutdown_notice(session);
        h2_ping(session, DRAIN_PING);
        deadline_arm(h2->worker, &h2->notice, LIMIT_DRAIN_NOTICE_MS);
    }
}

struct edge_h2 *edge_h2_next(const struct edge_h2 *h2)
{
    return h2->next;
}
