/*
 * From the wire to the halves: heads, bodies, ends, resets and credit of the exchanges. A frame for an id that is not
 * known (any more) is dropped, as the protocol says.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/limits.h"
#include "base/log.h"
#include "http/forward.h"
#include "tunnel/link_impl.h"

#define INTERIM_HEADS_MAX 64 /* of one answer: they are passed on whether the visitor reads or not */

/* The peer's last word on an exchange. Without half-close, or after an Error or Reset, it is the last in both
 * directions. */
static void peer_has_ended(struct link_exchange *ex, bool both)
{
    ex->in_ended = true;
    /* An abandoned upload was kept open for the sake of its answer, which has ended now. */
    if ((both || ex->abandoned) && !ex->out_ended) {
        ex->out_ended = true;
        link_legacy_ended(ex);
    }
    link_exchange_remove_if_done(ex);
}

/* Our own end of the exchange cannot go on: both sides are told. Whoever calls does not touch it any more. */
static void fail(struct link_exchange *ex, enum close_reason reason, const char *text)
{
    half_close(&ex->half, reason, text);
    link_send_reset(ex, reason, text);
    link_exchange_remove_if_done(ex);
}

/* ---- requests (client) ----------------------------------------------------------------------------------------- */

/* By hand, like exchange_id: every request has one. */
static void copy_remote(char out[EXCHANGE_REMOTE_LEN], struct slice text)
{
    size_t len = text.len < EXCHANGE_REMOTE_LEN ? text.len : EXCHANGE_REMOTE_LEN - 1;
    if (len > 0)
        memcpy(out, text.data, len);
    out[len] = '\0';
}

static void on_request_head(struct link *link, const struct wire_message *m)
{
    if (link->side != WIRE_FROM_CLIENT || link_find(link, m->request_id)) {
        link_end(link, REASON_PROTOCOL, "a request id was used twice");
        return;
    }
    struct link_exchange *ex = link_exchange_new(link, m->request_id);
    if (!ex) {
        link_put(link, &(struct wire_message){
                           .kind = WIRE_ERROR,
                           .request_id = m->request_id,
                           .error = {.code = wire_reason_code(REASON_SERVER_BUSY, link_has(link, FEATURE_RESET)),
                                     .text = SLICE("the client's memory is spent")}});
        return;
    }
    ex->upgraded = m->head.is_upgrade;
    struct exchange_open open = {.credit = link_take_room(ex, link->terms.peer_credit), .promised = ex->window};
    exchange_id(open.id, link->terms.session, ex->id);
    open.visitor_connection = link_has(link, FEATURE_VISITOR) ? m->head.visitor_connection : 0;
    copy_remote(open.remote, m->head.remote_addr);
    open.head = head_copy(&m->head.head, 0, 0);
    if (!open.head || half_open(&ex->half, link->worker, link->terms.requests, &open, &link_half_events, ex) != KV_OK) {
        head_free(open.head);
        link_send_reset(ex, REASON_INTERNAL, "no memory");
        ex->in_ended = true;
        link_exchange_remove_if_done(ex);
    }
}

/* ---- answers (server) ------------------------------------------------------------------------------------------ */

/* Two opinions about where an answer ends (RFC 9112, 6.3): forwarding would keep the first. */
static bool lengths_differ(const struct head *head)
{
    const struct field *first = head_find_id(head, FIELD_CONTENT_LENGTH), *end = head->fields + head->count;
    for (const struct field *other = first; other && ++other < end;)
        if (field_id(other) == FIELD_CONTENT_LENGTH && !slice_equals(other->value, first->value))
            return true;
    return false;
}

static void on_response_head(struct link_exchange *ex, const struct wire_message *m)
{
    bool interim = m->head.head.status < 200 && m->head.head.status != 101;
    if (!half_is_open(&ex->half))
        return;
    if (interim && ++ex->interims > INTERIM_HEADS_MAX) {
        fail(ex, REASON_ORIGIN_BAD_RESPONSE, "too many interim answers");
        return;
    }
    if (lengths_differ(&m->head.head)) {
        fail(ex, REASON_ORIGIN_BAD_RESPONSE, "two lengths in one answer");
        return;
    }
    link_moved(ex);
    ex->answered = ex->answered || !interim;
    struct head *head = forward_response(&m->head.head);
    if (!head)
        fail(ex, REASON_INTERNAL, "no memory");
    else
        half_send_head(&ex->half, head);
}

/* ---- both ------------------------------------------------------------------------------------------------------ */

/* The bytes as a chunk of their own: the one they arrived in, narrowed to them, or a copy. */
static struct chunk *take_bytes(struct slice bytes, struct chunk *whole)
{
    if (!whole || bytes.data < whole->data || bytes.data + bytes.len > whole->data + whole->capacity) {
        chunk_free(whole);
        return chunk_copy(bytes.data, bytes.len);
    }
    whole->off = (uint32_t)(bytes.data - whole->data);
    whole->len = (uint32_t)bytes.len;
    return whole;
}

static void on_body(struct link_exchange *ex, const struct wire_message *m, struct chunk *whole)
{
    size_t len = m->data.bytes.len;
    bool wanted = half_is_open(&ex->half) && len > 0;
    if (len > 0)
        link_moved(ex);
    if (wanted && link_has(ex->link, FEATURE_CREDIT) && len > half_credit(&ex->half)) {
        chunk_free(whole);
        fail(ex, REASON_PROTOCOL, "the tunnel's peer sent more than it was given room for");
        return;
    }
    if (wanted) {
        struct chunk *chunk = take_bytes(m->data.bytes, whole);
        if (!chunk) {
            fail(ex, REASON_INTERNAL, "no memory");
            return;
        }
        if (!link_has(ex->link, FEATURE_CREDIT)) {
            ex->half.credit += len; /* such a peer asks nobody */
            link_legacy_held(ex, len);
        }
        half_send_data(&ex->half, chunk);
    } else {
        chunk_free(whole);
    }
    if (m->data.end) {
        half_send_end(&ex->half, NULL);
        peer_has_ended(ex, ex->upgraded && !link_has(ex->link, FEATURE_HALF_CLOSE));
    }
}

static void on_trailers(struct link_exchange *ex, const struct wire_message *m)
{
    struct head *trailers = forward_trailers(&m->trailers);
    if (!trailers) {
        fail(ex, REASON_INTERNAL, "no memory"); /* without them the answer would look complete */
        return;
    }
    half_send_end(&ex->half, trailers);
    peer_has_ended(ex, false);
}

/* Error and Reset: the exchange is over for the peer, in both directions. A Reset is confirmed by our own last word. */
static void on_abort(struct link_exchange *ex, const struct wire_message *m)
{
    char text[EXCHANGE_TEXT_LEN];
    snprintf(text, sizeof(text), "%.*s", (int)m->error.text.len, m->error.text.data);
    half_close(&ex->half, m->error.reason, text);
    if (m->kind == WIRE_RESET && !ex->out_ended)
        link_send_reset(ex, REASON_NONE, NULL);
    peer_has_ended(ex, true);
}

/* From an old server: the visitor is gone. Our Error is the last word that it waits for. */
static void on_cancel(struct link_exchange *ex)
{
    half_close(&ex->half, REASON_VISITOR_GONE, "cancelled");
    if (!ex->out_ended)
        link_send_reset(ex, REASON_VISITOR_GONE, "cancelled");
    peer_has_ended(ex, true);
}

void link_receive(struct link *link, const struct wire_message *m, struct chunk *whole)
{
    if (m->kind == WIRE_REQUEST_HEAD) {
        on_request_head(link, m); /* borrows from the chunk */
        chunk_free(whole);
        return;
    }
    struct link_exchange *ex = link_find(link, m->request_id);
    if (!ex || ex->in_ended) {
        bool late_credit = ex && m->kind == WIRE_CREDIT;
        if (late_credit)
            half_grant(&ex->half, link_take_room(ex, m->credit));
        else if (ex && (m->kind == WIRE_RESET || m->kind == WIRE_ERROR))
            on_abort(ex, m);
        else if (ex && m->kind == WIRE_CANCEL && link->side == WIRE_FROM_CLIENT)
            on_cancel(ex); /* the visitor may go after the request is whole, too */
        chunk_free(whole);
        return;
    }
    if (m->kind == WIRE_DATA) {
        on_body(ex, m, whole);
        return;
    }
    switch (m->kind) {
    case WIRE_RESPONSE_HEAD:
        on_response_head(ex, m);
        break;
    case WIRE_TRAILERS:
        on_trailers(ex, m);
        break;
    case WIRE_CREDIT:
        half_grant(&ex->half, link_take_room(ex, m->credit));
        break;
    case WIRE_ERROR:
    case WIRE_RESET:
        on_abort(ex, m);
        break;
    case WIRE_CANCEL:
        on_cancel(ex);
        break;
    default:
        break;
    }
    chunk_free(whole);
}

void link_receive_bad(struct link *link, const struct wire_message *m, int error)
{
    struct link_exchange *ex = link_find(link, m->request_id);
    if (!ex) {
        if (m->kind == WIRE_REQUEST_HEAD)
            link_put(link, &(struct wire_message){
                               .kind = WIRE_ERROR,
                               .request_id = m->request_id,
                               .error = {.code = wire_reason_code(REASON_BAD_REQUEST, link_has(link, FEATURE_RESET)),
                                         .text = SLICE("the request's head is not HTTP")}});
        return;
    }
    if (half_is_open(&ex->half)) {
        /* Though our direction has ended: a peer that still sends has to hear that nobody takes it. */
        if (error == KV_ELIMIT)
            half_close(&ex->half, REASON_ORIGIN_HEAD_TOO_LARGE, "the answer's head is too large");
        else
            half_close(&ex->half, REASON_ORIGIN_BAD_RESPONSE, "the answer's head is not HTTP");
        link_send_reset(ex, REASON_PROTOCOL, "the head is not HTTP");
    }
    if (m->kind == WIRE_TRAILERS)
        peer_has_ended(ex, true);
    else
        link_exchange_remove_if_done(ex);
}
