/*
 * A worker is a thread with one libuv loop, its share of the connections and tunnels, and a mailbox. An object belongs
 * to one worker for life and is touched by that thread alone; what crosses threads is a message.
 *
 * One turn of the loop:
 *
 *     libuv callbacks ── only queue: sockets to receive from, bytes into chains, messages to receivers, objects to free
 *     receives        ── a burst of the sockets that have something (transfer.h)
 *     passing on      ── deliver messages, flush what became dirty, send, again until all three are empty
 *     again           ── from the receives on, until no socket has something
 *     free            ── what died in this turn
 *     give way        ── to threads that wait for this processor, if many sockets are busy and the turn met few of them
 *
 * The flush after each burst is where writes are coalesced: whatever a connection got by a burst leaves in one piece,
 * and what all of them have to send in as few system calls as the kernel allows. Freeing last is what lets a
 * callback end its own object without pulling the rug from its caller.
 */
#ifndef KV_IO_WORKER_H
#define KV_IO_WORKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

struct receive;
struct send;
struct uv_loop_s;
struct worker;
struct worker_group;

/* ---- workers --------------------------------------------------------------------------------------------------- */

/* Starts `count` (1..64) worker threads, idle until they get tasks. 0, KV_ENOMEM or KV_EIO. Blocks SIGPIPE for the
 * process. The caller's thread is none of them. */
int worker_group_start(unsigned count, struct worker_group **out);

/* Ends the loops, after everything that was opened on them is closed, joins the threads and frees the workers. The
 * caller has told its objects to close before; what is still open after `patience_ms` is named in the log at warn
 * level and left to the end of the process. */
void worker_group_stop(struct worker_group *group, unsigned patience_ms);

unsigned worker_count(const struct worker_group *group);
struct worker *worker_at(struct worker_group *group, unsigned index);

/* The worker that runs the calling thread; NULL on threads that are none. */
struct worker *worker_current(void);

/* 0 .. count-1. Any thread. */
unsigned worker_index(const struct worker *worker);
struct worker_group *worker_group_of(const struct worker *worker);

/* ---- on the worker's own thread -------------------------------------------------------------------------------- */

struct uv_loop_s *worker_loop(struct worker *worker);

/* Milliseconds of the monotonic clock, read once a turn. */
uint64_t worker_now(const struct worker *worker);

/* How often it has given way to other threads between two turns, because many sockets were busy and few were ready. */
unsigned worker_yields(const struct worker *worker);

/* Overwrites the buffers that receives share: what went through them may have been a secret. */
void worker_wipe_buffers(struct worker *worker);

/* What is received, and sent, in bursts (transfer.h). When very many wait to receive, they do so from inside the call:
 * it is the last thing that a callback of the loop does. */
void worker_receive_later(struct worker *worker, struct receive *receive);
void worker_send_later(struct worker *worker, struct send *send);

/* Intrusive node of the list of things to flush at the end of the turn. Zeroed when unused. */
struct flush_node {
    STAILQ_ENTRY(flush_node) next;
    bool queued;
    void (*flush)(struct flush_node *node);
};

/* Asks for node->flush once before the turn ends; asking twice is asking once. A flush may queue further flushes. */
void worker_flush_later(struct worker *worker, struct flush_node *node);
/* Takes it back; legal when it was not queued. */
void worker_flush_cancel(struct worker *worker, struct flush_node *node);

/* Intrusive node of the list of things to free after the turn's last flush. */
struct free_node {
    struct free_node *next;
    void (*free)(struct free_node *node);
};

/* Calls node->free after the last flush of this turn. */
void worker_free_later(struct worker *worker, struct free_node *node);

/* ---- messages -------------------------------------------------------------------------------------------------- */

/* Where a message goes: a slot of a worker, and the generation that the slot had when the address was made. A message
 * to a slot that has been reused or emptied since is dropped: late messages to dead objects are no error. */
struct address {
    struct worker *worker; /* NULL: nowhere, messages are dropped */
    uint32_t slot;
    uint32_t generation;
};

struct message {
    struct message *next;
    uint32_t slot;
    uint32_t generation;
    void (*drop)(struct message *message); /* frees the message and all it owns when nobody receives it */
};

/* Something that messages can be sent to; lives on one worker. */
struct receiver {
    /* Takes ownership of the message. Runs on the receiver's worker at the end of a turn; may detach itself. */
    void (*receive)(struct receiver *receiver, struct message *message);
    struct address address; /* set by receiver_attach */
};

/* Gives the receiver a slot and fills receiver->address. The worker's thread. 0 or KV_ENOMEM. */
int receiver_attach(struct worker *worker, struct receiver *receiver);

/* Empties the slot: nothing is received after this. Legal when not attached. The worker's thread. */
void receiver_detach(struct receiver *receiver);

static inline bool address_is_set(struct address a)
{
    return a.worker != NULL;
}

static inline bool address_equals(struct address a, struct address b)
{
    return a.worker == b.worker && a.slot == b.slot && a.generation == b.generation;
}

/* Sends; takes ownership of the message at once. Any thread. Messages from one thread to one receiver arrive in the
 * order they were sent. To the own worker no wake-up is paid: it is delivered at the end of this turn. */
void message_send(struct address to, struct message *message);

/* A message that is a piece of work for a worker and not for an object. */
struct task {
    struct message message;
    void (*run)(struct task *task); /* on the worker's thread; owns and frees the task */
};

/* Runs task->run on that worker. The task is zeroed but for run, and optionally message.drop, which frees it when the
 * worker ends before it ran. Any thread. */
void worker_run(struct worker *worker, struct task *task);

/* ---- timers ---------------------------------------------------------------------------------------------------- */

/*
 * A deadline that is cheap to move: arming is a store, one libuv timer a worker walks a wheel. Resolution is 50 ms: a
 * deadline fires between its time and its time plus 50 ms. A zeroed struct with `expired` set is unarmed.
 */
struct deadline {
    struct deadline *next, **link; /* wheel slot's list */
    uint64_t at;                   /* worker_now() units; 0: unarmed */
    void (*expired)(struct deadline *deadline);
};

/* (Re)arms to fire once, `after_ms` from now. The worker's thread. */
void deadline_arm(struct worker *worker, struct deadline *deadline, uint64_t after_ms);
/* Legal when unarmed. Nothing fires after. */
void deadline_cancel(struct deadline *deadline);
static inline bool deadline_armed(const struct deadline *deadline)
{
    return deadline->at != 0;
}

#endif
