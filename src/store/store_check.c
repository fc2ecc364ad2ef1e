/*
 * `admin check`: is the database whole, and does every row keep the rules? The constraints of our own tables make most
 * of these impossible; an adopted database, a hand in psql or a failing disk may still have done them. One snapshot,
 * nothing is changed.
 */
#include <stdarg.h>
#include <stdio.h>

#include "store/rules.h"
#include "store/store_admin_impl.h"

struct checking {
    void (*problem)(void *arg, const char *sentence);
    void *arg;
    int count;
};

static void report(struct checking *c, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void report(struct checking *c, const char *format, ...)
{
    char sentence[STORE_ERROR_LEN];
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof(sentence), format, args);
    va_end(args);
    c->problem(c->arg, sentence);
    c->count++;
}

/* ---- rules between rows: a query gives a sentence for each that is broken -------------------------------------- */

static const struct statement rules[] = {
    {BOTH("SELECT 'token ' || CAST(t.id AS text) || ' belongs to a user that is not there' "
          "FROM api_tokens t LEFT JOIN users u ON u.id = t.user_id WHERE u.id IS NULL")},
    {BOTH("SELECT 'the subdomain ' || n.subdomain || ' belongs to a user that is not there' "
          "FROM tunnels n LEFT JOIN users u ON u.id = n.user_id WHERE u.id IS NULL")},
    {BOTH("SELECT 'token ' || CAST(t.id AS text) || ' belongs to a deleted user' "
          "FROM api_tokens t JOIN users u ON u.id = t.user_id WHERE u.deleted_at IS NOT NULL")},
    {BOTH("SELECT 'the subdomain ' || n.subdomain || ' belongs to a deleted user and is not released' "
          "FROM tunnels n JOIN users u ON u.id = n.user_id "
          "WHERE u.deleted_at IS NOT NULL AND n.released_at IS NULL")},
    {BOTH("SELECT 'the subdomain ' || subdomain || ' is half released' "
          "FROM tunnels WHERE (released_at IS NULL) <> (released_name IS NULL)")},
    {BOTH("SELECT 'the address ' || lower(email) || ' has ' || CAST(count(*) AS text) || ' users, in different cases' "
          "FROM users GROUP BY lower(email) HAVING count(*) > 1")},
    {BOTH("SELECT 'the slug ' || slug || ' has ' || CAST(count(*) AS text) || ' users' "
          "FROM users GROUP BY slug HAVING count(*) > 1")},
    {BOTH("SELECT 'the subdomain ' || lower(subdomain) || ' is stored ' || CAST(count(*) AS text) || ' times' "
          "FROM tunnels GROUP BY lower(subdomain) HAVING count(*) > 1")},
    {BOTH("SELECT 'the name ' || name || ' is stored ' || CAST(count(*) AS text) || ' times for the user ' || "
          "CAST(user_id AS text) FROM tunnels GROUP BY user_id, name HAVING count(*) > 1")},
    {BOTH("SELECT 'the hash of token ' || min(CAST(id AS text)) || ' is stored ' || CAST(count(*) AS text) || ' times' "
          "FROM api_tokens GROUP BY token_hash HAVING count(*) > 1")},
    {.sqlite = "SELECT 'the hash of token ' || id || ' has not 32 bytes' FROM api_tokens "
               "WHERE typeof(token_hash) <> 'blob' OR length(token_hash) <> 32",
     .postgres = "SELECT 'the hash of token ' || CAST(id AS text) || ' has not 32 bytes' FROM api_tokens "
                 "WHERE octet_length(token_hash) <> 32"},
    {.sqlite = "SELECT 'a row of ' || \"table\" || ' points to one of ' || parent || ' that is not there' "
               "FROM pragma_foreign_key_check",
     .postgres = "SELECT 'none' WHERE false"},
};

static int repeat(void *arg, const struct slice *columns)
{
    report(arg, "%.*s", (int)columns[0].len, columns[0].data ? columns[0].data : "");
    return KV_OK;
}

/* ---- rules of single values ------------------------------------------------------------------------------------ */

static const struct statement all_users = {
    BOTH("SELECT email, slug, created_at, disabled_at FROM users WHERE deleted_at IS NULL"),
};
static const struct statement all_tokens = {BOTH("SELECT id, name, created_at, expires_at FROM api_tokens")};
static const struct statement all_names = {BOTH("SELECT subdomain, name, created_at, released_at FROM tunnels")};

/* PostgreSQL checks its pages itself (data_checksums, amcheck). */
static const struct statement integrity = {.sqlite = "PRAGMA integrity_check", .postgres = "SELECT 'ok'"};

static bool are_times(struct slice first, struct slice second)
{
    int64_t unused;
    return (!first.data || store_time_parse(first, &unused)) && (!second.data || store_time_parse(second, &unused));
}

static int check_user(void *arg, const struct slice *columns)
{
    char lowered[LIMIT_EMAIL_BYTES + 1], email[LIMIT_EMAIL_BYTES + 1], slug[128];
    store_copy_text(email, sizeof(email), columns[0]);
    store_copy_text(slug, sizeof(slug), columns[1]);
    if (rules_email(columns[0], lowered))
        report(arg, "the user of slug %s has '%s', which is no e-mail address", slug, email);
    if (rules_slug(columns[1]))
        report(arg, "the slug of %s, '%s', is no part of a host name: no name can be made of it", email, slug);
    if (!are_times(columns[2], columns[3]))
        report(arg, "a time of the user %s cannot be read", email);
    return KV_OK;
}

static int check_token(void *arg, const struct slice *columns)
{
    char id[STORE_ID_LEN + 1];
    store_copy_text(id, sizeof(id), columns[0]);
    if (!are_times(columns[2], columns[3]))
        report(arg, "a time of token %s cannot be read; a token with such an expiry is refused", id);
    return KV_OK;
}

static int check_name(void *arg, const struct slice *columns)
{
    char subdomain[128];
    store_copy_text(subdomain, sizeof(subdomain), columns[0]);
    if (!rules_is_label(columns[0]))
        report(arg, "the subdomain '%s' is no part of a host name", subdomain);
    if (!are_times(columns[2], columns[3]))
        report(arg, "a time of the subdomain %s cannot be read", subdomain);
    return KV_OK;
}

static int check_integrity(void *arg, const struct slice *columns)
{
    if (!slice_equals(columns[0], SLICE("ok")))
        report(arg, "the database file is damaged: %.*s", (int)columns[0].len, columns[0].data ? columns[0].data : "");
    return KV_OK;
}

int store_check(struct store *store, void (*problem)(void *arg, const char *sentence), void *arg)
{
    static const struct {
        const struct statement *ask;
        backend_row_fn *check;
    } values[] = {
        {&integrity, check_integrity},
        {&all_users, check_user},
        {&all_tokens, check_token},
        {&all_names, check_name},
    };
    struct checking checking = {.problem = problem, .arg = arg};
    int error = store_begin(store, BACKEND_READ);
    if (error != KV_OK)
        return error;
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]) && error >= 0; i++)
        error = store_run(store, values[i].ask, NULL, 0, values[i].check, &checking);
    for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]) && error >= 0; i++)
        error = store_run(store, &rules[i], NULL, 0, repeat, &checking);
    store_rollback(store);
    return error < 0 ? error : checking.count;
}
