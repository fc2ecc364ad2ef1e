/* Runs a function on a worker's thread and waits for it; and waits for things that workers do, never for time. */
#ifndef KV_TEST_ON_WORKER_H
#define KV_TEST_ON_WORKER_H

#include <errno.h>
#include <semaphore.h>
#include <time.h>

#include "io/worker.h"

#define TEST_PATIENCE_S 20 /* for things that take milliseconds, on a machine that is busy with other tests */

/* False when nobody posted in time. */
static inline bool wait_for(sem_t *semaphore)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += TEST_PATIENCE_S;
    int result;
    do
        result = sem_timedwait(semaphore, &until);
    while (result != 0 && errno == EINTR);
    return result == 0;
}

struct on_worker {
    struct task task;
    void (*run)(struct worker *worker, void *arg);
    void *arg;
    sem_t done;
};

static inline void on_worker_run(struct task *task)
{
    struct on_worker *call = (struct on_worker *)task;
    call->run(worker_current(), call->arg);
    sem_post(&call->done);
}

static inline void on_worker(struct worker *worker, void (*run)(struct worker *worker, void *arg), void *arg)
{
    struct on_worker call = {.task.run = on_worker_run, .run = run, .arg = arg};
    sem_init(&call.done, 0, 0);
    worker_run(worker, &call.task);
    while (sem_wait(&call.done) != 0) /* the call lives on this stack: there is no giving up */
        ;
    sem_destroy(&call.done);
}

#endif
