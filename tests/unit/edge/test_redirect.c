/* The port that sends visitors to https, under the limits by address. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <unistd.h>

#include "base/error.h"
#include "edge/edge.h"
#include "edge/edge_visit.h"
#include "io/network.h"
#include "tunnel/registry.h"

static const char request[] = "GET /x HTTP/1.1\r\nHost: app.tnl.test\r\n\r\n";

static struct worker_group *group;
static struct registry *registry;
static struct networks senders;
static struct edge *edge;

static int start_with(const struct address_rates *rates, const struct networks *proxy_senders)
{
    assert_int_equal(worker_group_start(1, &group), KV_OK);
    registry = registry_new(group);
    edge = edge_new(&(struct edge_settings){
        .group = group,
        .registry = registry,
        .base_host = "tnl.test",
        .rates = *rates,
        .head_timeout_ms = 60000,
        .proxy_senders = proxy_senders,
    });
    return edge ? 0 : -1;
}

static int start(void **state)
{
    (void)state;
    return start_with(&(struct address_rates){.connections = 2, .requests_per_second = 1}, NULL);
}

/* The visitors' end of a socket pair has no address: that is the proxy's. */
static int start_proxied(void **state)
{
    (void)state;
    struct slice wrong;
    const char *why;
    senders.count = 0;
    assert_int_equal(networks_add(&senders, SLICE("::/128"), &wrong, &why), KV_OK);
    return start_with(&(struct address_rates){.connections = 1}, &senders);
}

static int stop(void **state)
{
    (void)state;
    edge_stop(edge);
    worker_group_stop(group, 5000);
    edge_free(edge);
    registry_free(registry);
    return 0;
}

static void accept_visitor(struct worker *worker, void *arg)
{
    (void)worker;
    edge_accept_redirect(edge, *(int *)arg);
}

static int visit(void)
{
    return edge_visit(worker_at(group, 0), accept_visitor);
}

static struct edge_counts counted(void)
{
    struct edge_counts counts;
    let_it_read(worker_at(group, 0));
    edge_count(edge, &counts);
    return counts;
}

/* The third is turned away; a place is free again behind an answer, and when a visitor leaves. */
static void connections_at_once(void **state)
{
    (void)state;
    int one = visit(), other = visit(), third = visit();
    assert_true(has_ended(third));
    assert_int_equal(counted().connections_refused, 1);
    say(one, request);
    expect(one, "HTTP/1.1 308");
    close(other);
    let_it_read(worker_at(group, 0));
    int next = visit(), last = visit();
    assert_int_equal(counted().connections_refused, 1);
    close(one);
    close(third);
    close(next);
    close(last);
}

static void requests_a_second(void **state)
{
    (void)state;
    bool limited = false;
    for (int tries = 0; !limited; tries++) {
        assert_true(tries < 64); /* the burst is of five, and a second of a busy machine gives one more */
        int fd = visit();
        say(fd, request);
        limited = counted().requests_limited > 0;
        expect(fd, limited ? "HTTP/1.1 429" : "HTTP/1.1 308");
        close(fd);
    }
}

/* Behind a proxy that says who the visitor is: what counts is who it named. */
static void connections_of_whom_the_proxy_names(void **state)
{
    (void)state;
    int one = visit(), again = visit(), other = visit();
    say(one, "PROXY TCP4 192.0.2.1 192.0.2.9 1000 80\r\nGET /x ");
    let_it_read(worker_at(group, 0));
    say(again, "PROXY TCP4 192.0.2.1 192.0.2.9 1001 80\r\nGET /x ");
    assert_true(has_ended(again));
    assert_int_equal(counted().connections_refused, 1);
    say(other, "PROXY TCP4 192.0.2.2 192.0.2.9 1002 80\r\n");
    say(other, request);
    expect(other, "HTTP/1.1 308");
    say(one, "HTTP/1.1\r\nHost: app.tnl.test\r\n\r\n");
    expect(one, "HTTP/1.1 308");
    close(one);
    close(again);
    close(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(connections_at_once, start, stop),
        cmocka_unit_test_setup_teardown(requests_a_second, start, stop),
        cmocka_unit_test_setup_teardown(connections_of_whom_the_proxy_names, start_proxied, stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
