/* What the workers' shares of the edge have in common: settings, counters, draining. */
#include "edge/edge.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "edge/edge_impl.h"
#include "edge/edge_stall.h"
#include "tunnel/budget.h"

#define CONNECTION_SPARE_BITS 9 /* eight bytes on the wire, and room to count */

/* Connections that were closed are waited for as those are that were not. */
static bool is_spent(const struct conn_patience *patience, uint64_t silent_ms)
{
    const struct edge *edge = (const struct edge *)((const char *)patience - offsetof(struct edge, patience));
    return atomic_load_explicit(&edge->stopping, memory_order_relaxed) ||
           edge_stall_is_over(silent_ms, edge->settings.stall_timeout_ms, budget_is_short());
}

struct edge *edge_new(const struct edge_settings *settings)
{
    struct edge *e = calloc(1, sizeof(*e));
    if (!e)
        return NULL;
    e->settings = *settings;
    const struct address_rates *rates = &settings->rates;
    bool limits = rates->connections || rates->connections_per_second || rates->requests_per_second;
    e->limit = limits ? address_limit_new(rates) : NULL;
    e->count = worker_count(settings->group);
    size_t size = e->count * sizeof(*e->locals);
    e->locals = aligned_alloc(_Alignof(struct edge_local), size);
    if (!e->locals || (limits && !e->limit)) {
        address_limit_free(e->limit);
        free(e->locals);
        free(e);
        return NULL;
    }
    memset(e->locals, 0, size);
    e->patience.is_spent = is_spent;
    for (unsigned i = 0; i < e->count; i++) {
        struct edge_local *local = &e->locals[i];
        local->scratch.limit = ANSWER_HEAD_MAX;
        random_bytes(&local->connections, sizeof(local->connections));
        local->connections >>= CONNECTION_SPARE_BITS;
    }
    return e;
}

void edge_free(struct edge *edge)
{
    if (!edge)
        return;
    for (unsigned i = 0; i < edge->count; i++)
        buffer_free(&edge->locals[i].scratch);
    address_limit_free(edge->limit);
    free(edge->locals);
    free(edge);
}

/* ---- draining -------------------------------------------------------------------------------------------------- */

/* How far a drain has come. */
enum edge_drain {
    EDGE_LAST_CALL, /* each connection's next request is its last */
    EDGE_DRAIN,     /* idle ones close, the others after their answer */
    EDGE_STOP,
};

struct order {
    struct task task;
    struct edge *edge;
    enum edge_drain drain;
};

static void drop_order(struct message *message)
{
    free(message);
}

/* HTTP/1 says it with the next answer, which looks at local->draining; HTTP/2 has a frame for it. */
static void call_last(struct edge_local *local)
{
    for (struct edge_h2 *h2 = local->h2_conns; h2; h2 = edge_h2_next(h2))
        edge_h2_last_call(h2);
}

static void drain_all(struct edge *edge, bool now)
{
    struct edge_local *local = edge_local(edge);
    edge_newcomers_close(edge);
    edge_redirects_close(edge);
    struct edge_h1 *next_h1;
    for (struct edge_h1 *h1 = local->h1_conns; h1; h1 = next_h1) {
        next_h1 = edge_h1_next(h1);
        edge_h1_drain(h1, now);
    }
    struct edge_h2 *next_h2;
    for (struct edge_h2 *h2 = local->h2_conns; h2; h2 = next_h2) {
        next_h2 = edge_h2_next(h2);
        edge_h2_drain(h2, now);
    }
}

static void run_order(struct task *task)
{
    struct order *order = (struct order *)task;
    struct edge *edge = order->edge;
    enum edge_drain drain = order->drain;
    free(order);
    edge_local(edge)->draining = true;
    if (drain == EDGE_LAST_CALL)
        call_last(edge_local(edge));
    else
        drain_all(edge, drain == EDGE_STOP);
}

static void give_order(struct edge *edge, enum edge_drain drain)
{
    for (unsigned i = 0; i < edge->count; i++) {
        struct order *order = calloc(1, sizeof(*order));
        if (!order)
            return; /* the end of the process closes what is left */
        *order = (struct order){.task.run = run_order, .edge = edge, .drain = drain};
        order->task.message.drop = drop_order;
        worker_run(worker_at(edge->settings.group, i), &order->task);
    }
}

void edge_announce_drain(struct edge *edge)
{
    give_order(edge, EDGE_LAST_CALL);
}

void edge_drain(struct edge *edge)
{
    give_order(edge, EDGE_DRAIN);
}

void edge_stop(struct edge *edge)
{
    atomic_store_explicit(&edge->stopping, true, memory_order_relaxed);
    give_order(edge, EDGE_STOP);
}

void edge_request_id(struct edge *edge, char out[EXCHANGE_ID_LEN])
{
    struct edge_local *local = edge_local(edge);
    snprintf(out, EXCHANGE_ID_LEN, "edge%u-%llu", worker_index(worker_current()),
             (unsigned long long)++local->next_request);
}

/* ---- counters -------------------------------------------------------------------------------------------------- */

size_t edge_alive(const struct edge *edge)
{
    size_t alive = atomic_load_explicit(&edge->patience.sending, memory_order_relaxed);
    for (unsigned i = 0; i < edge->count; i++)
        alive += atomic_load_explicit(&edge->locals[i].alive, memory_order_relaxed);
    return alive;
}

void edge_count(const struct edge *edge, struct edge_counts *out)
{
    memset(out, 0, sizeof(*out));
    for (unsigned i = 0; i < edge->count; i++) {
        const struct edge_local *local = &edge->locals[i];
        out->requests += atomic_load_explicit(&local->requests, memory_order_relaxed);
        out->connections_refused += atomic_load_explicit(&local->connections_refused, memory_order_relaxed);
        out->requests_limited += atomic_load_explicit(&local->requests_limited, memory_order_relaxed);
        out->floods += atomic_load_explicit(&local->floods, memory_order_relaxed);
        out->waited += atomic_load_explicit(&local->waited, memory_order_relaxed);
        out->body_limit_exceeded += atomic_load_explicit(&local->body_limit_exceeded, memory_order_relaxed);
        out->proxy_headers_refused += atomic_load_explicit(&local->proxy_headers_refused, memory_order_relaxed);
        for (unsigned status = 0; status < EDGE_STATUS_MAX; status++)
            out->responses[status] += atomic_load_explicit(&local->responses[status], memory_order_relaxed);
    }
}
