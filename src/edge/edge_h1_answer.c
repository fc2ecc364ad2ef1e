/*
 * HTTP/1 to a visitor, the way down: what the exchange brings becomes bytes on the connection, and room goes back as
 * they leave. An answer is framed for this visitor (length, chunks, or the connection's end) and never ended short of
 * it.
 */
#include "base/error.h"
#include "base/limits.h"
#include "base/log.h"
#include "edge/edge_h1_impl.h"
#include "io/conn.h"

#define GRANT_BYTES (LIMIT_WINDOW_BYTES / 4) /* room is given back in steps, not for every small write */

/* ---- the answer ------------------------------------------------------------------------------------------------ */

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

void edge_h1_on_sent(void *owner)
{
    struct edge_h1 *h1 = owner;
    h1->sent_since = true;
    if (conn_unsent(h1->conn) == 0)
        edge_stall_cancel(&h1->answer_out);
    give_room(h1);
    if (!h1->exchange && h1->input.len > 0 && !edge_h1_is_choked(h1))
        edge_h1_resume(h1);
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
    if (x->body_done || edge_h1_awaits_switch(x))
        edge_h1_await_answer(x);
    if (h1->input.len > 0 || h1->eof) /* it waited for room */
        edge_h1_resume(h1);
}

static void on_credit(void *owner, size_t bytes)
{
    struct edge_exchange *x = owner;
    (void)bytes;
    edge_h1_resume(x->h1);
}

/* How the answer's body is told to this visitor. False for a length that is no length. */
static bool choose_framing(struct edge_exchange *x, const struct head *head)
{
    const struct field *length = head_find_id(head, FIELD_CONTENT_LENGTH);
    x->bodyless = edge_is_bodyless(head, x->is_head);
    if (head->status == 205 && !x->is_head)
        x->framing = HTTP1_LENGTH; /* of 0: a recipient would wait for the end of one without */
    else if (x->bodyless)
        x->framing = HTTP1_NO_BODY;
    else if (length) {
        x->framing = HTTP1_LENGTH;
        return slice_to_u64(length->value, &x->answer_left);
    } else
        x->framing = x->http10 ? HTTP1_UNTIL_CLOSE : HTTP1_CHUNKED;
    return true;
}

static bool write_answer_head(struct edge_exchange *x, const struct head *head)
{
    struct buffer *out = edge_scratch(x->h1->edge);
    return http1_write_response(out, head, x->framing, x->answer_left, x->keep_alive, x->http10) == KV_OK &&
           conn_write_copy(x->h1->conn, out->data, out->len) == KV_OK;
}

static void begin_raw(struct edge_exchange *x)
{
    x->upgraded = true;
    x->body_done = false;
    deadline_cancel(&x->h1->reading);
    edge_h1_await_raw(x->h1);
}

static void on_interim(struct edge_exchange *x, const struct head *head)
{
    struct buffer *out = edge_scratch(x->h1->edge);
    if (!x->http10 && !x->answered && head->status != 100 &&
        http1_write_response(out, head, HTTP1_NO_BODY, 0, true, false) == KV_OK)
        conn_write_copy(x->h1->conn, out->data, out->len);
}

static void on_final(struct edge_exchange *x, const struct head *head)
{
    struct edge_h1 *h1 = x->h1;
    bool switches = head->status == 101;
    if (x->answered || switches != (x->wants_upgrade && switches) || !choose_framing(x, head)) {
        edge_h1_fail(h1, REASON_ORIGIN_BAD_RESPONSE, "the answer makes no sense here");
        return;
    }
    /* A connection whose request body is not read to its end cannot carry another request. */
    x->keep_alive = x->keep_alive && (x->body_done || edge_h1_awaits_switch(x)) && !edge_local(h1->edge)->draining;
    if (!write_answer_head(x, head)) {
        edge_h1_fail(h1, REASON_ORIGIN_BAD_RESPONSE, "the answer's head cannot be written");
        return;
    }
    x->answered = true;
    deadline_cancel(&x->answer);
    edge_count_response(edge_local(h1->edge), head->status);
    edge_h1_await_visitor(h1);
    if (switches) {
        begin_raw(x);
        edge_h1_resume(h1);
    } else if (x->wants_upgrade) {
        /* Refused: what the visitor sends next is a request again. */
        x->wants_upgrade = false;
        x->body_done = x->body_taken;
        if (x->body_taken)
            half_send_end(&x->half, NULL);
    }
}

static void on_head(void *owner, struct head *head)
{
    struct edge_exchange *x = owner;
    if (edge_dress_answer(x->h1->edge, &head) != KV_OK)
        edge_h1_fail(x->h1, REASON_INTERNAL, "no memory");
    else if (head->status < 200 && head->status != 101)
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
        edge_h1_fail(x->h1, REASON_INTERNAL, "no memory");
        return;
    }
    conn_write(conn, chunk);
    if (conn_write_copy(conn, "\r\n", 2) != KV_OK)
        edge_h1_fail(x->h1, REASON_INTERNAL, "no memory");
}

static void on_body(void *owner, struct chunk *chunk)
{
    struct edge_exchange *x = owner;
    if (!x->answered || (x->framing == HTTP1_LENGTH && !x->bodyless && chunk->len > x->answer_left)) {
        chunk_free(chunk);
        edge_h1_fail(x->h1, REASON_ORIGIN_BAD_RESPONSE, "a body longer than its length, or before its head");
        return;
    }
    if (x->bodyless && !x->upgraded) {
        half_grant(&x->half, chunk->len);
        chunk_free(chunk);
        return;
    }
    if (x->framing == HTTP1_LENGTH)
        x->answer_left -= chunk->len;
    x->owed += chunk->len;
    if (x->upgraded)
        edge_h1_await_raw(x->h1);
    edge_h1_await_visitor(x->h1);
    write_chunk(x, chunk);
}

/* Both directions are done: the next request, or the end. */
static void finish(struct edge_exchange *x)
{
    struct edge_h1 *h1 = x->h1;
    bool keep = x->keep_alive && x->framing != HTTP1_UNTIL_CLOSE;
    if (!keep) {
        edge_h1_close(h1, REASON_NONE, NULL);
        return;
    }
    edge_h1_end_exchange(h1, REASON_NONE, NULL);
    deadline_arm(edge_h1_worker(h1), &h1->reading, h1->edge->settings.idle_timeout_ms);
    if (h1->input.len > 0 || h1->eof)
        edge_h1_resume(h1);
    else
        edge_h1_adjust_reading(h1);
}

static bool write_answer_end(struct edge_exchange *x, const struct head *trailers)
{
    struct buffer *out = edge_scratch(x->h1->edge);
    return x->framing != HTTP1_CHUNKED || (http1_write_last_chunk(out, trailers) == KV_OK &&
                                           conn_write_copy(x->h1->conn, out->data, out->len) == KV_OK);
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
            edge_h1_close(h1, REASON_NONE, NULL);
        return;
    }
    bool complete = x->answered && !(x->framing == HTTP1_LENGTH && x->answer_left > 0) && write_answer_end(x, trailers);
    head_free(trailers);
    if (!complete)
        edge_h1_fail(h1, REASON_ORIGIN_CLOSED, "the answer ended before it was complete");
    else
        finish(x);
}

static void on_reset(void *owner, enum close_reason reason, const char *text)
{
    struct edge_exchange *x = owner;
    if (x->upgraded && reason == REASON_NONE) {
        edge_h1_close(x->h1, REASON_NONE, NULL);
        return;
    }
    edge_h1_fail(x->h1, reason, text);
}

const struct half_events edge_h1_half_events = {
    .opened = on_opened,
    .head = on_head,
    .data = on_body,
    .credit = on_credit,
    .end = on_end,
    .reset = on_reset,
};
