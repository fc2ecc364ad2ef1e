/*
 * The loop's turn, the mailbox, the slots that messages are addressed to, and the start and end of the threads.
 * Deadlines live in deadline.c; both see struct worker through worker_impl.h.
 *
 * The mailbox is a stack that any thread pushes to with one compare-and-swap and that its worker empties with one
 * exchange and reverses, so there is no lock and no contention but the cache line. Only the push that found the stack
 * empty pays for a wake-up: the worker that is awake takes everything that came meanwhile.
 */
#include "io/worker.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/pool.h"
#include "io/ring.h"
#include "io/worker_impl.h"

#define TASK_SLOT     UINT32_MAX /* the receiver of a task is the worker itself */

/* libuv asks the kernel again and again in one turn while 1024 sockets are ready, and those that nobody has received
 * from are ready each time. So there are never as many that wait. */
#define RECEIVES_MAX  512

/* When to give way between two turns (give_way()). */
#define YIELD_BUSY    8        /* sockets that had something within a round: with fewer there is little to gather */
#define YIELD_BELOW   RING_OPS /* sockets that the turn met: a full burst is enough */
#define ROUND_MS      2
/* Programs that we exchange requests with are done sooner. One that takes so long computes for itself, and would take a
 * whole slice every turn. */
#define YIELD_LONG_NS (2 * 1000 * 1000)
#define YIELD_STAYS   64 /* turns that would give way and do not, after one that was so long */

struct worker_group {
    unsigned count;
    struct worker *workers;
};

static _Thread_local struct worker *current;

/* ---- the turn -------------------------------------------------------------------------------------------------- */

static void deliver(struct worker *w, struct message *m)
{
    if (m->slot == TASK_SLOT) {
        struct task *task = (struct task *)m;
        task->run(task);
        return;
    }
    if (m->slot < w->slot_count && w->slots[m->slot].generation == m->generation && w->slots[m->slot].receiver) {
        struct receiver *receiver = w->slots[m->slot].receiver;
        receiver->receive(receiver, m);
        return;
    }
    m->drop(m);
}

static void deliver_list(struct worker *w, struct message *m)
{
    while (m) {
        struct message *next = m->next;
        m->next = NULL;
        deliver(w, m);
        m = next;
    }
}

/* What other threads sent, oldest first. */
static struct message *take_inbox(struct worker *w)
{
    struct message *newest = atomic_exchange_explicit(&w->inbox, NULL, memory_order_acquire);
    struct message *oldest = NULL;
    while (newest) {
        struct message *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    return oldest;
}

static void flush_all(struct worker *w)
{
    struct flush_node *node;
    while ((node = STAILQ_FIRST(&w->flushes))) {
        STAILQ_REMOVE_HEAD(&w->flushes, next);
        node->queued = false;
        node->flush(node);
    }
}

/* The inbox is taken once a burst, so that a busy neighbour cannot keep us from polling; what we send ourselves is
 * delivered until there is no more. */
static void pass_on(struct worker *w)
{
    deliver_list(w, take_inbox(w));
    while (w->local_head || !STAILQ_EMPTY(&w->flushes) || transfers_want_send(&w->transfers)) {
        struct message *local = w->local_head;
        w->local_head = w->local_tail = NULL;
        deliver_list(w, local);
        if (!w->local_head)
            flush_all(w);
        if (!w->local_head)
            transfers_send(&w->transfers);
    }
}

/* Only when no receive is queued: its node may lie in what is freed. */
static void free_dead(struct worker *w)
{
    while (w->free_head) {
        struct free_node *node = w->free_head;
        w->free_head = node->next;
        node->free(node);
    }
}

/* A turn that meets few of many busy sockets is one of many such, and each costs a wait and, on the link that all
 * share, a receive and a send. Often those that are about to make more of them ready wait for this very processor: they
 * go first, and the next turn meets more. */
static void give_way(struct worker *w)
{
    uint64_t round = worker_now(w) - w->round_began;
    unsigned met = w->transfers.wanted - w->wanted_before;
    w->wanted_before = w->transfers.wanted;
    if (round >= ROUND_MS) {
        unsigned sockets = transfers_count_anew(&w->transfers);
        w->busy = round < 2 * ROUND_MS ? sockets : 0;
        w->round_began = worker_now(w);
    }
    if (met == 0 || met >= YIELD_BELOW || w->busy < YIELD_BUSY)
        return;
    if (w->stays > 0) {
        w->stays--;
        return;
    }
    w->yields++;
    uint64_t began = uv_hrtime();
    sched_yield();
    if (uv_hrtime() - began >= YIELD_LONG_NS)
        w->stays = YIELD_STAYS;
}

static void on_prepare(uv_prepare_t *handle)
{
    struct worker *w = handle->data;
    pass_on(w);
    free_dead(w);
    give_way(w);
}

/* What one burst brought leaves before the next, so that others work on it meanwhile. */
static void on_check(uv_check_t *handle)
{
    struct worker *w = handle->data;
    do {
        transfers_receive(&w->transfers);
        pass_on(w);
    } while (transfers_want_receive(&w->transfers));
    free_dead(w);
}

/* Nothing to do: being awake is the point, the check phase of this turn takes the inbox. */
static void on_wake(uv_async_t *handle)
{
    (void)handle;
}

/* ---- messages and slots ---------------------------------------------------------------------------------------- */

static void send_local(struct worker *w, struct message *m)
{
    m->next = NULL;
    if (w->local_tail)
        w->local_tail->next = m;
    else
        w->local_head = m;
    w->local_tail = m;
}

static void send_remote(struct worker *w, struct message *m)
{
    struct message *head = atomic_load_explicit(&w->inbox, memory_order_relaxed);
    do
        m->next = head;
    while (!atomic_compare_exchange_weak_explicit(&w->inbox, &head, m, memory_order_release, memory_order_relaxed));
    if (!head)
        uv_async_send(&w->wake);
}

void message_send(struct address to, struct message *message)
{
    if (!to.worker) {
        message->drop(message);
        return;
    }
    message->slot = to.slot;
    message->generation = to.generation;
    if (to.worker == current)
        send_local(to.worker, message);
    else
        send_remote(to.worker, message);
}

static void drop_task(struct message *message)
{
    (void)message;
}

void worker_run(struct worker *worker, struct task *task)
{
    if (!task->message.drop)
        task->message.drop = drop_task;
    message_send((struct address){worker, TASK_SLOT, 0}, &task->message);
}

int receiver_attach(struct worker *worker, struct receiver *receiver)
{
    if (worker->slot_free == NO_SLOT) {
        uint32_t count = worker->slot_count ? worker->slot_count * 2 : 64;
        struct slot *slots = reallocarray(worker->slots, count, sizeof(*slots));
        if (!slots)
            return KV_ENOMEM;
        for (uint32_t i = worker->slot_count; i < count; i++)
            slots[i] = (struct slot){.generation = 1, .next_free = i + 1 < count ? i + 1 : NO_SLOT};
        worker->slot_free = worker->slot_count;
        worker->slots = slots;
        worker->slot_count = count;
    }
    uint32_t index = worker->slot_free;
    struct slot *slot = &worker->slots[index];
    worker->slot_free = slot->next_free;
    slot->receiver = receiver;
    receiver->address = (struct address){worker, index, slot->generation};
    return KV_OK;
}

void receiver_detach(struct receiver *receiver)
{
    struct worker *w = receiver->address.worker;
    if (!w)
        return;
    struct slot *slot = &w->slots[receiver->address.slot];
    slot->receiver = NULL;
    slot->generation++;
    slot->next_free = w->slot_free;
    w->slot_free = receiver->address.slot;
    receiver->address = (struct address){0};
}

/* ---- flushes and frees ----------------------------------------------------------------------------------------- */

void worker_flush_later(struct worker *worker, struct flush_node *node)
{
    if (node->queued)
        return;
    node->queued = true;
    STAILQ_INSERT_TAIL(&worker->flushes, node, next);
}

void worker_flush_cancel(struct worker *worker, struct flush_node *node)
{
    if (!node->queued)
        return;
    STAILQ_REMOVE(&worker->flushes, node, flush_node, next);
    node->queued = false;
}

void worker_free_later(struct worker *worker, struct free_node *node)
{
    node->next = worker->free_head;
    worker->free_head = node;
}

void worker_receive_later(struct worker *worker, struct receive *receive)
{
    transfers_receive_later(&worker->transfers, receive);
    if (worker->transfers.receive_count < RECEIVES_MAX)
        return;
    while (transfers_want_receive(&worker->transfers))
        transfers_receive(&worker->transfers);
}

void worker_send_later(struct worker *worker, struct send *send)
{
    transfers_send_later(&worker->transfers, send);
}

/* ---- small facts ----------------------------------------------------------------------------------------------- */

unsigned worker_count(const struct worker_group *group)
{
    return group->count;
}

struct worker *worker_at(struct worker_group *group, unsigned index)
{
    return &group->workers[index];
}

struct worker *worker_current(void)
{
    return current;
}

unsigned worker_index(const struct worker *worker)
{
    return worker->index;
}

struct worker_group *worker_group_of(const struct worker *worker)
{
    return worker->group;
}

struct uv_loop_s *worker_loop(struct worker *worker)
{
    return &worker->loop;
}

uint64_t worker_now(const struct worker *worker)
{
    return uv_now(&worker->loop);
}

unsigned worker_yields(const struct worker *worker)
{
    return worker->yields;
}

void worker_wipe_buffers(struct worker *worker)
{
    transfers_wipe(&worker->transfers);
}

/* ---- start and end --------------------------------------------------------------------------------------------- */

static void *thread_main(void *arg)
{
    struct worker *w = arg;
    current = w;
    transfers_begin(&w->transfers);
    uv_run(&w->loop, UV_RUN_DEFAULT);
    transfers_end(&w->transfers);
    pool_drain();
    return NULL;
}

/* The wake-up handle is the only one of ours that keeps the loop alive; the others ride along. */
static int open_handles(struct worker *w)
{
    if (uv_async_init(&w->loop, &w->wake, on_wake) != 0)
        return KV_EIO;
    uv_prepare_init(&w->loop, &w->prepare);
    uv_check_init(&w->loop, &w->check);
    uv_timer_init(&w->loop, &w->patience);
    uv_timer_init(&w->loop, &w->wheel.timer);
    w->prepare.data = w->check.data = w->patience.data = w->wheel.timer.data = w;
    uv_prepare_start(&w->prepare, on_prepare);
    uv_check_start(&w->check, on_check);
    uv_unref((uv_handle_t *)&w->prepare);
    uv_unref((uv_handle_t *)&w->check);
    uv_unref((uv_handle_t *)&w->patience);
    uv_unref((uv_handle_t *)&w->wheel.timer);
    return KV_OK;
}

static bool drop_list(struct message *m)
{
    bool any = m != NULL;
    while (m) {
        struct message *next = m->next;
        m->drop(m);
        m = next;
    }
    return any;
}

/* Messages that nobody will receive. Dropping one may send another (an OPEN that finds nobody turns round), so this
 * comes before the first loop is closed and goes on until all are quiet. */
static void drop_messages(struct worker_group *group)
{
    bool any;
    do {
        any = false;
        for (unsigned i = 0; i < group->count; i++) {
            struct worker *w = &group->workers[i];
            struct message *local = w->local_head;
            w->local_head = w->local_tail = NULL;
            any |= drop_list(local);
            any |= drop_list(take_inbox(w));
        }
    } while (any);
}

/* Takes a worker apart whose thread has ended (or never began). False if something was left open in its loop: then it
 * cannot be closed without running the callbacks of what is open, here on a foreign thread, and libuv's pool may call
 * into it yet; so its memory stays. */
static bool dispose(struct worker *w)
{
    if (w->gave_up)
        return false;
    uv_handle_t *ours[] = {(uv_handle_t *)&w->wake, (uv_handle_t *)&w->prepare, (uv_handle_t *)&w->check,
                           (uv_handle_t *)&w->patience, (uv_handle_t *)&w->wheel.timer};
    for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++)
        if (ours[i]->loop)
            uv_close(ours[i], NULL);
    uv_run(&w->loop, UV_RUN_NOWAIT);
    bool closed = uv_loop_close(&w->loop) == 0;
    free(w->slots);
    transfers_free(&w->transfers);
    return closed;
}

static void on_never(uv_poll_t *poll, int status, int events)
{
    (void)poll;
    (void)status;
    (void)events;
}

/*
 * libuv keeps a table by descriptor, lets it grow as descriptors come, and ends the process when there is no memory for
 * that. So it grows now, by a descriptor with a high number that is watched for a moment, while having no memory is
 * still an error at the start. A process that is allowed fewer descriptors needs no more.
 */
static void grow_watchers(uv_loop_t *loop)
{
    struct rlimit limit;
    uv_poll_t poll;
    int high = LIMIT_DESCRIPTORS_AHEAD - 1;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < LIMIT_DESCRIPTORS_AHEAD)
        high = (int)limit.rlim_cur - 1;
    int copy = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, high);
    if (copy >= 0 && uv_poll_init(loop, &poll, copy) == 0) {
        uv_poll_start(&poll, UV_READABLE, on_never);
        uv_close((uv_handle_t *)&poll, NULL);
        uv_run(loop, UV_RUN_NOWAIT);
    }
    if (copy >= 0)
        close(copy);
    if (fd >= 0)
        close(fd);
}

static int start_one(struct worker *w)
{
    if (transfers_init(&w->transfers) != KV_OK)
        return KV_ENOMEM;
    if (uv_loop_init(&w->loop) != 0) {
        transfers_free(&w->transfers);
        return KV_EIO;
    }
    grow_watchers(&w->loop);
    int error = open_handles(w);
    if (!error && pthread_create(&w->thread, NULL, thread_main, w) != 0)
        error = KV_EIO;
    if (error)
        dispose(w);
    return error;
}

int worker_group_start(unsigned count, struct worker_group **out)
{
    struct worker_group *group = calloc(1, sizeof(*group));
    if (!group)
        return KV_ENOMEM;
    pool_keep_heap();
    group->workers = aligned_alloc(_Alignof(struct worker), count * sizeof(*group->workers));
    if (!group->workers) {
        free(group);
        return KV_ENOMEM;
    }
    memset(group->workers, 0, count * sizeof(*group->workers));
    signal(SIGPIPE, SIG_IGN);
    for (unsigned i = 0; i < count; i++) {
        struct worker *w = &group->workers[i];
        w->index = i;
        w->group = group;
        w->slot_free = NO_SLOT;
        STAILQ_INIT(&w->flushes);
        int error = start_one(w);
        if (error) {
            worker_group_stop(group, 0);
            return error;
        }
        group->count++;
    }
    *out = group;
    return KV_OK;
}

static void name_handle(uv_handle_t *handle, void *arg)
{
    struct worker *w = arg;
    if (uv_has_ref(handle) && uv_is_active(handle))
        log_warn("left open at the end", log_str("handle", uv_handle_type_name(handle->type)),
                 log_uint("worker", w->index));
}

static void on_patience(uv_timer_t *timer)
{
    struct worker *w = timer->data;
    w->gave_up = true;
    uv_walk(&w->loop, name_handle, w);
    uv_stop(&w->loop);
}

struct stop_task {
    struct task task;
    struct worker *worker;
    unsigned patience_ms;
};

static void run_stop(struct task *task)
{
    struct stop_task *stop = (struct stop_task *)task;
    struct worker *w = stop->worker;
    uv_unref((uv_handle_t *)&w->wake);
    uv_timer_start(&w->patience, on_patience, stop->patience_ms, 0);
}

void worker_group_stop(struct worker_group *group, unsigned patience_ms)
{
    if (!group)
        return;
    struct stop_task stops[64] = {0};
    for (unsigned i = 0; i < group->count; i++) {
        stops[i] = (struct stop_task){.task.run = run_stop, .worker = &group->workers[i], .patience_ms = patience_ms};
        worker_run(&group->workers[i], &stops[i].task);
    }
    for (unsigned i = 0; i < group->count; i++)
        pthread_join(group->workers[i].thread, NULL);
    drop_messages(group);
    bool closed = true;
    for (unsigned i = 0; i < group->count; i++)
        closed &= dispose(&group->workers[i]);
    if (closed)
        free(group->workers);
    free(group);
}
