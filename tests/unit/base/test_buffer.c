/* The buffer: growth, caps, failures that leave it as it was. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "base/error.h"

/* The sanitizers end a process that asks for absurd amounts of memory; this program means to be refused. */
const char *__asan_default_options(void);
const char *__tsan_default_options(void);
const char *__asan_default_options(void)
{
    return "allocator_may_return_null=1";
}
const char *__tsan_default_options(void)
{
    return "allocator_may_return_null=1";
}

static void test_appends(void **state)
{
    struct buffer b = BUFFER_INIT(1000);

    (void)state;
    assert_null(b.data);
    assert_int_equal(buffer_append(&b, NULL, 0), 0);
    assert_null(b.data);
    assert_int_equal(buffer_append(&b, "ab", 2), 0);
    assert_int_equal(buffer_append_slice(&b, SLICE("cd")), 0);
    assert_int_equal(buffer_append_string(&b, "ef"), 0);
    assert_int_equal(buffer_printf(&b, "%d-%s", 7, "g"), 0);
    assert_true(slice_equals(buffer_slice(&b), SLICE("abcdef7-g")));
    buffer_free(&b);
    assert_null(b.data);
    assert_int_equal(b.limit, 1000);
}

static void test_grows_to_the_limit_and_not_beyond(void **state)
{
    enum {
        LIMIT = 10007
    };
    struct buffer b = BUFFER_INIT(LIMIT);

    (void)state;
    for (size_t i = 0; i < LIMIT; i++) {
        char byte = (char)(i % 251);
        assert_int_equal(buffer_append(&b, &byte, 1), 0);
        assert_true(b.capacity <= LIMIT);
    }
    assert_int_equal(buffer_append(&b, "x", 1), KV_ELIMIT);
    assert_int_equal(b.len, LIMIT);
    for (size_t i = 0; i < LIMIT; i++)
        assert_int_equal((unsigned char)b.data[i], i % 251);
    buffer_free(&b);
}

static void test_all_or_nothing(void **state)
{
    struct buffer b = BUFFER_INIT(4);

    (void)state;
    assert_int_equal(buffer_append_string(&b, "abc"), 0);
    assert_int_equal(buffer_append_string(&b, "de"), KV_ELIMIT);
    assert_int_equal(buffer_printf(&b, "%s", "de"), KV_ELIMIT);
    assert_int_equal(buffer_reserve(&b, 2), KV_ELIMIT);
    assert_int_equal(buffer_reserve(&b, SIZE_MAX), KV_ELIMIT);
    assert_true(slice_equals(buffer_slice(&b), SLICE("abc")));
    assert_int_equal(buffer_append_string(&b, "d"), 0);
    buffer_free(&b);
}

static void test_no_limit_means_no_room(void **state)
{
    struct buffer b = {0};

    (void)state;
    assert_int_equal(buffer_append_string(&b, "a"), KV_ELIMIT);
    assert_int_equal(buffer_append_string(&b, ""), 0);
    assert_null(b.data);
}

static void test_refused_memory_leaves_it_whole(void **state)
{
    struct buffer b = BUFFER_INIT(SIZE_MAX);

    (void)state;
    assert_int_equal(buffer_append_string(&b, "kept"), 0);
    assert_int_equal(buffer_reserve(&b, SIZE_MAX / 2), KV_ENOMEM);
    assert_int_equal(buffer_reserve(&b, SIZE_MAX - 4), KV_ENOMEM);
    assert_int_equal(buffer_reserve(&b, SIZE_MAX - 3), KV_ELIMIT);
    assert_true(slice_equals(buffer_slice(&b), SLICE("kept")));
    buffer_free(&b);
}

static void test_printf_of_any_length(void **state)
{
    enum {
        LONGEST = 1500
    };
    char *text = malloc(LONGEST + 1);

    (void)state;
    assert_non_null(text);
    memset(text, 'x', LONGEST);
    text[LONGEST] = '\0';
    for (size_t len = 500; len <= LONGEST; len += len < 520 ? 1 : 49) {
        struct buffer exact = BUFFER_INIT(len), short_by_one = BUFFER_INIT(len - 1);
        assert_int_equal(buffer_printf(&exact, "%s", text + LONGEST - len), 0);
        assert_int_equal(exact.len, len);
        assert_memory_equal(exact.data, text, len);
        assert_int_equal(buffer_printf(&short_by_one, "%s", text + LONGEST - len), KV_ELIMIT);
        assert_int_equal(short_by_one.len, 0);
        buffer_free(&exact);
    }
    free(text);
}

static void test_consume(void **state)
{
    struct buffer b = BUFFER_INIT(100);

    (void)state;
    assert_int_equal(buffer_append_string(&b, "0123456789"), 0);
    buffer_consume(&b, 0);
    buffer_consume(&b, 4);
    assert_true(slice_equals(buffer_slice(&b), SLICE("456789")));
    buffer_consume(&b, 6);
    assert_null(b.data);
    assert_int_equal(b.capacity, 0);
    assert_int_equal(buffer_append_string(&b, "again"), 0);
    assert_true(slice_equals(buffer_slice(&b), SLICE("again")));
    buffer_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_appends),
        cmocka_unit_test(test_grows_to_the_limit_and_not_beyond),
        cmocka_unit_test(test_all_or_nothing),
        cmocka_unit_test(test_no_limit_means_no_room),
        cmocka_unit_test(test_refused_memory_leaves_it_whole),
        cmocka_unit_test(test_printf_of_any_length),
        cmocka_unit_test(test_consume),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
