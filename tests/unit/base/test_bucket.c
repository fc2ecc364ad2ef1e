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
        cmocka_unit_test(is_never_fuller_than_the_burst),
        cmocka_unit_test(takes_all_or_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
