/* Addresses and networks: what is one, what is none, and who is in which. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "io/listener.h"
#include "io/network.h"

static void reads_and_writes_addresses(void **state)
{
    (void)state;
    static const char *const same[] = {
        "0.0.0.0", "203.0.113.7", "255.255.255.255", "::", "::1", "2001:db8::ff:0:1", "fe80::1"};
    static const char *const none[] = {"",          "1.2.3",   "1.2.3.4.5", "01.2.3.4",  "256.1.1.1",
                                       "1.2.3.4 ",  "[::1]",   "::1%lo",    ":::",       "a.example",
                                       "1.2.3.4:5", "unknown", "12345::1",  "1.2.3.4/8", "0x1.2.3.4"};
    char text[IP_TEXT_LEN];
    struct ip ip;
    for (size_t i = 0; i < sizeof(same) / sizeof(same[0]); i++) {
        assert_int_equal(ip_parse(slice_of(same[i]), &ip), KV_OK);
        assert_int_equal(ip_format(&ip, text), strlen(same[i]));
        assert_string_equal(text, same[i]);
    }
    for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++)
        if (ip_parse(slice_of(none[i]), &ip) != KV_EINVAL)
            fail_msg("taken for an address: %s", none[i]);
    assert_int_equal(ip_parse(SLICE("::ffff:203.0.113.7"), &ip), KV_OK);
    ip_format(&ip, text);
    assert_string_equal(text, "203.0.113.7");
    assert_int_equal(ip_parse((struct slice){"1.2.3.4\0", 8}, &ip), KV_EINVAL);
}

static void reads_socket_addresses(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        {"203.0.113.7:80", "203.0.113.7"}, {"[2001:db8::1]:80", "2001:db8::1"}, {"[::ffff:10.0.0.1]:80", "10.0.0.1"}};
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        struct sockaddr_storage address;
        char text[IP_TEXT_LEN];
        assert_int_equal(sockaddr_parse(slice_of(pairs[i][0]), &address), 0);
        struct ip ip = ip_of((const struct sockaddr *)&address);
        ip_format(&ip, text);
        assert_string_equal(text, pairs[i][1]);
    }
}

static void finds_members(void **state)
{
    (void)state;
    static const struct {
        const char *list, *address;
        bool is_in;
    } cases[] = {
        {"127.0.0.1", "127.0.0.1", true},
        {"127.0.0.1", "127.0.0.2", false},
        {"127.0.0.1", "::ffff:127.0.0.1", true},
        {"127.0.0.0/8", "127.255.255.255", true},
        {"127.0.0.0/8", "126.255.255.255", false},
        {"127.0.0.0/8", "128.0.0.0", false},
        {"10.128.0.0/9", "10.127.255.255", false},
        {"10.128.0.0/9", "10.128.0.0", true},
        {"192.0.2.8/31", "192.0.2.9", true},
        {"192.0.2.8/31", "192.0.2.10", false},
        {"192.0.2.8/32", "192.0.2.9", false},
        {"0.0.0.0/0", "8.8.8.8", true},
        {"0.0.0.0/0", "2001:db8::1", false},
        {"::/0", "8.8.8.8", true}, /* mapped addresses are IPv6 addresses */
        {"::/0", "2001:db8::1", true},
        {"2001:db8::/32", "2001:db8:ffff::1", true},
        {"2001:db8::/32", "2001:db9::1", false},
        {"2001:db8::/33", "2001:db8:8000::1", false},
        {"::ffff:10.0.0.0/104", "10.1.2.3", true},
        {"::1", "::1", true},
        {"::1", "::2", false},
        {"10.0.0.0/8, 192.0.2.1 ,::1", "192.0.2.1", true},
        {"10.0.0.0/8, 192.0.2.1 ,::1", "::1", true},
        {"10.0.0.0/8, 192.0.2.1 ,::1", "192.0.2.2", false},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct networks networks = {.count = 0};
        struct slice wrong;
        const char *why;
        struct ip ip;
        assert_int_equal(networks_add(&networks, slice_of(cases[i].list), &wrong, &why), KV_OK);
        assert_int_equal(ip_parse(slice_of(cases[i].address), &ip), KV_OK);
        if (networks_contain(&networks, &ip) != cases[i].is_in)
            fail_msg("%s in %s", cases[i].address, cases[i].list);
    }
    struct networks nobody = {.count = 0};
    assert_false(networks_contain(&nobody, &(struct ip){.bytes = {0}}));
}

static void refuses_what_is_no_network(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"", ""},
        {"10.0.0.0/8,", ""},
        {"10.0.0.0/8,x", "x"},
        {"10.0.0.0/", "10.0.0.0/"},
        {"10.0.0.0/33", "10.0.0.0/33"},
        {"10.0.0.0/-1", "10.0.0.0/-1"},
        {"10.0.0.0/8/8", "10.0.0.0/8/8"},
        {"::/129", "::/129"},
        {"10.0.0.1/8", "10.0.0.1/8"},
        {"2001:db8::1/64", "2001:db8::1/64"},
        {"10.0.0.0 /8", "10.0.0.0 /8"},
        {"localhost", "localhost"},
        {"10.0.0.0/8 11.0.0.0/8", "10.0.0.0/8 11.0.0.0/8"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct networks networks = {.count = 0};
        struct slice wrong;
        const char *why = NULL;
        if (networks_add(&networks, slice_of(cases[i][0]), &wrong, &why) != KV_EINVAL)
            fail_msg("taken for networks: %s", cases[i][0]);
        assert_non_null(why);
        assert_true(slice_equals(wrong, slice_of(cases[i][1])));
    }
}

static void holds_so_many(void **state)
{
    (void)state;
    struct networks networks = {.count = 0};
    struct slice wrong;
    const char *why;
    for (int i = 0; i < NETWORKS_MAX; i++) {
        char text[IP_TEXT_LEN];
        int len = snprintf(text, sizeof(text), "10.0.%d.0/24", i);
        assert_int_equal(networks_add(&networks, (struct slice){text, (size_t)len}, &wrong, &why), KV_OK);
    }
    assert_int_equal(networks_add(&networks, SLICE("192.0.2.1"), &wrong, &why), KV_ELIMIT);
    assert_true(slice_equals(wrong, SLICE("192.0.2.1")));
    assert_int_equal(networks.count, NETWORKS_MAX);
}

static void sites_and_loopback(void **state)
{
    (void)state;
    static const struct {
        const char *text, *same, *other;
        bool loopback;
    } rows[] = {
        {"203.0.113.7", "::ffff:203.0.113.7", "203.0.113.8", false},
        {"127.0.0.1", "127.0.0.1", "127.0.0.2", true},
        {"127.255.0.1", "127.255.0.1", "128.0.0.1", true},
        {"2001:db8:0:1::1", "2001:db8:0:1:ffff::2", "2001:db8:0:2::1", false},
        {"::1", "::2", "0:0:0:1::1", true},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct ip ip, same, other;
        assert_int_equal(ip_parse(slice_of(rows[i].text), &ip), 0);
        assert_int_equal(ip_parse(slice_of(rows[i].same), &same), 0);
        assert_int_equal(ip_parse(slice_of(rows[i].other), &other), 0);
        assert_true(ip_site(&ip) == ip_site(&same));
        assert_true(ip_site(&ip) != ip_site(&other));
        assert_int_equal(ip_is_loopback(&ip), rows[i].loopback);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sites_and_loopback),         cmocka_unit_test(reads_and_writes_addresses),
        cmocka_unit_test(reads_socket_addresses),     cmocka_unit_test(finds_members),
        cmocka_unit_test(refuses_what_is_no_network), cmocka_unit_test(holds_so_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
