/* Slices: comparison, trimming, lists, numbers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/slice.h"

static const struct slice nothing = {NULL, 0};

static void test_equals(void **state)
{
    (void)state;
    assert_true(slice_equals(SLICE("host"), slice_of("host")));
    assert_false(slice_equals(SLICE("host"), SLICE("hosts")));
    assert_false(slice_equals(SLICE("host"), SLICE("Host")));
    assert_true(slice_equals(nothing, SLICE("")));
    assert_true(slice_equals(SLICE("a\0b"), SLICE("a\0b")));
    assert_false(slice_equals(SLICE("a\0b"), SLICE("a\0c")));
    assert_int_equal(slice_of(NULL).len, 0);
}

static void test_equals_nocase(void **state)
{
    (void)state;
    assert_true(slice_equals_nocase(SLICE("Content-LENGTH"), SLICE("content-length")));
    assert_true(slice_equals_nocase(nothing, SLICE("")));
    assert_false(slice_equals_nocase(SLICE("te"), SLICE("t")));
    /* '@' and '`', '[' and '{' differ by the case bit alone, and are no letters. */
    assert_false(slice_equals_nocase(SLICE("@"), SLICE("`")));
    assert_false(slice_equals_nocase(SLICE("["), SLICE("{")));
    assert_false(slice_equals_nocase(SLICE("\xc4"), SLICE("\xe4")));
}

/* Every byte at every place of a word and behind it, next to letters of both cases. */
static void test_lower(void **state)
{
    (void)state;
    for (size_t len = 1; len < 20; len++) {
        for (size_t at = 0; at < len; at++) {
            for (int byte = 0; byte < 256; byte++) {
                char text[20], lower[20];
                memset(text, at % 2 ? 'Q' : 'z', sizeof(text));
                text[at] = (char)byte;
                slice_lower((struct slice){text, len}, lower);
                for (size_t i = 0; i < len; i++)
                    assert_int_equal(lower[i], text[i] >= 'A' && text[i] <= 'Z' ? text[i] + 32 : text[i]);
                assert_true(slice_equals_nocase((struct slice){text, len}, (struct slice){lower, len}));
            }
        }
    }
    char in_place[] = "Content-LENGTH";
    slice_lower(slice_of(in_place), in_place);
    assert_string_equal(in_place, "content-length");
}

static void test_starts_with(void **state)
{
    (void)state;
    assert_true(slice_starts_with(SLICE("https://x"), SLICE("https://")));
    assert_true(slice_starts_with(SLICE("x"), nothing));
    assert_true(slice_starts_with(nothing, nothing));
    assert_false(slice_starts_with(SLICE("http"), SLICE("https")));
    assert_false(slice_starts_with(nothing, SLICE("a")));
}

static void test_trim(void **state)
{
    (void)state;
    assert_true(slice_equals(slice_trim(SLICE(" \t a b\t ")), SLICE("a b")));
    assert_true(slice_equals(slice_trim(SLICE("a")), SLICE("a")));
    assert_int_equal(slice_trim(SLICE(" \t ")).len, 0);
    assert_int_equal(slice_trim(nothing).len, 0);
    /* OWS is SP and HTAB; anything else is content, and somebody else's error. */
    assert_true(slice_equals(slice_trim(SLICE("\r\na\v")), SLICE("\r\na\v")));
}

static void assert_elements(const char *list, const char *expected)
{
    struct slice rest = slice_of(list);
    struct slice element;
    char joined[64] = "";
    size_t len = 0;

    while (slice_next_element(&rest, &element)) {
        assert_true(len + element.len + 2 < sizeof(joined));
        memcpy(joined + len, element.data, element.len);
        len += element.len;
        joined[len++] = '|';
    }
    joined[len] = '\0';
    assert_string_equal(joined, expected);
    assert_int_equal(rest.len, 0);
    assert_false(slice_next_element(&rest, &element));
}

static void test_elements(void **state)
{
    (void)state;
    assert_elements("close", "close|");
    assert_elements("keep-alive , Upgrade", "keep-alive|Upgrade|");
    assert_elements(",, a,\t,b ,", "a|b|");
    assert_elements("", "");
    assert_elements(" , ", "");
    assert_elements("a b,c", "a b|c|");
}

static void test_to_u64(void **state)
{
    uint64_t value = 77;

    (void)state;
    assert_true(slice_to_u64(SLICE("0"), &value));
    assert_true(value == 0);
    assert_true(slice_to_u64(SLICE("000123"), &value));
    assert_true(value == 123);
    assert_true(slice_to_u64(SLICE("18446744073709551615"), &value));
    assert_true(value == UINT64_MAX);

    static const char *const bad[] = {"",
                                      " 1",
                                      "1 ",
                                      "+1",
                                      "-1",
                                      "0x10",
                                      "1,2",
                                      "18446744073709551616",
                                      "184467440737095516150",
                                      "99999999999999999999999999",
                                      "1\n"};
    value = 77;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(slice_to_u64(slice_of(bad[i]), &value));
    assert_false(slice_to_u64(SLICE("1\0"), &value));
    assert_true(value == 77);
}

static void test_dup(void **state)
{
    char *copy = slice_dup(SLICE("abc"));

    (void)state;
    assert_string_equal(copy, "abc");
    free(copy);
    copy = slice_dup(nothing);
    assert_string_equal(copy, "");
    free(copy);
    assert_null(slice_dup((struct slice){"", SIZE_MAX}));
}

/* Every length takes one of the ways, and none writes beyond it. */
static void test_put(void **state)
{
    (void)state;
    char from[80], to[82];
    for (size_t i = 0; i < sizeof(from); i++)
        from[i] = (char)(i + 1);
    for (size_t len = 0; len <= sizeof(from); len++) {
        memset(to, '!', sizeof(to));
        assert_ptr_equal(slice_put(to + 1, (struct slice){from, len}), to + 1 + len);
        assert_memory_equal(to + 1, from, len);
        assert_int_equal(to[0], '!');
        assert_int_equal(to[1 + len], '!');
    }
    assert_ptr_equal(slice_put(to, nothing), to);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equals), cmocka_unit_test(test_equals_nocase), cmocka_unit_test(test_starts_with),
        cmocka_unit_test(test_trim),   cmocka_unit_test(test_elements),      cmocka_unit_test(test_to_u64),
        cmocka_unit_test(test_dup),    cmocka_unit_test(test_lower),         cmocka_unit_test(test_put),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
