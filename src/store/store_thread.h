/*
 * The asynchronous door to the store: one thread (or a few, for PostgreSQL) takes jobs in order and sends each result
 * back to the worker that asked. A slow or lost database delays new connects and nothing else.
 */
#ifndef KV_STORE_STORE_THREAD_H
#define KV_STORE_STORE_THREAD_H

#include "store/store.h"

struct store_thread;
struct store_job;
struct worker;

/* Starts the thread(s) on a store that is open and migrated, which they own from here on. NULL without memory. */
struct store_thread *store_thread_start(struct store *store);
/* Lets the running job finish, drops the waiting ones without an answer, closes the store. NULL is legal. */
void store_thread_stop(struct store_thread *thread);

struct store_answer {
    int error;                                /* of the first step that failed, as store.h says */
    const char *sentence;                     /* why, for the user; valid during the callback; may be "" */
    struct store_account account;
    char subdomain[LIMIT_LABEL_BYTES + 1];    /* of a named tunnel; of a random one, checked against stored names */
};

/*
 * Authenticates a token and resolves its name in one job: what a connecting tunnel needs. `name` empty: a random
 * subdomain is made with `random_name` (called on the store's thread, with a buffer of LIMIT_LABEL_BYTES + 1) until
 * it is no stored one. `done` runs once on `worker`, unless cancelled. The slices are copied; the token copy is wiped.
 * NULL without memory, and then nothing happens.
 */
struct store_job *store_connect(struct store_thread *thread, struct worker *worker, struct slice token,
                                struct slice name, void (*random_name)(char *out),
                                void (*done)(void *arg, const struct store_answer *answer), void *arg);

/* `done` will not be called. On the job's worker, before `done` ran. */
void store_cancel(struct store_job *job);

/* Calls `closed` on `worker` within 2 s of a token being revoked or expiring, a user being disabled or deleted, or a
 * name being released, for every account watched. A watch is one live tunnel. NULL without memory. */
struct store_watch *store_watch_start(struct store_thread *thread, struct worker *worker,
                                      const struct store_account *account, struct slice subdomain, bool named,
                                      void (*closed)(void *arg, const char *sentence), void *arg);
/* On its worker; nothing is called after. NULL is legal. */
void store_watch_stop(struct store_watch *watch);

#endif
