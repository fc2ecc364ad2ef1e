/* Character rules: tokens, values, targets, hosts and protocol lists, at their edges. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/limits.h"
#include "http/syntax.h"

static void knows_every_character(void **state)
{
    (void)state;
    for (int i = 0; i < 256; i++) {
        char c = (char)i;
        struct slice s = {&c, 1};
        bool alnum = (i >= '0' && i <= '9') || (i >= 'A' && i <= 'Z') || (i >= 'a' && i <= 'z');
        bool visible = i > 0x20 && i < 0x7f;
        assert_int_equal(http_is_token(s), alnum || (i && strchr("!#$%&'*+-.^_`|~", i)));
        assert_int_equal(http_is_target(s), visible && i != '#');
        assert_int_equal(http_char_is(c, HTTP_CHAR_LOWER), http_is_token(s) && !(i >= 'A' && i <= 'Z'));
        assert_int_equal(http_is_field_value(s), i == '\t' || (i >= 0x20 && i != 0x7f));
        assert_int_equal(http_char_is(c, HTTP_CHAR_HOST), alnum || (i && strchr("-._", i)));
        assert_int_equal(http_char_is(c, HTTP_CHAR_DIGIT), i >= '0' && i <= '9');
        assert_int_equal(http_char_is(c, HTTP_CHAR_HEX), i && strchr("0123456789abcdefABCDEF", i));
        assert_int_equal(http_char_is(c, HTTP_CHAR_QUOTED),
                         i == '\t' || (i >= 0x20 && i < 0x7f && i != '"' && i != '\\'));
    }
    assert_false(http_is_token(SLICE("")));
    assert_false(http_is_target(SLICE("")));
    assert_true(http_is_field_value(SLICE("")));
}

/* Every position in and around the words that the scan reads, with every neighbour that could carry into the next. */
static void finds_the_first_control_byte(void **state)
{
    (void)state;
    static const char fills[] = {' ', '\t', 'a', '~', '\x80', '\xff', '\xa0', '!'};
    for (size_t len = 0; len <= 20; len++) {
        char *memory = malloc(len + 1);
        assert_non_null(memory);
        for (size_t f = 0; f < sizeof(fills); f++) {
            memset(memory, fills[f], len);
            assert_int_equal(http_find_control((struct slice){memory, len}, 0), len);
            for (size_t at = 0; at < len; at++) {
                memory[at] = at % 2 ? '\x7f' : '\x1f';
                for (size_t from = 0; from <= at; from++)
                    assert_int_equal(http_find_control((struct slice){memory, len}, from), at);
                assert_int_equal(http_find_control((struct slice){memory, len}, at + 1), len);
                memory[at] = fills[f];
            }
        }
        free(memory);
    }
}

struct host_case {
    const char *authority;
    const char *host; /* NULL: refused */
};

static const struct host_case host_cases[] = {
    {"app.example.com", "app.example.com"},
    {"App.Example.com.:8080", "app.example.com"},
    {"a", "a"},
    {"a:0", "a"},
    {"a:65535", "a"},
    {"a:00080", "a"},
    {"my_app-1.example", "my_app-1.example"},
    {"127.0.0.1:80", "127.0.0.1"},
    {"[::1]", "[::1]"},
    {"[::1]:443", "[::1]"},
    {"[2001:DB8::A]:1", "[2001:db8::a]"},
    {"[::ffff:192.0.2.1]", "[::ffff:192.0.2.1]"},
    {"", NULL},
    {".", NULL},
    {"..", NULL},
    {".a", NULL},
    {"a..", NULL},
    {"a..b", NULL},
    {":80", NULL},
    {"a:", "a"},
    {"a:65536", NULL},
    {"a:99999", NULL},
    {"a:000080", NULL},
    {"a:+80", NULL},
    {"a:8 0", NULL},
    {"a:80:80", NULL},
    {"a b", NULL},
    {"a/b", NULL},
    {"a?b", NULL},
    {"a#b", NULL},
    {"a\\b", NULL},
    {"u@a", NULL},
    {"u:p@a", NULL},
    {"a%2eb", NULL},
    {"a,b", NULL},
    {"a;b", NULL},
    {"*.a", NULL},
    {"\xc3\xa9.example", NULL},
    {"a\tb", NULL},
    {"[", NULL},
    {"[]", NULL},
    {"[::1", NULL},
    {"[::1]x", NULL},
    {"[::1]80", NULL},
    {"[::1]:", "[::1]"},
    {"[::1%25eth0]", NULL},
    {"[v1.a]", NULL},
    {"[127.0.0.1]", NULL},
    {"::1", NULL},
    {"[12345::1]", NULL},
    {"[1111:2222:3333:4444:5555:6666:123.123.123.1234567890]", NULL},
};

static void reads_hosts(void **state)
{
    (void)state;
    char out[LIMIT_HOST_BYTES + 1];
    for (size_t i = 0; i < sizeof(host_cases) / sizeof(host_cases[0]); i++) {
        const struct host_case *c = &host_cases[i];
        size_t len = http_host_of(slice_of(c->authority), out);
        if ((len > 0) != (c->host != NULL))
            fail_msg("%s: %s", c->authority, c->host ? "refused" : "accepted");
        assert_int_equal(http_is_authority(slice_of(c->authority)), c->host != NULL);
        if (c->host)
            assert_string_equal(out, c->host);
    }
    assert_false(http_is_authority(SLICE("[::1\0]")));
    assert_false(http_is_authority(SLICE("a\0b")));
}

static void bounds_hosts(void **state)
{
    (void)state;
    char name[LIMIT_HOST_BYTES + 8], out[LIMIT_HOST_BYTES + 1];
    for (size_t i = 0; i < sizeof(name); i++)
        name[i] = i % 2 ? '.' : 'A';
    assert_int_equal(http_host_of((struct slice){name, LIMIT_HOST_BYTES}, out), LIMIT_HOST_BYTES);
    assert_int_equal(strlen(out), LIMIT_HOST_BYTES);
    assert_int_equal(http_host_of((struct slice){name, LIMIT_HOST_BYTES + 1}, out), LIMIT_HOST_BYTES); /* final dot */
    assert_int_equal(http_host_of((struct slice){name, LIMIT_HOST_BYTES + 2}, out), 0);
}

/* Every length across the steps of the scan, every place, both borders of the classes. */
static void judges_values_of_every_length(void **state)
{
    (void)state;
    static const unsigned char bytes[] = {0x00, 0x08, '\t', '\n', 0x1f, 0x20, 0x7e, 0x7f, 0x80, 0xff};
    for (size_t len = 1; len < 50; len++) {
        char text[50];
        memset(text, 'v', sizeof(text));
        for (size_t at = 0; at < len; at++) {
            for (size_t i = 0; i < sizeof(bytes); i++) {
                text[at] = (char)bytes[i];
                bool fine = bytes[i] == '\t' || (bytes[i] >= 0x20 && bytes[i] != 0x7f);
                assert_int_equal(http_is_field_value((struct slice){text, len}), fine);
            }
            text[at] = 'v';
        }
        text[len] = '\n'; /* behind the value: nobody may look at it */
        assert_true(http_is_field_value((struct slice){text, len}));
    }
}

static void knows_lower_case_names_of_every_length(void **state)
{
    (void)state;
    for (size_t len = 1; len < 40; len++) {
        char text[40];
        memset(text, 'n', sizeof(text));
        for (size_t at = 0; at < len; at++) {
            for (int byte = 0; byte < 256; byte++) {
                text[at] = (char)byte;
                assert_int_equal(http_is_lower_token((struct slice){text, len}),
                                 http_char_is((char)byte, HTTP_CHAR_LOWER));
            }
            text[at] = 'n';
        }
    }
    assert_false(http_is_lower_token(SLICE("")));
}

static void reads_protocol_lists(void **state)
{
    (void)state;
    static const char *const good[] = {"websocket", "h2c", "HTTP/2.0", "a/1, b", " a ,b/c", ",a,,"};
    static const char *const bad[] = {"", ",", " ", "a b", "a/", "/1", "a//b", "a/1/2", "a;b", "\"a\"", "a, b c"};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        assert_true(http_is_protocol_list(slice_of(good[i])));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(http_is_protocol_list(slice_of(bad[i])));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(knows_every_character),
        cmocka_unit_test(finds_the_first_control_byte),
        cmocka_unit_test(reads_hosts),
        cmocka_unit_test(bounds_hosts),
        cmocka_unit_test(reads_protocol_lists),
        cmocka_unit_test(judges_values_of_every_length),
        cmocka_unit_test(knows_lower_case_names_of_every_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
