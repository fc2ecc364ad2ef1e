/* Limits by address, against a clock of the test's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "io/address_limit.h"
#include "io/network.h"

static struct ip address(const char *text)
{
    struct ip ip;
    assert_int_equal(ip_parse(slice_of(text), &ip), 0);
    return ip;
}

static bool connects(struct address_limit *l, const struct ip *ip, uint64_t now_ms)
{
    bool counted, may = address_limit_connect(l, ip, now_ms, &counted);
    assert_int_equal(counted, may);
    return may;
}

static void connections_at_once_and_a_second(void **state)
{
    (void)state;
    const struct address_rates rates = {.connections = 2, .connections_per_second = 1};
    struct address_limit *l = address_limit_new(&rates);
    struct ip one = address("192.0.2.1"), other = address("192.0.2.2");
    assert_true(connects(l, &one, 1000));
    assert_true(connects(l, &one, 1000));
    assert_false(connects(l, &one, 1000));
    assert_true(connects(l, &other, 1000));
    unsigned made = 0;
    for (int i = 0; i < 10; i++) { /* of the burst of 5, two are spent */
        address_limit_disconnect(l, &one);
        made += connects(l, &one, 1000);
    }
    assert_int_equal(made, 3);
    assert_true(connects(l, &one, 2000));
    address_limit_free(l);
}

static void requests_a_second(void **state)
{
    (void)state;
    const struct address_rates rates = {.requests_per_second = 10};
    struct address_limit *l = address_limit_new(&rates);
    struct ip one = address("192.0.2.1");
    unsigned served = 0;
    for (uint64_t ms = 0; ms < 2000; ms++)
        served += address_limit_request(l, &one, 5000 + ms);
    assert_in_range(served, 50 + 19, 50 + 20);
    address_limit_free(l);
}

/* Workers read their clocks once a turn: one that is a moment behind asks for the same address. */
static void workers_whose_clocks_differ(void **state)
{
    (void)state;
    const struct address_rates rates = {.connections_per_second = 10, .requests_per_second = 10};
    struct address_limit *l = address_limit_new(&rates);
    struct ip one = address("192.0.2.1");
    unsigned served = 0, made = 0;
    for (uint64_t i = 0; i < 1000; i++) {
        served += address_limit_request(l, &one, 5000 - i % 2);
        made += connects(l, &one, 5000 - i % 2);
    }
    assert_int_equal(served, 50);
    assert_int_equal(made, 50);
    address_limit_free(l);
}

static void ipv6_by_its_64(void **state)
{
    (void)state;
    const struct address_rates rates = {.connections = 1};
    struct address_limit *l = address_limit_new(&rates);
    struct ip here = address("2001:db8:1:2::1"), beside = address("2001:db8:1:2:ffff::2");
    struct ip there = address("2001:db8:1:3::1");
    assert_true(connects(l, &here, 1));
    assert_false(connects(l, &beside, 1));
    assert_true(connects(l, &there, 1));
    address_limit_free(l);
}

/* A million addresses in fixed memory; those that hold connections are not driven out. */
static void a_crowd(void **state)
{
    (void)state;
    const struct address_rates rates = {.connections = 1, .requests_per_second = 1};
    struct address_limit *l = address_limit_new(&rates);
    struct ip held = address("198.51.100.9"), ip = address("10.0.0.0");
    assert_true(connects(l, &held, 1));
    for (uint32_t i = 0; i < 1000000; i++) {
        ip.bytes[13] = (uint8_t)(i >> 16);
        ip.bytes[14] = (uint8_t)(i >> 8);
        ip.bytes[15] = (uint8_t)i;
        assert_true(address_limit_request(l, &ip, 1 + i / 1000));
    }
    assert_false(connects(l, &held, 2000));
    address_limit_disconnect(l, &held);
    assert_true(connects(l, &held, 2000));
    address_limit_free(l);
}

/* Who is seen all the time is not forgotten for who comes once, in no millisecond and by no worker's clock. */
static void a_crowd_drives_out_the_silent(void **state)
{
    (void)state;
    const struct address_rates rates = {.requests_per_second = 1};
    struct address_limit *l = address_limit_new(&rates);
    struct ip busy = address("198.51.100.9"), ip = address("10.0.0.0");
    unsigned served = 0;
    for (uint32_t i = 0; i < 1000000; i++) {
        uint64_t now_ms = 2000 + i / 1000;
        ip.bytes[13] = (uint8_t)(i >> 16);
        ip.bytes[14] = (uint8_t)(i >> 8);
        ip.bytes[15] = (uint8_t)i;
        address_limit_request(l, &ip, now_ms - i % 2);
        served += address_limit_request(l, &busy, now_ms - i / 2 % 2);
    }
    assert_in_range(served, 5, 6); /* a burst, and at most one of the second that this takes */
    address_limit_free(l);
}

/* Neighbours in one network are told apart as well as strangers: each of them stays known beside the others. */
static void a_network_of_neighbours(void **state)
{
    (void)state;
    const struct address_rates rates = {.requests_per_second = 1};
    struct address_limit *l = address_limit_new(&rates);
    struct ip ip = address("10.7.0.0");
    unsigned served = 0;
    for (uint32_t i = 0; i < 6 * 4096; i++) {
        ip.bytes[14] = (uint8_t)(i % 4096 >> 8);
        ip.bytes[15] = (uint8_t)i;
        served += address_limit_request(l, &ip, 1000);
    }
    assert_in_range(served, 5 * 4096, 5 * 4096 + 40); /* a set may have more of them than it holds, hardly ever */
    address_limit_free(l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(connections_at_once_and_a_second),
        cmocka_unit_test(requests_a_second),
        cmocka_unit_test(workers_whose_clocks_differ),
        cmocka_unit_test(ipv6_by_its_64),
        cmocka_unit_test(a_crowd),
        cmocka_unit_test(a_network_of_neighbours),
        cmocka_unit_test(a_crowd_drives_out_the_silent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
