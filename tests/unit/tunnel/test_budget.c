/* The process's budget of granted credit: its two bounds, and that refusals leave nothing behind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>

#include "base/limits.h"
#include "tunnel/budget.h"

static void growth_ends_before_the_budget(void **state)
{
    (void)state;
    const size_t eight_tenths = LIMIT_BUDGET_BYTES / 10 * 8;
    assert_int_equal(budget_used(), 0);
    assert_true(budget_grow(eight_tenths));
    assert_false(budget_is_short());
    assert_false(budget_grow(1));
    assert_true(budget_take(1));
    assert_true(budget_is_short());
    budget_give(1);
    assert_true(budget_take(LIMIT_BUDGET_BYTES - eight_tenths));
    assert_false(budget_take(1));
    assert_int_equal(budget_used(), LIMIT_BUDGET_BYTES);
    budget_give(LIMIT_BUDGET_BYTES);
    assert_int_equal(budget_used(), 0);
    assert_false(budget_take(LIMIT_BUDGET_BYTES + 1));
    assert_int_equal(budget_used(), 0);
}

static void *take_and_give(void *arg)
{
    for (int i = 0; i < 100000; i++)
        if (i % 2 ? budget_take(4096) : budget_grow(LIMIT_BUDGET_BYTES / 4))
            budget_give(i % 2 ? 4096 : LIMIT_BUDGET_BYTES / 4);
    return arg;
}

static void adds_up_over_threads(void **state)
{
    (void)state;
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, take_and_give, NULL), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(budget_used(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(growth_ends_before_the_budget),
        cmocka_unit_test(adds_up_over_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
