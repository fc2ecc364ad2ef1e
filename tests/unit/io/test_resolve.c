/*
 * Names to addresses: what needs no asking, the pool's answers and failures, and cancelling at every moment.
 *
 * The C library's getaddrinfo is replaced by one with a small table of hosts, so that the answers and their order are
 * known and no network is asked; everything from libuv's pool on is the real thing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <netdb.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/limits.h"
#include "io/on_worker.h"
#include "io/resolve.h"

/* ---- the system's resolver, played ----------------------------------------------------------------------------- */

static const struct {
    const char *name;
    int status;
    const char *addresses[24];
} hosts[] = {
    {"six-first.test", 0, {"2001:db8::1", "2001:db8::2", "2001:db8::3", "192.0.2.1", "192.0.2.2"}},
    {"four-first.test", 0, {"192.0.2.1", "192.0.2.2", "2001:db8::1"}},
    {"four-only.test", 0, {"192.0.2.1", "192.0.2.2"}},
    {"mixed.test", 0, {"192.0.2.1", "2001:db8::1", "2001:db8::2", "192.0.2.2"}},
    {"many.test",
     0,
     {"2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8::4", "2001:db8::5", "2001:db8::6", "2001:db8::7",
      "2001:db8::8", "2001:db8::9", "2001:db8::a", "2001:db8::b", "2001:db8::c", "2001:db8::d", "2001:db8::e",
      "2001:db8::f", "2001:db8::10", "2001:db8::11", "192.0.2.1"}},
    {"empty.test", EAI_NODATA, {NULL}},
    {"absent.test", EAI_NONAME, {NULL}},
    {"late.test", EAI_AGAIN, {NULL}},
    {"broken.test", EAI_FAIL, {NULL}},
    {"full.test", EAI_MEMORY, {NULL}},
    {"held.test", 0, {"192.0.2.1"}},
};

static sem_t held_entered, held_released; /* held.test answers when it is released */

static struct addrinfo *make_entry(const char *text)
{
    struct resolve_answer answer;
    assert_int_equal(resolve_at_once(slice_of(text), 0, &answer), 0);
    struct addrinfo *entry = calloc(1, sizeof(*entry));
    entry->ai_family = answer.addresses[0].any.sa_family;
    entry->ai_addrlen = resolve_address_len(&answer.addresses[0]);
    entry->ai_addr = calloc(1, sizeof(answer.addresses[0]));
    memcpy(entry->ai_addr, &answer.addresses[0], entry->ai_addrlen);
    return entry;
}

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **list)
{
    (void)service;
    (void)hints;
    for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++) {
        if (strcmp(hosts[i].name, node) != 0)
            continue;
        if (strcmp(node, "held.test") == 0) {
            sem_post(&held_entered);
            sem_wait(&held_released);
        }
        struct addrinfo **end = list;
        for (size_t j = 0; hosts[i].addresses[j]; j++) {
            *end = make_entry(hosts[i].addresses[j]);
            end = &(*end)->ai_next;
        }
        return hosts[i].status;
    }
    return EAI_NONAME;
}

void freeaddrinfo(struct addrinfo *list)
{
    while (list) {
        struct addrinfo *next = list->ai_next;
        free(list->ai_addr);
        free(list);
        list = next;
    }
}

/* ---- at once --------------------------------------------------------------------------------------------------- */

static const struct {
    const char *host;
    const char *first, *second; /* NULL: none; no first: has to be asked about */
} literals[] = {
    {"127.0.0.1", "127.0.0.1", NULL},
    {"192.0.2.7", "192.0.2.7", NULL},
    {"::1", "::1", NULL},
    {"2001:db8::7", "2001:db8::7", NULL},
    {"localhost", "127.0.0.1", "::1"},
    {"LocalHost.", "127.0.0.1", "::1"},
    {"app.localhost", "127.0.0.1", "::1"},
    {"a.b.localhost.", "127.0.0.1", "::1"},
    {"notlocalhost", NULL, NULL},
    {".localhost", NULL, NULL},
    {"localhost.example", NULL, NULL},
    {"[::1]", NULL, NULL},
    {"1.2.3", NULL, NULL},
    {"1.2.3.256", NULL, NULL},
    {"", NULL, NULL},
    {"a234567890123456789012345678901234567890123456789012345678901234567890", NULL, NULL},
};

static void assert_address(const union resolve_address *address, const char *text, uint16_t port)
{
    char shown[INET6_ADDRSTRLEN];
    const void *bytes =
        address->any.sa_family == AF_INET6 ? (const void *)&address->v6.sin6_addr : (const void *)&address->v4.sin_addr;
    assert_non_null(inet_ntop(address->any.sa_family, bytes, shown, sizeof(shown)));
    assert_string_equal(shown, text);
    assert_int_equal(ntohs(address->any.sa_family == AF_INET6 ? address->v6.sin6_port : address->v4.sin_port), port);
    assert_int_equal(resolve_address_len(address),
                     address->any.sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in));
}

static void answers_at_once(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(literals) / sizeof(literals[0]); i++) {
        struct resolve_answer answer;
        int result = resolve_at_once(slice_of(literals[i].host), 3000, &answer);
        if (!literals[i].first) {
            if (result != KV_EAGAIN)
                fail_msg("'%s' was answered", literals[i].host);
            continue;
        }
        assert_int_equal(result, 0);
        assert_int_equal(answer.count, literals[i].second ? 2 : 1);
        assert_address(&answer.addresses[0], literals[i].first, 3000);
        if (literals[i].second)
            assert_address(&answer.addresses[1], literals[i].second, 3000);
        resolve_set_port(&answer, 65535);
        assert_address(&answer.addresses[answer.count - 1], literals[i].second ? literals[i].second : literals[i].first,
                       65535);
    }
}

static void keeps_the_zone(void **state)
{
    (void)state;
    struct resolve_answer answer;
    assert_int_equal(resolve_at_once(SLICE("fe80::1%lo"), 80, &answer), 0);
    assert_int_not_equal(answer.addresses[0].v6.sin6_scope_id, 0);
}

/* ---- on a worker ----------------------------------------------------------------------------------------------- */

struct asking {
    const char *host;
    size_t host_len; /* 0: the string's length */
    struct resolve *resolve;
    bool cancel_inside;
    bool starting; /* resolve_start has not returned yet */
    bool inside_start;
    int calls, error;
    const char *text;
    struct resolve_answer answer;
    sem_t done;
};

static void on_done(void *arg, int error, const char *text, const struct resolve_answer *answer)
{
    struct asking *asking = arg;
    asking->calls++;
    asking->inside_start = asking->starting;
    asking->error = error;
    asking->text = text;
    asking->answer = *answer;
    if (asking->cancel_inside)
        resolve_cancel(asking->resolve);
    sem_post(&asking->done);
}

static void ask(struct worker *worker, void *arg)
{
    struct asking *asking = arg;
    struct slice host = {asking->host, asking->host_len ? asking->host_len : strlen(asking->host)};
    asking->starting = true;
    asking->resolve = resolve_start(worker, host, 8080, on_done, asking);
    asking->starting = false;
}

static void ask_and_cancel(struct worker *worker, void *arg)
{
    struct asking *asking = arg;
    ask(worker, asking);
    resolve_cancel(asking->resolve);
}

static int set_up(void **state)
{
    struct worker_group *group;
    assert_int_equal(worker_group_start(1, &group), 0);
    *state = group;
    return 0;
}

static int tear_down(void **state)
{
    worker_group_stop(*state, TEST_PATIENCE_S * 1000);
    return 0;
}

static void answer_for(struct worker_group *group, struct asking *asking)
{
    sem_init(&asking->done, 0, 0);
    on_worker(worker_at(group, 0), ask, asking);
    assert_true(wait_for(&asking->done));
    sem_destroy(&asking->done);
    assert_int_equal(asking->calls, 1);
    assert_false(asking->inside_start);
}

static void literals_come_later_too(void **state)
{
    struct asking asking = {.host = "192.0.2.7", .cancel_inside = true};
    answer_for(*state, &asking);
    assert_int_equal(asking.error, 0);
    assert_string_equal(asking.text, "");
    assert_int_equal(asking.answer.count, 1);
    assert_address(&asking.answer.addresses[0], "192.0.2.7", 8080);
}

/* RFC 8305, 4: what the system prefers comes first, then the families alternate. */
static void families_alternate(void **state)
{
    static const struct {
        const char *host, *order[RESOLVE_ADDRESSES_MAX + 1];
    } rows[] = {
        {"six-first.test", {"2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2", "2001:db8::3"}},
        {"four-first.test", {"192.0.2.1", "2001:db8::1", "192.0.2.2"}},
        {"four-only.test", {"192.0.2.1", "192.0.2.2"}},
        {"mixed.test", {"192.0.2.1", "2001:db8::1", "192.0.2.2", "2001:db8::2"}},
        {"many.test",
         {"2001:db8::1", "192.0.2.1", "2001:db8::2", "2001:db8::3", "2001:db8::4", "2001:db8::5", "2001:db8::6",
          "2001:db8::7", "2001:db8::8", "2001:db8::9", "2001:db8::a", "2001:db8::b", "2001:db8::c", "2001:db8::d",
          "2001:db8::e", "2001:db8::f"}},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct asking asking = {.host = rows[i].host, .cancel_inside = true};
        answer_for(*state, &asking);
        assert_int_equal(asking.error, 0);
        unsigned count = 0;
        for (; rows[i].order[count]; count++)
            assert_address(&asking.answer.addresses[count], rows[i].order[count], 8080);
        assert_int_equal(asking.answer.count, count);
    }
}

static void failures_have_words(void **state)
{
    static const struct {
        const char *host;
        int error;
        const char *text;
    } rows[] = {
        {"empty.test", KV_ENOTFOUND, "no such host name"},
        {"absent.test", KV_ENOTFOUND, "no such host name"},
        {"late.test", KV_EUNAVAIL, "the name service does not answer"},
        {"broken.test", KV_EUNAVAIL, "the name service does not answer"},
        {"full.test", KV_ENOMEM, "no memory"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct asking asking = {.host = rows[i].host};
        answer_for(*state, &asking);
        assert_int_equal(asking.error, rows[i].error);
        assert_string_equal(asking.text, rows[i].text);
        assert_int_equal(asking.answer.count, 0);
    }
}

static void names_that_cannot_be(void **state)
{
    static char long_name[400];
    memset(long_name, 'a', sizeof(long_name) - 1);
    static const struct {
        const char *host;
        size_t len;
    } rows[] = {{"", 0}, {"a b", 0}, {"a\0b", 3}, {"a\nb", 0}, {"a\x7f", 0}, {long_name, 0}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct asking asking = {.host = rows[i].host, .host_len = rows[i].len};
        answer_for(*state, &asking);
        assert_int_equal(asking.error, KV_EINVAL);
        assert_string_equal(asking.text, "not a host name");
        assert_int_equal(asking.answer.count, 0);
    }
}

static void cancel(struct worker *worker, void *arg)
{
    (void)worker;
    resolve_cancel(((struct asking *)arg)->resolve);
}

static void cancelled_means_silent(void **state)
{
    (void)state;
    struct worker_group *group;
    assert_int_equal(worker_group_start(1, &group), 0);
    static const char *const names[] = {"192.0.2.7", "localhost", "four-only.test", "a b", "held.test"};
    struct asking asked[5] = {0};
    for (size_t i = 0; i < 4; i++) {
        asked[i].host = names[i];
        on_worker(worker_at(group, 0), ask_and_cancel, &asked[i]);
    }
    /* One that is cancelled in the middle of its lookup, which then still has an answer to give. */
    sem_init(&held_entered, 0, 0);
    sem_init(&held_released, 0, 0);
    asked[4].host = names[4];
    on_worker(worker_at(group, 0), ask, &asked[4]);
    assert_true(wait_for(&held_entered));
    on_worker(worker_at(group, 0), cancel, &asked[4]);
    sem_post(&held_released);
    resolve_cancel(NULL);
    /* The worker ends only when the pool has given back every request, so that is when nothing more can come. */
    worker_group_stop(group, TEST_PATIENCE_S * 1000);
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(asked[i].calls, 0);
    sem_destroy(&held_entered);
    sem_destroy(&held_released);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_at_once),
        cmocka_unit_test(keeps_the_zone),
        cmocka_unit_test_setup_teardown(literals_come_later_too, set_up, tear_down),
        cmocka_unit_test_setup_teardown(families_alternate, set_up, tear_down),
        cmocka_unit_test_setup_teardown(failures_have_words, set_up, tear_down),
        cmocka_unit_test_setup_teardown(names_that_cannot_be, set_up, tear_down),
        cmocka_unit_test(cancelled_means_silent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
