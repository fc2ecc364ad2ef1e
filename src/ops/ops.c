/* What the workers' shares of the admin listener have in common: settings, state, the end. */
#include "ops/ops.h"

#include <stdlib.h>
#include <time.h>

#include "ops/ops_impl.h"

struct ops *ops_new(const struct ops_settings *settings)
{
    struct ops *ops = calloc(1, sizeof(*ops));
    if (!ops)
        return NULL;
    ops->settings = *settings;
    ops->started_at = (int64_t)time(NULL);
    atomic_init(&ops->state, OPS_STARTING);
    ops->locals = calloc(worker_count(settings->group), sizeof(*ops->locals));
    if (!ops->locals) {
        free(ops);
        return NULL;
    }
    return ops;
}

void ops_free(struct ops *ops)
{
    if (!ops)
        return;
    free(ops->locals);
    free(ops);
}

void ops_set_state(struct ops *ops, enum ops_state state)
{
    atomic_store(&ops->state, state);
}

size_t ops_alive(const struct ops *ops)
{
    return atomic_load_explicit(&ops->alive, memory_order_relaxed);
}

static void run_stop(struct task *task)
{
    struct ops *ops = ((struct ops_stop *)task)->ops;
    ops_local(ops)->stopping = true;
    ops_conns_stop(ops);
}

static void drop_stop(struct message *message)
{
    (void)message; /* ops_free has its memory */
}

void ops_stop(struct ops *ops)
{
    if (atomic_exchange(&ops->stopped, true))
        return; /* the tasks are on their way already */
    for (unsigned i = 0; i < worker_count(ops->settings.group); i++) {
        struct ops_stop *stop = &ops->locals[i].stop;
        *stop = (struct ops_stop){.task.run = run_stop, .ops = ops};
        stop->task.message.drop = drop_stop;
        worker_run(worker_at(ops->settings.group, i), &stop->task);
    }
}
