/*
 * Idle connections are stacks in an array of LIMIT_ORIGIN_IDLE_MAX places: those that are anyone's and those that
 * belong to one visitor's connection; free places are a stack as well. While a connection is idle its place is its
 * owner: whatever comes from it then (a service's farewell, an end, an error) ends it, and no request ever sees it.
 */
#include "client/origin_pool.h"

#include <stdlib.h>
#include <utlist.h>

#include "base/error.h"
#include "base/limits.h"
#include "client/origin_mux.h"
#include "io/conn.h"
#include "io/tls.h"
#include "io/worker.h"
#include "tunnel/wire.h"

struct place {
    struct origin_pool *pool;
    struct conn *conn;
    struct deadline idle;
    uint64_t since;            /* worker_now() when it was put here */
    bool told;                 /* the service said how long it keeps it, and `idle` is behind that */
    uint64_t visitor;          /* whom it is kept for; 0: anyone */
    struct place *prev, *next; /* newest first; `next` links the free ones too */
};

struct origin_pool {
    struct worker *worker;
    struct origin_target target;
    struct origin_muxes *muxes;
    struct buffer scratch;
    uint64_t closes_after; /* ms idle behind which the service has closed a connection; 0: not seen */
    uint64_t keeps_for;    /* ms idle behind which one has answered */
    struct place *shared, *personal, *free;
    struct place places[LIMIT_ORIGIN_IDLE_MAX];
};

/* ---- idle connections ------------------------------------------------------------------------------------------ */

static struct place **stack_of(struct place *place)
{
    return place->visitor ? &place->pool->personal : &place->pool->shared;
}

/* Empties a place and returns what was in it. */
static struct conn *vacate(struct place *place)
{
    struct origin_pool *pool = place->pool;
    struct conn *conn = place->conn;
    deadline_cancel(&place->idle);
    DL_DELETE(*stack_of(place), place);
    place->conn = NULL;
    LL_PREPEND(pool->free, place);
    return conn;
}

static void on_idle_expired(struct deadline *deadline)
{
    struct place *place = (struct place *)((char *)deadline - offsetof(struct place, idle));
    conn_abort(vacate(place), false);
}

static uint64_t idle_for(const struct place *place)
{
    return worker_now(place->pool->worker) - place->since;
}

/* The service has closed it, or says that it will. */
static struct conn *lose(struct place *place)
{
    origin_pool_learn(place->pool, idle_for(place), false);
    return vacate(place);
}

static void on_idle_data(void *owner, struct slice bytes)
{
    (void)bytes; /* an answer to nothing, 408 most likely */
    conn_abort(lose(owner), false);
}

static void on_idle_eof(void *owner)
{
    conn_abort(lose(owner), false);
}

static void on_idle_closed(void *owner, int error)
{
    (void)error;
    lose(owner);
}

static const struct conn_events idle_events = {
    .data = on_idle_data,
    .eof = on_idle_eof,
    .closed = on_idle_closed,
};

/* A free place; if there is none, the oldest personal one: they are of use to one visitor each. */
static struct place *find_place(struct origin_pool *pool)
{
    if (!pool->free && pool->personal)
        conn_abort(vacate(pool->personal->prev), false);
    return pool->free;
}

void origin_pool_put(struct origin_pool *pool, struct conn *conn, uint64_t visitor, uint64_t idle_ms)
{
    struct place *place = find_place(pool);
    if (!place) {
        conn_abort(conn, false);
        return;
    }
    LL_DELETE(pool->free, place);
    place->conn = conn;
    place->visitor = visitor;
    place->since = worker_now(pool->worker);
    place->told = idle_ms < LIMIT_ORIGIN_IDLE_MS;
    DL_PREPEND(*stack_of(place), place);
    conn_set_owner(conn, &idle_events, place);
    conn_resume(conn);
    deadline_arm(pool->worker, &place->idle, idle_ms);
}

/* What is in a place, or NULL if its service has said something meanwhile: a farewell, or an answer that no request has
 * asked for. */
static struct conn *take(struct place *place, const struct conn_events *events, void *owner)
{
    struct conn *conn = vacate(place);
    if (!conn_is_silent(conn)) {
        conn_abort(conn, false);
        return NULL;
    }
    conn_set_owner(conn, events, owner);
    return conn;
}

void origin_pool_learn(struct origin_pool *pool, uint64_t idle_ms, bool answered)
{
    if (!answered && (pool->closes_after == 0 || idle_ms < pool->closes_after)) {
        pool->closes_after = idle_ms > 0 ? idle_ms : 1;
        return;
    }
    if (answered && idle_ms > pool->keeps_for)
        pool->keeps_for = idle_ms;
    if (answered && idle_ms > pool->closes_after + pool->closes_after / 4)
        pool->closes_after = 0; /* that was something else, a restart perhaps */
}

/* Half of the time behind which the service closes connections; if that was not seen, of the time that one was kept. */
static bool is_young(const struct place *place)
{
    const struct origin_pool *pool = place->pool;
    uint64_t trusted = pool->keeps_for / 2 > LIMIT_ORIGIN_YOUNG_MS ? pool->keeps_for / 2 : LIMIT_ORIGIN_YOUNG_MS;
    if (pool->closes_after > 0)
        trusted = pool->closes_after / 2;
    return place->told || idle_for(place) <= trusted;
}

struct conn *origin_pool_take(struct origin_pool *pool, bool repeatable, uint64_t *idle_ms,
                              const struct conn_events *events, void *owner)
{
    struct conn *conn = NULL;
    while (!conn && pool->shared && (repeatable || is_young(pool->shared))) {
        *idle_ms = idle_for(pool->shared);
        conn = take(pool->shared, events, owner);
    }
    return conn;
}

static struct place *find_personal(const struct origin_pool *pool, uint64_t visitor)
{
    struct place *place = NULL;
    if (visitor > 0)
        DL_SEARCH_SCALAR(pool->personal, place, visitor, visitor);
    return place;
}

bool origin_pool_has_personal(const struct origin_pool *pool, uint64_t visitor)
{
    return find_personal(pool, visitor) != NULL;
}

struct conn *origin_pool_take_personal(struct origin_pool *pool, uint64_t visitor, const struct conn_events *events,
                                       void *owner)
{
    struct conn *conn = NULL;
    struct place *place;
    while (!conn && (place = find_personal(pool, visitor)))
        conn = take(place, events, owner);
    return conn;
}

/* ---- new ones -------------------------------------------------------------------------------------------------- */

struct conn *origin_pool_dial(struct origin_pool *pool, bool with_h2, const struct conn_events *events, void *owner)
{
    const struct origin_target *target = &pool->target;
    struct dial_options options = {
        .host = url_dial_host(&target->url),
        .port = target->url.port,
        .tls = with_h2 ? target->tls : target->tls_h1,
        .tls_name = slice_of(target->url.host),
        .timeout_ms = target->connect_ms,
    };
    return conn_dial(pool->worker, &options, events, owner);
}

enum close_reason origin_pool_reason(int error)
{
    switch (error) {
    case KV_EREFUSED:
        return REASON_ORIGIN_REFUSED;
    case KV_ETIMEDOUT:
        return REASON_ORIGIN_CONNECT_TIMEOUT;
    case KV_ETLS:
    case KV_ECLOSED:
        return REASON_ORIGIN_TLS; /* connected, and ended in the handshake */
    case KV_ENOMEM:
        return REASON_INTERNAL;
    default:
        return REASON_ORIGIN_UNREACHABLE;
    }
}

/* ---- the pool -------------------------------------------------------------------------------------------------- */

struct origin_pool *origin_pool_new(struct worker *worker, const struct origin_target *target)
{
    struct origin_pool *pool = calloc(1, sizeof(*pool));
    if (!pool)
        return NULL;
    pool->worker = worker;
    pool->target = *target;
    if (target->url.tls || target->url.h2c) {
        pool->muxes = origin_muxes_new(pool);
        if (!pool->muxes) {
            free(pool);
            return NULL;
        }
    }
    if (target->tls)
        tls_context_ref(target->tls);
    if (target->tls_h1)
        tls_context_ref(target->tls_h1);
    pool->scratch.limit = 2UL * WIRE_HEAD_BYTES; /* text of a head, and ": " and CRLF of each field */
    for (size_t i = LIMIT_ORIGIN_IDLE_MAX; i-- > 0;) {
        struct place *place = &pool->places[i];
        place->pool = pool;
        place->idle.expired = on_idle_expired;
        LL_PREPEND(pool->free, place);
    }
    return pool;
}

void origin_pool_free(struct origin_pool *pool)
{
    if (!pool)
        return;
    while (pool->shared)
        conn_abort(vacate(pool->shared), false);
    while (pool->personal)
        conn_abort(vacate(pool->personal), false);
    origin_muxes_free(pool->muxes);
    tls_context_free(pool->target.tls);
    tls_context_free(pool->target.tls_h1);
    buffer_free(&pool->scratch);
    free(pool);
}

struct origin_muxes *origin_pool_muxes(const struct origin_pool *pool)
{
    return pool->muxes;
}

bool origin_pool_is_tls(const struct origin_pool *pool)
{
    return pool->target.url.tls;
}

unsigned origin_pool_connect_ms(const struct origin_pool *pool)
{
    return pool->target.connect_ms;
}

struct worker *origin_pool_worker(const struct origin_pool *pool)
{
    return pool->worker;
}

struct buffer *origin_pool_scratch(struct origin_pool *pool)
{
    pool->scratch.len = 0;
    return &pool->scratch;
}
