/*
 * What the store's tests share: every test of a suite runs on SQLite and on PostgreSQL, on a database of its own.
 *
 *     static void test_x(void **state) { struct fixture *f = *state; ... f->store ... }
 *     int main(int argc, char **argv) { return fixture_main(argc, argv, tests, count); }
 *
 * fixture_main starts the program again under with_postgres.sh, which gives it a throw-away cluster. Each PostgreSQL
 * test has a schema of its own in it, found through search_path.
 */
#ifndef KV_TEST_STORE_FIXTURE_H
#define KV_TEST_STORE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <ftw.h>
#include <libpq-fe.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "store/store_admin.h"
#include "store/store_backend.h"

struct fixture {
    bool postgres;
    char folder[64];
    char path[96]; /* of the SQLite file */
    char url[512];
    struct store *store; /* open, not migrated */
};

struct fixture_test {
    const char *name;
    CMUnitTestFunction run;
    enum {
        ON_BOTH,
        ON_SQLITE,
        ON_POSTGRES
    } on;
};

#define FIXTURE_UNUSED __attribute__((unused)) static
#define OK(expression) assert_int_equal((expression), KV_OK)

/* ---- SQL from outside, as an operator with psql or sqlite3 would run it ---------------------------------------- */

FIXTURE_UNUSED void fixture_fail(const char *sql, const char *why)
{
    print_error("%s: %s\n", sql, why);
    fail();
}

/* Runs SQL; the first value of the first row, or "", into out. */
FIXTURE_UNUSED void fixture_ask(struct fixture *f, const char *sql, char *out, size_t size)
{
    out[0] = '\0';
    if (f->postgres) {
        PGconn *conn = PQconnectdb(f->url);
        PGresult *result = PQexec(conn, sql);
        if (PQresultStatus(result) != PGRES_COMMAND_OK && PQresultStatus(result) != PGRES_TUPLES_OK)
            fixture_fail(sql, PQerrorMessage(conn));
        if (PQntuples(result) > 0)
            snprintf(out, size, "%s", PQgetvalue(result, 0, 0));
        PQclear(result);
        PQfinish(conn);
        return;
    }
    sqlite3 *db;
    assert_int_equal(sqlite3_open(f->path, &db), SQLITE_OK);
    sqlite3_busy_timeout(db, 5000);
    for (const char *rest = sql; *rest;) {
        sqlite3_stmt *statement;
        if (sqlite3_prepare_v2(db, rest, -1, &statement, &rest) != SQLITE_OK)
            fixture_fail(sql, sqlite3_errmsg(db));
        int code = sqlite3_step(statement);
        if (code == SQLITE_ROW && sqlite3_column_text(statement, 0))
            snprintf(out, size, "%s", (const char *)sqlite3_column_text(statement, 0));
        else if (code != SQLITE_ROW && code != SQLITE_DONE && code != SQLITE_MISUSE)
            fixture_fail(sql, sqlite3_errmsg(db));
        sqlite3_finalize(statement);
    }
    sqlite3_close(db);
}

FIXTURE_UNUSED void fixture_sql(struct fixture *f, const char *sql)
{
    char unused[8];
    fixture_ask(f, sql, unused, sizeof(unused));
}

#define assert_sql(f, sql, expected)                                                                                   \
    do {                                                                                                               \
        char value_[512];                                                                                              \
        fixture_ask(f, sql, value_, sizeof(value_));                                                                   \
        assert_string_equal(value_, expected);                                                                         \
    } while (0)

#define assert_sentence(f, part)                                                                                       \
    do {                                                                                                               \
        if (!strstr(store_error((f)->store), part))                                                                    \
            fail_msg("'%s' is not in '%s'", part, store_error((f)->store));                                            \
    } while (0)

/* ---- one test's database --------------------------------------------------------------------------------------- */

FIXTURE_UNUSED struct store *fixture_open(struct fixture *f)
{
    char error[STORE_ERROR_LEN] = "";
    struct store *store = store_open(f->url, error);
    if (!store)
        fixture_fail(f->url, error);
    return store;
}

FIXTURE_UNUSED int fixture_setup(void **state)
{
    static int number;
    bool postgres = strcmp(*state, "postgres") == 0;
    struct fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    f->postgres = postgres;
    snprintf(f->folder, sizeof(f->folder), "/tmp/kavilo-store.XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    snprintf(f->path, sizeof(f->path), "%s/test.db", f->folder);
    if (postgres) {
        char sql[64];
        snprintf(f->url, sizeof(f->url), "%s", getenv("KV_TEST_POSTGRES"));
        snprintf(sql, sizeof(sql), "CREATE SCHEMA t%d_%d", (int)getpid(), ++number);
        fixture_sql(f, sql);
        size_t len = strlen(f->url);
        snprintf(f->url + len, sizeof(f->url) - len, "&options=-csearch_path%%3Dt%d_%d", (int)getpid(), number);
    } else {
        snprintf(f->url, sizeof(f->url), "sqlite:%s", f->path);
    }
    f->store = fixture_open(f);
    *state = f;
    return 0;
}

FIXTURE_UNUSED int fixture_remove(const char *path, const struct stat *info, int type, struct FTW *where)
{
    (void)info;
    (void)type;
    (void)where;
    return remove(path);
}

FIXTURE_UNUSED int fixture_teardown(void **state)
{
    struct fixture *f = *state;
    store_close(f->store);
    nftw(f->folder, fixture_remove, 16, FTW_DEPTH | FTW_PHYS);
    free(f);
    return 0;
}

/* ---- short ways to say what tests say all the time ------------------------------------------------------------- */

FIXTURE_UNUSED void fixture_user(struct fixture *f, const char *email, const char *slug)
{
    char drawn[LIMIT_LABEL_BYTES + 1], sql[256];
    OK(store_create_user(f->store, slice_of(email), drawn));
    if (slug) {
        snprintf(sql, sizeof(sql), "UPDATE users SET slug = '%s' WHERE email = '%s'", slug, email);
        fixture_sql(f, sql);
    }
}

FIXTURE_UNUSED struct store_account fixture_account(struct fixture *f, const char *email)
{
    struct store_account account;
    char token[STORE_TOKEN_LEN + 1];
    OK(store_issue_token(f->store, slice_of(email), SLICE("test"), token));
    OK(store_authenticate(f->store, slice_of(token), &account));
    return account;
}

FIXTURE_UNUSED int fixture_main(int argc, char **argv, const struct fixture_test *tests, size_t count)
{
    (void)argc;
    const char *postgres = getenv("KV_TEST_POSTGRES");
    if (!postgres) {
        execl(KV_SOURCE_DIR "/tests/unit/store/with_postgres.sh", "with_postgres.sh", argv[0], (char *)NULL);
        perror("with_postgres.sh");
        return 1;
    }
    bool have_postgres = strcmp(postgres, "none") != 0;
    static char back_ends[2][16] = {"sqlite", "postgres"};
    struct CMUnitTest list[256];
    char names[256][96];
    size_t n = 0;
    log_configure(LOG_LEVEL_ERROR, LOG_FORMAT_TEXT);
    for (size_t i = 0; i < count; i++)
        for (int back_end = 0; back_end < 2; back_end++) {
            if ((back_end == 0 && tests[i].on == ON_POSTGRES) || (back_end == 1 && tests[i].on == ON_SQLITE) ||
                (back_end == 1 && !have_postgres) || n == 256)
                continue;
            snprintf(names[n], sizeof(names[n]), "%s on %s", tests[i].name, back_end ? "PostgreSQL" : "SQLite");
            list[n] = (struct CMUnitTest){names[n], tests[i].run, fixture_setup, fixture_teardown,
                                          back_end ? back_ends[1] : back_ends[0]};
            n++;
        }
    return _cmocka_run_group_tests(argv[0], list, n, NULL, NULL);
}

#endif
