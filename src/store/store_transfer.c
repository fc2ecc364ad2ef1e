/* Export and import: the three tables as rows of texts, each with its one SELECT and its one INSERT. */
#include "store/store_transfer.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/blake3.h"
#include "store/rules.h"
#include "store/store_backend.h"
#include "store/store_time.h"

static const struct table {
    struct transfer_kind kind;
    struct statement read, write;
} tables[] = {
    {
        .kind = {"user",
                 {{"id", TRANSFER_ID, false},
                  {"email", TRANSFER_TEXT, false},
                  {"slug", TRANSFER_TEXT, false},
                  {"created_at", TRANSFER_TIME, false},
                  {"disabled_at", TRANSFER_TIME, true},
                  {"deleted_at", TRANSFER_TIME, true}}},
        .read = {BOTH(
            "SELECT id, email, slug, created_at, disabled_at, deleted_at FROM users ORDER BY created_at, id")},
        .write = {BOTH("INSERT INTO users (id, email, slug, created_at, disabled_at, deleted_at) "
                       "VALUES ($1, $2, $3, $4, $5, $6)")},
    },
    {
        .kind = {"token",
                 {{"id", TRANSFER_ID, false},
                  {"user_id", TRANSFER_ID, false},
                  {"token_hash", TRANSFER_HASH, false},
                  {"name", TRANSFER_TEXT, true},
                  {"created_at", TRANSFER_TIME, false},
                  {"last_used_at", TRANSFER_TIME, true},
                  {"expires_at", TRANSFER_TIME, true}}},
        .read = {.sqlite = "SELECT id, user_id, lower(hex(token_hash)), name, created_at, last_used_at, expires_at "
                           "FROM api_tokens ORDER BY created_at, id",
                 .postgres =
                     "SELECT id, user_id, encode(token_hash, 'hex'), name, created_at, last_used_at, expires_at "
                     "FROM api_tokens ORDER BY created_at, id"},
        .write = {BOTH("INSERT INTO api_tokens (id, user_id, token_hash, name, created_at, last_used_at, expires_at) "
                       "VALUES ($1, $2, $3, coalesce($4, ''), $5, $6, $7)"),
                  .bytes = 1 << 2},
    },
    {
        .kind = {"name",
                 {{"id", TRANSFER_ID, false},
                  {"user_id", TRANSFER_ID, false},
                  {"name", TRANSFER_TEXT, false},
                  {"subdomain", TRANSFER_TEXT, false},
                  {"created_at", TRANSFER_TIME, false},
                  {"released_at", TRANSFER_TIME, true},
                  {"released_name", TRANSFER_TEXT, true}}},
        .read = {BOTH("SELECT id, user_id, name, subdomain, created_at, released_at, released_name FROM tunnels "
                      "ORDER BY created_at, id")},
        .write = {BOTH("INSERT INTO tunnels (id, user_id, name, subdomain, created_at, released_at, released_name) "
                       "VALUES ($1, $2, $3, $4, $5, $6, $7)")},
    },
};

#define TABLES (sizeof(tables) / sizeof(tables[0]))

const struct transfer_kind *transfer_kind_at(size_t index)
{
    return index < TABLES ? &tables[index].kind : NULL;
}

/* ---- out ------------------------------------------------------------------------------------------------------- */

struct exporting {
    const struct transfer_kind *kind;
    int (*row)(void *arg, const struct transfer_kind *kind, const struct slice *values);
    void *arg;
};

static int give_row(void *arg, const struct slice *columns)
{
    struct exporting *e = arg;
    struct slice values[TRANSFER_COLUMNS_MAX] = {0};
    char times[TRANSFER_COLUMNS_MAX][STORE_TIME_LEN + 1];
    for (size_t i = 0; e->kind->column[i].name; i++) {
        values[i] = columns[i];
        if (e->kind->column[i].type == TRANSFER_TIME && columns[i].data) {
            store_copy_time(times[i], columns[i]);
            values[i] = slice_of(times[i]);
        }
    }
    return e->row(e->arg, e->kind, values);
}

int store_export(struct store *store,
                 int (*row)(void *arg, const struct transfer_kind *kind, const struct slice *values), void *arg)
{
    struct exporting exporting = {.row = row, .arg = arg};
    int error = store_begin(store, BACKEND_READ);
    if (error != KV_OK)
        return error;
    for (size_t i = 0; i < TABLES && error >= 0; i++) {
        exporting.kind = &tables[i].kind;
        error = store_run(store, &tables[i].read, NULL, 0, give_row, &exporting);
    }
    store_rollback(store);
    return error < 0 ? error : KV_OK;
}

/* ---- in -------------------------------------------------------------------------------------------------------- */

static bool unhex(struct slice hex, uint8_t out[BLAKE3_LEN])
{
    if (hex.len != 2 * BLAKE3_LEN)
        return false;
    for (size_t i = 0; i < hex.len; i++) {
        char c = hex.data[i];
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (digit < 0)
            return false;
        out[i / 2] = (uint8_t)(i % 2 ? out[i / 2] | digit : digit << 4);
    }
    return true;
}

/* The scratch of one row's converted values. */
struct converted {
    struct slice value[TRANSFER_COLUMNS_MAX];
    uint8_t hash[BLAKE3_LEN];
    char time[TRANSFER_COLUMNS_MAX][STORE_TIME_LEN + 1];
};

static bool convert(const struct transfer_kind *kind, size_t i, struct slice value, struct converted *out)
{
    int64_t seconds;
    out->value[i] = value;
    if (!value.data)
        return kind->column[i].optional;
    switch (kind->column[i].type) {
    case TRANSFER_ID:
        return rules_is_uuid(value);
    case TRANSFER_HASH:
        out->value[i] = (struct slice){(const char *)out->hash, sizeof(out->hash)};
        return unhex(value, out->hash);
    case TRANSFER_TIME:
        if (!store_time_parse(value, &seconds))
            return false;
        store_time_format(seconds, out->time[i]);
        out->value[i] = slice_of(out->time[i]);
        return true;
    case TRANSFER_TEXT:
        return (value.len > 0 || kind->column[i].optional) && !memchr(value.data, '\0', value.len);
    }
    return false;
}

int store_import_begin(struct store *store)
{
    return store_begin(store, BACKEND_WRITE);
}

int store_import_row(struct store *store, const struct transfer_kind *kind, const struct slice *values)
{
    struct converted row;
    size_t table = 0, count = 0;
    while (&tables[table].kind != kind)
        table++;
    for (; kind->column[count].name; count++)
        if (!convert(kind, count, values[count], &row))
            return store_fail(store, KV_EINVAL, "\"%s\" of a %s is missing or malformed", kind->column[count].name,
                              kind->name);
    int rows = store_run(store, &tables[table].write, row.value, count, NULL, NULL);
    if (rows == KV_EEXIST)
        return store_fail(store, KV_EEXIST, "this %s, or one with the same %s, is already in the database", kind->name,
                          table == 0   ? "address or slug"
                          : table == 1 ? "hash"
                                       : "name or subdomain");
    if (rows == KV_ENOTFOUND)
        return store_fail(store, KV_ENOTFOUND, "the user that this %s belongs to is not in the database", kind->name);
    return rows < 0 ? rows : KV_OK;
}

int store_import_commit(struct store *store)
{
    return store_commit(store);
}

void store_import_abandon(struct store *store)
{
    store_rollback(store);
}
