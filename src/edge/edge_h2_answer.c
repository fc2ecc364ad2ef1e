/*
 * Answers over HTTP/2: heads and bodies from the tunnel's half of the exchange to a visitor's stream. What a service
 * announces and does not keep is a failure, and never looks complete.
 */
#include "base/error.h"
#include "base/log.h"
#include "edge/edge_h2_impl.h"

/* ---- answers --------------------------------------------------------------------------------------------------- */

static void on_opened(void *owner)
{
    struct edge_stream *s = owner;
    log_debug("request", log_str("request", s->half.id));
    if (s->expects_continue && s->body_bytes == 0) {
        const struct head go_on = {.status = 100};
        h2_respond(s->stream, &go_on, false);
    }
    if (s->body_sent || s->connects)
        edge_h2_await_answer(s);
    edge_h2_send_up(s);
}

static void on_credit(void *owner, size_t bytes)
{
    (void)bytes;
    edge_h2_send_up(owner);
}

/* Sends the final head; `end`: it is all of the answer. True unless the stream failed. */
static bool respond(struct edge_stream *s, struct head *head, bool end)
{
    bool switches = head->status == 101;
    if (switches) {
        head->status = 200;
        head_remove(head, SLICE("sec-websocket-accept")); /* it answers a key that the visitor never sent */
    }
    uint64_t length = 0;
    struct slice text = head_value(head, SLICE("content-length"));
    s->no_body = !switches && edge_is_bodyless(head, s->no_body); /* whatever comes */
    s->has_length = text.data && !switches && !s->no_body;
    if (s->answered || switches != (s->connects && switches) || (s->has_length && !slice_to_u64(text, &length))) {
        edge_h2_fail(s, REASON_ORIGIN_BAD_RESPONSE, "the answer makes no sense here");
        return false;
    }
    s->answer_left = length;
    s->answered = true;
    deadline_cancel(&s->answer);
    if (h2_respond(s->stream, head, end) != KV_OK) {
        edge_h2_fail(s, REASON_INTERNAL, "no memory");
        return false;
    }
    edge_count_response(edge_local(s->h2->edge), head->status);
    if (s->connects && !switches) {
        s->connects = false; /* refused: nothing more goes up */
        s->body_ended = true;
    }
    edge_h2_await_body(s);
    return edge_h2_send_up(s);
}

static bool respond_held(struct edge_stream *s, bool end)
{
    struct head *head = s->held;
    s->held = NULL;
    bool going_on = respond(s, head, end);
    head_free(head);
    return going_on;
}

static void on_head(void *owner, struct head *head)
{
    struct edge_stream *s = owner;
    bool final = head->status >= 200 || head->status == 101;
    if (edge_dress_answer(s->h2->edge, &head) != KV_OK) {
        head_free(head);
        edge_h2_fail(s, REASON_INTERNAL, "no memory");
        return;
    }
    if (head->status >= 200 && !s->held && edge_is_trailers_only(head)) {
        s->held = head;
        return;
    }
    if (final)
        respond(s, head, false);
    else if (!s->answered && head->status != 100)
        h2_respond(s->stream, head, false);
    head_free(head);
}

static void on_body(void *owner, struct chunk *chunk)
{
    struct edge_stream *s = owner;
    if (s->held && !respond_held(s, false)) {
        chunk_free(chunk);
        return;
    }
    if (!s->answered || (s->has_length && chunk->len > s->answer_left)) {
        chunk_free(chunk);
        edge_h2_fail(s, REASON_ORIGIN_BAD_RESPONSE, "a body longer than its length, or before its head");
        return;
    }
    if (s->no_body) {
        half_grant(&s->half, chunk->len);
        chunk_free(chunk);
        return;
    }
    if (s->has_length)
        s->answer_left -= chunk->len;
    s->owed += chunk->len;
    if (s->connects)
        edge_h2_await_body(s);
    edge_h2_await_visitor(s);
    s->queued += chunk->len;
    chain_push(h2_stream_output(s->stream), chunk);
    h2_resume(s->stream);
}

/* The connection has taken all there was. */
void edge_h2_on_writable(void *user)
{
    struct edge_stream *s = user;
    size_t left = s->owed;
    edge_stall_cancel(&s->answer_out);
    s->owed = 0;
    half_grant(&s->half, left);
}

static void on_end(void *owner, struct head *trailers)
{
    struct edge_stream *s = owner;
    struct h2_stream *stream = s->stream;
    bool ended = s->held && !(trailers && trailers->count > 0);
    if (s->held && !respond_held(s, ended)) {
        head_free(trailers);
        return;
    }
    if (!s->answered || (s->has_length && s->answer_left > 0) || (!ended && h2_end(stream, trailers) != KV_OK)) {
        edge_h2_fail(s, REASON_ORIGIN_CLOSED, "the answer ended before it was complete");
    } else if (s->body_sent || !s->connects) {
        edge_h2_leave(s, REASON_NONE, NULL); /* the rest of an upload is of no use */
    }
    head_free(trailers);
}

static void on_reset(void *owner, enum close_reason reason, const char *text)
{
    struct edge_stream *s = owner;
    if (!s->connects || !s->answered || reason != REASON_NONE) {
        edge_h2_fail(s, reason, text);
        return;
    }
    /* A raw stream that the tunnel ended in both directions at once: what it sent before still goes out. */
    h2_end(s->stream, NULL);
    edge_h2_leave(s, REASON_NONE, NULL);
}

const struct half_events edge_h2_half_events = {
    .opened = on_opened,
    .head = on_head,
    .data = on_body,
    .credit = on_credit,
    .end = on_end,
    .reset = on_reset,
};
