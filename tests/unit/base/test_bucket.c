/* Token buckets against a clock of the test's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/bucket.h"

static void gives_the_burst_and_then_the_rate(void **state)
{
    (void)state;
    struct bucket b;
    unsigned taken = 0;
    bucket_start(&b, 5, 1000);
    while (bucket_take(&b, 1))
        taken++;
    assert_int_equal(taken, 5);
    assert_int_equal(bucket_wait(&b, 1, 10), 100);
    bucket_fill(&b, 10, 5, 1099);
    assert_false(bucket_take(&b, 1));
    bucket_fill(&b, 10, 5, 1100);
    assert_int_equal(bucket_wait(&b, 1, 10), 0);
    assert_true(bucket_take(&b, 1));
    assert_false(bucket_take(&b, 1));
}

/* Threads that share a bucket read their clocks at different moments: no step back gives anything, and none takes from
 * what the time since gives. */
static void a_step_back_fills_nothing(void **state)
{
    (void)state;
    struct bucket b;
    unsigned taken = 0;
    bucket_start(&b, 50, 5000);
    for (uint64_t i = 0; i < 1000; i++) {
        bucket_fill(&b, 10, 50, 5000 - i % 2);
        taken += bucket_take(&b, 1);
    }
    assert_int_equal(taken, 50);
    bucket_fill(&b, 10, 50, 4000);
    bucket_fill(&b, 10, 50, 5099);
    assert_false(bucket_take(&b, 1));
    bucket_fill(&b, 10, 50, 5100);
    assert_true(bucket_take(&b, 1));
}

/* Silent for longer than 32 bits of milliseconds can tell. */
static void is_full_again_after_months(void **state)
{
    (void)state;
    struct bucket b;
    bucket_start(&b, 5, 1000);
    assert_true(bucket_take(&b, 5));
    bucket_fill(&b, 1, 5, 1000 + (UINT64_C(1) << 32));
    assert_true(bucket_take(&b, 5));
}

static void is_never_fuller_than_the_burst(void **state)
{
    (void)state;
    struct bucket b;
    bucket_start(&b, 3, 0);
    bucket_fill(&b, 1000000, 3, UINT64_C(1) << 31);
    bucket_give(&b, 4000000, 3);
    assert_true(bucket_take(&b, 3));
    assert_false(bucket_take(&b, 1));
}

static void takes_all_or_nothing(void **state)
{
    (void)state;
    struct bucket b;
    bucket_start(&b, 3, 0);
    assert_false(bucket_take(&b, 4));
    assert_true(bucket_take(&b, 3));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_the_burst_and_then_the_rate),
        cmocka_unit_test(a_step_back_fills_nothing),
        cmocka_unit_test(is_full_again_after_months),
        cmocka_unit_test(is_never_fuller_than_the_burst),
        cmocka_unit_test(takes_all_or_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
