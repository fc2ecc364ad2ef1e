/*
 * One request to the local service over HTTP/2: a stream on a shared connection.
 *
 *     seat ── (waits) ── stream ── answer's head ── body ── end
 *      ▲                   └── refused, or lost before the service began: once more
 *      └───────────────────────┘
 *
 * Body bytes of the request wait in `early` until there is a stream and then in the stream's output, which the
 * service's window empties; "left" follows when they have gone into frames. Bytes of the answer that the owner has no
 * room for wait in `in`, which the stream's window bounds: it is given back as the owner takes them. So one request
 * that stands still holds up no other on the same connection.
 *
 * To send a request again its body is needed again: as long as the service has not begun to answer, the first
 * LIMIT_ORIGIN_REPLAY_BYTES of it are kept; one that is longer is not sent twice.
 */
#include "client/origin_h2.h"

#include <stdio.h>

#include "base/error.h"
#include "base/limits.h"
#include "client/origin.h"
#include "client/origin_h1.h"
#include "client/origin_pool.h"
#include "http/h2.h"

#define INTERIM_MAX 64 /* as over HTTP/1.1 */
#define TRIES_MAX   3  /* a service that refuses one request so often refuses it */

static const struct origin_ops ops;
static const struct h2_events stream_events;
static const struct origin_seat_events seat_events;

/* ---- the end --------------------------------------------------------------------------------------------------- */

static void free_replay(struct origin *o)
{
    o->replayable = false;
    chain_free(&o->replay);
}

/* Leaves stream and seat; the stream goes on by itself if all that it still has to do is to end. */
static void let_go(struct origin *o, uint32_t error_code)
{
    struct h2_stream *stream = o->stream;
    o->stream = NULL;
    if (stream) {
        h2_set_stream_user(stream, NULL);
        if (error_code != H2_NO_ERROR)
            h2_reset(stream, error_code);
    }
    o->open = false;
    deadline_cancel(&o->response);
    chain_free(&o->early);
    free_replay(o);
    origin_mux_leave(&o->seat);
}

static void fail(struct origin *o, enum close_reason reason, const char *text)
{
    let_go(o, H2_CANCEL);
    o->events->failed(o->owner, reason, text);
}

static void cancel(struct origin *o, bool abrupt)
{
    if (o->stream && !abrupt && !o->request_ended)
        h2_end(o->stream, NULL);
    let_go(o, abrupt ? H2_CANCEL : H2_NO_ERROR);
    o->cancelled = true;
    buffer_free(&o->in);
    head_free(o->request_trailers);
    head_free(o->answer_trailers);
    o->request_trailers = o->answer_trailers = NULL;
}

static void drop_owed(struct origin *o)
{
    size_t left = o->owed;
    o->owed = 0;
    if (left > 0)
        o->events->left(o->owner, left);
}

/* The owner has all of the answer. What is left of the request is of no use, and the service is told so. */
static void end_answer(struct origin *o)
{
    o->answer_ended = true;
    deadline_cancel(&o->response);
    if (!o->raw || o->request_ended) {
        bool sent = o->request_ended && (!o->stream || h2_stream_output(o->stream)->bytes == 0);
        let_go(o, sent || o->raw ? H2_NO_ERROR : H2_CANCEL);
        drop_owed(o);
    }
    if (!o->cancelled)
        o->events->end(o->owner, o->answer_trailers);
}

/* ---- the request ----------------------------------------------------------------------------------------------- */

static void on_response_expired(struct deadline *deadline)
{
    struct origin *o = (struct origin *)((char *)deadline - offsetof(struct origin, response));
    fail(o, REASON_ORIGIN_TIMEOUT,
         o->stream ? "the local service sent no answer in --response-timeout"
                   : "the local service had no stream free in --response-timeout");
}

/* The wait for the answer's head begins when the request is complete, and again while it is still leaving. A request
 * without a stream waits for one as long. */
static void await_head(struct origin *o)
{
    if ((o->request_ended || o->upgrade || !o->stream) && !o->head_seen && o->response_ms > 0)
        deadline_arm(origin_pool_worker(o->pool), &o->response, o->response_ms);
}

/* Gives body bytes to the stream, with a copy for the next try. 0 or KV_ENOMEM. */
static int push_chunk(struct origin *o, struct chunk *chunk)
{
    int error = KV_OK;
    if (o->replayable && o->replay.bytes + chunk->len > LIMIT_ORIGIN_REPLAY_BYTES)
        free_replay(o);
    else if (o->replayable)
        error = chain_append(&o->replay, chunk->data + chunk->off, chunk->len);
    chain_push(h2_stream_output(o->stream), chunk);
    return error;
}

/* What waited for a stream, or for the 101. */
static int push_early(struct origin *o)
{
    struct chunk *chunk;
    int error = KV_OK;
    while (!error && (chunk = chain_pop(&o->early)))
        error = push_chunk(o, chunk);
    if (!error && o->request_ended && o->stream)
        error = h2_end(o->stream, o->request_trailers);
    else if (!error)
        h2_resume(o->stream);
    return error;
}

/* Opens the stream on a seat that was granted. 0; KV_EINVAL; KV_ENOMEM; KV_ECLOSED when the connection cannot open
 * streams any more. */
static int open_stream(struct origin *o)
{
    struct h2_session *session = origin_mux_session(o->seat.mux);
    bool end = !o->upgrade && o->request_ended && o->early.bytes == 0 && !o->request_trailers;
    struct field storage[ORIGIN_H2_FIELDS_MAX];
    struct head head;
    o->connects = o->upgrade && h2_peer_takes_connect(session);
    head_borrow(&head, storage, ORIGIN_H2_FIELDS_MAX);
    int error = origin_head_for_h2(o->request, o->framing, origin_pool_is_tls(o->pool), o->connects, &head);
    if (error)
        return error;
    if (o->upgrade && !o->connects)
        end = o->request_ended = true;
    o->stream = h2_request(session, &head, end, o);
    if (!o->stream)
        return KV_ECLOSED;
    h2_hand_over(o->stream, &stream_events);
    deadline_cancel(&o->response);
    await_head(o);
    return o->upgrade || end ? KV_OK : push_early(o);
}

/* The same request over HTTP/1.1. What was given so far waits in `early`, because there is no stream; on a second try
 * some of it has been told as left before, and what is owed stays as it is. */
static int to_http1(struct origin *o)
{
    struct chain early = o->early;
    struct head *trailers = o->request_trailers;
    bool ended = o->request_ended;
    size_t owed = o->owed;
    struct chunk *chunk;
    origin_mux_leave(&o->seat);
    deadline_cancel(&o->response);
    o->early = (struct chain){0};
    o->request_trailers = NULL;
    if (o->framing == HTTP1_LENGTH)
        o->length_left += early.bytes;
    int error = origin_h1_start(o);
    while (!error && (chunk = chain_pop(&early)))
        error = origin_send(o, chunk);
    o->owed = owed;
    if (!error && ended)
        error = origin_send_end(o, trailers);
    chain_free(&early);
    head_free(trailers);
    return error;
}

/* An upgrade that the service takes over HTTP/1.1 alone goes there. */
static bool needs_http1(const struct origin *o)
{
    return o->upgrade && origin_pool_is_tls(o->pool) && !h2_peer_takes_connect(origin_mux_session(o->seat.mux));
}

/* Takes seats until the stream is open or the request has to wait. */
static int begin(struct origin *o, struct origin_muxes *muxes)
{
    for (;;) {
        int error = o->seat.mux ? KV_OK : origin_mux_take(muxes, &o->seat);
        if (error)
            return error;
        if (!o->seat.mux) {
            await_head(o);
            return KV_OK;
        }
        if (needs_http1(o))
            return to_http1(o);
        error = open_stream(o);
        if (error != KV_ECLOSED)
            return error;
        origin_mux_spend(o->seat.mux);
        origin_mux_leave(&o->seat);
    }
}

/* In an event, after a start that did not succeed, over whichever HTTP. */
static void fail_start(struct origin *o, int error)
{
    enum close_reason reason = error == KV_EINVAL ? REASON_BAD_REQUEST : REASON_INTERNAL;
    origin_cancel(o, true);
    o->events->failed(o->owner, reason, error == KV_EINVAL ? "the request cannot be sent on" : kv_strerror(error));
}

static void on_granted(struct origin_seat *seat)
{
    struct origin *o = (struct origin *)((char *)seat - offsetof(struct origin, seat));
    int error = begin(o, seat->muxes);
    if (error)
        fail_start(o, error);
}

static void on_plain(struct origin_seat *seat)
{
    struct origin *o = (struct origin *)((char *)seat - offsetof(struct origin, seat));
    int error = to_http1(o);
    if (error)
        fail_start(o, error);
}

static void on_no_seat(struct origin_seat *seat, enum close_reason reason, const char *text)
{
    fail((struct origin *)((char *)seat - offsetof(struct origin, seat)), reason, text);
}

static const struct origin_seat_events seat_events = {
    .granted = on_granted,
    .plain = on_plain,
    .failed = on_no_seat,
};

int origin_h2_start(struct origin *o, struct origin_muxes *muxes)
{
    o->ops = &ops;
    o->response.expired = on_response_expired;
    o->seat.events = &seat_events;
    o->open = true;
    o->replayable = !o->upgrade;
    o->request_ended = !o->upgrade && o->framing != HTTP1_CHUNKED && o->length_left == 0;
    int error = begin(o, muxes);
    if (error)
        origin_cancel(o, true);
    return error;
}

static int send_body(struct origin *o, struct chunk *chunk)
{
    size_t len = chunk->len;
    bool too_long = !o->upgrade && o->framing == HTTP1_LENGTH && len > o->length_left;
    if (!o->open || too_long || o->request_ended) {
        chunk_free(chunk);
        return o->open && too_long ? KV_EINVAL : KV_ECLOSED;
    }
    o->owed += len;
    if (!o->upgrade && o->framing == HTTP1_LENGTH)
        o->length_left -= len;
    if (!o->stream || (o->upgrade && !o->raw)) {
        chain_push(&o->early, chunk);
        return KV_OK;
    }
    int error = push_chunk(o, chunk);
    h2_resume(o->stream);
    return error;
}

static int send_end(struct origin *o, const struct head *trailers)
{
    if (!o->open || o->request_ended)
        return KV_OK;
    if (!o->upgrade && o->framing == HTTP1_LENGTH && o->length_left > 0)
        return KV_EINVAL;
    if (trailers && trailers->count > 0) {
        o->request_trailers = head_copy(trailers, 0, 0);
        if (!o->request_trailers)
            return KV_ENOMEM;
    }
    o->request_ended = true;
    if (!o->stream || (o->upgrade && !o->raw)) /* follows what is in `early` */
        return KV_OK;
    int error = h2_end(o->stream, o->request_trailers);
    if (o->answer_ended)
        let_go(o, H2_NO_ERROR);
    else
        await_head(o);
    return error;
}

/* Some of the request has gone into frames: bytes that wait no more have left. */
static void on_sent(void *user)
{
    struct origin *o = user;
    size_t waiting = h2_stream_output(o->stream)->bytes + o->early.bytes;
    await_head(o);
    if (o->owed <= waiting)
        return;
    size_t left = o->owed - waiting;
    o->owed = waiting;
    o->events->left(o->owner, left);
}

/* ---- the answer's head ----------------------------------------------------------------------------------------- */

/* The service took the extended CONNECT: both directions are raw from here on. */
static void switch_over(struct origin *o, const struct head *answer)
{
    struct head *switched = origin_head_switched(o->request, answer);
    o->raw = true;
    if (!switched || push_early(o) != KV_OK) {
        head_free(switched);
        fail(o, REASON_INTERNAL, kv_strerror(KV_ENOMEM));
        return;
    }
    o->events->head(o->owner, switched);
    head_free(switched);
}

static void on_interim(struct origin *o, const struct head *answer)
{
    if (++o->interim > INTERIM_MAX) {
        fail(o, REASON_ORIGIN_BAD_RESPONSE, "interim answers without end");
        return;
    }
    await_head(o);
    if (answer->status != 100)
        o->events->head(o->owner, answer);
}

static void on_response(void *user, const struct head *answer, bool end)
{
    struct origin *o = user;
    (void)end;      /* an event of its own follows */
    free_replay(o); /* it has begun */
    if (answer->status < 200) {
        on_interim(o, answer);
        return;
    }
    o->head_seen = true;
    deadline_cancel(&o->response);
    if (o->connects && answer->status < 300) {
        switch_over(o, answer);
        return;
    }
    if (o->upgrade) { /* an ordinary answer: what followed the request was meant for another protocol */
        o->request_ended = true;
        chain_free(&o->early);
        drop_owed(o);
        if (o->stream)
            h2_end(o->stream, NULL);
    }
    if (o->open)
        o->events->head(o->owner, answer);
}

/* ---- the answer's body ----------------------------------------------------------------------------------------- */

/* Gives the owner what it has room for; the rest of `bytes` stays. */
static void deliver(struct origin *o, struct slice *bytes)
{
    while (bytes->len > 0 && o->open) {
        size_t room = o->events->room(o->owner);
        struct slice part = {bytes->data, bytes->len < room ? bytes->len : room};
        if (part.len == 0)
            return;
        bytes->data += part.len;
        bytes->len -= part.len;
        if (o->stream)
            h2_consume(o->stream, part.len);
        o->events->data(o->owner, part);
    }
}

static void on_data(void *user, struct slice bytes)
{
    struct origin *o = user;
    if (o->in.len == 0)
        deliver(o, &bytes);
    if (o->open && bytes.len > 0 && buffer_append_slice(&o->in, bytes) != KV_OK)
        fail(o, REASON_INTERNAL, kv_strerror(KV_ENOMEM));
}

static void on_oversized_answer(void *user)
{
    struct origin *o = user;
    fail(o, REASON_ORIGIN_HEAD_TOO_LARGE, "head is too large");
}

static void on_trailers(void *user, const struct head *trailers)
{
    struct origin *o = user;
    o->answer_trailers = head_copy(trailers, 0, 0);
    if (!o->answer_trailers) /* without them the answer would look complete */
        fail(o, REASON_INTERNAL, kv_strerror(KV_ENOMEM));
}

static void on_end(void *user)
{
    struct origin *o = user;
    o->answer_whole = true;
    if (o->in.len == 0)
        end_answer(o);
}

static void read_on(struct origin *o)
{
    if (!o->open || o->in.len == 0)
        return;
    struct slice rest = buffer_slice(&o->in);
    deliver(o, &rest);
    if (!o->open) {
        buffer_free(&o->in);
        return;
    }
    buffer_consume(&o->in, o->in.len - rest.len);
    if (o->in.len > 0)
        return;
    if (o->answer_whole)
        end_answer(o);
    else if (o->lost_for != REASON_NONE)
        fail(o, o->lost_for, o->lost_text);
}

/* ---- the stream's end ------------------------------------------------------------------------------------------ */

/* A request that the service has not begun with may be sent again, and one that was lost with its connection if that is
 * no different from sending it once (RFC 9110, 9.2.2). */
static bool may_try_again(const struct origin *o, enum close_reason lost, uint32_t error_code)
{
    if (!o->replayable)
        return false;
    if (error_code == H2_REFUSED_STREAM)
        return o->tries + 1 < TRIES_MAX;
    return lost == REASON_ORIGIN_CLOSED && o->tries == 0 && o->request_ended && origin_head_is_idempotent(o->request);
}

static void try_again(struct origin *o)
{
    struct origin_muxes *muxes = o->seat.muxes;
    o->early = o->replay;
    o->replay = (struct chain){0};
    o->tries++;
    origin_mux_leave(&o->seat);
    int error = begin(o, muxes);
    if (error)
        fail_start(o, error);
}

static enum close_reason reason_of_reset(uint32_t error_code)
{
    switch (error_code) {
    case H2_PROTOCOL_ERROR: /* found by us as well: a head that is none, a body that is not as long as it says */
    case H2_FLOW_CONTROL_ERROR:
        return REASON_ORIGIN_BAD_RESPONSE;
    case H2_REFUSED_STREAM:
    case H2_ENHANCE_YOUR_CALM:
    case H2_HTTP_1_1_REQUIRED:
        return REASON_ORIGIN_OTHER;
    default:
        return REASON_ORIGIN_CLOSED;
    }
}

static void on_closed(void *user, uint32_t error_code)
{
    struct origin *o = user;
    const char *text;
    char sentence[64];
    enum close_reason reason = origin_mux_error(o->seat.mux, &text);
    o->stream = NULL;
    if (o->answer_whole && (!o->raw || o->request_ended)) {
        origin_mux_leave(&o->seat);
        return;
    }
    if (may_try_again(o, reason, error_code)) {
        try_again(o);
        return;
    }
    if (reason == REASON_NONE) {
        reason = reason_of_reset(error_code);
        snprintf(sentence, sizeof(sentence), "the local service reset the stream: %s", h2_error_name(error_code));
        text = sentence;
    }
    if (o->open && o->in.len > 0) { /* the owner has no room at the moment for what was good */
        o->lost_for = reason;
        snprintf(o->lost_text, sizeof(o->lost_text), "%s", text);
        o->request_ended = true;
        origin_mux_leave(&o->seat);
        drop_owed(o);
        return;
    }
    fail(o, reason, text);
}

static const struct h2_events stream_events = {
    .response = on_response,
    .trailers = on_trailers,
    .oversized_answer = on_oversized_answer,
    .data = on_data,
    .end = on_end,
    .sent = on_sent,
    .closed = on_closed,
};

static const struct origin_ops ops = {
    .send = send_body,
    .send_end = send_end,
    .read_on = read_on,
    .cancel = cancel,
};
