/*
 * Idle connections are a stack in an array of LIMIT_ORIGIN_IDLE_MAX places; free places are a stack as well. While a
 * connection is idle its place is its owner: whatever comes from it then (a service's farewell, an end, an error) ends
 * it, and no request ever sees it.
 */
#include "client/origin_pool.h"

#include <stdlib.h>

#include "base/limits.h"
#include "io/conn.h"
#include "io/tls.h"
#include "io/worker.h"
#include "tunnel/wire.h"

struct place {
    struct origin_pool *pool;
    struct conn *conn;
    struct deadline idle;
    struct place *newer, *older; /* `older` links the free ones too */
};

struct origin_pool {
    struct worker *worker;
    struct origin_target target;
    struct buffer scratch;
    struct place *newest, *free;
    struct place places[LIMIT_ORIGIN_IDLE_MAX];
};

/* ---- idle connections ------------------------------------------------------------------------------------------ */

/* Empties a place and returns what was in it. */
static struct conn *vacate(struct place *place)
{
    struct origin_pool *pool = place->pool;
    struct conn *conn = place->conn;
    deadline_cancel(&place->idle);
    if (place->newer)
        place->newer->older = place->older;
    else
        pool->newest = place->older;
    if (place->older)
        place->older->newer = place->newer;
    place->conn = NULL;
    place->newer = NULL;
    place->older = pool->free;
    pool->free = place;
    return conn;
}

static void on_idle_expired(struct deadline *deadline)
{
    struct place *place = (struct place *)((char *)deadline - offsetof(struct place, idle));
    conn_abort(vacate(place), false);
}

static void on_idle_data(void *owner, struct slice bytes)
{
    (void)bytes; /* an answer to nothing, 408 most likely */
    conn_abort(vacate(owner), false);
}

static void on_idle_eof(void *owner)
{
    conn_abort(vacate(owner), false);
}

static void on_idle_closed(void *owner, int error)
{
    (void)error;
    vacate(owner);
}

static const struct conn_events idle_events = {
    .data = on_idle_data,
    .eof = on_idle_eof,
    .closed = on_idle_closed,
};

void origin_pool_put(struct origin_pool *pool, struct conn *conn, uint64_t idle_ms)
{
    struct place *place = pool->free;
    if (!place) {
        conn_abort(conn, false);
        return;
    }
    pool->free = place->older;
    place->conn = conn;
    place->newer = NULL;
    place->older = pool->newest;
    if (place->older)
        place->older->newer = place;
    pool->newest = place;
    conn_set_owner(conn, &idle_events, place);
    conn_resume(conn);
    deadline_arm(pool->worker, &place->idle, idle_ms);
}

struct conn *origin_pool_take(struct origin_pool *pool, const struct conn_events *events, void *owner)
{
    if (!pool->newest)
        return NULL;
    struct conn *conn = vacate(pool->newest);
    conn_set_owner(conn, events, owner);
    return conn;
}

/* ---- new ones -------------------------------------------------------------------------------------------------- */

struct conn *origin_pool_dial(struct origin_pool *pool, const struct conn_events *events, void *owner)
{
    const struct origin_target *target = &pool->target;
    struct dial_options options = {
        .host = url_dial_host(&target->url),
        .port = target->url.port,
        .tls = target->tls,
        .tls_name = slice_of(target->url.host),
        .timeout_ms = target->connect_ms,
    };
    return conn_dial(pool->worker, &options, events, owner);
}

/* ---- the pool -------------------------------------------------------------------------------------------------- */

struct origin_pool *origin_pool_new(struct worker *worker, const struct origin_target *target)
{
    struct origin_pool *pool = calloc(1, sizeof(*pool));
    if (!pool)
        return NULL;
    pool->worker = worker;
    pool->target = *target;
    if (pool->target.tls)
        tls_context_ref(pool->target.tls);
    pool->scratch.limit = 2UL * WIRE_HEAD_BYTES; /* text of a head, and ": " and CRLF of each field */
    for (size_t i = LIMIT_ORIGIN_IDLE_MAX; i-- > 0;) {
        struct place *place = &pool->places[i];
        place->pool = pool;
        place->idle.expired = on_idle_expired;
        place->older = pool->free;
        pool->free = place;
    }
    return pool;
}

void origin_pool_free(struct origin_pool *pool)
{
    if (!pool)
        return;
    while (pool->newest)
        conn_abort(vacate(pool->newest), false);
    tls_context_free(pool->target.tls);
    buffer_free(&pool->scratch);
    free(pool);
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
