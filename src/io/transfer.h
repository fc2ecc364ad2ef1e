/*
 * Receives and sends, gathered over a turn and made together. Whoever wants one queues a node; the turn makes all of
 * them by one system call for many (ring.h) or by one for each, and tells each how it went.
 *
 * Receives are made when the loop has heard which sockets have something, in bursts: what a burst brought is passed on,
 * with its messages, flushes and sends, before the next, so that others work on it meanwhile. Small receives go into
 * small buffers beside each other, which stay in the processor's cache; a socket that fills its own is given the large
 * one, alone, until it no longer needs it.
 *
 * All of it belongs to one worker and its thread.
 */
#ifndef KV_IO_TRANSFER_H
#define KV_IO_TRANSFER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/queue.h>
#include <sys/types.h>

struct chain;
struct ring;

/* Wants to receive, once. Zeroed but for `fd` and `received` when unused; may be queued again from `received`. */
struct receive {
    STAILQ_ENTRY(receive) next;
    int fd; /* -1: no longer */
    bool queued;
    unsigned round; /* in which it was counted last (transfers_count_anew) */
    bool large;     /* the last time there was more than a small buffer takes */
    /* n bytes at `bytes`, valid until return; n 0: the peer has ended its direction; negative: -errno, -EAGAIN among
     * them. True to be given what further bytes there are in this turn. */
    bool (*received)(struct receive *receive, char *bytes, ssize_t n);
};

/* Wants to send what is in `chain`, once. */
struct send {
    STAILQ_ENTRY(send) next;
    int fd; /* -1: no longer */
    bool queued;
    const struct chain *chain; /* not empty; unchanged until `sent`, which takes away what has left */
    /* n of `offered` bytes were taken, or -errno. */
    void (*sent)(struct send *send, ssize_t n, size_t offered);
};

struct transfers {
    STAILQ_HEAD(, receive) receives;
    unsigned receive_count;        /* queued now */
    unsigned wanted;               /* queued ever; it may wrap */
    unsigned round, round_sockets; /* how often was counted anew, and what there was since */
    STAILQ_HEAD(, send) sends;
    char *buffers;
    size_t used;       /* of the buffers, since they were wiped */
    struct ring *ring; /* NULL: one system call for each transfer */
};

/* Before the thread that transfers will be made by begins. 0 or KV_ENOMEM. */
int transfers_init(struct transfers *t);
/* After it has ended. Legal on zeros. */
void transfers_free(struct transfers *t);

/* On that thread, first and last: a ring belongs to the thread that opens it. Without one all works as well. */
void transfers_begin(struct transfers *t);
void transfers_end(struct transfers *t);

/* Queued already is queued once. The node stays where it is until the turn's end. */
void transfers_receive_later(struct transfers *t, struct receive *receive);
void transfers_send_later(struct transfers *t, struct send *send);

/* Make the receives of one burst, and all sends. `received` and `sent` may queue more, of either kind, close sockets,
 * and end the owners of other nodes, which set their fd to -1. */
void transfers_receive(struct transfers *t);
void transfers_send(struct transfers *t);

static inline bool transfers_want_receive(const struct transfers *t)
{
    return !STAILQ_EMPTY(&t->receives);
}

/* How many sockets had something to receive since the last time, each counted once. */
unsigned transfers_count_anew(struct transfers *t);

static inline bool transfers_want_send(const struct transfers *t)
{
    return !STAILQ_EMPTY(&t->sends);
}

/* One send that does not wait, at once, past the queue. */
ssize_t transfers_send_now(int fd, const struct chain *chain);

/* Overwrites the buffers: they may have held a secret. */
void transfers_wipe(struct transfers *t);

#endif
