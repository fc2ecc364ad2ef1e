/* What store_thread.c and store_watch.c share; nobody else includes this. */
#ifndef KV_STORE_STORE_THREAD_IMPL_H
#define KV_STORE_STORE_THREAD_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "store/store_backend.h"
#include "store/store_thread.h"

#define STORE_LANES_MAX     8
#define STORE_POLL_MS       1000                    /* half of what the watch promises */
#define STORE_JOB_MS        (LIMIT_HELLO_MS - 2000) /* what a job may wait: its answer must still reach the client */
#define STORE_STORM_JOBS    16                      /* so many waiting connects are a storm: remembered answers do */
#define STORE_REMEMBER_MS   3000                    /* how old a remembered token check may be */
#define STORE_REMEMBER_ROWS 1024                    /* tokens remembered */
#define STORE_RANDOM_TRIES  32                      /* random names that are stored ones, in a row */

/* Runs jobs, with a connection of its own. */
struct store_lane {
    struct store_thread *owner;
    struct store *store;
    pthread_t thread;
    bool running;
};

/* A token check that succeeded; `until` 0 is an empty row. */
struct store_memory {
    uint8_t hash[32];
    uint64_t until;
    struct store_account account;
};

struct store_thread {
    pthread_mutex_t lock;
    pthread_cond_t job_waits;  /* wakes a lane */
    pthread_cond_t stop_waits; /* wakes the watcher */
    bool stopping;
    struct store_job *first, **last;
    size_t waiting;
    struct store_memory *memory; /* STORE_REMEMBER_ROWS, by the first bytes of the hash */
    struct store_watch *watches;
    uint64_t poll;
    atomic_bool reachable;
    unsigned lanes;
    struct store_lane lane[STORE_LANES_MAX];
    struct store_lane watcher;
};

/* The watcher's thread; arg is the struct store_thread. */
void *store_watch_main(void *arg);

/* Notes and logs whether the database answers. Any thread. */
void store_note_reachable(struct store_thread *thread, bool reachable, const char *why);

/* Forgets remembered checks of this token. With the lock held. */
void store_forget_token(struct store_thread *thread, const char *token_id);

#endif
