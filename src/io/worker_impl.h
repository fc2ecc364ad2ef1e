/* The inside of a worker, shared by worker.c (turns, messages) and deadline.c (the wheel); nobody else includes it. */
#ifndef KV_IO_WORKER_IMPL_H
#define KV_IO_WORKER_IMPL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <uv.h>

#include "io/transfer.h"
#include "io/worker.h"

#define NO_SLOT UINT32_MAX

struct slot {
    struct receiver *receiver;
    uint32_t generation;
    uint32_t next_free;
};

#define WHEEL_SLOTS   512
#define WHEEL_TICK_MS 50

struct wheel {
    uv_timer_t timer;
    struct deadline *slots[WHEEL_SLOTS];
    uint64_t tick; /* every slot up to this tick has been walked */
    uint64_t due;  /* tick the timer is set to; 0: not running */
};

struct worker {
    uv_loop_t loop;
    uv_async_t wake;
    uv_prepare_t prepare;
    uv_check_t check;
    uv_timer_t patience;
    struct wheel wheel;
    pthread_t thread;
    unsigned index;
    struct worker_group *group;
    struct transfers transfers;
    uint64_t round_began;   /* worker_now() units */
    unsigned busy;          /* sockets that had something to receive in the last round */
    unsigned wanted_before; /* transfers.wanted at the end of the last turn */
    unsigned yields;
    unsigned stays; /* turns that would give way and will not */
    bool gave_up;   /* something was still open when patience ended */

    struct slot *slots;
    uint32_t slot_count;
    uint32_t slot_free;

    struct message *local_head, *local_tail;
    STAILQ_HEAD(, flush_node) flushes;
    struct free_node *free_head;

    /* On a cache line of its own: the one thing that other threads write. */
    _Alignas(64) _Atomic(struct message *) inbox;
};

#endif
