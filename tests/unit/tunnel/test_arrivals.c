/* Sessions that are expected after a take-over: whose names are kept, for whom, and for how long. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

#include "base/error.h"
#include "tunnel/arrivals.h"
#include "tunnel/registry.h"

#define UNTIL 1000

static struct registry_session session(const char *subdomain, const char *user, char instance, bool named)
{
    struct registry_session s = {.named = named, .has_instance = instance != 0};
    snprintf(s.subdomain, sizeof(s.subdomain), "%s", subdomain);
    snprintf(s.user_id, sizeof(s.user_id), "%s", user);
    memset(s.instance, instance, sizeof(s.instance));
    return s;
}

static void expect(struct arrivals *a, const char *subdomain, const char *user, char instance, bool named)
{
    struct registry_session s = session(subdomain, user, instance, named);
    a->until = UNTIL;
    assert_int_equal(arrivals_add(a, &s), KV_OK);
}

static bool allows(const struct arrivals *a, const char *user, char instance, bool takeover, uint64_t now)
{
    struct registry_session s = session("app", user, instance, true);
    return arrivals_allow(a, &s, takeover, now);
}

static void keeps_a_name_for_its_instance(void **state)
{
    (void)state;
    struct arrivals a = {0};
    assert_true(allows(&a, "alice", 'a', false, 0));
    expect(&a, "app", "alice", 'a', true);
    assert_true(allows(&a, "alice", 'a', false, 0));
    assert_false(allows(&a, "alice", 'b', false, 0));
    assert_false(allows(&a, "alice", 0, false, 0));
    assert_true(allows(&a, "alice", 'b', true, 0));
    assert_false(allows(&a, "bob", 'a', true, 0));
    assert_true(allows(&a, "bob", 'b', false, UNTIL));
    arrivals_clear(&a);
}

static void takes_a_client_without_instance_for_its_users(void **state)
{
    (void)state;
    struct arrivals a = {0};
    expect(&a, "app", "alice", 0, true);
    assert_true(allows(&a, "alice", 0, false, 0));
    assert_false(allows(&a, "alice", 'a', false, 0));
    assert_false(allows(&a, "bob", 0, false, 0));
    arrivals_clear(&a);
}

static void gives_a_random_name_back(void **state)
{
    (void)state;
    struct arrivals a = {0};
    struct registry_session alice = session("", "alice", 'a', false), stranger = session("", "bob", 'a', false);
    struct registry_session nobody = session("", "alice", 0, false);
    expect(&a, "app", "alice", 'a', true);
    expect(&a, "quick-fox-1234", "alice", 'a', false);
    expect(&a, "calm-owl-1234", "alice", 0, false);
    assert_string_equal(arrivals_name_of(&a, &alice, 0), "quick-fox-1234");
    assert_null(arrivals_name_of(&a, &stranger, 0));
    assert_null(arrivals_name_of(&a, &nobody, 0));
    assert_null(arrivals_name_of(&a, &alice, UNTIL));
    arrivals_remove(&a, "quick-fox-1234");
    assert_null(arrivals_name_of(&a, &alice, 0));
    arrivals_clear(&a);
}

/* Each client gets a name that it had, and each name is given once, whatever order they come in: several of one client
 * too. Whoever shares a user or an instance with another is nobody's double. */
static void finds_each_of_many(void **state)
{
    enum {
        CLIENTS = 5000,
        NAMES = 3
    };
    static bool given[CLIENTS * NAMES];
    struct arrivals a = {0};
    char subdomain[32], user[32];
    (void)state;
    for (unsigned i = 0; i < CLIENTS * NAMES; i++) {
        snprintf(subdomain, sizeof(subdomain), "fox-%u", i);
        snprintf(user, sizeof(user), "user-%u", i % CLIENTS / 2);
        expect(&a, subdomain, user, (char)(1 + i % 2), false);
    }
    for (unsigned i = CLIENTS * NAMES; i-- > 0;) {
        snprintf(user, sizeof(user), "user-%u", i % CLIENTS / 2);
        struct registry_session s = session("", user, (char)(1 + i % 2), false);
        memset(s.user_id + strlen(user) + 1, 'x', sizeof(s.user_id) - strlen(user) - 1); /* behind the text: anything */
        const char *name = arrivals_name_of(&a, &s, 0);
        assert_non_null(name);
        unsigned long number = strtoul(name + strlen("fox-"), NULL, 10);
        assert_true(number < CLIENTS * NAMES && number % CLIENTS == i % CLIENTS && !given[number]);
        given[number] = true;
        snprintf(subdomain, sizeof(subdomain), "%s", name);
        arrivals_remove(&a, subdomain);
    }
    assert_int_equal(arrivals_count(&a), 0);
    assert_null(a.unnamed);
    arrivals_clear(&a);
}

static void knows_who_is_missing(void **state)
{
    (void)state;
    struct arrivals a = {0};
    assert_false(arrivals_has(&a, SLICE("app"), 0));
    expect(&a, "app", "alice", 'a', true);
    expect(&a, "app", "bob", 'b', true); /* the first stays */
    assert_int_equal(arrivals_count(&a), 1);
    assert_true(arrivals_has(&a, SLICE("app"), UNTIL - 1));
    assert_false(arrivals_has(&a, SLICE("app"), UNTIL));
    assert_false(arrivals_has(&a, SLICE("other"), 0));
    a.anyone = true;
    assert_true(arrivals_has(&a, SLICE("other"), 0));
    assert_false(arrivals_has(&a, SLICE("other"), UNTIL));
    arrivals_remove(&a, "app");
    arrivals_remove(&a, "app");
    assert_int_equal(arrivals_count(&a), 0);
    arrivals_clear(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keeps_a_name_for_its_instance),
        cmocka_unit_test(takes_a_client_without_instance_for_its_users),
        cmocka_unit_test(gives_a_random_name_back),
        cmocka_unit_test(finds_each_of_many),
        cmocka_unit_test(knows_who_is_missing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
