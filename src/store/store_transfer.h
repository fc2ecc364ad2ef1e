/*
 * Everything in the store, row by row: for `admin export` and `admin import`, which move accounts between files and
 * back ends. Token texts are not in it, since they are nowhere; hashes are, so that tokens go on working.
 */
#ifndef KV_STORE_STORE_TRANSFER_H
#define KV_STORE_STORE_TRANSFER_H

#include "store/store.h"

#define TRANSFER_COLUMNS_MAX 8

/* One kind of row. Column texts are as they are stored, but times are RFC 3339 UTC and hashes are hex. */
struct transfer_kind {
    const char *name; /* "user", "token", "name" */
    struct {
        const char *name; /* NULL behind the last */
        enum {
            TRANSFER_TEXT,
            TRANSFER_ID,
            TRANSFER_TIME,
            TRANSFER_HASH
        } type;
        bool optional; /* may be NULL */
    } column[TRANSFER_COLUMNS_MAX + 1];
};

/* The kinds, in an order in which parents come first. NULL behind the last. */
const struct transfer_kind *transfer_kind_at(size_t index);

/* Calls `row` for every row of one snapshot, deleted users and released names too; a value that is NULL has no data.
 * Non-zero ends it with that result. KV_OK, KV_EUNAVAIL. */
int store_export(struct store *store,
                 int (*row)(void *arg, const struct transfer_kind *kind, const struct slice *values), void *arg);

/* An import is one transaction: begin, rows, and then commit or abandon. */
int store_import_begin(struct store *store);
/* KV_EINVAL for a value that is not of its column's type, KV_EEXIST when the row or one that it collides with is there,
 * KV_ENOTFOUND when its user is not; KV_EUNAVAIL. After a failure only store_import_abandon() may follow. */
int store_import_row(struct store *store, const struct transfer_kind *kind, const struct slice *values);
int store_import_commit(struct store *store);
void store_import_abandon(struct store *store);

#endif
