/*
 * A request whose head leaves open whether a body follows (origin_head_framing) waits for the first frame behind it:
 * bytes make it chunked, an end makes it empty.
 *
 * An answer that is complete before its request ends the origin; the rest of the upload is dropped as it comes, because
 * the answer may still be on its way through the link and a reset would overtake it. The server ends such an exchange
 * by itself; LIMIT_PROGRESS_MS is for one that does not. What goes on after an upgrade is more than the rest of an
 * upload, and has to be told soon that nobody reads it: LIMIT_LINGER_MS.
 */
#include "client/relay.h"

#include <string.h>
#include <utlist.h>

#include "base/error.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/pool.h"
#include "client/origin.h"
#include "client/origin_pool.h"
#include "client/rewrite.h"
#include "http/forward.h"
#include "tunnel/exchange.h"

struct relay {
    struct half half;
    struct origin origin;
    struct relay_context *context;
    struct relay *prev, *next;
    struct head *request;
    struct slice public_scheme, public_authority; /* as the visitor has them; the second in `request` */
    struct origin_framing framing;
    struct deadline leftover; /* the answer is out, the request still comes */
    uint64_t visitor;         /* its connection; 0: not known */
    uint64_t started_at;
    uint64_t up, down; /* body bytes */
    uint16_t status;   /* of the final answer */
    struct free_node free;
};

static const struct half_events half_events;
static const struct origin_events origin_events;

/* ---- the end --------------------------------------------------------------------------------------------------- */

static void log_end(const struct relay *r, enum close_reason reason, const char *text)
{
    if (!log_enabled(LOG_LEVEL_DEBUG))
        return;
    uint64_t ms = worker_now(origin_pool_worker(r->context->pool)) - r->started_at;
    log_debug(reason == REASON_NONE ? "request done" : "request broken off", log_str("request", r->half.id),
              log_slice("method", r->request->method), log_slice("path", relay_path(r->request)),
              log_uint("status", r->status), log_str("reason", reason == REASON_NONE ? "" : reason_text(reason)->code),
              log_str("text", text), log_uint("up", r->up), log_uint("down", r->down), log_uint("ms", ms));
}

static void free_relay(struct free_node *node)
{
    struct relay *r = (struct relay *)((char *)node - offsetof(struct relay, free));
    head_free(r->request);
    pool_free(r, sizeof(*r));
}

/* Leaves both ends. `abrupt`: the service must not take its connection's end for an orderly one. */
static void end(struct relay *r, enum close_reason reason, const char *text, bool abrupt)
{
    log_end(r, reason, text);
    half_close(&r->half, reason, text);
    origin_cancel(&r->origin, abrupt);
    deadline_cancel(&r->leftover);
    DL_DELETE(r->context->relays, r);
    r->context->count--;
    r->free.free = free_relay;
    worker_free_later(origin_pool_worker(r->context->pool), &r->free);
}

static void end_if_done(struct relay *r)
{
    if (half_is_done(&r->half))
        end(r, REASON_NONE, NULL, false);
}

/* The half closed itself for want of memory, or the origin cannot go on. */
static void break_off(struct relay *r, int error)
{
    if (error == KV_EINVAL)
        end(r, REASON_BAD_REQUEST, "the request's body is not as long as its head says", true);
    else
        end(r, REASON_INTERNAL, kv_strerror(error), true);
}

static void on_leftover(struct deadline *deadline)
{
    struct relay *r = (struct relay *)((char *)deadline - offsetof(struct relay, leftover));
    if (origin_is_raw(&r->origin))
        end(r, REASON_ORIGIN_CLOSED, "the local service takes no more", false);
    else
        end(r, REASON_NONE, "the answer was complete before the request", false);
}

void relay_abort_all(struct relay_context *context, enum close_reason reason, const char *text)
{
    while (context->relays)
        end(context->relays, reason, text, true);
}

/* ---- the beginning --------------------------------------------------------------------------------------------- */

struct slice relay_path(const struct head *request)
{
    const char *query = request->target.len ? memchr(request->target.data, '?', request->target.len) : NULL;
    return (struct slice){request->target.data, query ? (size_t)(query - request->target.data) : request->target.len};
}

static int start_origin(struct relay *r)
{
    r->framing.open = false;
    const struct origin_request request = {
        .head = r->request,
        .framing = r->framing,
        .response_ms = r->context->response_ms,
        .visitor = r->visitor,
    };
    return origin_start(&r->origin, r->context->pool, &request, &origin_events, r);
}

static struct rewrite rewrite_of(const struct relay *r)
{
    struct slice host_header = r->context->host_header;
    return (struct rewrite){
        .public_scheme = r->public_scheme,
        .public_authority = r->public_authority,
        .service_scheme = r->context->tls ? SLICE("https") : SLICE("http"),
        .service_authority = host_header.len > 0 ? host_header : r->public_authority,
        .dialled = r->context->authority,
    };
}

/* Has the request name places as the service knows them, and notes how the visitor does. */
static int rewrite_head(struct relay *r)
{
    const struct field *proto = head_find_id(r->request, FIELD_X_FORWARDED_PROTO);
    bool plain = proto && slice_equals_nocase(proto->value, SLICE("http"));
    r->public_scheme = plain ? SLICE("http") : SLICE("https");
    r->public_authority = r->request->authority;
    const struct rewrite rewrite = rewrite_of(r);
    int error = r->context->rewrites ? rewrite_request(&rewrite, &r->request) : KV_OK;
    r->public_authority = r->request->authority; /* the head may be another */
    return error;
}

static void start_with_head(struct relay *r)
{
    int error = rewrite_head(r);
    if (error) {
        break_off(r, error);
        return;
    }
    origin_head_settle_upgrade(r->request);
    error = origin_head_framing(r->request, &r->framing);
    if (!error) {
        origin_head_prepare(r->request, r->context->host_header, r->context->authority);
        error = r->framing.open ? KV_OK : start_origin(r);
    }
    if (error == KV_EINVAL)
        end(r, REASON_BAD_REQUEST, "the request's head cannot be sent on", true);
    else if (error)
        break_off(r, error);
}

void relay_start(struct relay_context *context, struct message *message)
{
    struct exchange_open *open = exchange_open_of(message);
    if (!open)
        return;
    struct relay *r = pool_zalloc(sizeof(*r));
    if (!r) {
        exchange_refuse(message, REASON_INTERNAL, "no memory");
        return;
    }
    struct worker *worker = origin_pool_worker(context->pool);
    r->context = context;
    r->leftover.expired = on_leftover;
    r->started_at = worker_now(worker);
    r->visitor = open->visitor_connection;
    r->request = open->head;
    open->head = NULL;
    /* The room that Hello announced is promised already. */
    if (half_accept(&r->half, worker, message, 0, (struct exchange_clock){0}, &half_events, r) != KV_OK) {
        head_free(r->request);
        pool_free(r, sizeof(*r));
        return;
    }
    DL_APPEND(context->relays, r);
    context->count++;
    start_with_head(r);
}

/* ---- from the visitor ------------------------------------------------------------------------------------------ */

static void on_half_head(void *owner, struct head *head)
{
    (void)owner; /* heads go from the service to the visitor only */
    head_free(head);
}

static void on_half_data(void *owner, struct chunk *chunk)
{
    struct relay *r = owner;
    size_t len = chunk->len;
    int error = KV_OK;
    r->up += len;
    if (r->framing.open) {
        r->framing.framing = HTTP1_CHUNKED;
        error = start_origin(r);
    }
    if (error) {
        chunk_free(chunk);
        break_off(r, error);
        return;
    }
    error = origin_send(&r->origin, chunk);
    if (error == KV_ECLOSED)
        half_grant(&r->half, len); /* dropped: nobody has to wait for it */
    else if (error)
        break_off(r, error);
}

static void on_half_end(void *owner, struct head *trailers)
{
    struct relay *r = owner;
    int error = KV_OK;
    if (r->framing.open) {
        r->framing.framing = HTTP1_LENGTH;
        error = start_origin(r);
    } else {
        error = origin_send_end(&r->origin, trailers);
    }
    head_free(trailers);
    if (error)
        break_off(r, error);
    else
        end_if_done(r);
}

static void on_half_credit(void *owner, size_t bytes)
{
    struct relay *r = owner;
    (void)bytes;
    origin_read_on(&r->origin);
}

static void on_half_reset(void *owner, enum close_reason reason, const char *text)
{
    end(owner, reason, text, reason != REASON_NONE);
}

static const struct half_events half_events = {
    .head = on_half_head,
    .data = on_half_data,
    .credit = on_half_credit,
    .end = on_half_end,
    .reset = on_half_reset,
};

/* ---- from the service ------------------------------------------------------------------------------------------ */

static void on_origin_head(void *owner, const struct head *answer)
{
    struct relay *r = owner;
    r->status = answer->status;
    struct head *head = forward_response(answer);
    if (head && r->context->rewrites && r->context->host_header.len > 0) {
        const struct rewrite rewrite = rewrite_of(r);
        if (rewrite_answer(&rewrite, &head) != KV_OK) {
            head_free(head);
            head = NULL;
        }
    }
    if (!head || half_send_head(&r->half, head) != KV_OK)
        break_off(r, KV_ENOMEM);
}

static size_t on_origin_room(void *owner)
{
    struct relay *r = owner;
    return half_credit(&r->half);
}

static void on_origin_data(void *owner, struct slice bytes)
{
    struct relay *r = owner;
    r->down += bytes.len;
    struct chunk *chunk = chunk_copy(bytes.data, bytes.len);
    if (!chunk || half_send_data(&r->half, chunk) != KV_OK)
        break_off(r, KV_ENOMEM);
}

/* The answer is complete and the service takes no more; the visitor is still sending. */
static void await_visitor(struct relay *r)
{
    unsigned ms = origin_is_raw(&r->origin) ? LIMIT_LINGER_MS : LIMIT_PROGRESS_MS;
    if (!origin_is_open(&r->origin) && !deadline_armed(&r->leftover))
        deadline_arm(origin_pool_worker(r->context->pool), &r->leftover, ms);
}

static void on_origin_end(void *owner, const struct head *trailers)
{
    struct relay *r = owner;
    struct head *forwarded = trailers ? forward_trailers(trailers) : NULL;
    if ((trailers && !forwarded) || half_send_end(&r->half, forwarded) != KV_OK) {
        break_off(r, KV_ENOMEM);
        return;
    }
    if (half_is_done(&r->half))
        end(r, REASON_NONE, NULL, false);
    else
        await_visitor(r);
}

static void on_origin_left(void *owner, size_t bytes)
{
    struct relay *r = owner;
    if (half_grant(&r->half, bytes) != KV_OK)
        break_off(r, KV_ENOMEM);
    else
        await_visitor(r);
}

static void on_origin_failed(void *owner, enum close_reason reason, const char *text)
{
    struct relay *r = owner;
    r->context->failed(r->context, &r->half, r->request, reason, text);
    end(r, reason, text, true);
}

static const struct origin_events origin_events = {
    .head = on_origin_head,
    .room = on_origin_room,
    .data = on_origin_data,
    .end = on_origin_end,
    .left = on_origin_left,
    .failed = on_origin_failed,
};
