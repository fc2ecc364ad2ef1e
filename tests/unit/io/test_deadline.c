/* When deadlines fire, when they do not, and that nothing done from inside one disturbs its neighbours. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <uv.h>

#include "io/on_worker.h"

#define RESOLUTION_MS 50
/* A busy machine wakes us late, never early: only the lower bound is exact. */
#define LATE_MS       2000

static struct worker_group *group;

static int start_group(void **state)
{
    (void)state;
    return worker_group_start(1, &group);
}

static int stop_group(void **state)
{
    (void)state;
    worker_group_stop(group, 1000);
    return 0;
}

struct alarm_clock {
    struct deadline deadline;
    struct worker *worker;
    uint64_t armed_at, fired_at;
    int fired;
    unsigned again_ms;           /* re-armed from inside, once */
    struct alarm_clock *cancels; /* from inside */
    struct alarm_clock *moves;   /* a second later, from inside */
    sem_t *done;
};

static void on_expired(struct deadline *deadline)
{
    struct alarm_clock *a = (struct alarm_clock *)deadline;
    assert_false(deadline_armed(deadline));
    a->fired++;
    a->fired_at = worker_now(a->worker);
    if (a->again_ms && a->fired == 1) {
        a->armed_at = worker_now(a->worker);
        deadline_arm(a->worker, deadline, a->again_ms);
        return;
    }
    if (a->cancels)
        deadline_cancel(&a->cancels->deadline);
    if (a->moves)
        deadline_arm(a->worker, &a->moves->deadline, 3600 * 1000);
    if (a->done)
        sem_post(a->done);
}

static void arm(struct worker *worker, struct alarm_clock *a, uint64_t after_ms)
{
    a->deadline.expired = on_expired;
    a->worker = worker;
    a->armed_at = worker_now(worker);
    deadline_arm(worker, &a->deadline, after_ms);
    assert_true(deadline_armed(&a->deadline));
}

static void assert_window(const struct alarm_clock *a, uint64_t after_ms)
{
    assert_true(a->fired_at >= a->armed_at + after_ms);
    assert_true(a->fired_at <= a->armed_at + after_ms + RESOLUTION_MS + LATE_MS);
}

/* ---- one ------------------------------------------------------------------------------------------------------- */

struct request {
    struct alarm_clock *alarm;
    uint64_t first_ms, then_ms; /* then: re-armed at once; UINT64_MAX: cancelled */
};

static void arm_twice(struct worker *worker, void *arg)
{
    struct request *r = arg;
    arm(worker, r->alarm, r->first_ms);
    if (r->then_ms == UINT64_MAX) {
        deadline_cancel(&r->alarm->deadline);
        assert_false(deadline_armed(&r->alarm->deadline));
    } else if (r->then_ms) {
        arm(worker, r->alarm, r->then_ms);
    }
}

static void fires_in_its_window(void **state)
{
    (void)state;
    static const uint64_t after[] = {0, 1, 49, 50, 51, 120};
    for (size_t i = 0; i < sizeof(after) / sizeof(after[0]); i++) {
        sem_t done;
        sem_init(&done, 0, 0);
        struct alarm_clock a = {.done = &done};
        on_worker(worker_at(group, 0), arm_twice, &(struct request){&a, after[i], 0});
        assert_true(wait_for(&done));
        assert_window(&a, after[i]);
        assert_int_equal(a.fired, 1);
    }
}

static void moves_both_ways(void **state)
{
    (void)state;
    sem_t done;
    sem_init(&done, 0, 0);
    struct alarm_clock later = {.done = &done}, earlier = {.done = &done};
    on_worker(worker_at(group, 0), arm_twice, &(struct request){&later, 60, 300});
    on_worker(worker_at(group, 0), arm_twice, &(struct request){&earlier, 20000, 60});
    assert_true(wait_for(&done) && wait_for(&done));
    assert_window(&later, 300);
    assert_window(&earlier, 60);
    assert_true(earlier.fired_at < later.fired_at);
}

static void never_fires_when_cancelled(void **state)
{
    (void)state;
    sem_t done;
    sem_init(&done, 0, 0);
    struct alarm_clock cancelled = {0}, after = {.done = &done};
    on_worker(worker_at(group, 0), arm_twice, &(struct request){&cancelled, 60, UINT64_MAX});
    on_worker(worker_at(group, 0), arm_twice, &(struct request){&after, 250, 0});
    assert_true(wait_for(&done));
    assert_int_equal(cancelled.fired, 0);
}

static void rearms_from_inside(void **state)
{
    (void)state;
    sem_t done;
    sem_init(&done, 0, 0);
    struct alarm_clock a = {.done = &done, .again_ms = 70};
    on_worker(worker_at(group, 0), arm_twice, &(struct request){&a, 10, 0});
    assert_true(wait_for(&done));
    assert_int_equal(a.fired, 2);
    assert_window(&a, 70);
}

/* ---- neighbours ------------------------------------------------------------------------------------------------ */

/* All of one slot: whichever fires first takes its neighbours away. */
struct slot_mates {
    struct alarm_clock a, b, c;
};

static void arm_mates(struct worker *worker, void *arg)
{
    struct slot_mates *m = arg;
    arm(worker, &m->a, 75);
    arm(worker, &m->b, 75);
    arm(worker, &m->c, 75);
}

static void may_cancel_neighbours(void **state)
{
    (void)state;
    sem_t done;
    sem_init(&done, 0, 0);
    struct slot_mates m = {{.done = &done}, {.done = &done}, {.done = &done}};
    m.a.cancels = &m.b;
    m.b.cancels = &m.a;
    on_worker(worker_at(group, 0), arm_mates, &m);
    assert_true(wait_for(&done) && wait_for(&done));
    assert_int_equal(m.a.fired + m.b.fired, 1);
    assert_int_equal(m.c.fired, 1);
}

static void cancel(struct worker *worker, void *arg)
{
    (void)worker;
    deadline_cancel(&((struct alarm_clock *)arg)->deadline);
}

static void may_move_neighbours(void **state)
{
    (void)state;
    sem_t done;
    sem_init(&done, 0, 0);
    struct slot_mates m = {{.done = &done}, {.done = &done}, {.done = &done}};
    m.a.moves = &m.b;
    m.b.moves = &m.a;
    on_worker(worker_at(group, 0), arm_mates, &m);
    assert_true(wait_for(&done) && wait_for(&done));
    struct alarm_clock *moved = m.a.fired ? &m.b : &m.a;
    assert_int_equal(m.a.fired + m.b.fired, 1);
    assert_int_equal(m.c.fired, 1);
    assert_true(deadline_armed(&moved->deadline));
    on_worker(worker_at(group, 0), cancel, moved);
}

/* ---- many, and the far side of the wheel ----------------------------------------------------------------------- */

#define MANY 3000

struct crowd {
    struct alarm_clock *alarms;
    uint64_t *after;
};

static void arm_crowd(struct worker *worker, void *arg)
{
    struct crowd *crowd = arg;
    for (int i = 0; i < MANY; i++)
        arm(worker, &crowd->alarms[i], crowd->after[i]);
    for (int i = 0; i < MANY; i += 3)
        deadline_cancel(&crowd->alarms[i].deadline);
}

static void keeps_many(void **state)
{
    (void)state;
    sem_t done;
    sem_init(&done, 0, 0);
    struct crowd crowd = {calloc(MANY, sizeof(struct alarm_clock)), calloc(MANY, sizeof(uint64_t))};
    for (int i = 0; i < MANY; i++) {
        crowd.alarms[i].done = &done;
        crowd.after[i] = (uint64_t)(i * 7919 % 500);
    }
    on_worker(worker_at(group, 0), arm_crowd, &crowd);
    for (int i = 0; i < MANY - MANY / 3; i++)
        assert_true(wait_for(&done));
    for (int i = 0; i < MANY; i++) {
        assert_int_equal(crowd.alarms[i].fired, i % 3 != 0);
        if (crowd.alarms[i].fired)
            assert_window(&crowd.alarms[i], crowd.after[i]);
    }
    free(crowd.after);
    free(crowd.alarms);
}

/* A deadline a whole round of the wheel (25.6 s) away lies in the slot of one that fires now; it has to stay. */
static void a_round_away_is_not_now(void **state)
{
    (void)state;
    sem_t done;
    sem_init(&done, 0, 0);
    struct alarm_clock far = {0}, next_round = {0}, near = {.done = &done};
    on_worker(worker_at(group, 0), arm_twice, &(struct request){&far, 100 + 4 * 25600, 0});
    on_worker(worker_at(group, 0), arm_twice, &(struct request){&next_round, 100 + 25600, 0});
    on_worker(worker_at(group, 0), arm_twice, &(struct request){&near, 200, 0});
    assert_true(wait_for(&done));
    assert_int_equal(far.fired + next_round.fired, 0);
    assert_true(deadline_armed(&far.deadline) && deadline_armed(&next_round.deadline));
    /* And it still fires when it is brought near. */
    far.done = next_round.done = &done;
    on_worker(worker_at(group, 0), arm_twice, &(struct request){&far, 10, 0});
    on_worker(worker_at(group, 0), arm_twice, &(struct request){&next_round, 10, 0});
    assert_true(wait_for(&done) && wait_for(&done));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fires_in_its_window),
        cmocka_unit_test(moves_both_ways),
        cmocka_unit_test(never_fires_when_cancelled),
        cmocka_unit_test(rearms_from_inside),
        cmocka_unit_test(may_cancel_neighbours),
        cmocka_unit_test(may_move_neighbours),
        cmocka_unit_test(keeps_many),
        cmocka_unit_test(a_round_away_is_not_now),
    };
    return cmocka_run_group_tests(tests, start_group, stop_group);
}
