/*
 * Visitors who come before their tunnel. A server that takes over from another one, or starts on sockets where visitors
 * have queued, knows that clients are on their way: a visitor of such a name waits for its client for a moment, instead
 * of being told that there is no tunnel.
 *
 *     edge_wait ── waiting ──┬── its link is there, or is not expected any more ── again
 *                            └── edge_wait_cancel (the visitor left)
 *
 * Who waits is looked at every ARRIVAL_STEP_MS: rare, short, and simpler than a message for each arrival.
 */
#include <string.h>
#include <utlist.h>

#include "edge/edge_impl.h"
#include "tunnel/registry.h"

#define ARRIVAL_STEP_MS 50 /* the resolution of deadlines */

static void on_step(struct deadline *deadline);

static void wait_a_step(struct edge_local *local)
{
    local->arrival.expired = on_step;
    deadline_arm(worker_current(), &local->arrival, ARRIVAL_STEP_MS);
}

bool edge_wait(struct edge *edge, struct edge_waiter *waiter, struct slice authority)
{
    struct edge_local *local = edge_local(edge);
    char host[LIMIT_HOST_BYTES + 1];
    if (!registry_is_expecting(edge->settings.registry))
        return false;
    struct slice label = edge_label_of(edge, authority, host);
    if (label.len == 0 || label.len > LIMIT_LABEL_BYTES || local->waiting >= LIMIT_WAITING_VISITORS ||
        !registry_expects(edge->settings.registry, label))
        return false;
    memcpy(waiter->label, label.data, label.len);
    waiter->label[label.len] = '\0';
    DL_APPEND(local->waiters, waiter);
    local->waiting++;
    edge_counter_add(&local->waited, 1);
    if (!deadline_armed(&local->arrival)) {
        local->edge = edge;
        wait_a_step(local);
    }
    return true;
}

void edge_wait_cancel(struct edge *edge, struct edge_waiter *waiter)
{
    struct edge_local *local = edge_local(edge);
    if (!edge_waits(waiter))
        return;
    waiter->label[0] = '\0';
    DL_DELETE(local->waiters, waiter);
    local->waiting--;
}

static void on_step(struct deadline *deadline)
{
    struct edge_local *local = (struct edge_local *)((char *)deadline - offsetof(struct edge_local, arrival));
    struct edge *edge = local->edge;
    struct edge_waiter *waiter, *next;
    DL_FOREACH_SAFE (local->waiters, waiter, next) {
        if (!edge_waits(waiter))
            break; /* it left with the one before it; the others' turn is the next */
        if (registry_expects(edge->settings.registry, slice_of(waiter->label)))
            continue;
        edge_wait_cancel(edge, waiter);
        waiter->again(waiter);
    }
    if (local->waiters)
        wait_a_step(local);
}
