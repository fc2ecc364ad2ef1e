/* The schema: made, kept, adopted, and refused when it is not ours. */
#include "store/fixture.h"

#include <pthread.h>

static void test_applied_once(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(store_pending_migrations(f->store), 2);
    OK(store_migrate(f->store));
    assert_int_equal(store_pending_migrations(f->store), 0);
    OK(store_migrate(f->store));
    assert_sql(f, "SELECT count(*) FROM kavilo_migrations", "2");
    assert_sql(f, "SELECT name FROM kavilo_migrations WHERE version = 1", "init");
    assert_sql(f, "SELECT length(checksum) FROM kavilo_migrations WHERE version = 1", "64");
}

static void test_newer_is_refused(void **state)
{
    struct fixture *f = *state;
    OK(store_migrate(f->store));
    fixture_sql(f, "INSERT INTO kavilo_migrations (version, name, checksum, applied_at) "
                   "VALUES (3, 'future', 'x', '2026-01-01')");
    assert_int_equal(store_migrate(f->store), KV_ENEWER);
    assert_sentence(f, "schema 3 (future) and this program knows up to 2");
}

static void test_changed_is_refused(void **state)
{
    struct fixture *f = *state;
    OK(store_migrate(f->store));
    fixture_sql(f, "UPDATE kavilo_migrations SET checksum = 'beef' WHERE version = 2");
    assert_int_equal(store_migrate(f->store), KV_ENEWER);
    assert_sentence(f, "0002_lifecycle");
    assert_sentence(f, "different builds");
}

static void test_gap_is_refused(void **state)
{
    struct fixture *f = *state;
    OK(store_migrate(f->store));
    fixture_sql(f, "DELETE FROM kavilo_migrations WHERE version = 1");
    assert_int_equal(store_migrate(f->store), KV_ENEWER);
    assert_sentence(f, "has 2 where 1 is expected");
}

static void test_failed_migration_leaves_nothing(void **state)
{
    struct fixture *f = *state;
    static const struct migration broken[] = {
        {1, "good", "CREATE TABLE one (a integer);"},
        {2, "bad", "CREATE TABLE two (a integer); CREATE TABLE one (a integer);"},
        {0},
    };
    assert_true(migrate(f->store, broken) < 0);
    assert_sentence(f, "0002_bad");
    assert_sql(f, "SELECT count(*) FROM kavilo_migrations", "1");
    assert_sql(f, "SELECT count(*) FROM one", "0");
    fixture_sql(f, "CREATE TABLE two (a integer)"); /* would fail, were it there */
}

/* ---- databases of the original system -------------------------------------------------------------------------- */

static const char *original_schema(const struct fixture *f)
{
    return f->postgres
               ? "CREATE TABLE users (id uuid PRIMARY KEY, email TEXT NOT NULL UNIQUE, slug TEXT NOT NULL UNIQUE, "
                 "created_at TIMESTAMPTZ NOT NULL DEFAULT now());"
                 "CREATE TABLE api_tokens (id uuid PRIMARY KEY, user_id uuid NOT NULL REFERENCES users(id), "
                 "token_hash BYTEA NOT NULL UNIQUE, name TEXT NOT NULL, "
                 "created_at TIMESTAMPTZ NOT NULL DEFAULT now(), last_used_at TIMESTAMPTZ);"
                 "CREATE TABLE tunnels (id uuid PRIMARY KEY, user_id uuid NOT NULL REFERENCES users(id), "
                 "name TEXT NOT NULL, subdomain TEXT NOT NULL UNIQUE, "
                 "created_at TIMESTAMPTZ NOT NULL DEFAULT now(), UNIQUE (user_id, name));"
               : "CREATE TABLE users (id uuid PRIMARY KEY, email TEXT NOT NULL UNIQUE, slug TEXT NOT NULL UNIQUE, "
                 "created_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP);"
                 "CREATE TABLE api_tokens (id uuid PRIMARY KEY, user_id uuid NOT NULL REFERENCES users(id), "
                 "token_hash BYTEA NOT NULL UNIQUE, name TEXT NOT NULL, "
                 "created_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, last_used_at TIMESTAMP);"
                 "CREATE TABLE tunnels (id uuid PRIMARY KEY, user_id uuid NOT NULL REFERENCES users(id), "
                 "name TEXT NOT NULL, subdomain TEXT NOT NULL UNIQUE, "
                 "created_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, UNIQUE (user_id, name));";
}

/* blake3("original-token"), as b3sum says. */
#define ORIGINAL_HASH "3670001f88b377e020e466c47d0d8cf9c5e42cf1d105a5fc6942ebc233be5d67"

static void test_original_is_adopted(void **state)
{
    struct fixture *f = *state;
    char subdomain[LIMIT_LABEL_BYTES + 1];
    struct store_account account;
    fixture_sql(f, original_schema(f));
    fixture_sql(f, "INSERT INTO users (id, email, slug) VALUES ('11111111-1111-4111-8111-111111111111', "
                   "'Alice@example.com', 'alice-7f0c')");
    fixture_sql(f, f->postgres ? "INSERT INTO api_tokens (id, user_id, token_hash, name) VALUES "
                                 "('21111111-1111-4111-8111-111111111111', '11111111-1111-4111-8111-111111111111', "
                                 "'\\x" ORIGINAL_HASH "', 'laptop')"
                               : "INSERT INTO api_tokens (id, user_id, token_hash, name) VALUES "
                                 "('21111111-1111-4111-8111-111111111111', '11111111-1111-4111-8111-111111111111', "
                                 "x'" ORIGINAL_HASH "', 'laptop')");
    fixture_sql(f, "INSERT INTO tunnels (id, user_id, name, subdomain) VALUES ('31111111-1111-4111-8111-111111111111', "
                   "'11111111-1111-4111-8111-111111111111', 'laptop', 'laptop-alice-7f0c')");

    OK(store_migrate(f->store));
    assert_sql(f, "SELECT count(*) FROM kavilo_migrations", "2");
    OK(store_authenticate(f->store, SLICE("original-token"), &account));
    assert_string_equal(account.email, "Alice@example.com");
    OK(store_claim_name(f->store, &account, SLICE("laptop"), subdomain));
    assert_string_equal(subdomain, "laptop-alice-7f0c");
    OK(store_claim_name(f->store, &account, SLICE("desktop"), subdomain));
    assert_string_equal(subdomain, "desktop-alice-7f0c");
    assert_sql(f, "SELECT id FROM tunnels WHERE name = 'laptop'", "31111111-1111-4111-8111-111111111111");

    char slug[LIMIT_LABEL_BYTES + 1], token[STORE_TOKEN_LEN + 1];
    assert_int_equal(store_create_user(f->store, SLICE("alice@example.com"), slug), KV_EEXIST);
    OK(store_create_user(f->store, SLICE("bob@example.com"), slug));
    OK(store_issue_token(f->store, SLICE("alice@example.com"), SLICE("second"), token));
    OK(store_authenticate(f->store, slice_of(token), &account));
    OK(store_migrate(f->store));
}

static void test_others_tables_are_refused(void **state)
{
    struct fixture *f = *state;
    fixture_sql(f, "CREATE TABLE users (id integer)");
    assert_int_equal(store_migrate(f->store), KV_EINVAL);
    assert_sentence(f, "belongs to another program");
    fixture_sql(f, "CREATE TABLE tunnels (id integer)");
    fixture_sql(f, "CREATE TABLE api_tokens (id integer)");
    assert_int_equal(store_migrate(f->store), KV_EINVAL);
    assert_sentence(f, "not those of a tunnel server");
    /* Nothing was left behind, and other tables beside ours disturb nobody. */
    fixture_sql(f, "DROP TABLE users; DROP TABLE tunnels; DROP TABLE api_tokens; CREATE TABLE accounts (id integer)");
    OK(store_migrate(f->store));
}

/* ---- many servers start at once -------------------------------------------------------------------------------- */

#define SERVERS 8

struct server {
    struct fixture *f;
    pthread_barrier_t *start;
    int result;
    char error[STORE_ERROR_LEN];
};

static void *start_server(void *arg)
{
    struct server *s = arg;
    pthread_barrier_wait(s->start);
    struct store *store = store_open(s->f->url, s->error);
    s->result = store ? store_migrate(store) : KV_EUNAVAIL;
    if (store && s->result != KV_OK)
        snprintf(s->error, sizeof(s->error), "%s", store_error(store));
    store_close(store);
    return NULL;
}

static void test_many_start_at_once(void **state)
{
    struct fixture *f = *state;
    struct server servers[SERVERS] = {0};
    pthread_t threads[SERVERS];
    pthread_barrier_t start;
    store_close(f->store);
    if (!f->postgres)
        assert_int_equal(unlink(f->path), 0); /* so that they make the file too */
    pthread_barrier_init(&start, NULL, SERVERS);
    for (int i = 0; i < SERVERS; i++) {
        servers[i] = (struct server){.f = f, .start = &start};
        assert_int_equal(pthread_create(&threads[i], NULL, start_server, &servers[i]), 0);
    }
    for (int i = 0; i < SERVERS; i++)
        pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&start);
    f->store = fixture_open(f);
    for (int i = 0; i < SERVERS; i++)
        if (servers[i].result != KV_OK)
            fail_msg("%s", servers[i].error);
    assert_sql(f, "SELECT count(*) FROM kavilo_migrations", "2");
}

#define TEST(name)                                                                                                     \
    {                                                                                                                  \
#name, test_##name, ON_BOTH                                                                                    \
    }

int main(int argc, char **argv)
{
    static const struct fixture_test tests[] = {
        TEST(applied_once),       TEST(newer_is_refused),          TEST(changed_is_refused),
        TEST(gap_is_refused),     TEST(original_is_adopted),       TEST(failed_migration_leaves_nothing),
        TEST(many_start_at_once), TEST(others_tables_are_refused),
    };
    return fixture_main(argc, argv, tests, sizeof(tests) / sizeof(tests[0]));
}
