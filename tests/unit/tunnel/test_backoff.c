/* Waiting times: doubling, the cap, the jitter's range and that there is one, the reset. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <limits.h>

#include "base/limits.h"
#include "tunnel/backoff.h"

#define SIZE(array) (sizeof(array) / sizeof((array)[0]))

static void test_doubles_up_to_a_minute(void **state)
{
    (void)state;
    static const uint32_t bases[] = {1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000, 60000};
    for (int round = 0; round < 200; round++) {
        struct backoff backoff = {0};
        for (size_t i = 0; i < SIZE(bases); i++)
            assert_in_range(backoff_next(&backoff), bases[i] * 3 / 4, bases[i]);
    }
}

static void test_stays_at_a_minute(void **state)
{
    (void)state;
    struct backoff backoff = {.failures = UINT_MAX - 2};
    for (int i = 0; i < 5; i++)
        assert_in_range(backoff_next(&backoff), 45000, 60000);
    assert_int_equal(backoff.failures, UINT_MAX);
}

/* 20000 draws from 251 values: the range is used up to its ends, evenly in its quarters. */
static void test_jitter_is_uniform(void **state)
{
    (void)state;
    unsigned quarters[4] = {0};
    uint32_t least = UINT32_MAX, most = 0;
    for (int i = 0; i < 20000; i++) {
        struct backoff backoff = {0};
        uint32_t wait = backoff_next(&backoff);
        least = wait < least ? wait : least;
        most = wait > most ? wait : most;
        quarters[(wait - 750) * 4 / 251]++;
    }
    assert_int_equal(least, 750);
    assert_int_equal(most, 1000);
    for (size_t i = 0; i < 4; i++)
        assert_in_range(quarters[i], 4500, 5500); /* eight standard deviations around 5000 */
}

static void test_reset(void **state)
{
    (void)state;
    struct backoff backoff = {0};
    for (int i = 0; i < 10; i++)
        backoff_next(&backoff);
    backoff_reset(&backoff);
    assert_in_range(backoff_next(&backoff), 750, LIMIT_BACKOFF_FIRST_MS);
    assert_in_range(backoff_next(&backoff), 1500, 2000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_doubles_up_to_a_minute),
        cmocka_unit_test(test_stays_at_a_minute),
        cmocka_unit_test(test_jitter_is_uniform),
        cmocka_unit_test(test_reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
