/*
 * One request to the local service over HTTP/1.1, on a connection of its own that comes from the pool and goes back.
 *
 * The request is written as it comes: bytes given to origin_send go to the connection at once (even before it is
 * connected), and "left" follows when the connection has fewer unsent than it was given. What the head and the chunk
 * framing add is not counted, so credit goes back a little late rather than early.
 *
 * The answer is parsed in place in the bytes that were read (`take`); only an unfinished head, or a tail that the owner
 * has no room for, is kept in `in`.
 */
#include "client/origin_h1.h"

#include "base/error.h"
#include "base/limits.h"
#include "client/origin.h"
#include "client/origin_mux.h"
#include "client/origin_pool.h"
#include "io/conn.h"

#define INTERIM_MAX 64 /* interim heads travel without credit: a service may not send them without end */

static const struct conn_events conn_events;
static const struct origin_ops ops;

/* ---- the end --------------------------------------------------------------------------------------------------- */

/* Leaves the connection, which the caller has to do something about. */
static struct conn *let_go(struct origin *o)
{
    struct conn *conn = o->conn;
    o->conn = NULL;
    o->open = false;
    deadline_cancel(&o->response);
    chain_free(&o->early);
    return conn;
}

static void fail(struct origin *o, enum close_reason reason, const char *text)
{
    conn_abort(let_go(o), true);
    o->events->failed(o->owner, reason, text);
}

static void cancel(struct origin *o, bool abrupt)
{
    if (o->conn && (abrupt || !o->ready))
        conn_abort(let_go(o), true);
    else if (o->conn)
        conn_close(let_go(o));
    o->cancelled = true;
    chain_free(&o->early);
    buffer_free(&o->in);
    http1_body_free(&o->body);
}

/* Request bytes that will not be sent any more hold nobody up. */
static void drop_owed(struct origin *o)
{
    size_t left = o->owed;
    o->owed = 0;
    if (left > 0)
        o->events->left(o->owner, left);
}

/* The connection is given back, or kept while the other direction of a raw stream runs. `surplus`: bytes came behind
 * the answer. */
static void end_answer(struct origin *o, const struct head *trailers, bool surplus)
{
    o->answer_ended = true;
    deadline_cancel(&o->response);
    if (!o->raw) {
        bool reusable = o->keep_alive && !o->single_use && o->request_ended && !surplus && conn_unsent(o->conn) == 0;
        bool unassignable = o->personal && o->visitor == 0; /* the peer does not tell whose it is */
        struct conn *conn = let_go(o);
        if (reusable && !unassignable)
            origin_pool_put(o->pool, conn, o->personal ? o->visitor : 0, o->idle_ms);
        else
            conn_abort(conn, false);
        drop_owed(o);
    } else if (o->request_ended) {
        conn_close(let_go(o));
    }
    if (!o->cancelled)
        o->events->end(o->owner, trailers);
}

/* ---- the request ----------------------------------------------------------------------------------------------- */

static void on_response_expired(struct deadline *deadline)
{
    struct origin *o = (struct origin *)((char *)deadline - offsetof(struct origin, response));
    fail(o, REASON_ORIGIN_TIMEOUT, "the local service sent no answer in --response-timeout");
}

/* The wait for the answer's head begins when the request is complete, and again while it is still leaving. An upgrade
 * is answered before anything follows it. */
static void await_head(struct origin *o)
{
    bool whole = o->request_ended || (o->upgrade && o->length_left == 0);
    if (whole && o->ready && !o->head_seen && o->response_ms > 0)
        deadline_arm(origin_pool_worker(o->pool), &o->response, o->response_ms);
}

static int write_head(struct origin *o, uint64_t length)
{
    struct buffer *head = origin_pool_scratch(o->pool);
    int error = http1_write_request(head, o->request, o->framing, length);
    if (error)
        return error == KV_ENOMEM ? error : KV_EINVAL;
    return conn_write_copy(o->conn, head->data, head->len);
}

static int connect_to_service(struct origin *o, bool fresh)
{
    o->conn = fresh ? NULL : origin_pool_take_personal(o->pool, o->visitor, &conn_events, o);
    o->personal |= o->conn != NULL;
    if (!o->conn && !fresh)
        o->conn = origin_pool_take(o->pool, o->repeatable, &o->was_idle_ms, &conn_events, o);
    o->reused = o->ready = o->conn != NULL;
    o->begun = false;
    if (!o->conn)
        o->conn = origin_pool_dial(o->pool, false, &conn_events, o);
    return o->conn ? KV_OK : KV_ENOMEM;
}

int origin_h1_start(struct origin *o)
{
    o->ops = &ops;
    o->response.expired = on_response_expired;
    bool has_body = o->framing == HTTP1_CHUNKED || o->length_left > 0;
    o->request_ended = !o->upgrade && !has_body;
    o->single_use = has_body && (o->upgrade || origin_head_has_usually_no_body(o->request));
    o->repeatable = o->request_ended && origin_head_is_idempotent(o->request); /* there is no body */
    int error = connect_to_service(o, false);
    if (!error)
        error = write_head(o, o->length_left);
    if (error) {
        cancel(o, true);
        return error;
    }
    o->open = true;
    await_head(o);
    return KV_OK;
}

static int send_chunk(struct origin *o, struct chunk *chunk)
{
    char prefix[HTTP1_CHUNK_PREFIX_LEN];
    int error = conn_write_copy(o->conn, prefix, http1_chunk_prefix(chunk->len, prefix));
    if (error) {
        chunk_free(chunk);
        return error;
    }
    conn_write(o->conn, chunk);
    return conn_write_copy(o->conn, "\r\n", 2);
}

/* The body of a request to upgrade goes at once; what follows it waits for the 101. */
static int send_before_switch(struct origin *o, struct chunk *chunk)
{
    size_t n = chunk->len < o->length_left ? chunk->len : (size_t)o->length_left;
    if (n == 0) {
        chain_push(&o->early, chunk);
        return KV_OK;
    }
    if (chunk->len > n) {
        struct chunk *rest = chunk_copy(chunk->data + chunk->off + n, chunk->len - n);
        if (!rest) {
            chunk_free(chunk);
            return KV_ENOMEM;
        }
        chain_push(&o->early, rest);
        chunk->len = (uint32_t)n;
    }
    conn_write(o->conn, chunk);
    o->length_left -= n;
    await_head(o);
    return KV_OK;
}

static int send_body(struct origin *o, struct chunk *chunk)
{
    size_t len = chunk->len;
    bool too_long = !o->upgrade && o->framing == HTTP1_LENGTH && len > o->length_left;
    if (!o->conn || too_long || o->request_ended) {
        chunk_free(chunk);
        return o->conn && too_long ? KV_EINVAL : KV_ECLOSED;
    }
    o->owed += len;
    if (o->upgrade && !o->raw)
        return send_before_switch(o, chunk);
    if (!o->raw && o->framing == HTTP1_CHUNKED)
        return send_chunk(o, chunk);
    conn_write(o->conn, chunk);
    if (!o->raw) {
        o->length_left -= len;
        o->request_ended = o->length_left == 0;
        await_head(o);
    }
    return KV_OK;
}

static int send_last_chunk(struct origin *o, const struct head *trailers)
{
    struct buffer *last = origin_pool_scratch(o->pool);
    int error = http1_write_last_chunk(last, trailers);
    if (error == KV_EINVAL || error == KV_ELIMIT) /* trailers are optional reading (RFC 9110, 6.5) */
        error = http1_write_last_chunk(last, NULL);
    return error ? error : conn_write_copy(o->conn, last->data, last->len);
}

static int send_end(struct origin *o, const struct head *trailers)
{
    int error = KV_OK;
    if (!o->conn || o->request_ended)
        return KV_OK;
    if (o->raw) {
        if (o->answer_ended)
            conn_close(let_go(o));
        else
            conn_shutdown(o->conn);
    } else if (!o->upgrade && o->framing == HTTP1_CHUNKED) {
        error = send_last_chunk(o, trailers);
    } else if (o->length_left > 0) {
        return KV_EINVAL;
    }
    o->request_ended = true;
    if (o->conn)
        await_head(o);
    return error;
}

/* Bytes that are not waiting any more have left. */
static void tell_left(struct origin *o)
{
    size_t waiting = conn_unsent(o->conn) + o->early.bytes;
    if (o->owed <= waiting)
        return;
    size_t left = o->owed - waiting;
    o->owed = waiting;
    o->events->left(o->owner, left);
}

static void on_sent(void *owner)
{
    struct origin *o = owner;
    o->begun = true;
    await_head(o);
    tell_left(o);
}

/* The rest of the request has nowhere to go, and nobody has to wait for it; the answer may be there already. */
static void on_unsendable(void *owner)
{
    struct origin *o = owner;
    o->request_ended = true;
    if (o->answer_ended)
        conn_abort(let_go(o), false);
    drop_owed(o);
}

static void on_ready(void *owner)
{
    struct origin *o = owner;
    o->ready = true;
    await_head(o);
}

/* ---- the answer's head ----------------------------------------------------------------------------------------- */

/* Both directions are raw from here on; what the visitor sent too early follows now. */
static void become_raw(struct origin *o)
{
    o->raw = true;
    conn_write_chain(o->conn, &o->early);
    if (o->request_ended)
        conn_shutdown(o->conn);
}

static void begin_body(struct origin *o, const struct http1_message *answer)
{
    o->keep_alive = answer->keep_alive;
    o->personal |= origin_head_binds_connection(&answer->head);
    o->idle_ms = origin_head_idle_ms(&answer->head);
    http1_body_start(&o->body, answer->framing, answer->length, HTTP1_TOLERANT);
}

/* Whether the body breaks its framing in the bytes that came with the head: nobody has heard of the answer yet. */
static bool is_wrong_from_start(struct origin *o, struct slice input)
{
    struct http1_body ahead = o->body;
    struct slice bytes;
    if (ahead.framing != HTTP1_CHUNKED || input.len == 0)
        return false;
    bool wrong = http1_body_next(&ahead, &input, SIZE_MAX, &bytes) == HTTP1_BODY_BAD;
    o->body.error = ahead.error;
    http1_body_free(&ahead);
    return wrong;
}

/* Takes one head from the front of the input. False when there is no whole one, or nothing is open any more. */
static bool take_head(struct origin *o, struct slice *input)
{
    struct http1_message answer;
    ssize_t len = http1_parse_response(*input, &o->scanned, o->request->method, &answer);
    if (len == 0)
        return false;
    o->scanned = 0;
    if (len < 0) {
        fail(o, answer.reason, answer.error);
        return false;
    }
    input->data += len;
    input->len -= (size_t)len;
    unsigned status = answer.head.status;
    if (status < 200 && status != 101) {
        if (++o->interim > INTERIM_MAX) {
            fail(o, REASON_ORIGIN_BAD_RESPONSE, "interim answers without end");
            return false;
        }
        await_head(o);
        if (status != 100)
            o->events->head(o->owner, &answer.head);
        return o->conn != NULL;
    }
    if (status == 101 && !o->upgrade) {
        fail(o, REASON_ORIGIN_BAD_RESPONSE, "101 without having been asked to upgrade");
        return false;
    }
    o->head_seen = true;
    deadline_cancel(&o->response);
    if (status == 101) {
        become_raw(o);
    } else {
        if (o->upgrade && o->length_left > 0) { /* an ordinary answer, and the request's body goes on */
            o->upgrade = false;
        } else if (o->upgrade) { /* what followed the request was meant for another protocol */
            o->request_ended = true;
            chain_free(&o->early);
            drop_owed(o);
            if (!o->conn)
                return false;
        }
        begin_body(o, &answer);
        if (is_wrong_from_start(o, *input)) {
            fail(o, REASON_ORIGIN_BAD_RESPONSE, o->body.error);
            return false;
        }
    }
    o->events->head(o->owner, &answer.head);
    return o->conn != NULL;
}

/* ---- the answer's body ----------------------------------------------------------------------------------------- */

/* True when more may be taken from the input. */
static bool take_raw(struct origin *o, struct slice *input)
{
    size_t room = o->events->room(o->owner);
    struct slice bytes = {input->data, input->len < room ? input->len : room};
    if (bytes.len == 0)
        return false;
    input->data += bytes.len;
    input->len -= bytes.len;
    o->events->data(o->owner, bytes);
    return o->conn != NULL;
}

static bool take_body(struct origin *o, struct slice *input)
{
    struct slice bytes;
    switch (http1_body_next(&o->body, input, o->events->room(o->owner), &bytes)) {
    case HTTP1_BODY_DATA:
        o->events->data(o->owner, bytes);
        return o->conn != NULL;
    case HTTP1_BODY_END:
        end_answer(o, o->body.trailers.count > 0 ? &o->body.trailers : NULL, input->len > 0);
        return false;
    case HTTP1_BODY_BAD:
        fail(o, REASON_ORIGIN_BAD_RESPONSE, o->body.error);
        return false;
    case HTTP1_BODY_MORE:
        break;
    }
    return false;
}

static void take(struct origin *o, struct slice *input)
{
    bool more = true;
    while (more && o->conn) {
        if (!o->head_seen)
            more = take_head(o, input);
        else if (o->raw)
            more = take_raw(o, input);
        else
            more = take_body(o, input);
    }
}

/* Keeps what was not taken; bytes behind a head that are left were left for want of room. */
static void keep_rest(struct origin *o, struct slice rest, bool from_buffer)
{
    if (!o->conn) {
        buffer_free(&o->in);
        return;
    }
    int error = KV_OK;
    if (from_buffer)
        buffer_consume(&o->in, o->in.len - rest.len);
    else if (rest.len > 0)
        error = buffer_append_slice(&o->in, rest);
    if (error)
        fail(o, REASON_INTERNAL, kv_strerror(error));
    else if (rest.len > 0 && o->head_seen)
        conn_pause(o->conn);
}

/* A kept connection died before it answered: the request goes out once more, on a new one. */
static bool try_again(struct origin *o)
{
    if (!o->reused || o->heard || !o->repeatable)
        return false;
    conn_abort(let_go(o), false);
    if (connect_to_service(o, true) != KV_OK)
        return false;
    if (write_head(o, 0) != KV_OK) {
        conn_abort(let_go(o), false);
        return false;
    }
    o->open = true;
    return true;
}

static void ended_early(struct origin *o, const char *text)
{
    if (o->reused && !o->heard && !o->personal)
        origin_pool_learn(o->pool, o->was_idle_ms, false);
    if (try_again(o))
        return;
    fail(o, REASON_ORIGIN_CLOSED,
         text            ? text
         : !o->head_seen ? "the local service closed the connection before it answered"
                         : "the local service closed the connection in the middle of its answer");
}

static void on_data(void *owner, struct slice bytes)
{
    struct origin *o = owner;
    bool buffered = o->in.len > 0;
    if (!o->begun && o->reused) { /* it answers no request of ours: another visitor's, or what was taken for one */
        ended_early(o, "the local service answered before it was asked");
        return;
    }
    o->single_use |= !o->begun;
    if (o->reused && !o->heard && !o->personal)
        origin_pool_learn(o->pool, o->was_idle_ms, true);
    o->heard = true;
    if (o->answer_ended) /* a raw stream that goes on after its end: impossible, and nobody wants it */
        return;
    if (buffered) {
        int error = buffer_append_slice(&o->in, bytes);
        if (error) {
            fail(o, REASON_INTERNAL, kv_strerror(error));
            return;
        }
        bytes = buffer_slice(&o->in);
    }
    take(o, &bytes);
    keep_rest(o, bytes, buffered);
}

static void read_on(struct origin *o)
{
    if (!o->conn || o->answer_ended || !o->head_seen)
        return;
    if (o->in.len > 0) {
        struct slice rest = buffer_slice(&o->in);
        take(o, &rest);
        keep_rest(o, rest, true);
    }
    if (o->conn && o->in.len == 0)
        conn_resume(o->conn);
}

/* ---- the connection's end -------------------------------------------------------------------------------------- */

static void on_eof(void *owner)
{
    struct origin *o = owner;
    if (o->answer_ended)
        return;
    if (o->head_seen && (o->raw || http1_body_eof_is_end(&o->body)))
        end_answer(o, NULL, false);
    else
        ended_early(o, NULL);
}

static void on_closed(void *owner, int error)
{
    struct origin *o = owner;
    const char *text = conn_error_text(o->conn);
    if (o->ready) {
        ended_early(o, text);
        return;
    }
    origin_muxes_forget(origin_pool_muxes(o->pool));
    fail(o, origin_pool_reason(error), text);
}

static const struct conn_events conn_events = {
    .ready = on_ready,
    .data = on_data,
    .eof = on_eof,
    .sent = on_sent,
    .closed = on_closed,
    .unsendable = on_unsendable,
};

static const struct origin_ops ops = {
    .send = send_body,
    .send_end = send_end,
    .read_on = read_on,
    .cancel = cancel,
};
