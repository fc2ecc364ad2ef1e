/* Which protocols a connection may switch to. */
#include "http/upgrade.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void check(const char *const *values, size_t count, bool allowed)
{
    for (size_t i = 0; i < count; i++)
        if (http_upgrade_is_allowed(slice_of(values[i])) != allowed)
            fail_msg("'%s'", values[i]);
}

static void one_protocol_is_allowed(void **state)
{
    (void)state;
    static const char *const values[] = {"websocket",   "WebSocket", "tcp", "SPDY/3.1",
                                         "connect-udp", "irc/6.9",   "x",   "h"};
    check(values, sizeof(values) / sizeof(values[0]), true);
}

static void what_carries_http_is_not(void **state)
{
    (void)state;
    static const char *const values[] = {"h2c",      "H2C",      "h2",   "h2c-14", "h3",      "h3-29",  "hq-interop",
                                         "HTTP/2.0", "http/1.1", "HTTP", "https",  "TLS/1.0", "tls/1.2"};
    check(values, sizeof(values) / sizeof(values[0]), false);
}

static void anything_but_one_protocol_is_not(void **state)
{
    (void)state;
    static const char *const values[] = {
        "",   ",",  "websocket, h2c", "h2c, websocket", "a,b", "a,",    ",a",   " a",    "a ", "a b",
        "a/", "/1", "a//b",           "a/1/2",          "a;b", "\"a\"", "a\tb", "a\r\nb"};
    check(values, sizeof(values) / sizeof(values[0]), false);
}

static void a_list_names_protocols(void **state)
{
    (void)state;
    static const struct {
        const char *value, *list;
        bool listed;
    } cases[] = {
        {"websocket", "websocket", true}, {"WebSocket", "tcp, websocket", true}, {"tcp", "websocket", false},
        {"SPDY/3.1", "spdy", true},       {"SPDY/3.1", "SPDY/3.1", true},        {"SPDY/3", "SPDY/3.1", false},
        {"websocket", "", false},         {"web", "websocket", false},           {"websocket/1", "websocket/13", false},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        if (http_upgrade_is_listed(slice_of(cases[i].value), slice_of(cases[i].list)) != cases[i].listed)
            fail_msg("'%s' in '%s'", cases[i].value, cases[i].list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_protocol_is_allowed),
        cmocka_unit_test(what_carries_http_is_not),
        cmocka_unit_test(anything_but_one_protocol_is_not),
        cmocka_unit_test(a_list_names_protocols),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
