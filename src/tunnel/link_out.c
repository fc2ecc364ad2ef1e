/*
 * From the halves to the wire: new exchanges, heads, bodies in turns, ends, resets, and the credit that is given back
 * as bytes leave at the other end of the house.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/limits.h"
#include "base/log.h"
#include "http/h2.h"
#include "tunnel/budget.h"
#include "tunnel/link_impl.h"

#define LOOK_FOR_STILL_MS 1000
#define BULK_FRAME_BYTES  (64 * 1024) /* of an exchange that has the link to itself */

/* ---- opening (server) ------------------------------------------------------------------------------------------ */

/* Answered exchanges that have carried nothing for a while leave their working places. Looked for when one is wanted,
 * and not for each that is. True if there were any. */
static bool find_still_ones(struct link *link)
{
    uint64_t now = worker_now(link->worker);
    bool found = false;
    if (link->looked_for_still && now - link->looked_for_still < LOOK_FOR_STILL_MS)
        return false;
    link->looked_for_still = now ? now : 1;
    struct link_exchange *ex, *next;
    HASH_ITER (hh, link->exchanges, ex, next)
        if (ex->answered && now - ex->moved_at >= LIMIT_STILL_MS)
            found |= admission_rest(&link->admission, &ex->place);
    return found;
}

/* NULL with *why set when the tunnel can take no further exchange of this visitor. */
static struct link_exchange *admit(struct link *link, uint64_t site, enum close_reason *why)
{
    struct admission_place place;
    *why = link->draining ? REASON_DRAINING : REASON_TUNNEL_BUSY;
    if (link->draining || (!link_has(link, FEATURE_CREDIT) && link->open_bodies >= LIMIT_LEGACY_OPEN_BODIES))
        return NULL;
    *why = admission_enter(&link->admission, &place, site);
    if (*why != REASON_NONE && find_still_ones(link))
        *why = admission_enter(&link->admission, &place, site);
    if (*why != REASON_NONE)
        return NULL;
    struct link_exchange *ex = link_exchange_new(link, link->next_id);
    if (!ex) {
        admission_leave(&link->admission, &place);
        *why = REASON_SERVER_BUSY;
        return NULL;
    }
    link->next_id++;
    ex->place = place;
    return ex;
}

static int send_request_head(struct link *link, uint64_t id, const struct exchange_open *open)
{
    struct wire_message m = {.kind = WIRE_REQUEST_HEAD, .request_id = id};
    m.head.head = *open->head;
    m.head.remote_addr = slice_of(open->remote);
    m.head.visitor_connection = link_has(link, FEATURE_VISITOR) ? open->visitor_connection : 0;
    return link_put(link, &m);
}

void link_open(struct link *link, struct message *message)
{
    enum close_reason why;
    struct exchange_open *open = exchange_open_of(message);
    if (!open)
        return;
    struct link_exchange *ex = admit(link, open->visitor_site, &why);
    if (!ex) {
        exchange_refuse(message, why, NULL);
        return;
    }
    exchange_id(open->id, link->terms.session, ex->id);
    ex->upgraded = open->head->protocol.len > 0;
    int error = link_has(link, FEATURE_CREDIT) ? KV_OK : link_legacy_adapt(open);
    if (!error)
        error = send_request_head(link, ex->id, open);
    if (error) {
        ex->in_ended = ex->out_ended = true;
        link_exchange_remove(ex);
        enum close_reason reason = error == KV_ENOMEM ? REASON_INTERNAL : REASON_BAD_REQUEST;
        if (link->ended)
            reason = REASON_CLIENT_GONE;
        exchange_refuse(message, reason, "the request cannot be carried by the tunnel");
        return;
    }
    size_t credit =
        link_has(link, FEATURE_CREDIT) ? link_take_room(ex, link->terms.peer_credit) : link_legacy_open(ex, open->head);
    bool end = open->end;
    if (half_accept(&ex->half, link->worker, message, credit, link->terms.clock, &link_half_events, ex) != KV_OK) {
        link_send_reset(ex, REASON_INTERNAL, "no memory");
        return;
    }
    if (end) {
        ex->end_wanted = true;
        link_make_ready(ex);
    }
}

/* ---- bodies ---------------------------------------------------------------------------------------------------- */

void link_make_ready(struct link_exchange *ex)
{
    struct link *link = ex->link;
    if (ex->is_ready || ex->out_ended || !link->stream)
        return;
    ex->is_ready = true;
    DL_APPEND(link->ready, ex);
    h2_resume(link->stream);
}

/* One DataChunk with the first n bytes of the backlog. */
static int put_data(struct link_exchange *ex, size_t n, bool end)
{
    struct chain *outbox = link_outbox(ex->link);
    char prefix[WIRE_DATA_PREFIX_LEN + WIRE_DATA_SUFFIX_LEN], suffix[WIRE_DATA_SUFFIX_LEN];
    size_t suffix_len;
    size_t prefix_len = wire_data_prefix(ex->link->side, ex->id, n, end, prefix, suffix, &suffix_len);
    if (n == 0) { /* an end alone is one piece */
        memcpy(prefix + prefix_len, suffix, suffix_len);
        return chain_append(outbox, prefix, prefix_len + suffix_len);
    }
    int error = chain_append(outbox, prefix, prefix_len);
    if (!error)
        error = chain_move(outbox, &ex->backlog, n);
    if (!error && suffix_len > 0)
        error = chain_append(outbox, suffix, suffix_len);
    return error;
}

static int put_trailers(struct link_exchange *ex)
{
    struct wire_message m = {.kind = WIRE_TRAILERS, .request_id = ex->id, .trailers = *ex->trailers};
    return link_put(ex->link, &m);
}

/* The end goes with the last bytes, except to an old server, which knows it as a chunk of its own, and with trailers,
 * which are the end. */
static int put_end(struct link_exchange *ex)
{
    if (ex->trailers && ex->trailers->count > 0 && link_has(ex->link, FEATURE_TRAILERS) && put_trailers(ex) == KV_OK)
        return KV_OK;
    return put_data(ex, 0, true);
}

static bool end_rides_along(const struct link_exchange *ex)
{
    return ex->end_wanted && !(ex->trailers && ex->trailers->count > 0) &&
           (ex->link->side == WIRE_FROM_SERVER || link_has(ex->link, FEATURE_CREDIT));
}

/* A peer that has more room than we gave on is worth a larger backlog, if there is budget. */
static size_t give_on(struct link_exchange *ex)
{
    while (ex->peer_room > ex->room - ex->passed_on && ex->room < LIMIT_WINDOW_MAX_BYTES && budget_grow(ex->room))
        ex->room *= 2;
    size_t n = ex->room - ex->passed_on;
    if (n > ex->peer_room)
        n = ex->peer_room;
    ex->passed_on += n;
    ex->peer_room -= n;
    return n;
}

size_t link_take_room(struct link_exchange *ex, size_t bytes)
{
    ex->peer_room += bytes;
    return give_on(ex);
}

/* n bytes of the backlog went out: the half may fill their place if the peer has room for more. */
static void pass_room_on(struct link_exchange *ex, size_t n)
{
    ex->passed_on -= n < ex->passed_on ? n : ex->passed_on;
    if (ex->peer_room > 0 && !ex->end_wanted)
        half_grant(&ex->half, give_on(ex));
}

/* One turn of one exchange. 0 or KV_ENOMEM. */
static int take_turn(struct link_exchange *ex, bool alone)
{
    struct link *link = ex->link;
    bool old_peer = !link_has(link, FEATURE_CREDIT);
    size_t quantum = alone ? BULK_FRAME_BYTES : LIMIT_DATA_FRAME_BYTES;
    size_t n = ex->backlog.bytes;
    if (old_peer && link->side == WIRE_FROM_SERVER)
        quantum = LIMIT_LEGACY_CHUNK_MAX;
    if (n > quantum)
        n = quantum;
    bool last = n == ex->backlog.bytes && ex->end_wanted;
    bool with_end = last && end_rides_along(ex);
    if (n > 0 || with_end) {
        int error = put_data(ex, n, with_end);
        if (error)
            return error;
        if (old_peer)
            link_legacy_sent(ex, n);
        else
            pass_room_on(ex, n);
    }
    if (ex->breaks && ex->backlog.bytes == 0)
        link_send_reset(ex, ex->break_reason, ex->break_text);
    if (!last)
        return KV_OK;
    if (!with_end) {
        int error = put_end(ex);
        if (error)
            return error;
    }
    ex->out_ended = true;
    link_legacy_ended(ex);
    return KV_OK;
}

void link_fill(struct link *link)
{
    while (link->ready && !link->ended && link_outbox(link)->bytes < LIMIT_LINKS_OUTBOX) {
        struct link_exchange *ex = link->ready;
        DL_DELETE(link->ready, ex);
        ex->is_ready = false;
        if (take_turn(ex, link->ready == NULL) != KV_OK) {
            link_end(link, REASON_INTERNAL, "no memory");
            return;
        }
        if (ex->out_ended) {
            link_exchange_remove_if_done(ex);
        } else if (ex->backlog.bytes > 0 && (link_has(link, FEATURE_CREDIT) || link_legacy_is_due(ex))) {
            ex->is_ready = true;
            DL_APPEND(link->ready, ex);
        }
    }
}

/* ---- events of the local half ---------------------------------------------------------------------------------- */

static void on_half_head(void *owner, struct head *head)
{
    struct link_exchange *ex = owner;
    struct link *link = ex->link;
    bool interim = head->status < 200 && head->status != 101;
    if (!interim || link_has(link, FEATURE_TRAILERS)) {
        struct wire_message m = {.kind = WIRE_RESPONSE_HEAD, .request_id = ex->id};
        m.head.head = *head;
        int error = link_put(link, &m);
        if (error == KV_EINVAL || error == KV_ELIMIT) {
            enum close_reason reason = error == KV_ELIMIT ? REASON_ORIGIN_HEAD_TOO_LARGE : REASON_ORIGIN_BAD_RESPONSE;
            half_close(&ex->half, reason, "the head cannot be carried by the tunnel");
            link_send_reset(ex, reason, "the local service's head cannot be carried");
        } else if (!interim && head->status != 101) {
            ex->upgraded = false;
        }
    }
    head_free(head);
    link_exchange_remove_if_done(ex);
}

static void on_half_data(void *owner, struct chunk *chunk)
{
    struct link_exchange *ex = owner;
    if (ex->out_ended) {
        chunk_free(chunk);
        return;
    }
    link_moved(ex);
    chain_push(&ex->backlog, chunk);
    if (link_has(ex->link, FEATURE_CREDIT) || link_legacy_is_due(ex))
        link_make_ready(ex);
}

static void on_half_end(void *owner, struct head *trailers)
{
    struct link_exchange *ex = owner;
    ex->end_wanted = true;
    head_free(ex->trailers);
    ex->trailers = trailers;
    link_make_ready(ex);
}

/* An exchange that empties half its window within two round trips could use a larger one, if there is budget. */
static void grow_window(struct link_exchange *ex)
{
    uint64_t now = worker_now(ex->link->worker);
    uint64_t trip = ex->link->round_trip ? ex->link->round_trip : 1;
    bool fast = now - ex->drained_since <= 2 * trip;
    ex->drained_since = now;
    ex->drained = 0;
    if (!fast || ex->window >= LIMIT_WINDOW_MAX_BYTES || !budget_grow(ex->window))
        return;
    ex->half.credit += ex->window;
    ex->owed += ex->window;
    ex->window *= 2;
}

/* Bytes that came from the peer have left this end: the peer may send as many more. A large window is given back in
 * smaller steps than its half, so that nearly all of it is on the way all the time. */
static void on_half_credit(void *owner, size_t bytes)
{
    struct link_exchange *ex = owner;
    struct link *link = ex->link;
    if (!link_has(link, FEATURE_CREDIT)) {
        link_legacy_left(ex, bytes);
        return;
    }
    ex->owed += bytes;
    ex->drained += bytes;
    if ((ex->owed * 2 < ex->window && ex->owed < LIMIT_GRANT_BYTES) || ex->in_ended)
        return;
    if (ex->drained * 2 >= ex->window)
        grow_window(ex);
    struct wire_message m = {.kind = WIRE_CREDIT, .request_id = ex->id, .credit = (uint32_t)ex->owed};
    ex->owed = 0;
    link_put(link, &m);
}

/* The visitor, or the local service, is gone. What was good of an answer goes out before; of a request that its visitor
 * has given up nobody wants the rest. */
static void on_half_reset(void *owner, enum close_reason reason, const char *text)
{
    struct link_exchange *ex = owner;
    half_close(&ex->half, reason, NULL);
    if (ex->link->side == WIRE_FROM_CLIENT && ex->backlog.bytes > 0 && !ex->out_ended) {
        ex->breaks = true;
        ex->break_reason = reason;
        ex->break_text = text ? strdup(text) : NULL;
        link_make_ready(ex);
        return;
    }
    if (!ex->out_ended || !ex->in_ended)
        link_send_reset(ex, reason, text);
    link_exchange_remove_if_done(ex);
}

const struct half_events link_half_events = {
    .head = on_half_head,
    .data = on_half_data,
    .credit = on_half_credit,
    .end = on_half_end,
    .reset = on_half_reset,
};

/* ---- aborting -------------------------------------------------------------------------------------------------- */

/* How the abort is told: Error from a client that has not ended its answer; Reset between peers that have it; Cancel to
 * an old client, where it does no harm. */
void link_send_reset(struct link_exchange *ex, enum close_reason reason, const char *text)
{
    struct link *link = ex->link;
    bool detailed = link_has(link, FEATURE_RESET);
    struct wire_message m = {.request_id = ex->id};
    chain_free(&ex->backlog);
    link_legacy_left(ex, ex->held); /* nobody lags any more */
    if (ex->is_ready) {
        DL_DELETE(link->ready, ex);
        ex->is_ready = false;
    }
    if (detailed || link->side == WIRE_FROM_CLIENT) {
        m.kind = detailed ? WIRE_RESET : WIRE_ERROR;
        m.error.code = wire_reason_code(reason, detailed);
        m.error.text = slice_of(text ? text : reason_text(reason)->sentence);
    } else if (!ex->out_ended && link_legacy_abandon(ex)) {
        m.kind = WIRE_CANCEL;
        m.cancel_reason = 1;
    }
    if (m.kind != WIRE_UNKNOWN)
        link_put(link, &m);
    if (!ex->abandoned) {
        ex->out_ended = true;
        link_legacy_ended(ex);
    }
    if (link->side == WIRE_FROM_CLIENT && !detailed)
        ex->in_ended = true; /* the server sends nothing after our Error */
}
