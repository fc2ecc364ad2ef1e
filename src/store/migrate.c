/*
 * Brings a database to the schema that this program knows.
 *
 * What was applied is recorded in kavilo_migrations with the BLAKE3 of the file's text. Before anything is changed the
 * records are compared with the embedded files: a version above ours or a text that is not ours is refused, since
 * neither can be made right by going on. Each migration is one transaction under the migrators' lock, which is taken
 * anew and looked behind anew every time: of two servers that start at once one applies and the other finds it done.
 *
 *     recorded, all of it      nothing is written (a role without CREATE will do)
 *     recorded, some of it     the rest is applied
 *     no record, no tables     all is applied
 *     no record, three tables  a database of the original system: 0001 made no other schema than the one that is there,
 *                              so it is recorded without being run, and the rest is applied
 *     no record, some tables   somebody else's database; refused
 */
#include "store/migrate.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/blake3.h"
#include "base/log.h"
#include "store/store_backend.h"
#include "store/store_time.h"

#define CHECKSUM_LEN (2 * BLAKE3_LEN)

static const struct statement find_tables = {
    .sqlite = "SELECT name FROM sqlite_master WHERE type = 'table' "
              "AND name IN ('users', 'api_tokens', 'tunnels', 'kavilo_migrations')",
    .postgres = "SELECT t FROM unnest(ARRAY['users', 'api_tokens', 'tunnels', 'kavilo_migrations']) AS t "
                "WHERE to_regclass(t) IS NOT NULL",
};

static const struct statement make_record_table = {
    .sqlite = "CREATE TABLE IF NOT EXISTS kavilo_migrations (version INTEGER PRIMARY KEY, name TEXT NOT NULL, "
              "checksum TEXT NOT NULL, applied_at TEXT NOT NULL)",
    .postgres = "CREATE TABLE IF NOT EXISTS kavilo_migrations (version integer PRIMARY KEY, name text NOT NULL, "
                "checksum text NOT NULL, applied_at timestamptz NOT NULL)",
};

static const struct statement read_records = {
    BOTH("SELECT version, name, checksum FROM kavilo_migrations ORDER BY version"),
};

static const struct statement add_record = {
    BOTH("INSERT INTO kavilo_migrations (version, name, checksum, applied_at) VALUES ($1, $2, $3, $4)"),
};

/* Fail when a column is missing that everything else relies on. */
static const struct statement original_columns[] = {
    {BOTH("SELECT id, email, slug, created_at FROM users LIMIT 1")},
    {BOTH("SELECT id, user_id, token_hash, name, created_at, last_used_at FROM api_tokens LIMIT 1")},
    {BOTH("SELECT id, user_id, name, subdomain, created_at FROM tunnels LIMIT 1")},
};

/* What is there, and how it compares. */
struct state {
    struct store *store;
    const struct migration *known;
    int original_tables; /* of the three */
    bool recorded;       /* the record table exists */
    int applied;         /* 1 .. applied are in the record, and are ours */
};

static void checksum(const struct migration *migration, char out[CHECKSUM_LEN + 1])
{
    uint8_t hash[BLAKE3_LEN];
    blake3(migration->sql, strlen(migration->sql), hash);
    for (size_t i = 0; i < BLAKE3_LEN; i++)
        snprintf(out + 2 * i, 3, "%02x", hash[i]);
}

static int note_table(void *arg, const struct slice *columns)
{
    struct state *state = arg;
    if (slice_equals(columns[0], SLICE("kavilo_migrations")))
        state->recorded = true;
    else
        state->original_tables++;
    return KV_OK;
}

static int compare_record(void *arg, const struct slice *columns)
{
    struct state *state = arg;
    char expected[CHECKSUM_LEN + 1];
    uint64_t version = 0;
    slice_to_u64(columns[0], &version);

    const struct migration *next = &state->known[state->applied];
    if (next->version == 0)
        return store_fail(state->store, KV_ENEWER,
                          "the database is at schema %" PRIu64
                          " (%.*s) and this program knows up to %d: it was used by "
                          "a newer kavilo-tunneld; run that version, or restore an older backup",
                          version, (int)columns[1].len, columns[1].data, state->applied);
    if (version != (uint64_t)next->version)
        return store_fail(state->store, KV_ENEWER,
                          "the database's record of migrations has %" PRIu64
                          " where %d is expected; it was not made by "
                          "this program",
                          version, next->version);
    checksum(next, expected);
    if (!slice_equals(columns[2], slice_of(expected)))
        return store_fail(
            state->store, KV_ENEWER,
            "migration %04d_%s was applied to the database with another text than this program's (checksum "
            "%.12s, expected %.12s): the database and the program are of different builds",
            next->version, next->name, columns[2].data ? columns[2].data : "", expected);
    state->applied++;
    return KV_OK;
}

static int look(struct state *state)
{
    state->original_tables = state->applied = 0;
    state->recorded = false;
    int error = store_run(state->store, &find_tables, NULL, 0, note_table, state);
    if (error >= 0 && state->recorded)
        error = store_run(state->store, &read_records, NULL, 0, compare_record, state);
    if (error < 0)
        return error;
    if (state->applied == 0 && state->original_tables != 0 && state->original_tables != 3)
        return store_fail(state->store, KV_EINVAL,
                          "the database has some of the tables users, api_tokens and tunnels but not all of them: it "
                          "belongs to another program; name a database of its own");
    return KV_OK;
}

static int adopt(struct state *state)
{
    for (size_t i = 0; i < sizeof(original_columns) / sizeof(original_columns[0]); i++) {
        int error = store_run(state->store, &original_columns[i], NULL, 0, NULL, NULL);
        if (error == KV_EIO) {
            char why[STORE_ERROR_LEN];
            snprintf(why, sizeof(why), "%s", store_error(state->store));
            return store_fail(state->store, KV_EINVAL,
                              "the database has tables users, api_tokens and tunnels that are not those of a tunnel "
                              "server: %.300s",
                              why);
        }
        if (error < 0)
            return error;
    }
    log_info("adopted the database of an original server; its accounts, tokens and names go on as they are");
    return KV_OK;
}

/* One migration, inside of the transaction that `begin` opened. */
static int apply_next(struct state *state)
{
    const struct migration *next = &state->known[state->applied];
    char sum[CHECKSUM_LEN + 1], version[12], now[STORE_TIME_LEN + 1];
    struct backend *backend = state->store->backend;
    int error;

    if (next->version == 1 && state->original_tables == 3) {
        error = adopt(state);
    } else {
        error = backend->ops->script(backend, next->sql);
        if (error < 0)
            store_fail(state->store, error, "migration %04d_%s failed: %s", next->version, next->name, backend->error);
    }
    if (error < 0)
        return error;
    checksum(next, sum);
    snprintf(version, sizeof(version), "%d", next->version);
    store_time_format(store_now(), now);
    return STORE_RUN(state->store, &add_record, NULL, NULL, slice_of(version), slice_of(next->name), slice_of(sum),
                     slice_of(now));
}

/* 1 when a migration was applied, 0 when none was left. */
static int step(struct state *state)
{
    int error = store_begin(state->store, BACKEND_MIGRATE);
    if (error != KV_OK)
        return error;
    error = store_run(state->store, &make_record_table, NULL, 0, NULL, NULL);
    if (error >= 0)
        error = look(state);
    if (error >= 0 && state->known[state->applied].version == 0) {
        store_rollback(state->store);
        return 0;
    }
    if (error >= 0)
        error = apply_next(state);
    if (error >= 0)
        error = store_commit(state->store);
    if (error < 0) {
        store_rollback(state->store);
        return error;
    }
    const struct migration *done = &state->known[state->applied];
    log_info("applied a migration", log_int("version", done->version), log_str("name", done->name));
    return 1;
}

int migrate_pending(struct store *store, const struct migration *known)
{
    struct state state = {.store = store, .known = known};
    int error = look(&state), pending = 0;
    if (error != KV_OK)
        return error;
    while (known[state.applied + pending].version != 0)
        pending++;
    return pending;
}

int migrate(struct store *store, const struct migration *known)
{
    struct state state = {.store = store, .known = known};
    int more = migrate_pending(store, known);
    while (more > 0)
        more = step(&state);
    return more;
}
