/*
 * Many at once, each on a connection of its own, as servers and admin commands are: the constraints decide, nobody gets
 * another's name, nothing is there twice. The threads only run and count; what came out is looked at afterwards.
 */
#include "store/fixture.h"

#include <pthread.h>
#include <stdatomic.h>

#define CROWD 50

struct member {
    struct fixture *f;
    pthread_barrier_t *start;
    struct store *store;
    int index;
    void (*act)(struct member *member);
    const struct store_account *account;
    const char *name;
    atomic_bool *stop;
    int result, wrong;
    char got[LIMIT_LABEL_BYTES + 1];
    char sentence[STORE_ERROR_LEN];
};

static void *run_member(void *arg)
{
    struct member *m = arg;
    pthread_barrier_wait(m->start);
    m->act(m);
    if (m->result < 0)
        snprintf(m->sentence, sizeof(m->sentence), "%s", store_error(m->store));
    return NULL;
}

/* Connects every member's store first, so that they meet in the act and not on the way to it. */
static void run_crowd(struct fixture *f, struct member *crowd, int count)
{
    pthread_t threads[CROWD];
    pthread_barrier_t start;
    pthread_barrier_init(&start, NULL, (unsigned)count);
    for (int i = 0; i < count; i++) {
        crowd[i].f = f;
        crowd[i].index = i;
        crowd[i].start = &start;
        crowd[i].store = store_clone(f->store);
        assert_non_null(crowd[i].store);
        OK(crowd[i].store->backend->ops->connect(crowd[i].store->backend));
    }
    for (int i = 0; i < count; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, run_member, &crowd[i]), 0);
    for (int i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < count; i++)
        store_close(crowd[i].store);
    pthread_barrier_destroy(&start);
}

static struct fixture *ready(void **state)
{
    struct fixture *f = *state;
    OK(store_migrate(f->store));
    return f;
}

static void no_problem(void *arg, const char *sentence)
{
    (void)arg;
    print_error("%s\n", sentence);
}

static void assert_clean(struct fixture *f)
{
    assert_int_equal(store_check(f->store, no_problem, NULL), 0);
}

static int count_result(const struct member *crowd, int count, int result)
{
    int n = 0;
    for (int i = 0; i < count; i++)
        n += crowd[i].result == result;
    return n;
}

static void act_claim(struct member *m)
{
    m->result = store_claim_name(m->store, m->account, slice_of(m->name), m->got);
}

static void test_one_name_many_connects(void **state)
{
    struct fixture *f = ready(state);
    struct member crowd[CROWD] = {0};
    fixture_user(f, "alice@x", "alice");
    struct store_account alice = fixture_account(f, "alice@x");
    for (int i = 0; i < CROWD; i++)
        crowd[i] = (struct member){.act = act_claim, .account = &alice, .name = "laptop"};
    run_crowd(f, crowd, CROWD);
    for (int i = 0; i < CROWD; i++) {
        if (crowd[i].result != KV_OK)
            fail_msg("%d: %s", crowd[i].result, crowd[i].sentence);
        assert_string_equal(crowd[i].got, "laptop-alice");
    }
    assert_sql(f, "SELECT count(*) FROM tunnels", "1");
}

static void test_two_accounts_one_subdomain(void **state)
{
    struct fixture *f = ready(state);
    struct member crowd[CROWD] = {0};
    fixture_user(f, "a@x", "c");
    fixture_user(f, "b@x", "b-c");
    struct store_account a = fixture_account(f, "a@x"), b = fixture_account(f, "b@x");
    for (int i = 0; i < CROWD; i++)
        crowd[i] = i % 2 ? (struct member){.act = act_claim, .account = &a, .name = "a-b"}
                         : (struct member){.act = act_claim, .account = &b, .name = "a"};
    run_crowd(f, crowd, CROWD);
    char owner[64];
    fixture_ask(f, "SELECT user_id FROM tunnels", owner, sizeof(owner));
    assert_sql(f, "SELECT count(*) FROM tunnels", "1");
    for (int i = 0; i < CROWD; i++) {
        int expected = strcmp(owner, crowd[i].account->user_id) == 0 ? KV_OK : KV_EEXIST;
        if (crowd[i].result != expected)
            fail_msg("%d: %s", crowd[i].result, crowd[i].sentence);
    }
}

static void act_create(struct member *m)
{
    m->result = store_create_user(m->store, SLICE("alice@example.com"), m->got);
}

static void test_one_address_many_creations(void **state)
{
    struct fixture *f = ready(state);
    struct member crowd[CROWD] = {0};
    for (int i = 0; i < CROWD; i++)
        crowd[i].act = act_create;
    run_crowd(f, crowd, CROWD);
    assert_int_equal(count_result(crowd, CROWD, KV_OK), 1);
    assert_int_equal(count_result(crowd, CROWD, KV_EEXIST), CROWD - 1);
    assert_sql(f, "SELECT count(*) FROM users", "1");
}

/* The first twenty draws are ten numbers, two of each: ten of them collide and are drawn again. */
static atomic_uint drawn;

static void draw_in_pairs(char *out, size_t len)
{
    assert_int_equal(len, 2);
    unsigned n = atomic_fetch_add(&drawn, 1);
    snprintf(out, 5, "%04x", (n < 20 ? n / 2 : n) & 0xffff);
}

static void act_create_own(struct member *m)
{
    char email[64];
    snprintf(email, sizeof(email), "alice@%d.example.com", m->index);
    m->result = store_create_user(m->store, slice_of(email), m->got);
}

static void test_slugs_collide(void **state)
{
    struct fixture *f = ready(state);
    struct member crowd[20] = {0};
    atomic_store(&drawn, 0);
    f->store->draw = draw_in_pairs;
    for (int i = 0; i < 20; i++)
        crowd[i].act = act_create_own;
    run_crowd(f, crowd, 20);
    for (int i = 0; i < 20; i++)
        if (crowd[i].result != KV_OK)
            fail_msg("%d: %s", crowd[i].result, crowd[i].sentence);
    assert_sql(f, "SELECT count(DISTINCT slug) FROM users", "20");
    assert_int_equal(atomic_load(&drawn), 30);
}

/* ---- changes while tunnels connect ----------------------------------------------------------------------------- */

#define ROUNDS 40

static void act_release(struct member *m)
{
    for (int i = 0; i < ROUNDS; i++) {
        int error = store_release_name(m->store, SLICE("a@x"), SLICE("a-b"));
        m->wrong += error != KV_OK && error != KV_ENOTFOUND;
    }
    atomic_store(m->stop, true);
}

static void act_reclaim(struct member *m)
{
    while (!atomic_load(m->stop))
        m->wrong += store_claim_name(m->store, m->account, SLICE("a-b"), m->got) != KV_OK;
}

static void act_intrude(struct member *m)
{
    while (!atomic_load(m->stop))
        m->wrong += store_claim_name(m->store, m->account, SLICE("a"), m->got) != KV_EEXIST;
}

static void test_released_name_is_never_anothers(void **state)
{
    struct fixture *f = ready(state);
    atomic_bool stop = false;
    char subdomain[LIMIT_LABEL_BYTES + 1];
    fixture_user(f, "a@x", "c");
    fixture_user(f, "b@x", "b-c");
    struct store_account a = fixture_account(f, "a@x"), b = fixture_account(f, "b@x");
    OK(store_claim_name(f->store, &a, SLICE("a-b"), subdomain));
    struct member crowd[] = {
        {.act = act_release, .stop = &stop},
        {.act = act_reclaim, .account = &a, .stop = &stop},
        {.act = act_intrude, .account = &b, .stop = &stop},
        {.act = act_intrude, .account = &b, .stop = &stop},
    };
    run_crowd(f, crowd, 4);
    for (int i = 0; i < 4; i++)
        assert_int_equal(crowd[i].wrong, 0);
    assert_sql(f, "SELECT count(*) FROM tunnels", "1");
    assert_clean(f);
}

static void act_reslug(struct member *m)
{
    unsigned rewritten;
    for (int i = 0; i < ROUNDS; i++) {
        char slug[32];
        snprintf(slug, sizeof(slug), "alice-%d", i);
        m->wrong += store_set_slug(m->store, SLICE("alice@x"), slice_of(slug), true, &rewritten) != KV_OK;
    }
    atomic_store(m->stop, true);
}

static void act_claim_new(struct member *m)
{
    for (int i = 0; !atomic_load(m->stop); i++) {
        char name[32];
        snprintf(name, sizeof(name), "n%d-%d", m->index, i);
        int error = store_claim_name(m->store, m->account, slice_of(name), m->got);
        m->wrong += error != KV_OK && error != KV_EUNAVAIL; /* the slug may change faster than a claim is tried */
    }
}

/* A name that is claimed while the slug changes either sees the new slug or is seen by the change. */
static void test_no_name_misses_a_new_slug(void **state)
{
    struct fixture *f = ready(state);
    atomic_bool stop = false;
    fixture_user(f, "alice@x", "alice");
    struct store_account alice = fixture_account(f, "alice@x");
    struct member crowd[] = {
        {.act = act_reslug, .stop = &stop},
        {.act = act_claim_new, .account = &alice, .stop = &stop},
        {.act = act_claim_new, .account = &alice, .stop = &stop},
    };
    run_crowd(f, crowd, 3);
    for (int i = 0; i < 3; i++)
        assert_int_equal(crowd[i].wrong, 0);
    char sql[160], count[16];
    fixture_ask(f, "SELECT count(*) FROM tunnels WHERE released_at IS NULL", count, sizeof(count));
    snprintf(sql, sizeof(sql),
             "SELECT count(*) FROM tunnels WHERE released_at IS NULL AND subdomain = name || '-alice-%d'", ROUNDS - 1);
    assert_sql(f, sql, count);
    assert_clean(f);
}

static void act_delete(struct member *m)
{
    m->result = store_delete_user(m->store, SLICE("alice@x"));
}

static void act_claim_and_issue(struct member *m)
{
    char token[STORE_TOKEN_LEN + 1];
    for (int i = 0; i < 10; i++) {
        char name[32];
        snprintf(name, sizeof(name), "n%d-%d", m->index, i);
        int claimed = store_claim_name(m->store, m->account, slice_of(name), m->got);
        int issued = store_issue_token(m->store, SLICE("alice@x"), SLICE("x"), token);
        m->wrong += claimed != KV_OK && claimed != KV_EREFUSED;
        m->wrong += issued != KV_OK && issued != KV_ENOTFOUND;
    }
}

static void test_nothing_survives_a_deleted_user(void **state)
{
    struct fixture *f = ready(state);
    fixture_user(f, "alice@x", "alice");
    struct store_account alice = fixture_account(f, "alice@x");
    struct member crowd[8] = {{.act = act_delete}};
    for (int i = 1; i < 8; i++)
        crowd[i] = (struct member){.act = act_claim_and_issue, .account = &alice};
    run_crowd(f, crowd, 8);
    for (int i = 0; i < 8; i++)
        assert_int_equal(crowd[i].wrong, 0);
    OK(crowd[0].result);
    assert_sql(f, "SELECT count(*) FROM api_tokens", "0");
    assert_clean(f);
}

/* Fifty connects with one token write its last use once. */
static void act_authenticate(struct member *m)
{
    struct store_account account;
    m->result = store_authenticate(m->store, slice_of(m->name), &account);
}

static void test_connect_storm_writes_once(void **state)
{
    struct fixture *f = ready(state);
    struct member crowd[CROWD] = {0};
    char token[STORE_TOKEN_LEN + 1];
    fixture_user(f, "alice@x", NULL);
    OK(store_issue_token(f->store, SLICE("alice@x"), SLICE("x"), token));
    fixture_sql(f, f->postgres
                       ? "CREATE TABLE writes (n integer); CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS "
                         "$$ BEGIN INSERT INTO writes VALUES (1); RETURN NEW; END $$; "
                         "CREATE TRIGGER note AFTER UPDATE ON api_tokens FOR EACH ROW EXECUTE FUNCTION note()"
                       : "CREATE TABLE writes (n integer); CREATE TRIGGER note AFTER UPDATE ON api_tokens "
                         "BEGIN INSERT INTO writes VALUES (1); END");
    for (int i = 0; i < CROWD; i++)
        crowd[i] = (struct member){.act = act_authenticate, .name = token};
    run_crowd(f, crowd, CROWD);
    assert_int_equal(count_result(crowd, CROWD, KV_OK), CROWD);
    assert_sql(f, "SELECT count(*) FROM writes", "1");
}

#define TEST(name)                                                                                                     \
    {                                                                                                                  \
#name, test_##name, ON_BOTH                                                                                    \
    }

int main(int argc, char **argv)
{
    static const struct fixture_test tests[] = {
        TEST(one_name_many_connects),          TEST(two_accounts_one_subdomain),
        TEST(one_address_many_creations),      TEST(slugs_collide),
        TEST(released_name_is_never_anothers), TEST(no_name_misses_a_new_slug),
        TEST(nothing_survives_a_deleted_user), TEST(connect_storm_writes_once),
    };
    return fixture_main(argc, argv, tests, sizeof(tests) / sizeof(tests[0]));
}
