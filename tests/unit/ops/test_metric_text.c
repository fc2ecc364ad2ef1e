/* The Prometheus text format, to the letter. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/error.h"
#include "ops/metric_text.h"

static void assert_text(struct buffer *out, const char *expected)
{
    assert_int_equal(buffer_append(out, "", 1), KV_OK);
    assert_string_equal(out->data, expected);
    buffer_free(out);
}

static void test_families(void **state)
{
    (void)state;
    struct buffer out = BUFFER_INIT(4096);
    struct metric_text m = {.out = &out};
    metric_family(&m, "a_total", METRIC_COUNTER, "How many.");
    metric_value(&m, UINT64_MAX);
    metric_family(&m, "b", METRIC_GAUGE, "How much.");
    metric_labelled(&m, "code", "200", 0);
    metric_labelled(&m, "code", "404", 7);
    metric_family(&m, "c_seconds", METRIC_GAUGE, "How long.");
    metric_seconds(&m, 1.0625);
    assert_int_equal(m.error, KV_OK);
    assert_text(&out, "# HELP a_total How many.\n# TYPE a_total counter\na_total 18446744073709551615\n"
                      "# HELP b How much.\n# TYPE b gauge\nb{code=\"200\"} 0\nb{code=\"404\"} 7\n"
                      "# HELP c_seconds How long.\n# TYPE c_seconds gauge\nc_seconds 1.062\n");
}

static void test_escaping(void **state)
{
    (void)state;
    struct buffer out = BUFFER_INIT(4096);
    struct metric_text m = {.out = &out};
    metric_family(&m, "a", METRIC_GAUGE, "a \"b\" \\ c\nd");
    metric_labelled(&m, "x", "a \"b\" \\ c\nd}", 1);
    metric_labelled(&m, "x", "", 2);
    metric_labelled(&m, "x", "\xc3\xa9", 3);
    assert_text(&out, "# HELP a a \"b\" \\\\ c\\nd\n# TYPE a gauge\na{x=\"a \\\"b\\\" \\\\ c\\nd}\"} 1\na{x=\"\"} 2\n"
                      "a{x=\"\xc3\xa9\"} 3\n");
}

static int write_page(struct buffer *out)
{
    struct metric_text m = {.out = out};
    metric_family(&m, "a", METRIC_GAUGE, "Help.");
    metric_value(&m, 1);
    metric_labelled(&m, "l", "v\n", 1);
    return m.error;
}

/* Half a page must not be taken for a whole one, wherever it was cut. */
static void test_a_full_buffer_is_told(void **state)
{
    (void)state;
    struct buffer whole = BUFFER_INIT(4096);
    assert_int_equal(write_page(&whole), KV_OK);
    for (size_t limit = 0; limit <= whole.len; limit++) {
        struct buffer out = BUFFER_INIT(limit);
        assert_int_equal(write_page(&out), limit < whole.len ? KV_ELIMIT : KV_OK);
        assert_true(out.len <= limit);
        buffer_free(&out);
    }
    buffer_free(&whole);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_families),
        cmocka_unit_test(test_escaping),
        cmocka_unit_test(test_a_full_buffer_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
