/*
 * The seam between what the store does and which database does it. The rules and their SQL are written once, above the
 * seam (store.c, store_admin.c, migrate.c); a back end runs one statement or one transaction, and sorts the database's
 * refusals into kv_error. That is how SQLite and PostgreSQL cannot come to behave differently.
 *
 * Below the seam: sqlite.c, pg.c. A back end connects when it is first used and again, with back-off, after it lost
 * its database; nobody above has to know. Everything here is used by one thread at a time.
 *
 * Values cross the seam as text, both ways: UUIDs, RFC 3339 times, numbers. The only bytes are parameters marked so.
 */
#ifndef KV_STORE_STORE_BACKEND_H
#define KV_STORE_STORE_BACKEND_H

#include <stdbool.h>
#include <stdint.h>

#include "store/migrate.h"
#include "store/store.h"

/* Waiting for a database. Each is shorter than LIMIT_HELLO_MS, so that a connecting tunnel hears UNAVAILABLE and why
 * instead of running into its own deadline. */
#define BACKEND_CONNECT_MS     4000
#define BACKEND_QUERY_MS       4000
#define BACKEND_LOCK_MS        3000   /* for another process's write to end */
#define BACKEND_MIGRATE_MS     120000 /* another server may be migrating a large database: one applies, one waits */
#define BACKEND_RETRY_FIRST_MS 250
#define BACKEND_RETRY_MAX_MS   4000 /* how long a healed database may go unnoticed */
#define BACKEND_STATEMENTS_MAX 64   /* prepared statements of one connection: all that the program has */
#define BACKEND_PARAMETERS_MAX 8
#define BACKEND_COLUMNS_MAX    12
#define BACKEND_PARAMETERS_BYTES                                                                                       \
    (64UL * 1024 * 1024) /* one statement's; the watcher sends the ids of all live tunnels */

/* One SQL statement. Statements are static: their address is the key of the prepared ones. Parameters are $1, $2 ... in
 * both dialects. */
struct statement {
    const char *sqlite;
    const char *postgres;
    unsigned bytes;   /* bit i set: parameter i + 1 holds bytes and not text */
    bool may_be_lost; /* best effort: do not wait for a lock */
};

/* Initialises a statement that is the same in both dialects. */
#define BOTH(sql) .sqlite = (sql), .postgres = (sql)

/* Called for each row; a column that is NULL has data == NULL. The values live until it returns. Non-zero ends the
 * statement with that result. */
typedef int backend_row_fn(void *arg, const struct slice *columns);

enum backend_transaction {
    BACKEND_WRITE,   /* writers wait for one another, BACKEND_LOCK_MS at most */
    BACKEND_MIGRATE, /* the same for BACKEND_MIGRATE_MS, and only one migrator at a time */
    BACKEND_READ, /* one snapshot for all statements, which may take BACKEND_MIGRATE_MS each: they read whole tables */
};

struct backend {
    const struct backend_ops *ops;
    char error[STORE_ERROR_LEN]; /* of the last failure, one sentence for the operator */
};

struct backend_ops {
    const char *name;
    const struct migration *migrations;
    unsigned threads; /* of connections that are worth having at once */

    /* 0 when the database can be asked; connects when it must. KV_EUNAVAIL. The other calls do this themselves. */
    int (*connect)(struct backend *backend);

    /* The number of rows (returned or, without a result, changed), or KV_EEXIST for a uniqueness rule, KV_ENOTFOUND for
     * a missing parent row, KV_EUNAVAIL, KV_ENOMEM, KV_EIO for all else. `row` may be NULL. A parameter whose data is
     * NULL is NULL. */
    int (*run)(struct backend *backend, const struct statement *statement, const struct slice *parameters, size_t count,
               backend_row_fn *row, void *arg);

    /* Several statements without parameters, for migrations. */
    int (*script)(struct backend *backend, const char *sql);

    int (*begin)(struct backend *backend, enum backend_transaction kind);
    /* After a failure nothing is committed, except that KV_EUNAVAIL may come from an answer that was lost. */
    int (*commit)(struct backend *backend);
    void (*rollback)(struct backend *backend); /* keeps `error` */

    void (*free)(struct backend *backend);
};

/* Both only note where the database is; NULL on what cannot be one, with the sentence in error[STORE_ERROR_LEN]. */
struct backend *sqlite_backend(const char *path, bool make_folder, char *error);
struct backend *pg_backend(const char *conninfo, char *error);

struct store {
    struct backend *backend;
    char *url;
    char error[STORE_ERROR_LEN];
    void (*draw)(char *out, size_t len); /* the hex digits of a slug: random_hex, but for tests */
};

/* Another store on the same database, for another thread; connects when first used. NULL without memory. */
struct store *store_clone(const struct store *store);

/* Runs a statement; `...` of the macro are slices. As ops->run, with the sentence copied to the store. */
int store_run(struct store *store, const struct statement *statement, const struct slice *parameters, size_t count,
              backend_row_fn *row, void *arg);
#define STORE_RUN(store, statement, row, arg, ...)                                                                     \
    store_run(store, statement, (const struct slice[]){__VA_ARGS__},                                                   \
              sizeof((const struct slice[]){__VA_ARGS__}) / sizeof(struct slice), row, arg)

int store_begin(struct store *store, enum backend_transaction kind);
int store_commit(struct store *store);
void store_rollback(struct store *store);

/* Sets the sentence and returns `error`. */
int store_fail(struct store *store, int error, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* A row function for one row: copies the columns' text into the fields of `arg`, a struct text_row. */
struct text_row {
    size_t count;
    struct {
        char *into; /* gets "" for NULL; too long a value is cut */
        size_t size;
    } column[BACKEND_COLUMNS_MAX];
};
backend_row_fn store_copy_row;

/* Single values: a text, cut where it does not fit; a time in our own form, or as it stands when it is none. NULL gives
 * "". */
void store_copy_text(char *into, size_t size, struct slice value);
void store_copy_time(char into[21], struct slice value);

/* A new random UUID (RFC 9562, 5.4). */
void store_new_id(char id[STORE_ID_LEN + 1]);

#endif
