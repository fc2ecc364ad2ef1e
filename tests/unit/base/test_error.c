/* Every error code has a phrase of its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "base/error.h"

static void test_phrases_differ(void **state)
{
    (void)state;
    for (int a = KV_ENEWER; a <= KV_OK; a++) {
        assert_string_not_equal(kv_strerror(a), "unknown error");
        for (int b = KV_ENEWER; b < a; b++)
            assert_string_not_equal(kv_strerror(a), kv_strerror(b));
    }
}

static void test_unknown_values_have_a_phrase(void **state)
{
    (void)state;
    assert_string_equal(kv_strerror(1), "unknown error");
    assert_string_equal(kv_strerror(KV_ENEWER - 1), "unknown error");
    assert_string_equal(kv_strerror(KV_ENOMEM), "no memory");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_phrases_differ),
        cmocka_unit_test(test_unknown_values_have_a_phrase),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
