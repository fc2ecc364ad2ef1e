/*
 * HTTP/1 to a visitor: one connection, its requests one after the other.
 *
 *     HEAD ── route ── exchange: body up ⇄ answer down ── keep-alive ── HEAD …
 *                          └── 101 ── raw bytes both ways
 *
 * Bytes that cannot be taken now (the tunnel has no room, or they belong to the next request) stay in `input`, and the
 * socket is paused before that grows. An answer that cannot be completed is cut with a reset, never ended in order:
 * what looks complete is complete.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/error.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/pool.h"
#include "edge/edge_h1_impl.h"
#include "http/forward.h"
#include "http/http1.h"
#include "io/conn.h"
#include "io/listener.h"

#define INPUT_MAX      (LIMIT_HEAD_BYTES + LIMIT_READ_BYTES) /* an unfinished head and one read behind it */
#define HALF_CLOSED_MS 2000 /* a visitor that ended its direction is gone, or it is `nc`: wait a moment */

static void process(struct edge_h1 *h1, struct slice *input);

/* ---- the end --------------------------------------------------------------------------------------------------- */

void edge_h1_end_exchange(struct edge_h1 *h1, enum close_reason reason, const char *text)
{
    struct edge_exchange *x = h1->exchange;
    if (!x)
        return;
    h1->exchange = NULL;
    half_close(&x->half, reason, text);
    deadline_cancel(&x->answer);
    edge_stall_cancel(&x->upload);
    http1_body_free(&x->body);
    pool_free(x, sizeof(*x));
}

static void free_h1(struct free_node *node)
{
    struct edge_h1 *h1 = (struct edge_h1 *)((char *)node - offsetof(struct edge_h1, free));
    buffer_free(&h1->input);
    free(h1);
}

/* The connection is closed or handed over to its own lingering. */
static void dispose(struct edge_h1 *h1, enum close_reason reason, const char *text)
{
    struct edge_local *local = edge_local(h1->edge);
    h1->closing = true;
    edge_h1_end_exchange(h1, reason, text);
    edge_wait_cancel(h1->edge, &h1->waiter);
    deadline_cancel(&h1->reading);
    edge_stall_cancel(&h1->answer_out);
    address_hold_drop(h1->edge->limit, &h1->hold);
    DL_DELETE(local->h1_conns, h1);
    atomic_fetch_sub_explicit(&local->alive, 1, memory_order_relaxed);
    h1->free.free = free_h1;
    worker_free_later(edge_h1_worker(h1), &h1->free);
}

/* Sends what is queued and closes. */
void edge_h1_close(struct edge_h1 *h1, enum close_reason reason, const char *text)
{
    if (h1->closing)
        return;
    dispose(h1, reason, text);
    conn_close(h1->conn);
}

static void log_cut(const struct edge_h1 *h1, enum close_reason reason, const char *text)
{
    if (h1->exchange)
        log_debug("answer cut short", log_str("request", h1->exchange->half.id),
                  log_str("reason", reason_text(reason)->code), log_str("text", text ? text : ""));
}

/* Cuts the connection at once, so that nobody takes what was sent for complete. */
void edge_h1_cut(struct edge_h1 *h1, enum close_reason reason, const char *text)
{
    if (h1->closing)
        return;
    log_cut(h1, reason, text);
    dispose(h1, reason, text);
    conn_abort(h1->conn, true);
}

/* What was good of the answer is sent, and nobody takes it for complete: chunks without the last one, and fewer bytes
 * than announced, say so in an orderly end. Where the end alone would tell, it is a reset. */
static void break_off(struct edge_h1 *h1, enum close_reason reason, const char *text)
{
    const struct edge_exchange *x = h1->exchange;
    bool tells = !x->upgraded && !x->bodyless && (x->framing == HTTP1_CHUNKED || x->framing == HTTP1_LENGTH);
    struct conn *conn = h1->conn;
    log_cut(h1, reason, text);
    dispose(h1, reason, text);
    if (tells)
        conn_close(conn);
    else
        conn_break(conn);
}

/* ---- error answers --------------------------------------------------------------------------------------------- */

/* Writes an error answer; the connection closes behind it unless `keep_alive`. False when none could be sent. */
static bool answer_error(struct edge_h1 *h1, enum close_reason reason, enum edge_body_type type, bool is_head,
                         bool keep_alive, bool http10, const char *request_id)
{
    struct head *head = NULL;
    struct buffer body = {0}, *out = edge_scratch(h1->edge);
    struct edge_local *local = edge_local(h1->edge);
    char id[EXCHANGE_ID_LEN];
    if (!request_id || !request_id[0]) {
        edge_request_id(h1->edge, id);
        request_id = id;
    }
    bool sent = edge_error_make(reason, type, request_id, &head, &body) == KV_OK &&
                edge_add_hsts(h1->edge, &head) == KV_OK &&
                http1_write_response(out, head, HTTP1_LENGTH, body.len, keep_alive, http10) == KV_OK &&
                conn_write_copy(h1->conn, out->data, out->len) == KV_OK &&
                (is_head || conn_write_copy(h1->conn, body.data, body.len) == KV_OK);
    if (sent) {
        edge_h1_await_visitor(h1);
        edge_count_response(local, head->status);
        log_debug("answered with an error", log_str("request", request_id), log_uint("status", head->status),
                  log_str("code", reason_text(reason)->code));
    }
    head_free(head);
    buffer_free(&body);
    return sent;
}

void edge_h1_fail(struct edge_h1 *h1, enum close_reason reason, const char *text)
{
    struct edge_exchange *x = h1->exchange;
    if (x->answered) {
        break_off(h1, reason, text);
        return;
    }
    bool keep = x->keep_alive && x->body_done && !x->wants_upgrade;
    if (!answer_error(h1, reason, x->error_type, x->is_head, keep, x->http10, x->half.id)) {
        edge_h1_cut(h1, reason, text);
        return;
    }
    if (!keep) {
        edge_h1_close(h1, reason, text);
        return;
    }
    edge_h1_end_exchange(h1, reason, text);
    deadline_arm(edge_h1_worker(h1), &h1->reading, h1->edge->settings.idle_timeout_ms);
    process(h1, &(struct slice){0});
}

/* ---- deadlines ------------------------------------------------------------------------------------------------- */

/* A visitor that ended its direction and takes what we send is there; one that is sent nothing cannot be told from one
 * that left. */
static void await_half_closed(struct edge_h1 *h1)
{
    h1->sent_since = false;
    deadline_arm(edge_h1_worker(h1), &h1->reading, HALF_CLOSED_MS);
}

static void on_reading_expired(struct deadline *deadline)
{
    struct edge_h1 *h1 = (struct edge_h1 *)((char *)deadline - offsetof(struct edge_h1, reading));
    struct edge_exchange *x = h1->exchange;
    if (h1->eof && x && !x->upgraded) {
        if (conn_unsent(h1->conn) == 0 && !h1->sent_since)
            edge_h1_cut(h1, REASON_VISITOR_GONE, "the visitor closed");
        else
            await_half_closed(h1);
    } else if (x && x->upgraded) {
        edge_h1_close(h1, REASON_IDLE, "nothing came either way");
    } else if (h1->input.len > 0) {
        answer_error(h1, REASON_VISITOR_SLOW, EDGE_TEXT, false, false, false, NULL);
        edge_h1_close(h1, REASON_VISITOR_SLOW, NULL);
    } else {
        edge_h1_close(h1, REASON_IDLE, NULL);
    }
}

static unsigned stall_timeout_ms(const struct edge_h1 *h1)
{
    return h1->edge->settings.stall_timeout_ms;
}

/* Who holds the body up: a tunnel that gives no room for what has come, or the visitor. */
static void on_upload_look(struct deadline *deadline)
{
    struct edge_exchange *x = (struct edge_exchange *)((char *)deadline - offsetof(struct edge_exchange, upload.look));
    struct edge_h1 *h1 = x->h1;
    uint64_t received = x->body_bytes + h1->input.len, passed_on = x->body_bytes;
    if (!edge_stall_look(edge_h1_worker(h1), &x->upload, stall_timeout_ms(h1), received + passed_on))
        return;
    if (h1->input.len > 0 && half_credit(&x->half) == 0)
        edge_h1_fail(h1, REASON_CLIENT_TIMEOUT, "the tunnel takes nothing of the request's body");
    else
        edge_h1_fail(h1, REASON_VISITOR_SLOW, "the request's body made no progress");
}

void edge_h1_await_visitor(struct edge_h1 *h1)
{
    edge_stall_watch(edge_h1_worker(h1), &h1->answer_out, stall_timeout_ms(h1));
}

static void on_answer_look(struct deadline *deadline)
{
    struct edge_h1 *h1 = (struct edge_h1 *)((char *)deadline - offsetof(struct edge_h1, answer_out.look));
    struct conn_progress progress;
    conn_progress(h1->conn, &progress);
    if (progress.sending &&
        edge_stall_look(edge_h1_worker(h1), &h1->answer_out, stall_timeout_ms(h1), progress.acknowledged))
        edge_h1_cut(h1, REASON_VISITOR_SLOW, "the visitor takes nothing");
}

static void on_answer_expired(struct deadline *deadline)
{
    struct edge_exchange *x = (struct edge_exchange *)((char *)deadline - offsetof(struct edge_exchange, answer));
    edge_h1_fail(x->h1, x->half.clock.reason, "no answer in time");
}

void edge_h1_await_answer(struct edge_exchange *x)
{
    struct edge_h1 *h1 = x->h1;
    edge_stall_cancel(&x->upload);
    if (!x->answered && x->half.clock.ms > 0)
        deadline_arm(edge_h1_worker(h1), &x->answer, x->half.clock.ms);
}

/* ---- requests -------------------------------------------------------------------------------------------------- */

static void refuse_request(struct edge_h1 *h1, const struct http1_message *m, enum close_reason reason)
{
    bool keep = m->keep_alive && m->framing == HTTP1_NO_BODY && !edge_local(h1->edge)->draining;
    bool sent = answer_error(h1, reason, edge_wanted_type(&m->head), slice_equals(m->head.method, SLICE("HEAD")), keep,
                             m->http10, NULL);
    if (!keep || !sent)
        edge_h1_close(h1, reason, NULL);
    else
        deadline_arm(edge_h1_worker(h1), &h1->reading, h1->edge->settings.idle_timeout_ms);
}

static struct edge_exchange *exchange_new(struct edge_h1 *h1, const struct http1_message *m, bool complete)
{
    struct edge_exchange *x = pool_zalloc(sizeof(*x));
    if (!x)
        return NULL;
    x->h1 = h1;
    x->answer.expired = on_answer_expired;
    x->upload.look.expired = on_upload_look;
    x->wants_upgrade = m->upgrade;
    x->body_done = complete;
    x->body_taken = m->framing != HTTP1_LENGTH || m->length == 0;
    x->expects_continue = m->expect_continue;
    x->is_head = slice_equals(m->head.method, SLICE("HEAD"));
    x->http10 = m->http10;
    x->keep_alive = m->keep_alive && !edge_local(h1->edge)->draining;
    x->error_type = edge_wanted_type(&m->head);
    http1_body_start(&x->body, m->framing, m->length, HTTP1_STRICT);
    return x;
}

static void begin_exchange(struct edge_h1 *h1, const struct http1_message *m)
{
    bool no_body = m->framing == HTTP1_NO_BODY || (m->framing == HTTP1_LENGTH && m->length == 0);
    const struct edge_request request = {
        .head = &m->head,
        .version = m->http10 ? SLICE("1.0") : SLICE("1.1"),
        .length = m->framing == HTTP1_LENGTH ? m->length : 0,
        .unknown_length = m->framing == HTTP1_CHUNKED,
        .complete = no_body && !m->upgrade,
    };
    struct address link;
    enum close_reason reason = edge_find_tunnel(h1->edge, &request, &link);
    if (reason != REASON_NONE) {
        refuse_request(h1, m, reason);
        return;
    }
    struct edge_exchange *x = exchange_new(h1, m, request.complete);
    if (!x || edge_open(h1->edge, &request, h1->conn, &h1->peer, link, &x->half, &edge_h1_half_events, x) != KV_OK) {
        pool_free(x, sizeof(*x));
        refuse_request(h1, m, REASON_INTERNAL);
        return;
    }
    h1->exchange = x;
    deadline_cancel(&h1->reading);
    if (x->body_done || edge_h1_awaits_switch(x))
        edge_h1_await_answer(x);
    else
        edge_stall_watch(edge_h1_worker(h1), &x->upload, stall_timeout_ms(h1));
}

/* The tunnel has come, or will not: the head, which lies in the input still, is read again. */
static void on_arrival(struct edge_waiter *waiter)
{
    edge_h1_resume((struct edge_h1 *)((char *)waiter - offsetof(struct edge_h1, waiter)));
}

/* False when the head is not complete or has to wait, or the connection ended. */
static bool take_head(struct edge_h1 *h1, struct slice *input)
{
    struct http1_message m;
    if (input->len == 0 || edge_waits(&h1->waiter))
        return false;
    ssize_t n = http1_parse_request(*input, &h1->scanned, &m);
    if (n == 0) {
        if (h1->input.len == 0) /* the first bytes of this head: its time begins */
            deadline_arm(edge_h1_worker(h1), &h1->reading, h1->edge->settings.head_timeout_ms);
        return false;
    }
    h1->scanned = 0;
    if (n < 0) {
        log_debug("request refused", log_str("peer", h1->peer.text), log_str("why", m.error));
        edge_counter_add(&edge_local(h1->edge)->requests, 1);
        answer_error(h1, m.reason, EDGE_TEXT, false, false, false, NULL);
        edge_h1_close(h1, m.reason, m.error);
        return false;
    }
    if (m.upgrade && !edge_allows_upgrade(h1->edge, m.head.protocol)) {
        m.upgrade = false;
        m.head.protocol = (struct slice){0};
    }
    enum close_reason reason = h1->admitted ? REASON_NONE : edge_admit(h1->edge, &m.head, h1->conn, &h1->peer);
    h1->admitted = reason == REASON_NONE && edge_wait(h1->edge, &h1->waiter, m.head.authority);
    if (h1->admitted) {
        deadline_arm(edge_h1_worker(h1), &h1->reading, LIMIT_ARRIVAL_MS + LIMIT_HEAD_MS);
        return false;
    }
    if (reason == REASON_NONE)
        begin_exchange(h1, &m);
    else
        refuse_request(h1, &m, reason);
    input->data += n;
    input->len -= (size_t)n;
    return !h1->closing;
}

/* ---- bodies going up ------------------------------------------------------------------------------------------- */

static bool send_up(struct edge_h1 *h1, struct slice bytes)
{
    struct chunk *chunk = chunk_copy(bytes.data, bytes.len);
    if (chunk && half_send_data(&h1->exchange->half, chunk) == KV_OK)
        return true;
    edge_h1_fail(h1, REASON_INTERNAL, "no memory");
    return false;
}

static void finish_body(struct edge_exchange *x)
{
    struct head *trailers = NULL;
    if (x->body.trailers.count > 0)
        trailers = forward_trailers(&x->body.trailers);
    x->body_taken = true;
    if (!x->wants_upgrade) {
        x->body_done = true;
        half_send_end(&x->half, trailers);
    }
    edge_h1_await_answer(x);
}

/* Passes body bytes on while the tunnel has room. True if more input may be looked at (the body is complete). */
static bool take_body(struct edge_h1 *h1, struct slice *input)
{
    struct edge_exchange *x = h1->exchange;
    for (;;) {
        struct slice data;
        switch (http1_body_next(&x->body, input, half_credit(&x->half), &data)) {
        case HTTP1_BODY_MORE:
            return false;
        case HTTP1_BODY_DATA:
            x->expects_continue = false;
            x->body_bytes += data.len;
            if (x->body_bytes > h1->edge->settings.max_request_body) {
                edge_count_body_limit(edge_local(h1->edge));
                edge_h1_fail(h1, REASON_BODY_TOO_LARGE, "the body is over the limit");
                return false;
            }
            if (!send_up(h1, data))
                return false;
            break;
        case HTTP1_BODY_END:
            finish_body(x);
            return true;
        case HTTP1_BODY_BAD:
            x->keep_alive = false;
            edge_h1_fail(h1, REASON_BAD_REQUEST, x->body.error);
            return false;
        }
    }
}

void edge_h1_await_raw(struct edge_h1 *h1)
{
    unsigned ms = h1->edge->settings.upgrade_idle_ms;
    if (ms > 0)
        deadline_arm(edge_h1_worker(h1), &h1->reading, ms);
}

static void take_raw(struct edge_h1 *h1, struct slice *input)
{
    struct edge_exchange *x = h1->exchange;
    if (input->len > 0)
        edge_h1_await_raw(h1);
    while (input->len > 0 && half_credit(&x->half) > 0) {
        size_t n = input->len < half_credit(&x->half) ? input->len : half_credit(&x->half);
        if (!send_up(h1, (struct slice){input->data, n}))
            return;
        input->data += n;
        input->len -= n;
    }
    if (h1->eof && input->len == 0 && !x->body_done) {
        x->body_done = true;
        half_send_end(&x->half, NULL);
        if (x->answer_ended)
            edge_h1_close(h1, REASON_NONE, NULL);
    }
}

/* ---- input ----------------------------------------------------------------------------------------------------- */

/* One step with what is there; false when nothing further can be done with it. */
static bool step(struct edge_h1 *h1, struct slice *input)
{
    struct edge_exchange *x = h1->exchange;
    if (!x)
        return !edge_h1_is_choked(h1) && take_head(h1, input);
    if (x->upgraded) {
        take_raw(h1, input);
        return false;
    }
    if (x->body_done || edge_h1_awaits_switch(x))
        return false;
    return take_body(h1, input);
}

/* A visitor that sends requests and takes no answers: the next request waits until it does. */
bool edge_h1_is_choked(const struct edge_h1 *h1)
{
    return conn_unsent(h1->conn) >= LIMIT_OUTPUT_BYTES;
}

/* Reads go on while nothing waits: what comes now is looked at now. Behind a complete request they go on only to see
 * the visitor leave, or a little of the next request. */
void edge_h1_adjust_reading(struct edge_h1 *h1)
{
    const struct edge_exchange *x = h1->exchange;
    bool waits_for_room = x && (x->upgraded || !x->body_done) && h1->input.len > 0;
    bool waits_for_visitor = !x && h1->input.len > 0 && edge_h1_is_choked(h1);
    if (waits_for_room || waits_for_visitor || h1->input.len >= LIMIT_HEAD_BYTES)
        conn_pause(h1->conn);
    else
        conn_resume(h1->conn);
}

/* The visitor's direction has ended and all of it was taken. */
static void after_eof(struct edge_h1 *h1)
{
    struct edge_exchange *x = h1->exchange;
    if (edge_waits(&h1->waiter))
        return; /* its request is whole, and its answer is on the way */
    if (!x) {
        if (h1->input.len == 0 || !edge_h1_is_choked(h1))
            edge_h1_close(h1, REASON_NONE, NULL);
    } else if (!x->upgraded && !x->body_done) {
        if (half_credit(&x->half) > 0 || h1->input.len == 0)
            edge_h1_cut(h1, REASON_VISITOR_GONE, "the visitor left in the middle of the request");
    } else if (!x->upgraded && !deadline_armed(&h1->reading)) {
        await_half_closed(h1);
    }
}

/* Works on `input`, or on what was kept if there is any (input is then put behind it), and keeps the rest. */
static void process(struct edge_h1 *h1, struct slice *input)
{
    if (h1->closing || h1->processing)
        return;
    h1->processing = true;
    bool kept = h1->input.len > 0;
    if (kept && buffer_append_slice(&h1->input, *input) != KV_OK) {
        edge_h1_cut(h1, REASON_INTERNAL, "no memory for input");
        return;
    }
    struct slice rest = kept ? buffer_slice(&h1->input) : *input;
    size_t before = rest.len;
    while (!h1->closing && step(h1, &rest))
        continue;
    h1->processing = false;
    if (h1->closing)
        return;
    if (kept) {
        buffer_consume(&h1->input, before - rest.len);
    } else if (rest.len > 0 && buffer_append_slice(&h1->input, rest) != KV_OK) {
        edge_h1_cut(h1, REASON_INTERNAL, "no memory for input");
        return;
    }
    edge_h1_adjust_reading(h1);
    if (h1->eof)
        after_eof(h1);
}

void edge_h1_resume(struct edge_h1 *h1)
{
    process(h1, &(struct slice){0});
}

static void on_data(void *owner, struct slice bytes)
{
    process(owner, &bytes);
}

static void on_eof(void *owner)
{
    struct edge_h1 *h1 = owner;
    h1->eof = true;
    edge_h1_resume(h1);
}

static void on_closed(void *owner, int error)
{
    struct edge_h1 *h1 = owner;
    if (h1->exchange)
        log_debug("visitor left", log_str("request", h1->exchange->half.id), log_str("error", kv_strerror(error)));
    dispose(h1, REASON_VISITOR_GONE, "the visitor closed");
}

/* ---- start and drain ------------------------------------------------------------------------------------------- */

static const struct conn_events conn_events = {
    .data = on_data,
    .eof = on_eof,
    .sent = edge_h1_on_sent,
    .closed = on_closed,
};

void edge_h1_start(struct edge *edge, struct conn *conn, struct address_hold hold, struct slice first)
{
    struct edge_h1 *h1 = calloc(1, sizeof(*h1));
    struct edge_local *local = edge_local(edge);
    if (!h1) {
        address_hold_drop(edge->limit, &hold);
        conn_abort(conn, false);
        return;
    }
    h1->edge = edge;
    h1->hold = hold;
    h1->conn = conn;
    edge_peer_of(edge, conn, &h1->peer);
    h1->input.limit = INPUT_MAX;
    h1->reading.expired = on_reading_expired;
    h1->answer_out.look.expired = on_answer_look;
    h1->waiter.again = on_arrival;
    conn_set_owner(conn, &conn_events, h1);
    conn_set_patience(conn, &edge->patience);
    DL_APPEND(local->h1_conns, h1);
    atomic_fetch_add_explicit(&local->alive, 1, memory_order_relaxed);
    deadline_arm(edge_h1_worker(h1), &h1->reading, h1->edge->settings.head_timeout_ms);
    if (first.len > 0)
        process(h1, &first);
}

void edge_h1_drain(struct edge_h1 *h1, bool now)
{
    if (now)
        edge_h1_cut(h1, REASON_DRAINING, "the server is shutting down");
    else if (!h1->exchange && h1->input.len == 0)
        edge_h1_close(h1, REASON_DRAINING, NULL);
    else if (h1->exchange)
        h1->exchange->keep_alive = false;
}

struct edge_h1 *edge_h1_next(const struct edge_h1 *h1)
{
    return h1->next;
}
