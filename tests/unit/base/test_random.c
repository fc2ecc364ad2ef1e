/* Random numbers: in range, all of the range, never twice the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "base/random.h"

static void test_bytes_differ(void **state)
{
    uint8_t a[32] = {0}, b[32] = {0}, zero[32] = {0};

    (void)state;
    random_bytes(a, sizeof(a));
    random_bytes(b, sizeof(b));
    assert_memory_not_equal(a, b, sizeof(a));
    assert_memory_not_equal(a, zero, sizeof(a));
}

/* No byte left out, and none written beside the run. */
static void test_exactly_as_many_bytes_as_asked(void **state)
{
    uint8_t bytes[1000];

    (void)state;
    random_bytes(bytes, 0);
    memset(bytes, 0, sizeof(bytes));
    random_bytes(bytes + 1, 998);
    assert_int_equal(bytes[0], 0);
    assert_int_equal(bytes[999], 0);
    /* 32 zero bytes in a row have a chance of 2^-256. */
    static const uint8_t zero[32];
    for (size_t i = 1; i + sizeof(zero) <= 999; i += sizeof(zero))
        assert_memory_not_equal(bytes + i, zero, sizeof(zero));
}

static void test_below(void **state)
{
    unsigned hits[10] = {0};

    (void)state;
    for (int i = 0; i < 20000; i++) {
        uint32_t value = random_below(10);
        assert_true(value < 10);
        hits[value]++;
    }
    /* 2000 expected, standard deviation 42: twelve of them either way. */
    for (size_t i = 0; i < 10; i++)
        assert_in_range(hits[i], 1500, 2500);
    assert_int_equal(random_below(1), 0);
    for (int i = 0; i < 1000; i++)
        assert_true(random_below(0x80000001) < 0x80000001);
}

static void test_hex(void **state)
{
    char a[201], b[201];

    (void)state;
    memset(a, 'z', sizeof(a));
    random_hex(a, 100);
    random_hex(b, 100);
    assert_int_equal(strlen(a), 200);
    assert_int_equal(strspn(a, "0123456789abcdef"), 200);
    assert_string_not_equal(a, b);
    random_hex(a, 0);
    assert_string_equal(a, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_differ),
        cmocka_unit_test(test_exactly_as_many_bytes_as_asked),
        cmocka_unit_test(test_below),
        cmocka_unit_test(test_hex),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
