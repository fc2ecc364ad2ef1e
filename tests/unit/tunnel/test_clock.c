/* Whose clock counts while an answer is waited for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tunnel/link.h"

#define DEFAULT 130000
#define MARGIN  10000

static void expect(struct exchange_clock clock, uint64_t ms, enum close_reason reason)
{
    assert_int_equal(clock.ms, ms);
    if (ms > 0)
        assert_int_equal(clock.reason, reason);
}

static void a_client_that_tells(void **state)
{
    (void)state;
    expect(link_clock(FEATURE_CLOCKS, 120000, 0, DEFAULT), 120000 + MARGIN, REASON_CLIENT_TIMEOUT);
    expect(link_clock(FEATURE_CLOCKS, 0, 0, DEFAULT), 0, REASON_NONE);
    expect(link_clock(FEATURE_CLOCKS, UINT32_MAX, 0, DEFAULT), UINT64_C(0xffffffff) + MARGIN, REASON_CLIENT_TIMEOUT);
}

static void an_operator_with_a_bound(void **state)
{
    (void)state;
    expect(link_clock(FEATURE_CLOCKS, 0, 5000, 5000), 5000, REASON_SERVER_TIMEOUT);
    expect(link_clock(FEATURE_CLOCKS, 120000, 5000, 5000), 5000, REASON_SERVER_TIMEOUT);
    expect(link_clock(FEATURE_CLOCKS, 1000, 60000, 60000), 1000 + MARGIN, REASON_CLIENT_TIMEOUT);
}

static void a_client_that_does_not_tell(void **state)
{
    (void)state;
    expect(link_clock(0, 0, 0, DEFAULT), DEFAULT, REASON_SERVER_TIMEOUT);
    expect(link_clock(0, 7, 5000, 5000), 5000, REASON_SERVER_TIMEOUT);
    expect(link_clock(0, 0, 0, 0), 0, REASON_NONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_client_that_tells),
        cmocka_unit_test(an_operator_with_a_bound),
        cmocka_unit_test(a_client_that_does_not_tell),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
