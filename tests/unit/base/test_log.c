/*
 * The log, read back from a pipe in standard error's place. Lines are compared whole but for their time, which is
 * checked for its form.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

enum {
    TIME_LEN = sizeof("2026-11-22T10:00:00.123Z") - 1
};

static int real_stderr;
static int reader; /* the test's end of the pipe, non-blocking */

static int replace_stderr(void **state)
{
    int ends[2];

    (void)state;
    if (pipe(ends))
        return -1;
    real_stderr = dup(STDERR_FILENO);
    dup2(ends[1], STDERR_FILENO);
    close(ends[1]);
    reader = ends[0];
    log_configure(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    return fcntl(reader, F_SETFL, O_NONBLOCK);
}

static int restore_stderr(void **state)
{
    (void)state;
    dup2(real_stderr, STDERR_FILENO);
    close(real_stderr);
    close(reader);
    return 0;
}

/* All that was logged since the last call, to be freed. */
static char *logged(void)
{
    size_t len = 0, capacity = 1 << 20;
    char *text = malloc(capacity);

    assert_non_null(text);
    for (ssize_t got; (got = read(reader, text + len, capacity - 1 - len)) > 0;)
        len += (size_t)got;
    text[len] = '\0';
    return text;
}

static void assert_time(const char *at)
{
    static const char form[] = "dddd-dd-ddTdd:dd:dd.dddZ";

    for (size_t i = 0; i < TIME_LEN; i++) {
        if (form[i] == 'd')
            assert_in_range(at[i], '0', '9');
        else
            assert_int_equal(at[i], form[i]);
    }
}

static void assert_logged_text(const char *expected)
{
    char *line = logged();

    assert_true(strlen(line) > TIME_LEN);
    assert_time(line);
    assert_string_equal(line + TIME_LEN, expected);
    free(line);
}

static void assert_logged_json(const char *expected)
{
    static const char start[] = "{\"time\":\"";
    char *line = logged();

    assert_memory_equal(line, start, sizeof(start) - 1);
    assert_time(line + sizeof(start) - 1);
    assert_string_equal(line + sizeof(start) - 1 + TIME_LEN, expected);
    free(line);
}

static void test_names(void **state)
{
    enum log_level level = LOG_LEVEL_WARN;
    enum log_format format = LOG_FORMAT_TEXT;

    (void)state;
    assert_true(log_level_parse("error", &level));
    assert_int_equal(level, LOG_LEVEL_ERROR);
    assert_true(log_level_parse("warn", &level));
    assert_int_equal(level, LOG_LEVEL_WARN);
    assert_true(log_level_parse("info", &level));
    assert_int_equal(level, LOG_LEVEL_INFO);
    assert_true(log_level_parse("debug", &level));
    assert_int_equal(level, LOG_LEVEL_DEBUG);
    assert_false(log_level_parse("INFO", &level));
    assert_false(log_level_parse("", &level));
    assert_int_equal(level, LOG_LEVEL_DEBUG);
    assert_true(log_format_parse("json", &format));
    assert_int_equal(format, LOG_FORMAT_JSON);
    assert_false(log_format_parse("xml", &format));
    assert_true(log_format_parse("text", &format));
    assert_int_equal(format, LOG_FORMAT_TEXT);
}

static void test_text(void **state)
{
    (void)state;
    log_info("tunnel up", log_str("session", "abc"), log_str("name", "x y"));
    assert_logged_text(" info  tunnel up  session=abc name=\"x y\"\n");
    log_error("no fields");
    assert_logged_text(" error no fields\n");
    log_warn("numbers", log_uint("u", UINT64_MAX), log_int("i", INT64_MIN), log_int("j", 7));
    assert_logged_text(" warn  numbers  u=18446744073709551615 i=-9223372036854775808 j=7\n");
    log_info("edges", log_str("empty", ""), log_str("null", NULL), log_slice("part", (struct slice){"abc", 2}));
    assert_logged_text(" info  edges  empty=\"\" null=\"\" part=ab\n");
}

static void test_json(void **state)
{
    (void)state;
    log_configure(LOG_LEVEL_DEBUG, LOG_FORMAT_JSON);
    log_info("tunnel up", log_str("session", "abc"), log_uint("n", 3), log_int("i", -3));
    assert_logged_json("\",\"level\":\"info\",\"message\":\"tunnel up\",\"session\":\"abc\",\"n\":3,\"i\":-3}\n");
    log_debug("say \"hi\"");
    assert_logged_json("\",\"level\":\"debug\",\"message\":\"say \\\"hi\\\"\"}\n");
}

/* A visitor decides what stands in a value; it must stay one value on one line, and leave the terminal alone. */
static void test_hostile_values(void **state)
{
    static const struct {
        const char *value, *escaped;
    } rows[] = {
        {"a\nb\r\tc", "a\\nb\\r\\tc"},
        {"\x1b[31m\x7f\x01", "\\u001b[31m\\u007f\\u0001"},
        {"q\" b\\", "q\\\" b\\\\"},
        {"gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\xa6\x8a", "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\xa6\x8a"},
        {"\xc2\x85|\xc2\xa0", "\\u0085|\xc2\xa0"},            /* a C1 control; the first that is none */
        {"\xff x", "\\ufffd x"},                              /* never a byte of UTF-8 */
        {"\xc3", "\\ufffd"},                                  /* cut short */
        {"\xe2\x82|", "\\ufffd\\ufffd|"},                     /* cut short by something else */
        {"\xc0\xaf", "\\ufffd\\ufffd"},                       /* overlong in two, */
        {"\xe0\x80\xaf", "\\ufffd\\ufffd\\ufffd"},            /* three */
        {"\xf0\x80\x80\xaf", "\\ufffd\\ufffd\\ufffd\\ufffd"}, /* and four bytes */
        {"\xed\xa0\x80", "\\ufffd\\ufffd\\ufffd"},            /* a surrogate */
        {"\xf4\x90\x80\x80", "\\ufffd\\ufffd\\ufffd\\ufffd"}, /* beyond U+10FFFF */
        {"\xf5\x80\x80\x80", "\\ufffd\\ufffd\\ufffd\\ufffd"},
    };
    char expected[256];

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        log_configure(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
        log_info("m", log_str("v", rows[i].value));
        snprintf(expected, sizeof(expected), " info  m  v=\"%s\"\n", rows[i].escaped);
        assert_logged_text(expected);
        log_configure(LOG_LEVEL_INFO, LOG_FORMAT_JSON);
        log_info("m", log_str("v", rows[i].value));
        snprintf(expected, sizeof(expected), "\",\"level\":\"info\",\"message\":\"m\",\"v\":\"%s\"}\n",
                 rows[i].escaped);
        assert_logged_json(expected);
    }
    log_configure(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    log_info("m", log_slice("v", SLICE("a\0b")), log_str("w", "k=v"));
    assert_logged_text(" info  m  v=\"a\\u0000b\" w=\"k=v\"\n");
}

static void test_levels(void **state)
{
    (void)state;
    log_configure(LOG_LEVEL_WARN, LOG_FORMAT_TEXT);
    assert_true(log_enabled(LOG_LEVEL_ERROR));
    assert_true(log_enabled(LOG_LEVEL_WARN));
    assert_false(log_enabled(LOG_LEVEL_INFO));
    log_info("unseen");
    log_debug("unseen");
    log_warn("seen");
    assert_logged_text(" warn  seen\n");
}

static void test_long_values_are_cut_between_characters(void **state)
{
    char value[3001];
    char expected[1200];

    (void)state;
    memset(value, 'a', sizeof(value) - 1);
    value[3000] = '\0';
    log_info("m", log_str("path", value), log_str("who", "x"));
    snprintf(expected, sizeof(expected), " info  m  path=%.1024s... who=x\n", value);
    assert_logged_text(expected);

    /* U+1F98A over the edge, wherever in it the edge falls */
    for (size_t before = 1020; before < 1025; before++) {
        memset(value, 'a', sizeof(value) - 1);
        memcpy(value + before, "\xf0\x9f\xa6\x8a", 4);
        size_t kept = before == 1020 || before == 1024 ? 1024 : before;
        log_configure(LOG_LEVEL_INFO, LOG_FORMAT_JSON);
        log_info("m", log_str("path", value));
        snprintf(expected, sizeof(expected), "\",\"level\":\"info\",\"message\":\"m\",\"path\":\"%.*s...\"}\n",
                 (int)kept, value);
        assert_logged_json(expected);
    }
}

static void test_long_lines_lose_whole_fields(void **state)
{
    char quotes[2000];
    char *line;

    (void)state;
    memset(quotes, '"', sizeof(quotes) - 1);
    quotes[sizeof(quotes) - 1] = '\0';
    for (int format = LOG_FORMAT_TEXT; format <= LOG_FORMAT_JSON; format++) {
        log_configure(LOG_LEVEL_INFO, (enum log_format)format);
        log_info("m", log_str("a", quotes), log_str("b", quotes), log_str("last", "x"));
        line = logged();
        assert_true(strlen(line) <= 4096);
        assert_non_null(
            strstr(line, format == LOG_FORMAT_JSON ? "...\",\"truncated\":\"true\"}\n" : "...\" truncated=true\n"));
        assert_null(strstr(line, "last"));
        assert_null(strstr(line, "b\":"));
        assert_null(strstr(line, " b="));
        free(line);
    }

    /* Lengths around the cap: a line is never over it, and always ends as a line does. */
    char filler[1025], rest[1025];
    memset(filler, 'f', sizeof(filler));
    memset(rest, 'r', sizeof(rest));
    filler[1024] = '\0';
    for (size_t len = 850; len < 1024; len++) {
        rest[len] = '\0';
        log_configure(LOG_LEVEL_INFO, LOG_FORMAT_JSON);
        log_info("m", log_str("a", filler), log_str("b", filler), log_str("c", filler), log_str("d", rest));
        line = logged();
        size_t total = strlen(line);
        bool cut = strstr(line, "\"truncated\"") != NULL;
        assert_true(total <= 4096);
        assert_string_equal(line + total - 3, "\"}\n");
        assert_true(cut == (strstr(line, "\"d\"") == NULL));
        free(line);
        rest[len] = 'r';
    }

    char *endless = malloc(10001);
    assert_non_null(endless);
    memset(endless, 'm', 10000);
    endless[10000] = '\0';
    log_configure(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    log_write(LOG_LEVEL_INFO, endless, (const struct log_field[]){log_str("k", "v"), {.key = 0}});
    free(endless);
    assert_logged_text(" info  message too long  truncated=true\n");
}

static size_t count_lines(const char *text)
{
    size_t lines = 0;

    for (; *text; text++)
        lines += *text == '\n';
    return lines;
}

static void test_stopped_reader(void **state)
{
    enum {
        LINES = 5000
    };
    char filler[401];

    (void)state;
    memset(filler, 'x', 400);
    filler[400] = '\0';
    /* Some 2 MB into a pipe of 64 KiB that nobody reads: it is enough that this loop ends. */
    errno = EDOM;
    for (unsigned i = 0; i < LINES; i++)
        log_info("busy", log_uint("i", i), log_str("filler", filler));
    assert_int_equal(errno, EDOM);

    char *first = logged();
    size_t kept = count_lines(first);
    assert_true(kept > 100 && kept < 1000);
    assert_null(strstr(first, "lost"));
    assert_memory_equal(first + strlen(first) - 401, filler, 400); /* the last one that fitted is whole */
    assert_int_equal(first[strlen(first) - 1], '\n');
    free(first);

    log_info("back");
    char expected[160];
    char *second = logged();
    snprintf(expected, sizeof(expected), " warn  log lines were lost: standard error took no more  lines=%zu\n",
             LINES - kept);
    assert_memory_equal(second + TIME_LEN, expected, strlen(expected));
    assert_string_equal(second + strlen(second) - strlen(" info  back\n"), " info  back\n");
    assert_int_equal(count_lines(second), 2);
    free(second);

    log_info("and calm");
    assert_logged_text(" info  and calm\n");
}

static void *log_many(void *name)
{
    for (unsigned i = 0; i < 200; i++)
        log_info("turn", log_str("thread", name), log_uint("i", i));
    return NULL;
}

static void test_lines_of_threads_stay_whole(void **state)
{
    pthread_t threads[4];
    char names[4][8] = {"one", "two", "three", "four"};
    size_t seen = 0;

    (void)state;
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, log_many, names[i]), 0);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);

    char *text = logged();
    for (char *line = text, *end; (end = strchr(line, '\n')); line = end + 1) {
        *end = '\0';
        assert_time(line);
        assert_memory_equal(line + TIME_LEN, " info  turn  thread=", 20);
        seen++;
    }
    assert_int_equal(seen, 800);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test_setup_teardown(test_text, replace_stderr, restore_stderr),
        cmocka_unit_test_setup_teardown(test_json, replace_stderr, restore_stderr),
        cmocka_unit_test_setup_teardown(test_hostile_values, replace_stderr, restore_stderr),
        cmocka_unit_test_setup_teardown(test_levels, replace_stderr, restore_stderr),
        cmocka_unit_test_setup_teardown(test_long_values_are_cut_between_characters, replace_stderr, restore_stderr),
        cmocka_unit_test_setup_teardown(test_long_lines_lose_whole_fields, replace_stderr, restore_stderr),
        cmocka_unit_test_setup_teardown(test_stopped_reader, replace_stderr, restore_stderr),
        cmocka_unit_test_setup_teardown(test_lines_of_threads_stay_whole, replace_stderr, restore_stderr),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
