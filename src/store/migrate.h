/*
 * Schema migrations: numbered SQL files of each back end, embedded at build (cmake/migrations.cmake), applied in order.
 */
#ifndef KV_STORE_MIGRATE_H
#define KV_STORE_MIGRATE_H

struct store;

struct migration {
    int version; /* 1, 2, 3 ... without gaps; 0 ends the table */
    const char *name;
    const char *sql;
};

extern const struct migration sqlite_migrations[];
extern const struct migration postgres_migrations[];

/* Does the work of store_migrate() with that table. 0 or negative, with a sentence in the store. */
int migrate(struct store *store, const struct migration *known);

/* How many of the known migrations are not applied yet, without changing anything; negative as migrate(). */
int migrate_pending(struct store *store, const struct migration *known);

#endif
