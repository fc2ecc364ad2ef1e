/*
 * Deadlines on a wheel of 512 slots of 50 ms. Arming later than before, which is what every byte of progress does, is
 * one store: the deadline stays in its old slot and moves on when that slot comes by. The libuv timer sleeps until the
 * next slot that holds anything, so idle workers are not woken.
 */
#include "io/worker_impl.h"

static uint64_t tick_of(uint64_t at)
{
    return (at + WHEEL_TICK_MS - 1) / WHEEL_TICK_MS;
}

static void unlink_deadline(struct deadline *d)
{
    if (!d->link)
        return;
    *d->link = d->next;
    if (d->next)
        d->next->link = d->link;
    d->link = NULL;
    d->next = NULL;
}

static void link_deadline(struct wheel *wheel, struct deadline *d, uint64_t tick)
{
    struct deadline **slot = &wheel->slots[tick % WHEEL_SLOTS];
    d->next = *slot;
    d->link = slot;
    if (d->next)
        d->next->link = &d->next;
    *slot = d;
}

static void on_tick(uv_timer_t *timer);

static void set_timer(struct worker *w, uint64_t tick)
{
    uint64_t now = uv_now(&w->loop);
    uint64_t at = tick * WHEEL_TICK_MS;
    w->wheel.due = tick;
    uv_timer_start(&w->wheel.timer, on_tick, at > now ? at - now : 0, 0);
}

/* Sleeps until the next slot that holds anything; a whole empty wheel stops the timer. */
static void set_next_timer(struct worker *w)
{
    for (uint64_t i = 1; i <= WHEEL_SLOTS; i++) {
        if (w->wheel.slots[(w->wheel.tick + i) % WHEEL_SLOTS]) {
            set_timer(w, w->wheel.tick + i);
            return;
        }
    }
    w->wheel.due = 0;
}

static void walk_slot(struct worker *w, uint64_t tick)
{
    uint64_t now = uv_now(&w->loop);
    struct deadline **slot = &w->wheel.slots[tick % WHEEL_SLOTS];
    struct deadline *due = *slot;
    *slot = NULL;
    if (due)
        due->link = &due; /* keeps unlinking of a neighbour inside `expired` sound */
    while (due) {
        struct deadline *d = due;
        unlink_deadline(d);
        if (d->at > now) {
            link_deadline(&w->wheel, d, tick_of(d->at));
            continue;
        }
        d->at = 0;
        d->expired(d);
    }
}

static void on_tick(uv_timer_t *timer)
{
    struct worker *w = timer->data;
    uint64_t last = uv_now(&w->loop) / WHEEL_TICK_MS;
    uint64_t first = w->wheel.tick + 1;
    if (last - first >= WHEEL_SLOTS)
        first = last - WHEEL_SLOTS + 1;
    for (uint64_t tick = first; tick <= last; tick++) {
        w->wheel.tick = tick; /* before the walk: what is armed from inside it goes to a later slot */
        walk_slot(w, tick);
    }
    set_next_timer(w);
}

void deadline_arm(struct worker *worker, struct deadline *deadline, uint64_t after_ms)
{
    uint64_t at = uv_now(&worker->loop) + after_ms;
    if (at == 0)
        at = 1;
    bool waits = deadline->link && deadline->at <= at;
    deadline->at = at;
    if (waits)
        return;
    unlink_deadline(deadline);
    struct wheel *wheel = &worker->wheel;
    if (!wheel->due)
        wheel->tick = uv_now(&worker->loop) / WHEEL_TICK_MS;
    uint64_t tick = tick_of(at);
    if (tick <= wheel->tick)
        tick = wheel->tick + 1;
    link_deadline(wheel, deadline, tick);
    if (!wheel->due || tick < wheel->due)
        set_timer(worker, tick);
}

void deadline_cancel(struct deadline *deadline)
{
    unlink_deadline(deadline);
    deadline->at = 0;
}
