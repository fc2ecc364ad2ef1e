/* What the workers' shares of the control plane have in common: settings, counters, draining. */
#include "control/control.h"

#include <stdlib.h>

#include "control/control_impl.h"

struct control *control_new(const struct control_settings *settings)
{
    struct control *c = calloc(1, sizeof(*c));
    if (!c)
        return NULL;
    c->settings = *settings;
    c->locals = calloc(worker_count(settings->group), sizeof(*c->locals));
    const struct address_rates *rates = &settings->rates;
    bool limits = rates->connections || rates->connections_per_second;
    c->limit = limits ? address_limit_new(rates) : NULL;
    if (c->locals && (!limits || c->limit))
        return c;
    control_free(c);
    return NULL;
}

void control_free(struct control *control)
{
    if (!control)
        return;
    address_limit_free(control->limit);
    free(control->locals);
    free(control);
}

struct order {
    struct task task;
    struct control *control;
    enum control_drain drain;
    bool succeeded;
};

static void drop_order(struct message *message)
{
    free(message);
}

static void run_order(struct task *task)
{
    struct order *order = (struct order *)task;
    struct control *control = order->control;
    struct control_local *local = control_local(control);
    if (order->drain > local->drain)
        local->drain = order->drain;
    local->succeeded = local->succeeded || order->succeeded;
    free(order);
    control_conns_close_idle(control);
    control_sessions_apply(control);
}

static void give_order(struct control *control, enum control_drain drain, bool succeeded)
{
    for (unsigned i = 0; i < worker_count(control->settings.group); i++) {
        struct order *order = calloc(1, sizeof(*order));
        if (!order)
            return; /* the end of the process closes what is left */
        *order = (struct order){.task.run = run_order, .control = control, .drain = drain, .succeeded = succeeded};
        order->task.message.drop = drop_order;
        worker_run(worker_at(control->settings.group, i), &order->task);
    }
}

void control_announce_drain(struct control *control, bool succeeded)
{
    give_order(control, CONTROL_ANNOUNCED, succeeded);
}

void control_drain(struct control *control)
{
    give_order(control, CONTROL_DRAINING, false);
}

void control_stop(struct control *control)
{
    give_order(control, CONTROL_STOPPING, false);
}

size_t control_alive(const struct control *control)
{
    return control_connections(control) + atomic_load_explicit(&control->sessions, memory_order_relaxed);
}

size_t control_connections(const struct control *control)
{
    return atomic_load_explicit(&control->conns, memory_order_relaxed);
}

uint64_t control_refused(const struct control *control)
{
    return atomic_load_explicit(&control->refused, memory_order_relaxed);
}

uint64_t control_welcomed(const struct control *control)
{
    return atomic_load_explicit(&control->welcomed, memory_order_relaxed);
}
