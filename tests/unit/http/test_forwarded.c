/* Whom X-Forwarded-For names as the visitor, by who is believed, and how Forwarded is written. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "http/forwarded.h"
#include "http/head.h"

static struct networks networks_of(const char *list)
{
    struct networks networks = {.count = 0};
    struct slice wrong;
    const char *why;
    assert_int_equal(networks_add(&networks, slice_of(list), &wrong, &why), 0);
    return networks;
}

static struct ip ip_of_text(const char *text)
{
    struct ip ip;
    assert_int_equal(ip_parse(slice_of(text), &ip), 0);
    return ip;
}

/* A request with up to three lines of the field, and another field between them. */
static void find(const char *peer, const char *const lines[3], const char *trusted, struct forward_path *path)
{
    struct field storage[8];
    struct head head;
    struct networks networks = networks_of(trusted);
    struct ip ip = ip_of_text(peer);
    head_borrow(&head, storage, 8);
    for (int i = 0; i < 3 && lines[i]; i++) {
        head_add(&head, SLICE("X-Forwarded-For"), slice_of(lines[i]));
        head_add(&head, SLICE("X-Forwarded"), SLICE("6.6.6.6"));
    }
    forward_path_find(&head, &ip, &networks, path);
}

#define PROXIES "10.0.0.0/8,::1,2001:db8:5::/48"

static void finds_the_visitor(void **state)
{
    (void)state;
    static const struct {
        const char *peer;
        const char *lines[3];
        const char *visitor;
        size_t count;
    } cases[] = {
        {"10.0.0.1", {NULL}, "10.0.0.1", 1},
        {"10.0.0.1", {""}, "10.0.0.1", 1},
        {"10.0.0.1", {" , ,"}, "10.0.0.1", 1},
        {"10.0.0.1", {"203.0.113.7"}, "203.0.113.7", 2},
        {"10.0.0.1", {"6.6.6.6, 203.0.113.7"}, "203.0.113.7", 2}, /* what the visitor wrote himself is no news */
        {"10.0.0.1", {"10.9.9.9, 203.0.113.7"}, "203.0.113.7", 2},
        {"10.0.0.1", {"6.6.6.6, 203.0.113.7, 10.0.0.2"}, "203.0.113.7", 3},
        {"10.0.0.1", {"6.6.6.6", "203.0.113.7", "10.0.0.2"}, "203.0.113.7", 3},
        {"10.0.0.1", {"6.6.6.6,203.0.113.7", "", "10.0.0.3 ,\t10.0.0.2"}, "203.0.113.7", 4},
        {"10.0.0.1", {"10.0.0.3, 10.0.0.2"}, "10.0.0.3", 3}, /* a visitor of the inside */
        {"203.0.113.9", {"6.6.6.6"}, "203.0.113.9", 1},
        {"10.0.0.1", {"203.0.113.7:4567"}, "203.0.113.7", 2},
        {"10.0.0.1", {"2001:db8::7"}, "2001:db8::7", 2},
        {"10.0.0.1", {"[2001:db8::7]"}, "2001:db8::7", 2},
        {"10.0.0.1", {"[2001:db8::7]:4567"}, "2001:db8::7", 2},
        {"::1", {"2001:db8::7, 2001:db8:5::1"}, "2001:db8::7", 3},
        {"::ffff:10.0.0.1", {"::ffff:203.0.113.7"}, "203.0.113.7", 2},
        {"10.0.0.1", {"unknown"}, "10.0.0.1", 1},
        {"10.0.0.1", {"203.0.113.7, unknown, 10.0.0.2"}, "10.0.0.2", 2},
        {"10.0.0.1", {"203.0.113.7, _hidden"}, "10.0.0.1", 1},
        {"10.0.0.1", {"203.0.113.7, 1.2.3.4.5"}, "10.0.0.1", 1},
        {"10.0.0.1", {"203.0.113.7, [::1"}, "10.0.0.1", 1},
        {"10.0.0.1", {"203.0.113.7, [::1]x"}, "10.0.0.1", 1},
        {"10.0.0.1", {"203.0.113.7, []"}, "10.0.0.1", 1},
        {"10.0.0.1", {"203.0.113.7, ]"}, "10.0.0.1", 1},
        {"10.0.0.1", {"203.0.113.7, :"}, "10.0.0.1", 1},
        {"10.0.0.1", {"203.0.113.7, \"10.0.0.2\""}, "10.0.0.1", 1},
        {"10.0.0.1",
         {"203.0.113.7,10.0.0.9,10.0.0.8,10.0.0.7,10.0.0.6,10.0.0.5,10.0.0.4,10.0.0.3,10.0.0.2"},
         "10.0.0.8",
         FORWARD_HOPS_MAX},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct forward_path path;
        char text[IP_TEXT_LEN];
        find(cases[i].peer, cases[i].lines, PROXIES, &path);
        ip_format(forward_path_visitor(&path), text);
        if (strcmp(text, cases[i].visitor) != 0 || path.count != cases[i].count)
            fail_msg("case %zu: %s over %zu", i, text, path.count);
    }
}

static void writes_forwarded(void **state)
{
    (void)state;
    static const struct {
        const char *hops[3], *host, *scheme, *expected;
    } cases[] = {
        {{"203.0.113.7"}, "a.example", "https", "for=203.0.113.7;host=a.example;proto=https"},
        {{"203.0.113.7"}, "a.example:8443", "http", "for=203.0.113.7;host=\"a.example:8443\";proto=http"},
        {{"2001:db8::7"}, "[::1]", "http", "for=\"[2001:db8::7]\";host=\"[::1]\";proto=http"},
        {{"203.0.113.7"}, "no host", "no scheme", "for=203.0.113.7"},
        {{"203.0.113.7"}, "a\"b", "", "for=203.0.113.7"},
        {{"203.0.113.7"}, "", "averyveryverylongscheme", "for=203.0.113.7"},
        {{"10.0.0.1", "2001:db8:5::1", "203.0.113.7"},
         "a.example",
         "https",
         "for=203.0.113.7;host=a.example;proto=https, for=\"[2001:db8:5::1]\", for=10.0.0.1"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct forward_path path = {.count = 0};
        char text[FORWARDED_MAX];
        for (int hop = 0; hop < 3 && cases[i].hops[hop]; hop++)
            path.hops[path.count++] = ip_of_text(cases[i].hops[hop]);
        size_t len = forwarded_format(&path, slice_of(cases[i].host), slice_of(cases[i].scheme), text);
        assert_int_equal(len, strlen(text));
        assert_string_equal(text, cases[i].expected);
    }
}

/* The longest of everything fits. */
static void has_room(void **state)
{
    (void)state;
    struct forward_path path = {.count = FORWARD_HOPS_MAX};
    char host[LIMIT_HOST_BYTES + 1] = "", text[FORWARDED_MAX];
    for (size_t i = 0; i < FORWARD_HOPS_MAX; i++)
        path.hops[i] = ip_of_text("2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff");
    for (size_t i = 0; i < LIMIT_HOST_BYTES - 4; i++)
        host[i] = i % 40 == 39 ? '.' : 'a';
    memcpy(host + LIMIT_HOST_BYTES - 5, "a:80", 4);
    size_t len = forwarded_format(&path, slice_of(host), SLICE("sixteen-long-sch"), text);
    assert_int_equal(len, strlen(text));
    assert_non_null(strstr(text, "a:80\";proto=sixteen-long-sch, "));
    assert_true(len < FORWARDED_MAX - 1);
    assert_string_equal(text + len - 3, "f]\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_the_visitor),
        cmocka_unit_test(writes_forwarded),
        cmocka_unit_test(has_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
