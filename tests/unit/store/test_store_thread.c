/* The asynchronous door: answers come to the worker that asked, watches notice what happens beside them. */
#include "store/fixture.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <time.h>

#include "io/worker.h"
#include "store/store_thread_impl.h"

#define PATIENCE_S 20

struct scene {
    struct fixture *f;
    struct worker_group *group;
    struct worker *worker;
    struct store_thread *thread;
    char token[STORE_TOKEN_LEN + 1];
};

static void wait_for(sem_t *sem)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE_S;
    if (sem_timedwait(sem, &until) != 0)
        fail_msg("nothing came within %d s", PATIENCE_S);
}

static void open_scene(void **state, struct scene *s)
{
    s->f = *state;
    OK(store_migrate(s->f->store));
    fixture_user(s->f, "alice@x", "alice");
    OK(store_issue_token(s->f->store, SLICE("alice@x"), SLICE("x"), s->token));
    OK(worker_group_start(1, &s->group));
    s->worker = worker_at(s->group, 0);
    s->thread = store_thread_start(store_clone(s->f->store));
    assert_non_null(s->thread);
}

static void close_scene(struct scene *s)
{
    store_thread_stop(s->thread);
    worker_group_stop(s->group, 1000);
}

/* ---- on the worker --------------------------------------------------------------------------------------------- */

struct errand {
    struct task task;
    void (*act)(void *arg);
    void *arg;
    sem_t done;
};

static void run_errand(struct task *task)
{
    struct errand *e = (struct errand *)task;
    e->act(e->arg);
    sem_post(&e->done);
}

/* Runs act(arg) on the worker's thread and waits for it. */
static void on_worker(struct scene *s, void (*act)(void *arg), void *arg)
{
    struct errand errand = {.task.run = run_errand, .act = act, .arg = arg};
    sem_init(&errand.done, 0, 0);
    worker_run(s->worker, &errand.task);
    wait_for(&errand.done);
    sem_destroy(&errand.done);
}

/* ---- connecting ------------------------------------------------------------------------------------------------ */

static atomic_int randoms;

/* The first random name that is offered is a stored one. */
static void random_name(char *out)
{
    snprintf(out, LIMIT_LABEL_BYTES + 1, "%s", atomic_fetch_add(&randoms, 1) == 0 ? "laptop-alice" : "quick-fox-3947");
}

static void only_stored_names(char *out)
{
    atomic_fetch_add(&randoms, 1);
    snprintf(out, LIMIT_LABEL_BYTES + 1, "laptop-alice");
}

struct call {
    struct scene *scene;
    struct slice token, name;
    void (*random_name)(char *out);
    struct store_answer answer;
    char sentence[STORE_ERROR_LEN];
    bool on_worker;
    atomic_int answers;
    struct store_job *job;
    sem_t done;
};

static void on_answer(void *arg, const struct store_answer *answer)
{
    struct call *call = arg;
    call->answer = *answer;
    snprintf(call->sentence, sizeof(call->sentence), "%s", answer->sentence);
    call->on_worker = worker_current() == call->scene->worker;
    atomic_fetch_add(&call->answers, 1);
    sem_post(&call->done);
}

static void start_call(void *arg)
{
    struct call *call = arg;
    call->job = store_connect(call->scene->thread, call->scene->worker, call->token, call->name,
                              call->random_name ? call->random_name : random_name, on_answer, call);
}

static struct call connect_call(struct scene *s, struct slice token, struct slice name)
{
    struct call call = {.scene = s, .token = token, .name = name};
    sem_init(&call.done, 0, 0);
    on_worker(s, start_call, &call);
    assert_non_null(call.job);
    wait_for(&call.done);
    sem_destroy(&call.done);
    assert_true(call.on_worker);
    assert_int_equal(atomic_load(&call.answers), 1);
    return call;
}

static void test_connect_named(void **state)
{
    struct scene s = {0};
    open_scene(state, &s);
    struct call call = connect_call(&s, slice_of(s.token), SLICE("laptop"));
    OK(call.answer.error);
    assert_string_equal(call.answer.subdomain, "laptop-alice");
    assert_string_equal(call.answer.account.email, "alice@x");
    assert_string_equal(call.sentence, "");
    assert_true(store_thread_reachable(s.thread));
    close_scene(&s);
}

static void test_connect_random(void **state)
{
    struct scene s = {0};
    open_scene(state, &s);
    OK(connect_call(&s, slice_of(s.token), SLICE("laptop")).answer.error);
    atomic_store(&randoms, 0);
    struct call call = connect_call(&s, slice_of(s.token), SLICE(""));
    OK(call.answer.error);
    assert_string_equal(call.answer.subdomain, "quick-fox-3947");
    assert_int_equal(atomic_load(&randoms), 2);
    assert_sql(s.f, "SELECT count(*) FROM tunnels", "1");

    atomic_store(&randoms, 0);
    call = (struct call){.scene = &s, .token = slice_of(s.token), .random_name = only_stored_names};
    sem_init(&call.done, 0, 0);
    on_worker(&s, start_call, &call);
    wait_for(&call.done);
    sem_destroy(&call.done);
    assert_int_equal(call.answer.error, KV_EUNAVAIL);
    assert_int_equal(atomic_load(&randoms), STORE_RANDOM_TRIES);
    close_scene(&s);
}

static void test_connect_refused(void **state)
{
    struct scene s = {0};
    open_scene(state, &s);
    struct call call = connect_call(&s, SLICE("nonsense"), SLICE("laptop"));
    assert_int_equal(call.answer.error, KV_EREFUSED);
    assert_string_equal(call.sentence, "invalid token");
    call = connect_call(&s, SLICE(""), SLICE(""));
    assert_int_equal(call.answer.error, KV_EREFUSED);
    call = connect_call(&s, slice_of(s.token), SLICE("no.label"));
    assert_int_equal(call.answer.error, KV_EINVAL);
    assert_non_null(strstr(call.sentence, "'.'"));
    char longest[600];
    memset(longest, 'a', sizeof(longest));
    call = connect_call(&s, (struct slice){longest, sizeof(longest)}, SLICE("laptop"));
    assert_int_equal(call.answer.error, KV_EREFUSED);
    call = connect_call(&s, slice_of(s.token), (struct slice){longest, sizeof(longest)});
    assert_int_equal(call.answer.error, KV_EINVAL);
    close_scene(&s);
}

/* The user reads a plain sentence; the database's own goes to the log. */
static void test_connect_without_database(void **state)
{
    struct scene s = {0};
    open_scene(state, &s);
    fixture_sql(s.f, "ALTER TABLE api_tokens RENAME TO elsewhere");
    struct call call = connect_call(&s, slice_of(s.token), SLICE("laptop"));
    assert_int_equal(call.answer.error, KV_EUNAVAIL);
    assert_null(strstr(call.sentence, "api_tokens"));
    assert_false(store_thread_reachable(s.thread));
    fixture_sql(s.f, "ALTER TABLE elsewhere RENAME TO api_tokens");
    call = connect_call(&s, slice_of(s.token), SLICE("laptop"));
    OK(call.answer.error);
    close_scene(&s);
}

/* ---- cancelling ------------------------------------------------------------------------------------------------ */

static void start_and_cancel(void *arg)
{
    struct call *call = arg;
    start_call(call);
    store_cancel(call->job);
}

static void test_cancelled_is_not_answered(void **state)
{
    struct scene s = {0};
    open_scene(state, &s);
    struct call calls[20];
    for (int i = 0; i < 20; i++) {
        calls[i] = (struct call){.scene = &s, .token = slice_of(s.token), .name = SLICE("laptop")};
        sem_init(&calls[i].done, 0, 0);
        on_worker(&s, start_and_cancel, &calls[i]);
    }
    OK(connect_call(&s, slice_of(s.token), SLICE("laptop")).answer.error);
    close_scene(&s);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(atomic_load(&calls[i].answers), 0);
        sem_destroy(&calls[i].done);
    }
}

static void test_stopped_with_jobs_waiting(void **state)
{
    struct scene s = {0};
    open_scene(state, &s);
    struct call calls[50];
    for (int i = 0; i < 50; i++) {
        calls[i] = (struct call){.scene = &s, .token = slice_of(s.token), .name = SLICE("laptop")};
        sem_init(&calls[i].done, 0, 0);
        start_call(&calls[i]);
    }
    close_scene(&s);
    for (int i = 0; i < 50; i++) {
        assert_true(atomic_load(&calls[i].answers) <= 1);
        sem_destroy(&calls[i].done);
    }
}

/* ---- a storm --------------------------------------------------------------------------------------------------- */

/* With a long queue, checks are remembered; without one, a revoked token is refused at once. */
static void test_storm_is_remembered_and_quiet_is_not(void **state)
{
    struct scene s = {0};
    open_scene(state, &s);
    enum {
        CALLS = 300
    };
    struct call *calls = calloc(CALLS, sizeof(*calls));
    assert_non_null(calls);
    for (int i = 0; i < CALLS; i++) {
        calls[i] = (struct call){.scene = &s, .token = slice_of(s.token), .name = SLICE("laptop")};
        sem_init(&calls[i].done, 0, 0);
        start_call(&calls[i]);
    }
    for (int i = 0; i < CALLS; i++) {
        wait_for(&calls[i].done);
        sem_destroy(&calls[i].done);
        OK(calls[i].answer.error);
        assert_string_equal(calls[i].answer.subdomain, "laptop-alice");
    }
    free(calls);
    assert_sql(s.f, "SELECT count(*) FROM tunnels", "1");
    fixture_sql(s.f, "DELETE FROM api_tokens");
    assert_int_equal(connect_call(&s, slice_of(s.token), SLICE("laptop")).answer.error, KV_EREFUSED);
    close_scene(&s);
}

/* ---- watching -------------------------------------------------------------------------------------------------- */

struct tunnel {
    struct scene *scene;
    struct store_account account;
    char subdomain[LIMIT_LABEL_BYTES + 1];
    bool named;
    bool stop_in_callback;
    struct store_watch *watch;
    char sentence[128];
    struct timespec closed_at;
    atomic_int closed;
    sem_t done;
};

static void on_closed(void *arg, const char *sentence)
{
    struct tunnel *t = arg;
    snprintf(t->sentence, sizeof(t->sentence), "%s", sentence);
    clock_gettime(CLOCK_MONOTONIC, &t->closed_at);
    if (t->stop_in_callback) {
        store_watch_stop(t->watch);
        t->watch = NULL;
    }
    atomic_fetch_add(&t->closed, 1);
    sem_post(&t->done);
}

static void start_watch(void *arg)
{
    struct tunnel *t = arg;
    t->watch = store_watch_start(t->scene->thread, t->scene->worker, &t->account, slice_of(t->subdomain), t->named,
                                 on_closed, t);
}

static void stop_watch(void *arg)
{
    struct tunnel *t = arg;
    store_watch_stop(t->watch);
    t->watch = NULL;
}

static void open_tunnel(struct scene *s, struct tunnel *t, const char *name)
{
    struct call call = connect_call(s, slice_of(s->token), slice_of(name));
    OK(call.answer.error);
    *t = (struct tunnel){.scene = s, .account = call.answer.account, .named = name[0] != '\0'};
    memcpy(t->subdomain, call.answer.subdomain, sizeof(t->subdomain));
    sem_init(&t->done, 0, 0);
    on_worker(s, start_watch, t);
    assert_non_null(t->watch);
}

static void close_tunnel(struct tunnel *t)
{
    on_worker(t->scene, stop_watch, t);
    sem_destroy(&t->done);
}

/* Waits for `closed`, which has to come within 2 s of what the SQL does. */
static void expect_closed(struct tunnel *t, const char *sql, const char *sentence)
{
    struct timespec before;
    fixture_sql(t->scene->f, sql);
    clock_gettime(CLOCK_MONOTONIC, &before);
    wait_for(&t->done);
    assert_non_null(strstr(t->sentence, sentence));
    double seconds =
        (double)(t->closed_at.tv_sec - before.tv_sec) + (double)(t->closed_at.tv_nsec - before.tv_nsec) / 1e9;
    if (seconds > 2)
        fail_msg("%.1f s after %s", seconds, sql);
}

static void test_watch_notices(void **state)
{
    static const struct {
        const char *name, *sql, *sentence;
    } cases[] = {
        {"", "UPDATE api_tokens SET expires_at = '2020-01-01T00:00:00Z'", "expired"},
        {"", "UPDATE users SET disabled_at = '2020-01-01T00:00:00Z'", "disabled"},
        {"", "UPDATE users SET deleted_at = '2020-01-01T00:00:00Z'", "deleted"},
        {"laptop", "UPDATE tunnels SET subdomain = 'elsewhere-alice'", "another subdomain"},
        {"laptop", "UPDATE tunnels SET released_at = '2020-01-01T00:00:00Z', name = '#'", "released"},
        {"", "DELETE FROM api_tokens", "revoked"},
    };
    static const char *const undo[] = {
        "UPDATE api_tokens SET expires_at = NULL",
        "UPDATE users SET disabled_at = NULL",
        "UPDATE users SET deleted_at = NULL",
        "DELETE FROM tunnels",
        "DELETE FROM tunnels",
        "DELETE FROM tunnels",
    };
    struct scene s = {0};
    open_scene(state, &s);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct tunnel t;
        atomic_store(&randoms, 1);
        open_tunnel(&s, &t, cases[i].name);
        t.stop_in_callback = i % 2;
        expect_closed(&t, cases[i].sql, cases[i].sentence);
        assert_int_equal(atomic_load(&t.closed), 1);
        close_tunnel(&t);
        fixture_sql(s.f, undo[i]);
    }
    close_scene(&s);
}

/* Others are not closed, nor is a stopped one called; a database that cannot be asked closes nobody. */
static void test_watch_spares(void **state)
{
    struct scene s = {0};
    open_scene(state, &s);
    struct tunnel hit, spared, stopped;
    open_tunnel(&s, &hit, "hit");
    open_tunnel(&s, &spared, "spared");
    open_tunnel(&s, &stopped, "hit");
    close_tunnel(&stopped);

    fixture_sql(s.f, "ALTER TABLE tunnels RENAME TO elsewhere");
    for (int i = 0; i < PATIENCE_S * 100 && store_thread_reachable(s.thread); i++)
        sqlite3_sleep(10);
    assert_false(store_thread_reachable(s.thread));
    fixture_sql(s.f, "ALTER TABLE elsewhere RENAME TO tunnels");

    expect_closed(&hit, "DELETE FROM tunnels WHERE name = 'hit'", "released");
    assert_true(store_thread_reachable(s.thread));
    assert_int_equal(atomic_load(&spared.closed), 0);
    assert_int_equal(atomic_load(&stopped.closed), 0);
    close_tunnel(&hit);
    close_tunnel(&spared);
    close_scene(&s);
}

/* Watches come and go on their worker while the watcher closes them: each is called at most once, none after its stop.
 */
static void test_watch_races(void **state)
{
    enum {
        WATCHES = 200
    };
    struct scene s = {0};
    open_scene(state, &s);
    struct tunnel *tunnels = calloc(WATCHES, sizeof(*tunnels));
    assert_non_null(tunnels);
    open_tunnel(&s, &tunnels[0], "laptop");
    for (int i = 1; i < WATCHES; i++) {
        tunnels[i] = tunnels[0];
        sem_init(&tunnels[i].done, 0, 0);
        on_worker(&s, start_watch, &tunnels[i]);
    }
    fixture_sql(s.f, "DELETE FROM api_tokens");
    wait_for(&tunnels[0].done);
    int closed[WATCHES];
    for (int i = WATCHES - 1; i >= 0; i--) {
        on_worker(&s, stop_watch, &tunnels[i]);
        closed[i] = atomic_load(&tunnels[i].closed);
    }
    close_scene(&s);
    for (int i = 0; i < WATCHES; i++) {
        assert_true(atomic_load(&tunnels[i].closed) == closed[i] && closed[i] <= 1);
        sem_destroy(&tunnels[i].done);
    }
    free(tunnels);
}

#define TEST(name)                                                                                                     \
    {                                                                                                                  \
#name, test_##name, ON_BOTH                                                                                    \
    }

int main(int argc, char **argv)
{
    static const struct fixture_test tests[] = {
        TEST(connect_named),
        TEST(connect_random),
        TEST(connect_refused),
        TEST(connect_without_database),
        TEST(cancelled_is_not_answered),
        TEST(stopped_with_jobs_waiting),
        TEST(storm_is_remembered_and_quiet_is_not),
        TEST(watch_notices),
        TEST(watch_spares),
        TEST(watch_races),
    };
    return fixture_main(argc, argv, tests, sizeof(tests) / sizeof(tests[0]));
}
