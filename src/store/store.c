/*
 * The store above the seam: opening, and what a connecting tunnel asks. store_admin.c has what operators ask.
 *
 * Every rule is kept by a constraint of the database, so that no order of events between servers, admin commands and
 * hands in psql can break it: an insert is tried, and only when it was refused do we look why. The stored row decides
 * what a name's subdomain is; the slug is asked of the database each time and matters for new rows only.
 */
#include "store/store.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/blake3.h"
#include "base/random.h"
#include "store/rules.h"
#include "store/store_admin.h"
#include "store/store_backend.h"
#include "store/store_time.h"

#define NOTE_USE_AFTER_S 60 /* last_used_at is this coarse, so that a storm of connects is no storm of writes */
#define CLAIM_TRIES      4  /* rows may come and go between an insert and the look at what refused it */

/* ---- opening --------------------------------------------------------------------------------------------------- */

int store_default_url(char *out, size_t size)
{
    const char *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    int len;
    /* The XDG specification has relative paths ignored. */
    if (data && data[0] == '/')
        len = snprintf(out, size, "sqlite:%s/kavilo-tunnel/tunneld.db", data);
    else if (home && home[0] == '/')
        len = snprintf(out, size, "sqlite:%s/.local/share/kavilo-tunnel/tunneld.db", home);
    else
        return KV_ENOTFOUND;
    return (size_t)len < size ? KV_OK : KV_ELIMIT;
}

/* The path of sqlite:/a/b, sqlite:b and sqlite:///a/b; NULL with a sentence for what is no file. */
static const char *sqlite_path(const char *url, char *error)
{
    const char *path = url + strlen("sqlite:");
    if (strncmp(path, "//", 2) == 0)
        path += 2;
    if (*path == '\0')
        snprintf(error, STORE_ERROR_LEN, "'%.200s' names no file; write sqlite:/path/to/file.db", url);
    else if (strstr(path, ":memory:"))
        snprintf(error, STORE_ERROR_LEN, "'%.200s': accounts are kept in a file, not in memory", url);
    else if (strchr(path, '?'))
        snprintf(error, STORE_ERROR_LEN, "'%.200s': a path alone is expected, without '?' and options", url);
    else if (path[strlen(path) - 1] == '/')
        snprintf(error, STORE_ERROR_LEN, "'%.200s' names a folder; name a file in it", url);
    else
        return path;
    return NULL;
}

const char *store_file_of(const char *url)
{
    char ignored[STORE_ERROR_LEN];
    return strncmp(url, "sqlite:", strlen("sqlite:")) == 0 ? sqlite_path(url, ignored) : NULL;
}

static struct backend *make_backend(const char *url, char *error)
{
    char standard[4096];
    if (strncmp(url, "sqlite:", strlen("sqlite:")) == 0) {
        const char *path = sqlite_path(url, error);
        bool ours = store_default_url(standard, sizeof(standard)) == KV_OK && strcmp(url, standard) == 0;
        return path ? sqlite_backend(path, ours, error) : NULL;
    }
    if (strncmp(url, "postgres://", strlen("postgres://")) == 0 ||
        strncmp(url, "postgresql://", strlen("postgresql://")) == 0)
        return pg_backend(url, error);
    if (!strstr(url, "://") && strchr(url, '='))
        return pg_backend(url, error); /* "host=... dbname=..." */
    /* Not the whole of it: it may hold a password. */
    snprintf(error, STORE_ERROR_LEN,
             "'%.*s' begins the name of no database; write sqlite:/path/to/file.db, postgres://user@host/database or "
             "libpq's keyword form",
             (int)strcspn(url, ":@?= "), url);
    return NULL;
}

static struct store *new_store(const char *url, char *error)
{
    struct store *store = calloc(1, sizeof(*store));
    if (!store || !(store->url = strdup(url))) {
        snprintf(error, STORE_ERROR_LEN, "no memory");
        free(store);
        return NULL;
    }
    store->draw = random_hex;
    store->backend = make_backend(url, error);
    if (!store->backend) {
        store_close(store);
        return NULL;
    }
    return store;
}

struct store *store_open(const char *url, char *error)
{
    struct store *store = new_store(url, error);
    if (store && store->backend->ops->connect(store->backend) != KV_OK) {
        snprintf(error, STORE_ERROR_LEN, "%s", store->backend->error);
        store_close(store);
        return NULL;
    }
    return store;
}

struct store *store_clone(const struct store *store)
{
    char error[STORE_ERROR_LEN];
    struct store *clone = new_store(store->url, error);
    if (clone)
        clone->draw = store->draw;
    return clone;
}

void store_close(struct store *store)
{
    if (!store)
        return;
    if (store->backend)
        store->backend->ops->free(store->backend);
    if (store->url)
        secret_wipe(store->url, strlen(store->url)); /* may hold a password */
    free(store->url);
    free(store);
}

int store_migrate(struct store *store)
{
    return migrate(store, store->backend->ops->migrations);
}

int store_pending_migrations(struct store *store)
{
    return migrate_pending(store, store->backend->ops->migrations);
}

/* ---- the seam, with sentences ---------------------------------------------------------------------------------- */

const char *store_error(const struct store *store)
{
    return store->error;
}

int store_fail(struct store *store, int error, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(store->error, sizeof(store->error), format, args);
    va_end(args);
    return error;
}

int store_run(struct store *store, const struct statement *statement, const struct slice *parameters, size_t count,
              backend_row_fn *row, void *arg)
{
    /* A row function that fails sets its own sentence, in the store; the back end's is then empty. */
    store->backend->error[0] = '\0';
    int result = store->backend->ops->run(store->backend, statement, parameters, count, row, arg);
    if (result < 0 && store->backend->error[0])
        store_fail(store, result, "%s", store->backend->error);
    return result;
}

int store_begin(struct store *store, enum backend_transaction kind)
{
    int error = store->backend->ops->begin(store->backend, kind);
    return error == KV_OK ? KV_OK : store_fail(store, error, "%s", store->backend->error);
}

int store_commit(struct store *store)
{
    int error = store->backend->ops->commit(store->backend);
    return error == KV_OK ? KV_OK : store_fail(store, error, "%s", store->backend->error);
}

void store_rollback(struct store *store)
{
    store->backend->ops->rollback(store->backend);
}

void store_copy_text(char *into, size_t size, struct slice value)
{
    snprintf(into, size, "%.*s", (int)value.len, value.data ? value.data : "");
}

void store_copy_time(char into[STORE_TIME_LEN + 1], struct slice value)
{
    int64_t seconds;
    if (value.data && store_time_parse(value, &seconds))
        store_time_format(seconds, into);
    else
        store_copy_text(into, STORE_TIME_LEN + 1, value);
}

int store_copy_row(void *arg, const struct slice *columns)
{
    struct text_row *row = arg;
    for (size_t i = 0; i < row->count; i++)
        store_copy_text(row->column[i].into, row->column[i].size, columns[i]);
    return KV_OK;
}

void store_new_id(char id[STORE_ID_LEN + 1])
{
    uint8_t b[16];
    random_bytes(b, sizeof(b));
    b[6] = (uint8_t)((b[6] & 0x0f) | 0x40);
    b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
    snprintf(id, STORE_ID_LEN + 1, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1],
             b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
}

/* Connecting tunnels know three kinds of "not now": all are KV_EUNAVAIL to them, and only the sentence differs. */
static int unavailable(int error)
{
    return error == KV_ENOMEM ? error : KV_EUNAVAIL;
}

/* ---- whose token ----------------------------------------------------------------------------------------------- */

static const struct statement find_token = {
    BOTH("SELECT t.id, t.user_id, u.email, u.slug, t.last_used_at, t.expires_at, u.disabled_at, u.deleted_at "
         "FROM api_tokens t JOIN users u ON u.id = t.user_id WHERE t.token_hash = $1"),
    .bytes = 1,
};

/* Only from the value that was read, so that of many connects at once one writes; and never waiting for a lock. */
static const struct statement note_use = {
    .sqlite = "UPDATE api_tokens SET last_used_at = $2 WHERE id = $1 AND last_used_at IS $3",
    .postgres = "UPDATE api_tokens SET last_used_at = $2 WHERE id = (SELECT id FROM api_tokens WHERE id = $1 "
                "AND last_used_at IS NOT DISTINCT FROM $3 FOR UPDATE SKIP LOCKED)",
    .may_be_lost = true,
};

static void note_last_use(struct store *store, const char *token_id, const char *last_used)
{
    char now[STORE_TIME_LEN + 1];
    int64_t last;
    if (store_time_parse(slice_of(last_used), &last) && last > store_now() - NOTE_USE_AFTER_S)
        return;
    store_time_format(store_now(), now);
    /* A full disk or a locked file must not refuse a token that could be checked. */
    STORE_RUN(store, &note_use, NULL, NULL, slice_of(token_id), slice_of(now),
              last_used[0] ? slice_of(last_used) : (struct slice){0});
}

int store_authenticate(struct store *store, struct slice token, struct store_account *account)
{
    uint8_t hash[BLAKE3_LEN];
    char last_used[48], expires[48], disabled[48], deleted[48];
    int64_t expiry;
    memset(account, 0, sizeof(*account));
    if (token.len == 0 || token.len > LIMIT_TOKEN_BYTES)
        return store_fail(store, KV_EREFUSED, "invalid token");

    blake3(token.data, token.len, hash);
    struct text_row row = {.count = 8,
                           .column = {{account->token_id, sizeof(account->token_id)},
                                      {account->user_id, sizeof(account->user_id)},
                                      {account->email, sizeof(account->email)},
                                      {account->slug, sizeof(account->slug)},
                                      {last_used, sizeof(last_used)},
                                      {expires, sizeof(expires)},
                                      {disabled, sizeof(disabled)},
                                      {deleted, sizeof(deleted)}}};
    int rows = STORE_RUN(store, &find_token, store_copy_row, &row, {(const char *)hash, sizeof(hash)});
    if (rows < 0)
        return unavailable(rows);
    if (rows == 0 || disabled[0] || deleted[0] ||
        (expires[0] && (!store_time_parse(slice_of(expires), &expiry) || expiry <= store_now()))) {
        memset(account, 0, sizeof(*account));
        return store_fail(store, KV_EREFUSED, "invalid token");
    }
    note_last_use(store, account->token_id, last_used);
    return KV_OK;
}

/* ---- whose name ------------------------------------------------------------------------------------------------ */

static const struct statement find_name = {
    BOTH("SELECT subdomain FROM tunnels WHERE user_id = $1 AND name = $2 AND released_at IS NULL"),
};

static const struct statement find_slug = {
    BOTH("SELECT slug FROM users WHERE id = $1 AND deleted_at IS NULL"),
};

/* A new row, or the account's own released one; nothing when the subdomain is taken, or when the user was deleted or
 * got another slug since we looked (the row lock makes PostgreSQL look again after such a change is committed). */
static const struct statement claim = {
    .sqlite = "INSERT INTO tunnels (id, user_id, name, subdomain, created_at) "
              "SELECT $1, u.id, $3, $4, $5 FROM users u WHERE u.id = $2 AND u.slug = $6 AND u.deleted_at IS NULL "
              "ON CONFLICT (subdomain) DO UPDATE SET name = excluded.name, released_at = NULL, released_name = NULL "
              "WHERE tunnels.user_id = excluded.user_id AND tunnels.released_at IS NOT NULL",
    .postgres = "INSERT INTO tunnels (id, user_id, name, subdomain, created_at) "
                "SELECT CAST($1 AS uuid), u.id, CAST($3 AS text), CAST($4 AS text), CAST($5 AS timestamptz) "
                "FROM users u WHERE u.id = $2 AND u.slug = $6 AND u.deleted_at IS NULL FOR SHARE "
                "ON CONFLICT (subdomain) DO UPDATE SET name = excluded.name, released_at = NULL, released_name = NULL "
                "WHERE tunnels.user_id = excluded.user_id AND tunnels.released_at IS NOT NULL",
};

static const struct statement find_subdomain = {
    BOTH("SELECT user_id, name FROM tunnels WHERE subdomain = $1"),
};

/* Whether a stored row can have this name at all: both databases take it as text. */
static bool is_plain(struct slice name)
{
    for (size_t i = 0; i < name.len; i++)
        if (name.data[i] <= ' ' || name.data[i] > '~')
            return false;
    return name.len > 0 && name.len <= LIMIT_LABEL_BYTES;
}

static int stored_subdomain(struct store *store, const char *user_id, struct slice name,
                            char subdomain[LIMIT_LABEL_BYTES + 1])
{
    char stored[256];
    struct text_row row = {.count = 1, .column = {{stored, sizeof(stored)}}};
    int rows = STORE_RUN(store, &find_name, store_copy_row, &row, slice_of(user_id), name);
    if (rows < 0)
        return unavailable(rows);
    if (rows == 0)
        return KV_ENOTFOUND;
    if (!rules_is_label(slice_of(stored)))
        return store_fail(
            store, KV_EINVAL,
            "the subdomain stored for this name, '%.100s', is no part of a host name; the operator has to "
            "correct it",
            stored);
    memcpy(subdomain, stored, strlen(stored) + 1);
    return KV_OK;
}

/* Why `claim` changed nothing: KV_EEXIST with a sentence, or KV_EAGAIN when the reason is gone again. */
static int who_has(struct store *store, const struct store_account *account, struct slice name, const char *subdomain)
{
    char owner[STORE_ID_LEN + 1], theirs[80];
    struct text_row row = {.count = 2, .column = {{owner, sizeof(owner)}, {theirs, sizeof(theirs)}}};
    int rows = STORE_RUN(store, &find_subdomain, store_copy_row, &row, slice_of(subdomain));
    if (rows < 0)
        return unavailable(rows);
    if (rows == 0)
        return KV_EAGAIN;
    if (strcmp(owner, account->user_id) != 0)
        return store_fail(store, KV_EEXIST,
                          "the subdomain '%s' of name '%.*s' belongs to another account; choose another name",
                          subdomain, (int)name.len, name.data);
    if (slice_equals(slice_of(theirs), name) || theirs[0] == '#')
        return KV_EAGAIN;
    return store_fail(store, KV_EEXIST, "the subdomain '%s' is already that of your name '%s'; choose another name",
                      subdomain, theirs);
}

int store_claim_name(struct store *store, const struct store_account *account, struct slice name,
                     char subdomain[LIMIT_LABEL_BYTES + 1])
{
    char why[256];
    if (!is_plain(name)) {
        char unused[LIMIT_LABEL_BYTES + 1];
        if (rules_subdomain(name, account->slug, unused, why, sizeof(why)))
            snprintf(why, sizeof(why), "the name is no part of a host name");
        return store_fail(store, KV_EINVAL, "%s", why);
    }
    for (int tries = 0; tries < CLAIM_TRIES; tries++) {
        /* A stored row decides, even one whose name we would not have allowed. */
        int error = stored_subdomain(store, account->user_id, name, subdomain);
        if (error != KV_ENOTFOUND)
            return error;

        char slug[128];
        struct text_row row = {.count = 1, .column = {{slug, sizeof(slug)}}};
        int rows = STORE_RUN(store, &find_slug, store_copy_row, &row, slice_of(account->user_id));
        if (rows < 0)
            return unavailable(rows);
        if (rows == 0)
            return store_fail(store, KV_EREFUSED, "invalid token");
        if (!rules_subdomain(name, slug, subdomain, why, sizeof(why)))
            return store_fail(store, KV_EINVAL, "%s", why);

        char id[STORE_ID_LEN + 1], now[STORE_TIME_LEN + 1];
        store_new_id(id);
        store_time_format(store_now(), now);
        rows = STORE_RUN(store, &claim, NULL, NULL, slice_of(id), slice_of(account->user_id), name, slice_of(subdomain),
                         slice_of(now), slice_of(slug));
        if (rows == 1)
            return KV_OK;
        if (rows < 0 && rows != KV_EEXIST)
            return unavailable(rows);
        if (rows == KV_EEXIST)
            continue; /* (user_id, name): the same name was claimed at this moment */
        error = who_has(store, account, name, subdomain);
        if (error != KV_EAGAIN)
            return error;
    }
    return store_fail(store, KV_EUNAVAIL, "the name '%.*s' is being changed by others; try again", (int)name.len,
                      name.data);
}

int store_subdomain_is_free(struct store *store, struct slice subdomain)
{
    int rows = STORE_RUN(store, &find_subdomain, NULL, NULL, subdomain);
    if (rows < 0)
        return unavailable(rows);
    return rows == 0 ? KV_OK : store_fail(store, KV_EEXIST, "the subdomain is taken");
}
