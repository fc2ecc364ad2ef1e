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
#include "edge/edge_impl.h"
#include "http/forward.h"
#include "http/http1.h"
#include "io/conn.h"
#include "io/listener.h"

#define INPUT_MAX        (LIMIT_HEAD_BYTES + LIMIT_READ_BYTES) /* an unfinished head and one read behind it */
#define ANSWER_HEAD_MAX  (2 * LIMIT_HEAD_BYTES)
#define GRANT_BYTES      (LIMIT_WINDOW_BYTES / 4) /* room is given back in steps, not for every small write */
#define HALF_CLOSED_MS   2000 /* a visitor that ended its direction without an upgrade is gone, or `nc`: wait a moment \
                               */
#define ANSWER_MARGIN_MS 10000 /* the client's own time-out comes first and knows more */

/* One request and its answer. */
struct edge_exchange {
    struct half half;
    struct edge_h1 *h1;
    struct http1_body body;
    uint64_t body_bytes;
    struct deadline answer; /* from the end of the request to the answer's head */
    bool body_done;
    bool expects_continue;
    bool wants_upgrade, upgraded;
    bool is_head, http10, keep_alive;
    enum edge_body_type error_type;

    bool answered; /* the final head is written */
    bool answer_ended;
    enum http1_framing framing;
    uint64_t answer_left; /* with HTTP1_LENGTH */
    size_t owed;          /* answer bytes queued whose room was not given back */
};

struct edge_h1 {
    struct edge *edge;
    struct conn *conn;
    struct edge_exchange *exchange; /* NULL between requests */
    struct buffer input;            /* bytes not taken yet */
    size_t scanned;
    bool processing, eof, closing;
    struct deadline reading; /* a head, a body's progress, or the idle time */
    struct deadline writing; /* a visitor that takes nothing */
    struct edge_h1 *prev, *next;
    struct free_node free;
};

static const struct half_events half_events;
static void process(struct edge_h1 *h1, struct slice *input);

static struct worker *worker_of(const struct edge_h1 *h1)
{
    return conn_worker(h1->conn);
}

/* ---- the end ------------------------------------------------------------------------------------------------------
 */

static void end_exchange(struct edge_h1 *h1, enum close_reason reason, const char *text)
{
    struct edge_exchange *x = h1->exchange;
    if (!x)
        return;
    h1->exchange = NULL;
    half_close(&x->half, reason, text);
    deadline_cancel(&x->answer);
    http1_body_free(&x->body);
    free(x);
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
    end_exchange(h1, reason, text);
    deadline_cancel(&h1->reading);
    deadline_cancel(&h1->writing);
    DL_DELETE(local->conns, h1);
    atomic_fetch_sub_explicit(&local->alive, 1, memory_order_relaxed);
    h1->free.free = free_h1;
    worker_free_later(worker_of(h1), &h1->free);
}

/* Sends what is queued and closes. */
static void close_h1(struct edge_h1 *h1, enum close_reason reason, const char *text)
{
    if (h1->closing)
        return;
    dispose(h1, reason, text);
    conn_close(h1->conn);
}

/* Cuts the connection so that nobody takes what was sent for complete. */
static void cut(struct edge_h1 *h1, enum close_reason reason, const char *text)
{
    if (h1->closing)
        return;
    if (h1->exchange)
        log_debug("answer cut short", log_str("request", h1->exchange->half.id),
                  log_str("reason", reason_text(reason)->code), log_str("text", text ? text : ""));
    dispose(h1, reason, text);
    conn_abort(h1->conn, true);
}

/* ---- error answers ------------------------------------------------------------------------------------------------
 */

/* Writes an error answer; the connection closes behind it unless `keep_alive`. False when none could be sent. */
static bool answer_error(struct edge_h1 *h1, enum close_reason reason, enum edge_body_type type, bool is_head,
                         bool keep_alive, bool http10, const char *request_id)
{
    struct head *head = NULL;
    struct buffer body = {0}, out = BUFFER_INIT(ANSWER_HEAD_MAX);
    struct edge_local *local = edge_local(h1->edge);
    char id[EXCHANGE_ID_LEN];
    if (!request_id || !request_id[0]) {
        snprintf(id, sizeof(id), "edge%u-%llu", worker_index(worker_of(h1)), (unsigned long long)++local->next_request);
        request_id = id;
    }
    bool sent = edge_error_make(reason, type, request_id, &head, &body) == KV_OK &&
                http1_write_response(&out, head, HTTP1_LENGTH, body.len, keep_alive, http10) == KV_OK &&
                conn_write_copy(h1->conn, out.data, out.len) == KV_OK &&
                (is_head || conn_write_copy(h1->conn, body.data, body.len) == KV_OK);
    if (sent) {
        edge_count_response(local, head->status);
        log_debug("answered with an error", log_str("request", request_id), log_uint("status", head->status),
                  log_str("code", reason_text(reason)->code));
    }
    head_free(head);
    buffer_free(&body);
    buffer_free(&out);
    return sent;
}

/* The request at hand fails. With an answer under way there is only the cut; without, the visitor is told. */
static void fail_exchange(struct edge_h1 *h1, enum close_reason reason, const char *text)
{
    struct edge_exchange *x = h1->exchange;
    if (x->answered) {
        cut(h1, reason, text);
        return;
    }
    bool keep = x->keep_alive && x->body_done && !x->wants_upgrade;
    if (!answer_error(h1, reason, x->error_type, x->is_head, keep, x->http10, x->half.id)) {
        cut(h1, reason, text);
        return;
    }
    if (!keep) {
        close_h1(h1, reason, text);
        return;
    }
    end_exchange(h1, reason, text);
    deadline_arm(worker_of(h1), &h1->reading, LIMIT_IDLE_MS);
    process(h1, &(struct slice){0});
}

/* ---- deadlines ----------------------------------------------------------------------------------------------------
 */

static void on_reading_expired(struct deadline *deadline)
{
    struct edge_h1 *h1 = (struct edge_h1 *)((char *)deadline - offsetof(struct edge_h1, reading));
    struct edge_exchange *x = h1->exchange;
    if (h1->eof && x && !x->upgraded) {
        if (conn_unsent(h1->conn) == 0)
            cut(h1, REASON_VISITOR_GONE, "the visitor closed");
        else
            deadline_arm(worker_of(h1), &h1->reading, HALF_CLOSED_MS);
    } else if (x) {
        fail_exchange(h1, REASON_VISITOR_SLOW, "the request's body made no progress");
    } else if (h1->input.len > 0) {
        answer_error(h1, REASON_VISITOR_SLOW, EDGE_TEXT, false, false, false, NULL);
        close_h1(h1, REASON_VISITOR_SLOW, NULL);
    } else {
        close_h1(h1, REASON_IDLE, NULL);
    }
}

static void on_writing_expired(struct deadline *deadline)
{
    struct edge_h1 *h1 = (struct edge_h1 *)((char *)deadline - offsetof(struct edge_h1, writing));
    cut(h1, REASON_VISITOR_SLOW, "the visitor takes nothing");
}

static void on_answer_expired(struct deadline *deadline)
{
    struct edge_exchange *x = (struct edge_exchange *)((char *)deadline - offsetof(struct edge_exchange, answer));
    fail_exchange(x->h1, REASON_CLIENT_TIMEOUT, "no answer in time");
}

/* The request is complete: now it is the tunnel's turn. */
static void await_answer(struct edge_exchange *x)
{
    struct edge_h1 *h1 = x->h1;
    deadline_cancel(&h1->reading);
    if (!x->answered)
        deadline_arm(worker_of(h1), &x->answer, h1->edge->settings.answer_timeout_ms + ANSWER_MARGIN_MS);
}

/* Output was queued: the visitor has to take some of it in time. */
static void await_visitor(struct edge_h1 *h1)
{
    if (!deadline_armed(&h1->writing))
        deadline_arm(worker_of(h1), &h1->writing, LIMIT_PROGRESS_MS);
}

/* ---- requests -----------------------------------------------------------------------------------------------------
 */

static void refuse_request(struct edge_h1 *h1, const struct http1_message *m, enum close_reason reason)
{
    bool keep = m->keep_alive && m->framing == HTTP1_NO_BODY && !edge_local(h1->edge)->draining;
    if (reason == REASON_BODY_TOO_LARGE)
        edge_counter_add(&edge_local(h1->edge)->body_limit_exceeded, 1);
    bool sent = answer_error(h1, reason, edge_wanted_type(&m->head), slice_equals(m->head.method, SLICE("HEAD")), keep,
                             m->http10, NULL);
    if (!keep || !sent)
        close_h1(h1, reason, NULL);
}

/* The head for the tunnel. A chunked body is told by a field, which is how every peer knows that there is a body. */
static struct head *make_head(struct edge_h1 *h1, const struct http1_message *m)
{
    char peer[SOCKADDR_TEXT_LEN];
    sockaddr_format_host(conn_peer(h1->conn), peer);
    const struct forward_facts facts = {
        .peer_address = slice_of(peer),
        .scheme = conn_is_tls(h1->conn) ? SLICE("https") : SLICE("http"),
    };
    struct head *head = forward_request(&m->head, &facts);
    if (!head || m->framing != HTTP1_CHUNKED)
        return head;
    struct head *chunked = head_copy(head, 1, sizeof("transfer-encoding: chunked"));
    head_free(head);
    if (chunked)
        head_add(chunked, SLICE("transfer-encoding"), SLICE("chunked"));
    return chunked;
}

static int open_exchange(struct edge_h1 *h1, struct edge_exchange *x, const struct http1_message *m,
                         struct address link)
{
    struct exchange_open open = {.credit = LIMIT_WINDOW_BYTES};
    open.head = make_head(h1, m);
    if (!open.head)
        return KV_ENOMEM;
    open.end = x->body_done;
    sockaddr_format(conn_peer(h1->conn), open.remote);
    int error = half_open(&x->half, worker_of(h1), link, &open, &half_events, x);
    if (error)
        head_free(open.head);
    return error;
}

static void begin_exchange(struct edge_h1 *h1, const struct http1_message *m)
{
    struct edge *edge = h1->edge;
    struct edge_local *local = edge_local(edge);
    struct address link;
    edge_counter_add(&local->requests, 1);
    enum close_reason reason = edge_route(edge, m->head.authority, &link);
    if (reason == REASON_NONE && m->framing == HTTP1_LENGTH && m->length > edge->settings.max_request_body)
        reason = REASON_BODY_TOO_LARGE;
    if (reason != REASON_NONE) {
        refuse_request(h1, m, reason);
        return;
    }
    struct edge_exchange *x = calloc(1, sizeof(*x));
    if (!x) {
        refuse_request(h1, m, REASON_INTERNAL);
        return;
    }
    x->h1 = h1;
    x->answer.expired = on_answer_expired;
    x->wants_upgrade = m->upgrade;
    x->body_done = !m->upgrade && (m->framing == HTTP1_NO_BODY || (m->framing == HTTP1_LENGTH && m->length == 0));
    x->expects_continue = m->expect_continue;
    x->is_head = slice_equals(m->head.method, SLICE("HEAD"));
    x->http10 = m->http10;
    x->keep_alive = m->keep_alive && !local->draining;
    x->error_type = edge_wanted_type(&m->head);
    http1_body_start(&x->body, m->framing, m->length);
    if (open_exchange(h1, x, m, link) != KV_OK) {
        free(x);
        refuse_request(h1, m, REASON_INTERNAL);
        return;
    }
    h1->exchange = x;
    if (x->body_done || x->wants_upgrade)
        await_answer(x);
    else
        deadline_arm(worker_of(h1), &h1->reading, LIMIT_PROGRESS_MS);
}

/* False when the head is not complete or the connection ended. */
static bool take_head(struct edge_h1 *h1, struct slice *input)
{
    struct http1_message m;
    if (input->len == 0)
        return false;
    ssize_t n = http1_parse_request(*input, &h1->scanned, &m);
    if (n == 0) {
        if (h1->input.len == 0) /* the first bytes of this head: its time begins */
            deadline_arm(worker_of(h1), &h1->reading, LIMIT_HEAD_MS);
        return false;
    }
    h1->scanned = 0;
    if (n < 0) {
        char peer[SOCKADDR_TEXT_LEN];
        sockaddr_format(conn_peer(h1->conn), peer);
        log_debug("request refused", log_str("peer", peer), log_str("why", m.error));
        edge_counter_add(&edge_local(h1->edge)->requests, 1);
        answer_error(h1, m.reason, EDGE_TEXT, false, false, false, NULL);
        close_h1(h1, m.reason, m.error);
        return false;
    }
    begin_exchange(h1, &m);
    input->data += n;
    input->len -= (size_t)n;
    return !h1->closing;
}

/* ---- bodies going up ----------------------------------------------------------------------------------------------
 */

static bool send_up(struct edge_h1 *h1, struct slice bytes)
{
    struct chunk *chunk = chunk_copy(bytes.data, bytes.len);
    if (chunk && half_send_data(&h1->exchange->half, chunk) == KV_OK)
        return true;
    fail_exchange(h1, REASON_INTERNAL, "no memory");
    return false;
}

static void finish_body(struct edge_exchange *x)
{
    struct head *trailers = NULL;
    if (x->body.trailers.count > 0)
        trailers = forward_trailers(&x->body.trailers);
    x->body_done = true;
    half_send_end(&x->half, trailers);
    await_answer(x);
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
                edge_counter_add(&edge_local(h1->edge)->body_limit_exceeded, 1);
                fail_exchange(h1, REASON_BODY_TOO_LARGE, "the body is over the limit");
                return false;
            }
            if (!send_up(h1, data))
                return false;
            deadline_arm(worker_of(h1), &h1->reading, LIMIT_PROGRESS_MS);
            break;
        case HTTP1_BODY_END:
            finish_body(x);
            return true;
        case HTTP1_BODY_BAD:
            x->keep_alive = false;
            fail_exchange(h1, REASON_BAD_REQUEST, x->body.error);
            return false;
        }
    }
}

static void take_raw(struct edge_h1 *h1, struct slice *input)
{
    struct edge_exchange *x = h1->exchange;
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
            close_h1(h1, REASON_NONE, NULL);
    }
}

/* ---- input --------------------------------------------------------------------------------------------------------
 */

/* One step with what is there; false when nothing further can be done with it. */
static bool step(struct edge_h1 *h1, struct slice *input)
{
    struct edge_exchange *x = h1->exchange;
    if (!x)
        return take_head(h1, input);
    if (x->upgraded) {
        take_raw(h1, input);
        return false;
    }
    if (x->wants_upgrade || x->body_done)
        return false;
    return take_body(h1, input);
}

/* Reads go on while nothing waits: what comes now is looked at now. Behind a complete request they go on only to see
 * the visitor leave, or a little of the next request. */
static void adjust_reading(struct edge_h1 *h1)
{
    const struct edge_exchange *x = h1->exchange;
    bool waits_for_room = x && (x->upgraded || !x->body_done) && h1->input.len > 0;
    if (waits_for_room || h1->input.len >= LIMIT_HEAD_BYTES)
        conn_pause(h1->conn);
    else
        conn_resume(h1->conn);
}

/* The visitor's direction has ended and all of it was taken. */
static void after_eof(struct edge_h1 *h1)
{
    struct edge_exchange *x = h1->exchange;
    if (!x) {
        close_h1(h1, REASON_NONE, NULL);
    } else if (!x->upgraded && !x->body_done) {
        if (half_credit(&x->half) > 0 || h1->input.len == 0)
            cut(h1, REASON_VISITOR_GONE, "the visitor left in the middle of the request");
    } else if (!x->upgraded && !deadline_armed(&h1->reading)) {
        deadline_arm(worker_of(h1), &h1->reading, HALF_CLOSED_MS);
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
        cut(h1, REASON_INTERNAL, "no memory for input");
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
        cut(h1, REASON_INTERNAL, "no memory for input");
        return;
    }
    adjust_reading(h1);
    if (h1->eof)
        after_eof(h1);
}

static void resume(struct edge_h1 *h1)
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
    resume(h1);
}

static void on_closed(void *owner, int error)
{
    struct edge_h1 *h1 = owner;
    if (h1->exchange)
        log_debug("visitor left", log_str("request", h1->exchange->half.id), log_str("error", kv_strerror(error)));
    dispose(h1, REASON_VISITOR_GONE, "the visitor closed");
}

/* ---- the answer ---------------------------------------------------------------------------------------------------
 */

/* Bytes that have left make room for as many. What is unsent is taken for body bytes, which errs on the safe side. */
static void give_room(struct edge_h1 *h1)
{
    struct edge_exchange *x = h1->exchange;
    size_t unsent = conn_unsent(h1->conn);
    if (!x || x->owed <= unsent || x->owed - unsent < GRANT_BYTES)
        return;
    half_grant(&x->half, x->owed - unsent);
    x->owed = unsent;
}

static void on_sent(void *owner)
{
    struct edge_h1 *h1 = owner;
    deadline_cancel(&h1->writing);
    if (conn_unsent(h1->conn) > 0)
        await_visitor(h1);
    give_room(h1);
}

static void on_opened(void *owner)
{
    struct edge_exchange *x = owner;
    struct edge_h1 *h1 = x->h1;
    static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
    log_debug("request", log_str("request", x->half.id));
    if (x->expects_continue && !x->body_done && !x->answered) {
        x->expects_continue = false;
        conn_write_copy(h1->conn, go_on, sizeof(go_on) - 1);
    }
    resume(h1);
}

static void on_credit(void *owner, size_t bytes)
{
    struct edge_exchange *x = owner;
    (void)bytes;
    resume(x->h1);
}

/* How the answer's body is told to this visitor. False for a length that is no length. */
static bool choose_framing(struct edge_exchange *x, const struct head *head)
{
    struct slice length = head_value(head, SLICE("content-length"));
    if (x->is_head || head->status == 204 || head->status == 304 || head->status < 200)
        x->framing = HTTP1_NO_BODY;
    else if (length.data) {
        x->framing = HTTP1_LENGTH;
        return slice_to_u64(length, &x->answer_left);
    } else
        x->framing = x->http10 ? HTTP1_UNTIL_CLOSE : HTTP1_CHUNKED;
    return true;
}

static bool write_answer_head(struct edge_exchange *x, const struct head *head)
{
    struct buffer out = BUFFER_INIT(ANSWER_HEAD_MAX);
    bool written = http1_write_response(&out, head, x->framing, x->answer_left, x->keep_alive, x->http10) == KV_OK &&
                   conn_write_copy(x->h1->conn, out.data, out.len) == KV_OK;
    buffer_free(&out);
    return written;
}

static void begin_raw(struct edge_exchange *x)
{
    x->upgraded = true;
    x->body_done = false;
    deadline_cancel(&x->h1->reading);
}

static void on_interim(struct edge_exchange *x, const struct head *head)
{
    struct buffer out = BUFFER_INIT(ANSWER_HEAD_MAX);
    if (!x->http10 && !x->answered && head->status != 100 &&
        http1_write_response(&out, head, HTTP1_NO_BODY, 0, true, false) == KV_OK)
        conn_write_copy(x->h1->conn, out.data, out.len);
    buffer_free(&out);
}

static void on_final(struct edge_exchange *x, const struct head *head)
{
    struct edge_h1 *h1 = x->h1;
    bool switches = head->status == 101;
    if (x->answered || switches != (x->wants_upgrade && switches) || !choose_framing(x, head)) {
        fail_exchange(h1, REASON_ORIGIN_BAD_RESPONSE, "the answer makes no sense here");
        return;
    }
    /* A connection whose request body is not read to its end cannot carry another request. */
    x->keep_alive = x->keep_alive && (x->body_done || x->wants_upgrade) && !edge_local(h1->edge)->draining;
    if (!write_answer_head(x, head)) {
        fail_exchange(h1, REASON_ORIGIN_BAD_RESPONSE, "the answer's head cannot be written");
        return;
    }
    x->answered = true;
    deadline_cancel(&x->answer);
    edge_count_response(edge_local(h1->edge), head->status);
    await_visitor(h1);
    if (switches) {
        begin_raw(x);
        resume(h1);
    } else if (x->wants_upgrade) {
        /* Refused: what the visitor sends next is a request again. */
        x->wants_upgrade = false;
        x->body_done = true;
        half_send_end(&x->half, NULL);
    }
}

static void on_head(void *owner, struct head *head)
{
    struct edge_exchange *x = owner;
    if (head->status < 200 && head->status != 101)
        on_interim(x, head);
    else
        on_final(x, head);
    head_free(head);
}

static void write_chunk(struct edge_exchange *x, struct chunk *chunk)
{
    struct conn *conn = x->h1->conn;
    char prefix[HTTP1_CHUNK_PREFIX_LEN];
    if (x->framing != HTTP1_CHUNKED) {
        conn_write(conn, chunk);
        return;
    }
    size_t len = http1_chunk_prefix(chunk->len, prefix);
    if (conn_write_copy(conn, prefix, len) != KV_OK) {
        chunk_free(chunk);
        fail_exchange(x->h1, REASON_INTERNAL, "no memory");
        return;
    }
    conn_write(conn, chunk);
    if (conn_write_copy(conn, "\r\n", 2) != KV_OK)
        fail_exchange(x->h1, REASON_INTERNAL, "no memory");
}

static void on_body(void *owner, struct chunk *chunk)
{
    struct edge_exchange *x = owner;
    if (!x->answered || (x->framing == HTTP1_LENGTH && chunk->len > x->answer_left)) {
        chunk_free(chunk);
        fail_exchange(x->h1, REASON_ORIGIN_BAD_RESPONSE, "a body longer than its length, or before its head");
        return;
    }
    if (x->framing == HTTP1_NO_BODY && !x->upgraded) {
        half_grant(&x->half, chunk->len);
        chunk_free(chunk);
        return;
    }
    if (x->framing == HTTP1_LENGTH)
        x->answer_left -= chunk->len;
    x->owed += chunk->len;
    await_visitor(x->h1);
    write_chunk(x, chunk);
}

/* Both directions are done: the next request, or the end. */
static void finish(struct edge_exchange *x)
{
    struct edge_h1 *h1 = x->h1;
    bool keep = x->keep_alive && x->framing != HTTP1_UNTIL_CLOSE;
    if (!keep) {
        close_h1(h1, REASON_NONE, NULL);
        return;
    }
    end_exchange(h1, REASON_NONE, NULL);
    deadline_arm(worker_of(h1), &h1->reading, LIMIT_IDLE_MS);
    if (h1->input.len > 0 || h1->eof)
        resume(h1);
    else
        adjust_reading(h1);
}

static bool write_answer_end(struct edge_exchange *x, const struct head *trailers)
{
    struct buffer out = BUFFER_INIT(ANSWER_HEAD_MAX);
    if (x->framing != HTTP1_CHUNKED)
        return true;
    bool written =
        http1_write_last_chunk(&out, trailers) == KV_OK && conn_write_copy(x->h1->conn, out.data, out.len) == KV_OK;
    buffer_free(&out);
    return written;
}

static void on_end(void *owner, struct head *trailers)
{
    struct edge_exchange *x = owner;
    struct edge_h1 *h1 = x->h1;
    x->answer_ended = true;
    if (x->upgraded) {
        head_free(trailers);
        conn_shutdown(h1->conn);
        if (x->body_done)
            close_h1(h1, REASON_NONE, NULL);
        return;
    }
    bool complete = x->answered && !(x->framing == HTTP1_LENGTH && x->answer_left > 0) && write_answer_end(x, trailers);
    head_free(trailers);
    if (!complete)
        fail_exchange(h1, REASON_ORIGIN_CLOSED, "the answer ended before it was complete");
    else
        finish(x);
}

static void on_reset(void *owner, enum close_reason reason, const char *text)
{
    struct edge_exchange *x = owner;
    if (x->upgraded && reason == REASON_NONE) {
        close_h1(x->h1, REASON_NONE, NULL);
        return;
    }
    fail_exchange(x->h1, reason, text);
}

static const struct half_events half_events = {
    .opened = on_opened,
    .head = on_head,
    .data = on_body,
    .credit = on_credit,
    .end = on_end,
    .reset = on_reset,
};

/* ---- start and drain ----------------------------------------------------------------------------------------------
 */

static const struct conn_events conn_events = {
    .data = on_data,
    .eof = on_eof,
    .sent = on_sent,
    .closed = on_closed,
};

void edge_h1_start(struct edge *edge, struct conn *conn, struct slice first)
{
    struct edge_h1 *h1 = calloc(1, sizeof(*h1));
    struct edge_local *local = edge_local(edge);
    if (!h1) {
        conn_abort(conn, false);
        return;
    }
    h1->edge = edge;
    h1->conn = conn;
    h1->input.limit = INPUT_MAX;
    h1->reading.expired = on_reading_expired;
    h1->writing.expired = on_writing_expired;
    conn_set_owner(conn, &conn_events, h1);
    DL_APPEND(local->conns, h1);
    atomic_fetch_add_explicit(&local->alive, 1, memory_order_relaxed);
    deadline_arm(worker_of(h1), &h1->reading, LIMIT_HEAD_MS);
    if (first.len > 0)
        process(h1, &first);
}

void edge_h1_drain(struct edge_h1 *h1, bool now)
{
    if (now)
        cut(h1, REASON_DRAINING, "the server is shutting down");
    else if (!h1->exchange && h1->input.len == 0)
        close_h1(h1, REASON_DRAINING, NULL);
    else if (h1->exchange)
        h1->exchange->keep_alive = false;
}

struct edge_h1 *edge_h1_next(const struct edge_h1 *h1)
{
    return h1->next;
}
