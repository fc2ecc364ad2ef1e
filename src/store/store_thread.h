/*
 * The asynchronous door to the store: threads of its own (one for SQLite, a few for PostgreSQL, one that watches) take
 * jobs in order and send each result back to the worker that asked. A slow or lost database delays new connects and
 * nothing else.
 *
 *     worker ── store_connect ──► queue ──► lane (store_thread.c) ── task ──► worker: done
 *     worker ── store_watch_start ──► list ◄── once a second ── watcher (store_watch.c) ── task ──► worker: closed
 */
#ifndef KV_STORE_STORE_THREAD_H
#define KV_STORE_STORE_THREAD_H

#include "store/store.h"

struct store_thread;
struct store_job;
struct store_watch;
struct worker;

/* Starts the thread(s) on a store that is open and migrated, which they own from here on. NULL without memory or
 * threads, and then the store is closed. */
struct store_thread *store_thread_start(struct store *store);

/* Lets the running jobs finish, drops the waiting ones without an answer, closes the store. Before it every watch has
 * been stopped, and after it no job may be cancelled; the workers still run. NULL is legal. */
void store_thread_stop(struct store_thread *thread);

/* Whether the database answered when it was last asked, a second ago at most. Any thread. */
bool store_thread_reachable(const struct store_thread *thread);

struct store_answer {
    int error;            /* of the first step that failed, as store.h says */
    const char *sentence; /* why, for the user; valid during the callback; may be "" */
    struct store_account account;
    char subdomain[LIMIT_LABEL_BYTES + 1]; /* of a named tunnel; of a random one, checked against stored names */
};

/*
 * Authenticates a token and resolves its name in one job: what a connecting tunnel needs. `name` empty: a random
 * subdomain is made with `random_name` (called on the store's thread, with a buffer of LIMIT_LABEL_BYTES + 1) until
 * it is no stored one. `done` runs once on `worker`, never before this returns, unless cancelled. A job that has
 * waited for nearly LIMIT_HELLO_MS is answered KV_EUNAVAIL. The slices are copied; the token copy is wiped. NULL
 * without memory, and then nothing happens. Any thread.
 */
struct store_job *store_connect(struct store_thread *thread, struct worker *worker, struct slice token,
                                struct slice name, void (*random_name)(char *out),
                                void (*done)(void *arg, const struct store_answer *answer), void *arg);

/* `done` will not be called. On the job's worker, before `done` ran. */
void store_cancel(struct store_job *job);

/* Calls `closed` on `worker` within 2 s of a token being revoked or expiring, a user being disabled or deleted, or a
 * name being released or given another subdomain, for every account watched. A watch is one live tunnel; `named` says
 * that its subdomain is a stored one. `closed` is called at most once, and the watch is to be stopped all the same.
 * NULL without memory. On that worker. */
struct store_watch *store_watch_start(struct store_thread *thread, struct worker *worker,
                                      const struct store_account *account, struct slice subdomain, bool named,
                                      void (*closed)(void *arg, const char *sentence), void *arg);
/* On its worker, from within `closed` too; nothing is called after. NULL is legal. */
void store_watch_stop(struct store_watch *watch);

#endif
