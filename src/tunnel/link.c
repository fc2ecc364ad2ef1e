/* A link's life: greeting, messages of the session, liveness, the table of exchanges, the end. See link.h. */
#include "tunnel/link.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/blake3.h"
#include "base/error.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/pool.h"
#include "base/random.h"
#include "http/h2.h"
#include "tunnel/budget.h"
#include "tunnel/link_impl.h"

/* Encoded small messages waiting for a peer that does not read. Credit bounds bodies; this bounds everything else. */
#define ANSWER_MARGIN_MS       10000 /* the client's own time-out comes first and knows more */
#define OUTBOX_MAX             (2UL * LIMIT_MESSAGE_BYTES)

/* Of the 16 MiB window that the peer has for the stream: given back in steps, not for every message. */
#define WINDOW_STEP_BYTES      (1024UL * 1024)

/* Of a peer's allowance against floods: a stranger has a hundred messages, of which it needs one. */
#define STRANGER_MESSAGE_COSTS 20

/* ---- the table of exchanges ------------------------------------------------------------------------------------ */

struct link_exchange *link_find(struct link *link, uint64_t id)
{
    struct link_exchange *ex;
    HASH_FIND(hh, link->exchanges, &id, sizeof(id), ex);
    return ex;
}

struct link_exchange *link_exchange_new(struct link *link, uint64_t id)
{
    if (!budget_take(2UL * LIMIT_WINDOW_BYTES))
        return NULL;
    struct link_exchange *ex = pool_zalloc(sizeof(*ex));
    if (!ex) {
        budget_give(2UL * LIMIT_WINDOW_BYTES);
        return NULL;
    }
    ex->link = link;
    ex->id = id;
    ex->window = ex->room = LIMIT_WINDOW_BYTES;
    ex->drained_since = worker_now(link->worker);
    link_legacy_init(ex);
    HASH_ADD(hh, link->exchanges, id, sizeof(ex->id), ex);
    if (!ex->hh.tbl) {
        budget_give(2UL * LIMIT_WINDOW_BYTES);
        pool_free(ex, sizeof(*ex));
        return NULL;
    }
    return ex;
}

void link_exchange_remove(struct link_exchange *ex)
{
    struct link *link = ex->link;
    half_close(&ex->half, REASON_NONE, NULL);
    if (ex->is_ready)
        DL_DELETE(link->ready, ex);
    HASH_DELETE(hh, link->exchanges, ex);
    admission_leave(&link->admission, &ex->place);
    link_legacy_remove(ex);
    budget_give(ex->room + ex->window);
    chain_free(&ex->backlog);
    head_free(ex->trailers);
    free(ex->break_text);
    pool_free(ex, sizeof(*ex));
    if (link->draining && !link->ended && !link->exchanges && link->events->idle)
        link->events->idle(link->owner);
}

void link_exchange_remove_if_done(struct link_exchange *ex)
{
    if (ex->in_ended && ex->out_ended)
        link_exchange_remove(ex);
}

/* ---- output ---------------------------------------------------------------------------------------------------- */

struct chain *link_outbox(struct link *link)
{
    return h2_stream_output(link->stream);
}

int link_put(struct link *link, const struct wire_message *message)
{
    if (!link->stream || link->ended)
        return KV_ECLOSED;
    link->encoded.len = 0;
    int error = wire_encode(link->side, message, &link->encoded);
    if (!error && link_outbox(link)->bytes > OUTBOX_MAX) {
        link_end(link, REASON_PROTOCOL, "the peer sends and does not read");
        return KV_ELIMIT;
    }
    if (!error)
        error = chain_append(link_outbox(link), link->encoded.data, link->encoded.len);
    if (!link->exchanges) /* an idle link keeps no buffer, which may have grown with a head */
        buffer_free(&link->encoded);
    if (error == KV_ENOMEM)
        link_end(link, REASON_INTERNAL, "no memory");
    else if (!error)
        h2_resume(link->stream);
    return error;
}

int link_send(struct link *link, const struct wire_message *message)
{
    return link_put(link, message);
}

void link_top_up(struct link *link)
{
    if (link->started && !link->ended)
        link_fill(link);
}

/* ---- input ----------------------------------------------------------------------------------------------------- */

static void on_ping(struct link *link, uint64_t nonce)
{
    link_put(link, &(struct wire_message){.kind = WIRE_PONG, .nonce = nonce});
}

/* A Hello holds a token: nothing of a greeting is kept. What was read in place lies where its reader wipes it. */
static void forget_greeting(struct link *link, struct chunk *whole)
{
    wire_arena_free(&link->arena);
    if (whole)
        secret_wipe(whole->data, whole->len);
}

/* One message; `whole` is the chunk it lies in, if it has one of its own. */
static void on_message(struct link *link, struct slice bytes, struct chunk *whole)
{
    struct wire_message m;
    bool greets = !link->started;
    if (greets && link->side == WIRE_FROM_SERVER && !h2_charge(link->stream, STRANGER_MESSAGE_COSTS)) {
        chunk_free(whole);
        link_end(link, REASON_PROTOCOL, "too many messages before the greeting");
        return;
    }
    int error =
        wire_decode(link->side == WIRE_FROM_SERVER ? WIRE_FROM_CLIENT : WIRE_FROM_SERVER, bytes, &link->arena, &m);
    if (error && m.kind != WIRE_UNKNOWN && m.request_id != 0 && link->started) {
        link_receive_bad(link, &m, error);
    } else if (error) {
        link_end(link, error == KV_ENOMEM ? REASON_INTERNAL : REASON_PROTOCOL, "a message could not be read");
    } else if (m.kind == WIRE_PING) {
        if (link->started) /* a stranger's pongs would only wait */
            on_ping(link, m.nonce);
    } else if (m.kind == WIRE_PONG || m.kind == WIRE_UNKNOWN) {
        /* Being heard is all that a Pong is for; what we do not know is skipped. */
    } else if (m.request_id == 0) {
        link->events->message(link->owner, &m);
    } else if (link->started) {
        link_receive(link, &m, whole);
        return;
    } else {
        link_end(link, REASON_PROTOCOL, "an exchange before the greeting");
    }
    if (greets)
        forget_greeting(link, whole);
    chunk_free(whole);
}

void link_data(struct link *link, struct slice bytes)
{
    if (link->ended)
        return;
    link->heard = worker_now(link->worker);
    size_t received = bytes.len;
    struct slice message;
    struct chunk *whole;
    int result;
    while (!link->ended && (result = grpc_read(&link->reader, &bytes, &message, &whole)) != 0) {
        if (result < 0) {
            link_end(link, result == KV_ENOMEM ? REASON_INTERNAL : REASON_PROTOCOL,
                     result == KV_ELIMIT ? "a message is too large" : "the gRPC framing is broken");
            return;
        }
        on_message(link, message, whole);
    }
    wire_arena_free(&link->arena);
    if (link->ended || !link->stream)
        return;
    link->withheld += received;
    if (!deadline_armed(&link->stall) && link->withheld >= WINDOW_STEP_BYTES) {
        h2_consume(link->stream, link->withheld);
        link->withheld = 0;
    }
}

/* ---- liveness -------------------------------------------------------------------------------------------------- */

void link_pong(struct link *link, uint64_t opaque)
{
    uint64_t now = worker_now(link->worker);
    link->heard = link->answered = now;
    if (link->ping_sent_at == 0 || opaque != link->ping_opaque)
        return;
    uint32_t sample = (uint32_t)(now - link->ping_sent_at);
    link->round_trip = link->round_trip ? (link->round_trip * 7 + sample + 4) / 8 : (sample ? sample : 1);
    link->ping_sent_at = 0;
}

static void send_ping(struct link *link)
{
    random_bytes(&link->ping_opaque, sizeof(link->ping_opaque));
    link->ping_sent_at = worker_now(link->worker);
    h2_ping(h2_stream_session(link->stream), link->ping_opaque);
}

static void look_after(struct link *link, uint64_t ms)
{
    link->look_at = worker_now(link->worker) + ms;
    deadline_arm(link->worker, &link->liveness, ms);
}

/* What the last look and this one say together. */
struct verdict {
    uint64_t silence;    /* ms since anything came from the peer */
    uint64_t unanswered; /* ms since it showed that it hears us */
    bool progress;       /* what we send arrives, though not all of it has */
    bool stuck;          /* it does not, though the peer has room for it */
};

/* Silence is no death while the PING cannot have been answered, because what was sent before it still makes its way
 * through a slow line. And a peer that is heard may be out of reach: when only the way there is broken, its own PINGs
 * come until it gives us up. */
static const char *death(const struct link *link, const struct verdict *v)
{
    if (v->silence >= link->terms.dead_ms && !v->progress)
        return "nothing was heard for too long";
    if (v->unanswered >= link->terms.dead_ms && v->stuck)
        return "nothing that was sent arrives";
    return NULL;
}

/* This process itself was stopped, or starved, so that the answer may lie in its socket. */
static bool was_stopped(const struct link *link)
{
    return worker_now(link->worker) - link->look_at >= link->terms.ping_ms / 2;
}

/* TCP's own patience is as long as ours, but for a peer whose window is shut: it takes what it can when it can, and TCP
 * would call that dead. It comes back when all has been taken. */
static void set_user_timeout(struct link *link, const struct h2_signs *signs)
{
    bool wanted = !signs->window_shut && (link->user_timeout || !signs->sending);
    if (wanted != link->user_timeout)
        h2_set_user_timeout(h2_stream_session(link->stream), wanted ? link->terms.dead_ms : 0);
    link->user_timeout = wanted;
}

/* Asks twice: by HTTP/2, whose answer measures the way, and by a message, which alone passes through a proxy that
 * speaks HTTP/2 itself and would end a stream that carries nothing. A message that cannot leave is not followed by
 * others. */
static void ask(struct link *link)
{
    send_ping(link);
    if (!link_outbox(link)->head)
        link_put(link, &(struct wire_message){.kind = WIRE_PING, .nonce = link->ping_opaque});
}

static struct verdict weigh(struct link *link, const struct h2_signs *signs)
{
    uint64_t now = worker_now(link->worker);
    if (!signs->sending || signs->acknowledged > link->acknowledged)
        link->moved = now;
    bool stalled = now - link->moved >= link->terms.dead_ms / 2; /* slow lines have pauses too */
    link->acknowledged = signs->acknowledged;
    if (signs->heard > link->heard)
        link->heard = signs->heard;
    return (struct verdict){
        .silence = now - link->heard,
        .unanswered = now - link->answered,
        .progress = signs->sending && !stalled,
        .stuck = signs->sending && stalled && !signs->window_shut,
    };
}

/* When to look again: each ping_ms, but not later than a deadline that is near. */
static uint64_t next_look(const struct link *link, const struct verdict *v)
{
    uint64_t next = link->terms.ping_ms, dead = link->terms.dead_ms;
    if (v->silence < dead && dead - v->silence < next)
        next = dead - v->silence;
    if (v->unanswered < dead && dead - v->unanswered < next)
        next = dead - v->unanswered;
    return next;
}

/* The peer is asked at each look, though it may be heard: it may be waiting for a sign of us behind a slow line of its
 * own, where what it sends arrives and its PINGs are the last in the queue. */
static void on_liveness(struct deadline *deadline)
{
    struct link *link = (struct link *)((char *)deadline - offsetof(struct link, liveness));
    struct h2_signs signs = {0};
    if (link->ended || !link->stream)
        return;
    h2_signs(h2_stream_session(link->stream), &signs);
    struct verdict verdict = weigh(link, &signs);
    const char *text = was_stopped(link) ? NULL : death(link, &verdict);
    if (text) {
        link_end(link, link->side == WIRE_FROM_SERVER ? REASON_CLIENT_GONE : REASON_IDLE, text);
        return;
    }
    set_user_timeout(link, &signs);
    ask(link);
    look_after(link, next_look(link, &verdict));
}

/* ---- start ----------------------------------------------------------------------------------------------------- */

static void on_ending(struct flush_node *node);

static void on_open(struct receiver *receiver, struct message *message)
{
    link_open((struct link *)((char *)receiver - offsetof(struct link, receiver)), message);
}

struct link *link_new(struct worker *worker, struct h2_stream *stream, enum wire_side side,
                      const struct link_events *events, void *owner)
{
    struct link *link = calloc(1, sizeof(*link));
    if (!link)
        return NULL;
    link->worker = worker;
    link->stream = stream;
    link->side = side;
    link->events = events;
    link->owner = owner;
    link->reader.limit = LIMIT_GREETING_BYTES;
    link->encoded.limit = LIMIT_MESSAGE_BYTES + GRPC_PREFIX_LEN;
    link->heard = worker_now(worker);
    link->next_id = 1;
    link->liveness.expired = on_liveness;
    link->stall.expired = link_legacy_stalled;
    link->ending.flush = on_ending;
    return link;
}

struct exchange_clock link_clock(uint32_t features, uint32_t told_ms, uint32_t cap_ms, uint32_t default_ms)
{
    const uint64_t at_last = (uint64_t)told_ms + ANSWER_MARGIN_MS;
    if (!(features & FEATURE_CLOCKS))
        return (struct exchange_clock){default_ms, REASON_SERVER_TIMEOUT};
    if (told_ms == 0 || (cap_ms > 0 && cap_ms < at_last))
        return (struct exchange_clock){cap_ms, REASON_SERVER_TIMEOUT};
    return (struct exchange_clock){at_last, REASON_CLIENT_TIMEOUT};
}

int link_start(struct link *link, const struct link_terms *terms)
{
    link->terms = *terms;
    link->admission.caps[ADMISSION_WORKING] = terms->max_concurrent;
    link->admission.caps[ADMISSION_STILL] = terms->max_still;
    if (!link_has(link, FEATURE_CREDIT))
        link->terms.peer_credit = LIMIT_WINDOW_BYTES;
    if (link->terms.ping_ms == 0)
        link->terms.ping_ms = LIMIT_PING_MS;
    if (link->terms.dead_ms == 0)
        link->terms.dead_ms = LIMIT_DEAD_MS;
    snprintf(link->session, sizeof(link->session), "%.*s", (int)terms->session.len, terms->session.data);
    link->terms.session = slice_of(link->session);
    link->receiver.receive = on_open;
    int error = receiver_attach(link->worker, &link->receiver);
    if (error)
        return error;
    link->started = true;
    link->reader.limit = LIMIT_MESSAGE_BYTES;
    h2_set_user_timeout(h2_stream_session(link->stream), link->terms.dead_ms);
    link->user_timeout = true;
    link->answered = link->moved = worker_now(link->worker);
    send_ping(link);
    look_after(link, link->terms.ping_ms);
    return KV_OK;
}

struct address link_address(const struct link *link)
{
    return link->receiver.address;
}

/* ---- the end --------------------------------------------------------------------------------------------------- */

static void reset_all(struct link *link, enum close_reason reason, const char *text)
{
    struct link_exchange *ex, *next;
    HASH_ITER (hh, link->exchanges, ex, next) {
        half_close(&ex->half, reason, text);
        link_exchange_remove(ex);
    }
}

/* Deaf from here on: no message, no deadline, no exchange. */
static void shut(struct link *link, enum close_reason reason, const char *text)
{
    link->ended = true;
    receiver_detach(&link->receiver);
    deadline_cancel(&link->liveness);
    deadline_cancel(&link->stall);
    reset_all(link, reason, text);
}

static void on_ending(struct flush_node *node)
{
    struct link *link = (struct link *)((char *)node - offsetof(struct link, ending));
    /* What the exchanges are told is whose side failed, not how. */
    shut(link, link->side == WIRE_FROM_SERVER ? REASON_CLIENT_GONE : REASON_VISITOR_GONE, link->end_text);
    link->events->ended(link->owner, link->end_reason, link->end_text);
}

void link_end(struct link *link, enum close_reason reason, const char *text)
{
    if (link->ended)
        return;
    link->ended = true;
    link->end_reason = reason;
    snprintf(link->end_text, sizeof(link->end_text), "%s", text ? text : "");
    worker_flush_later(link->worker, &link->ending);
}

void link_stream_ended(struct link *link, const char *text)
{
    link->stream = NULL;
    link_end(link, link->side == WIRE_FROM_SERVER ? REASON_CLIENT_GONE : REASON_NONE, text);
}

void link_drain(struct link *link)
{
    link->draining = true;
}

static void free_link(struct free_node *node)
{
    struct link *link = (struct link *)((char *)node - offsetof(struct link, free));
    grpc_reader_free(&link->reader);
    wire_arena_free(&link->arena);
    buffer_free(&link->encoded);
    free(link);
}

void link_free(struct link *link, enum close_reason reason, const char *text)
{
    if (!link)
        return;
    worker_flush_cancel(link->worker, &link->ending);
    shut(link, reason, text);
    link->stream = NULL;
    link->free.free = free_link;
    worker_free_later(link->worker, &link->free);
}

/* ---- facts ----------------------------------------------------------------------------------------------------- */

size_t link_exchanges(const struct link *link)
{
    return HASH_COUNT(link->exchanges);
}

uint32_t link_round_trip(const struct link *link)
{
    return link->round_trip;
}
