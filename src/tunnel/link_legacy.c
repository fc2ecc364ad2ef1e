/*
 * Peers that know no credit. What they do is told in docs/PROTOCOL.md; what follows from it:
 *
 * Uploads towards an old client are coalesced, because its queue holds 32 frames a request and overflows without a
 * word. A body of known length is cut into LIMIT_LEGACY_FRAMES pieces, one of unknown length into pieces that double;
 * a body that trickles is sent on after a pause, since its local service keeps up with a trickle. The memory for that
 * is reserved per link; when it is spent, pieces are as small as they may be.
 *
 * A visitor who leaves in the middle of an upload: with a known length a Cancel leaves the local service with a body
 * that is visibly short. Without, Cancel would make it look complete, so nothing is sent and the body stays open; when
 * too many are open like that, the session is closed, which the local service does notice.
 *
 * Answers from a peer without credit come at the peer's pace: an exchange whose visitor lags by more than
 * LIMIT_LEGACY_BACKLOG_BYTES makes the link keep its window back, for LIMIT_LEGACY_STALL_MS at most; then that visitor
 * is let go, so that the others are served again. On our client, with an old server, the same goes for a local service
 * that takes an upload slowly; but one that takes something at all in that time is waited for, because it is the user's
 * own and a broken upload helps nobody.
 */
#include "base/error.h"
#include "base/limits.h"
#include "http/h2.h"
#include "tunnel/budget.h"
#include "tunnel/link_impl.h"

#define ABANDONED_BODIES_MAX 32

static bool coalesces(const struct link_exchange *ex)
{
    return ex->link->side == WIRE_FROM_SERVER && !link_has(ex->link, FEATURE_CREDIT) && !ex->upgraded;
}

/* ---- uploads --------------------------------------------------------------------------------------------------- */

static void on_trickle(struct deadline *deadline)
{
    struct link_exchange *ex = (struct link_exchange *)((char *)deadline - offsetof(struct link_exchange, trickle));
    ex->due = true;
    link_make_ready(ex);
}

void link_legacy_init(struct link_exchange *ex)
{
    ex->trickle.expired = on_trickle;
}

/* Reserves up to `wanted` bytes; LIMIT_LEGACY_CHUNK_MIN are always to be had. */
static void set_target(struct link_exchange *ex, size_t wanted)
{
    struct link *link = ex->link;
    link->coalesce_bytes -= ex->target;
    size_t room =
        link->coalesce_bytes < LIMIT_LEGACY_BUDGET_BYTES ? LIMIT_LEGACY_BUDGET_BYTES - link->coalesce_bytes : 0;
    if (wanted > LIMIT_LEGACY_CHUNK_MAX)
        wanted = LIMIT_LEGACY_CHUNK_MAX;
    if (wanted > room)
        wanted = room;
    if (wanted < LIMIT_LEGACY_CHUNK_MIN)
        wanted = LIMIT_LEGACY_CHUNK_MIN;
    ex->target = wanted;
    link->coalesce_bytes += wanted;
}

/* An old client drops the body of a GET or HEAD unless the head says chunked, and then its length says nothing. */
int link_legacy_adapt(struct exchange_open *open)
{
    bool bodiless = slice_equals(open->head->method, SLICE("GET")) || slice_equals(open->head->method, SLICE("HEAD"));
    if (open->end || !bodiless || open->head->protocol.len > 0 || !head_find(open->head, SLICE("content-length")))
        return KV_OK;
    struct head *chunked = head_copy(open->head, 1, sizeof("transfer-encoding: chunked"));
    if (!chunked)
        return KV_ENOMEM;
    head_remove(chunked, SLICE("content-length"));
    head_add(chunked, SLICE("transfer-encoding"), SLICE("chunked"));
    head_free(open->head);
    open->head = chunked;
    return KV_OK;
}

size_t link_legacy_open(struct link_exchange *ex, const struct head *head)
{
    uint64_t length = 0;
    ex->known_length = slice_to_u64(head_value(head, SLICE("content-length")), &length);
    ex->counted_body = true;
    ex->link->open_bodies++;
    set_target(ex, ex->known_length ? (size_t)(length / LIMIT_LEGACY_FRAMES) + 1 : LIMIT_LEGACY_CHUNK_MIN);
    return ex->target;
}

bool link_legacy_is_due(struct link_exchange *ex)
{
    if (!coalesces(ex) || ex->end_wanted || ex->due || ex->backlog.bytes >= ex->target)
        return true;
    if (!deadline_armed(&ex->trickle))
        deadline_arm(ex->link->worker, &ex->trickle, LIMIT_LEGACY_FLUSH_MS);
    return false;
}

void link_legacy_sent(struct link_exchange *ex, size_t n)
{
    deadline_cancel(&ex->trickle);
    ex->due = false;
    size_t before = ex->target;
    if (coalesces(ex) && !ex->known_length && n >= before)
        set_target(ex, before * 2);
    half_grant(&ex->half, n + (ex->target > before ? ex->target - before : 0));
}

void link_legacy_ended(struct link_exchange *ex)
{
    deadline_cancel(&ex->trickle);
    ex->link->coalesce_bytes -= ex->target;
    ex->target = 0;
    if (ex->counted_body)
        ex->link->open_bodies--;
    ex->counted_body = false;
}

bool link_legacy_abandon(struct link_exchange *ex)
{
    if (ex->known_length || ex->upgraded)
        return true;
    if (ex->abandoned)
        return false;
    ex->abandoned = true;
    if (++ex->link->abandoned_bodies >= ABANDONED_BODIES_MAX)
        link_end(ex->link, REASON_VISITOR_GONE, "too many uploads were given up half-way; the client reconnects");
    return false;
}

void link_legacy_remove(struct link_exchange *ex)
{
    link_legacy_ended(ex);
    if (ex->abandoned)
        ex->link->abandoned_bodies--;
    ex->abandoned = false;
    link_legacy_left(ex, ex->held);
}

/* ---- answers --------------------------------------------------------------------------------------------------- */

static bool anyone_lags(const struct link *link)
{
    for (const struct link_exchange *ex = link->exchanges; ex; ex = ex->hh.next)
        if (ex->held > LIMIT_LEGACY_BACKLOG_BYTES)
            return true;
    return false;
}

static void give_window_back(struct link *link)
{
    deadline_cancel(&link->stall);
    if (link->stream && link->withheld > 0)
        h2_consume(link->stream, link->withheld);
    link->withheld = 0;
}

/* What is held counts in the process's budget. When that is spent, those who lag are not waited for. */
void link_legacy_held(struct link_exchange *ex, size_t n)
{
    bool fits = budget_charge(n);
    ex->held += n;
    if (ex->held > LIMIT_LEGACY_BACKLOG_BYTES && (!fits || !deadline_armed(&ex->link->stall)))
        deadline_arm(ex->link->worker, &ex->link->stall, fits ? LIMIT_LEGACY_STALL_MS : 0);
}

void link_legacy_left(struct link_exchange *ex, size_t n)
{
    if (n > ex->held)
        n = ex->held;
    ex->held -= n;
    budget_give(n);
    ex->moved = true;
    if (deadline_armed(&ex->link->stall) && !anyone_lags(ex->link))
        give_window_back(ex->link);
}

void link_legacy_stalled(struct deadline *deadline)
{
    struct link *link = (struct link *)((char *)deadline - offsetof(struct link, stall));
    bool at_service = link->side == WIRE_FROM_CLIENT;
    bool moving = false;
    struct link_exchange *ex, *next;
    HASH_ITER (hh, link->exchanges, ex, next) {
        if (ex->held <= LIMIT_LEGACY_BACKLOG_BYTES)
            continue;
        if (at_service && ex->moved) {
            ex->moved = false;
            moving = true;
            continue;
        }
        budget_give(ex->held);
        ex->held = 0;
        half_close(&ex->half, REASON_VISITOR_SLOW,
                   at_service ? "the local service does not take the request's body"
                              : "too slow for an old tunnel client, which has to wait for it");
        link_send_reset(ex, REASON_VISITOR_SLOW, NULL);
        if (link->ended)
            return;
        link_exchange_remove_if_done(ex);
    }
    if (moving)
        deadline_arm(link->worker, &link->stall, LIMIT_LEGACY_STALL_MS);
    else
        give_window_back(link);
}
