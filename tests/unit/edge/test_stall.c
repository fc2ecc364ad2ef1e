/* When a body that does not move is given up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/limits.h"
#include "edge/edge_stall.h"

#define MINUTE 60000

static void silence_alone_is_not_death(void **state)
{
    (void)state;
    assert_false(edge_stall_is_over(MINUTE, MINUTE, false));
    assert_false(edge_stall_is_over(LIMIT_STALL_MAX_MS - 1, MINUTE, false));
    assert_true(edge_stall_is_over(LIMIT_STALL_MAX_MS, MINUTE, false));
}

static void short_memory_ends_it(void **state)
{
    (void)state;
    assert_false(edge_stall_is_over(MINUTE - 1, MINUTE, true));
    assert_true(edge_stall_is_over(MINUTE, MINUTE, true));
}

static void a_long_time_out_is_kept(void **state)
{
    (void)state;
    assert_false(edge_stall_is_over(LIMIT_STALL_MAX_MS, 2 * LIMIT_STALL_MAX_MS, false));
    assert_true(edge_stall_is_over(2 * LIMIT_STALL_MAX_MS, 2 * LIMIT_STALL_MAX_MS, false));
}

static void zero_means_never(void **state)
{
    (void)state;
    assert_false(edge_stall_is_over(UINT64_MAX, 0, true));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(silence_alone_is_not_death),
        cmocka_unit_test(short_memory_ends_it),
        cmocka_unit_test(a_long_time_out_is_kept),
        cmocka_unit_test(zero_means_never),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
