/* Who holds a name: claims, ghosts, takeovers and releases, from several workers at once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "io/on_worker.h"
#include "tunnel/registry.h"

#define WORKERS 3

static struct worker_group *group;
static struct registry *registry;

struct holder {
    struct receiver receiver;
    struct registry_session session;
    bool takeover;
    enum registry_verdict verdict;
    unsigned evictions;
    enum close_reason reason;
    bool published, visible_everywhere;
    sem_t done, evicted;
};

static void on_eviction(struct receiver *receiver, struct message *message)
{
    struct holder *h = (struct holder *)receiver;
    h->evictions++;
    h->reason = ((struct registry_eviction *)message)->reason;
    free(message);
    sem_post(&h->evicted);
}

static void holder_init(struct holder *h, const char *name, const char *session, const char *user, uint8_t instance)
{
    *h = (struct holder){.receiver.receive = on_eviction};
    snprintf(h->session.subdomain, sizeof(h->session.subdomain), "%s", name);
    snprintf(h->session.session, sizeof(h->session.session), "%s", session);
    snprintf(h->session.user_id, sizeof(h->session.user_id), "%s", user);
    h->session.has_instance = instance != 0;
    memset(h->session.instance, instance, sizeof(h->session.instance));
    sem_init(&h->done, 0, 0);
    sem_init(&h->evicted, 0, 0);
}

static void on_published(void *arg, int error)
{
    struct holder *h = arg;
    assert_int_equal(error, KV_OK);
    assert_false(h->published);
    h->published = true;
    sem_post(&h->done);
}

static void do_claim(struct worker *worker, void *arg)
{
    struct holder *h = arg;
    if (!h->receiver.address.worker)
        assert_int_equal(receiver_attach(worker, &h->receiver), KV_OK);
    h->session.link = h->session.owner = h->receiver.address;
    assert_int_equal(registry_claim(registry, &h->session, h->takeover, &h->verdict, on_published, h), KV_OK);
    assert_false(h->published); /* never from inside */
}

static void do_release(struct worker *worker, void *arg)
{
    struct holder *h = arg;
    (void)worker;
    registry_release(registry, h->session.subdomain, h->session.session);
}

static void do_detach(struct worker *worker, void *arg)
{
    (void)worker;
    receiver_detach(&((struct holder *)arg)->receiver);
}

struct question {
    const char *name;
    bool found;
    struct address link;
    bool below;
};

static void do_find(struct worker *worker, void *arg)
{
    struct question *q = arg;
    (void)worker;
    q->found = registry_find(registry, slice_of(q->name), q->below, &q->link);
}

static bool found_on(unsigned worker, const char *name, struct address *link)
{
    struct question q = {.name = name};
    on_worker(worker_at(group, worker), do_find, &q);
    *link = q.link;
    return q.found;
}

static bool found_below(const char *name)
{
    struct question q = {.name = name, .below = true};
    on_worker(worker_at(group, 0), do_find, &q);
    return q.found;
}

static void nothing(struct worker *worker, void *arg)
{
    (void)worker;
    (void)arg;
}

static void settle(void)
{
    for (unsigned i = 0; i < 2 * WORKERS; i++)
        on_worker(worker_at(group, i % WORKERS), nothing, NULL);
}

static void claim_on(unsigned worker, struct holder *h)
{
    on_worker(worker_at(group, worker), do_claim, h);
    if (h->verdict == REGISTRY_CLAIMED)
        assert_true(wait_for(&h->done));
}

static void release_on(unsigned worker, struct holder *h)
{
    on_worker(worker_at(group, worker), do_release, h);
    settle();
}

static int start(void **state)
{
    (void)state;
    assert_int_equal(worker_group_start(WORKERS, &group), KV_OK);
    registry = registry_new(group);
    return registry ? 0 : -1;
}

static int stop(void **state)
{
    (void)state;
    worker_group_stop(group, 1000);
    registry_free(registry);
    return 0;
}

/* ---- one after the other ----------------------------------------------------------------------------------------- */

static void every_worker_knows_before_the_holder(void **state)
{
    (void)state;
    struct holder h;
    struct address link;
    holder_init(&h, "app", "s1", "u1", 0);
    assert_false(found_on(0, "app", &link));
    claim_on(1, &h);
    for (unsigned i = 0; i < WORKERS; i++) {
        assert_true(found_on(i, "app", &link));
        assert_true(address_equals(link, h.receiver.address));
        assert_false(found_on(i, "ap", &link));
        assert_false(found_on(i, "apps", &link));
    }
    assert_true(registry_is_live(registry, "app"));
    assert_int_equal(registry_count(registry), 1);
    release_on(1, &h);
    for (unsigned i = 0; i < WORKERS; i++)
        assert_false(found_on(i, "app", &link));
    assert_int_equal(registry_count(registry), 0);
    on_worker(worker_at(group, 1), do_detach, &h);
}

/* Labels in front are the tunnel's unless it does not want them, or has gone. */
static void hosts_below(void **state)
{
    (void)state;
    struct holder h;
    struct address link;
    assert_false(found_below("app"));
    holder_init(&h, "app", "s1", "u1", 0);
    claim_on(1, &h);
    assert_true(found_below("app"));
    release_on(1, &h);
    assert_false(found_below("app"));
    holder_init(&h, "app", "s2", "u1", 0);
    h.session.no_subdomains = true;
    claim_on(1, &h);
    assert_true(found_on(0, "app", &link));
    assert_false(found_below("app"));
    release_on(1, &h);
    on_worker(worker_at(group, 1), do_detach, &h);
}

static void the_first_holds(void **state)
{
    (void)state;
    struct holder a, b, stranger;
    struct address link;
    holder_init(&a, "app", "s1", "u1", 1);
    holder_init(&b, "app", "s2", "u1", 2);
    holder_init(&stranger, "app", "s3", "u2", 1);
    stranger.takeover = true; /* of another user: never, whatever it says */
    claim_on(0, &a);
    claim_on(1, &b);
    claim_on(2, &stranger);
    settle();
    assert_int_equal(b.verdict, REGISTRY_TAKEN);
    assert_int_equal(stranger.verdict, REGISTRY_TAKEN);
    assert_int_equal(a.evictions, 0);
    assert_true(found_on(2, "app", &link));
    assert_true(address_equals(link, a.receiver.address));
    release_on(1, &b); /* it never held it */
    assert_true(registry_is_live(registry, "app"));
    release_on(0, &a);
    claim_on(1, &b);
    assert_int_equal(b.verdict, REGISTRY_CLAIMED);
    release_on(1, &b);
    on_worker(worker_at(group, 0), do_detach, &a);
    on_worker(worker_at(group, 1), do_detach, &b);
    on_worker(worker_at(group, 2), do_detach, &stranger);
}

static void replaces_ghosts_and_takes_over(void **state)
{
    (void)state;
    struct holder ghost, back, taker;
    struct address link;
    holder_init(&ghost, "app", "s1", "u1", 1);
    holder_init(&back, "app", "s2", "u1", 1);
    holder_init(&taker, "app", "s3", "u1", 2);
    taker.takeover = true;
    claim_on(0, &ghost);
    claim_on(1, &back);
    assert_true(wait_for(&ghost.evicted));
    assert_int_equal(ghost.reason, REASON_REPLACED);
    claim_on(2, &taker);
    assert_true(wait_for(&back.evicted));
    assert_int_equal(back.reason, REASON_TAKEN_OVER);
    /* Those who went clean up late, and remove nobody. */
    release_on(0, &ghost);
    release_on(1, &back);
    assert_true(found_on(0, "app", &link));
    assert_true(address_equals(link, taker.receiver.address));
    assert_true(registry_kick(registry, SLICE("app")));
    assert_false(registry_kick(registry, SLICE("nobody")));
    assert_true(wait_for(&taker.evicted));
    assert_int_equal(taker.reason, REASON_KICKED);
    release_on(2, &taker);
    assert_int_equal(ghost.evictions + back.evictions + taker.evictions, 3);
    on_worker(worker_at(group, 0), do_detach, &ghost);
    on_worker(worker_at(group, 1), do_detach, &back);
    on_worker(worker_at(group, 2), do_detach, &taker);
}

static void count_session(void *arg, const struct registry_session *session)
{
    assert_int_equal(session->subdomain[0], 'n');
    ++*(unsigned *)arg;
}

static void lists_all(void **state)
{
    (void)state;
    struct holder holders[20];
    unsigned count = 0;
    for (unsigned i = 0; i < 20; i++) {
        char name[8], session[8];
        snprintf(name, sizeof(name), "n%u", i);
        snprintf(session, sizeof(session), "s%u", i);
        holder_init(&holders[i], name, session, "u1", 0);
        claim_on(i % WORKERS, &holders[i]);
    }
    registry_list(registry, count_session, &count);
    assert_int_equal(count, 20);
    for (unsigned i = 0; i < 20; i++) {
        release_on(i % WORKERS, &holders[i]);
        on_worker(worker_at(group, i % WORKERS), do_detach, &holders[i]);
    }
}

/* ---- at once ----------------------------------------------------------------------------------------------------- */

#define ROUNDS 500

/* One claimer a worker: claims, waits to be told, releases, and so on, all for one name. */
struct racer {
    struct task task;
    struct holder holder;
    unsigned rounds, won;
    sem_t *finished;
};

static atomic_int holders_now;

static void race(struct task *task);

static void on_won(void *arg, int error)
{
    struct racer *r = arg;
    assert_int_equal(error, KV_OK);
    assert_int_equal(atomic_fetch_add(&holders_now, 1), 0); /* alone */
    r->won++;
    struct address link;
    assert_true(registry_find(registry, SLICE("race"), false, &link));
    assert_true(address_equals(link, r->holder.receiver.address));
    atomic_fetch_sub(&holders_now, 1);
    registry_release(registry, "race", r->holder.session.session);
    worker_run(worker_current(), &r->task);
}

static void race(struct task *task)
{
    struct racer *r = (struct racer *)task;
    struct holder *h = &r->holder;
    if (r->rounds++ == ROUNDS) {
        receiver_detach(&h->receiver);
        sem_post(r->finished);
        return;
    }
    if (!h->receiver.address.worker)
        assert_int_equal(receiver_attach(worker_current(), &h->receiver), KV_OK);
    h->session.link = h->session.owner = h->receiver.address;
    assert_int_equal(registry_claim(registry, &h->session, false, &h->verdict, on_won, r), KV_OK);
    if (h->verdict != REGISTRY_CLAIMED)
        worker_run(worker_current(), task);
}

static void one_holder_at_a_time(void **state)
{
    (void)state;
    struct racer racers[WORKERS] = {0};
    sem_t finished;
    struct address link;
    sem_init(&finished, 0, 0);
    for (unsigned i = 0; i < WORKERS; i++) {
        char session[8];
        snprintf(session, sizeof(session), "s%u", i);
        holder_init(&racers[i].holder, "race", session, "u1", 0);
        racers[i].task.run = race;
        racers[i].finished = &finished;
    }
    for (unsigned i = 0; i < WORKERS; i++)
        worker_run(worker_at(group, i), &racers[i].task);
    unsigned won = 0;
    for (unsigned i = 0; i < WORKERS; i++)
        assert_true(wait_for(&finished));
    for (unsigned i = 0; i < WORKERS; i++)
        won += racers[i].won;
    assert_true(won > 0);
    settle();
    assert_int_equal(registry_count(registry), 0);
    for (unsigned i = 0; i < WORKERS; i++)
        assert_false(found_on(i, "race", &link));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_worker_knows_before_the_holder),
        cmocka_unit_test(hosts_below),
        cmocka_unit_test(the_first_holds),
        cmocka_unit_test(replaces_ghosts_and_takes_over),
        cmocka_unit_test(lists_all),
        cmocka_unit_test(one_holder_at_a_time),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
