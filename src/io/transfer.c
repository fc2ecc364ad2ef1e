/* How a turn's transfers are made; transfer.h tells when, and for whom. */
#include "io/transfer.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "base/blake3.h"
#include "base/chunk.h"
#include "base/error.h"
#include "base/limits.h"
#include "base/log.h"
#include "io/ring.h"

#define SMALL_BYTES  4096                /* a request's head, an answer of some KiB */
#define SMALL_STRIDE (SMALL_BYTES + 320) /* beginnings 4 KiB apart would all want the same few lines of the cache */
#define LARGE_TURNS  16                  /* large receives of one socket in one turn: 1 MiB, then the others */
#define SEND_SLICES  64                  /* of one send; a 64 KiB turn of 1 KiB answers fits */
#define BURST_SLICES 256                 /* of all sends in one system call */
#define BUFFER_BYTES (RING_OPS * SMALL_STRIDE)

_Static_assert(BUFFER_BYTES >= LIMIT_READ_BYTES, "the large buffer is the small ones");

int transfers_init(struct transfers *t)
{
    *t = (struct transfers){.buffers = malloc(BUFFER_BYTES), .round = 1}; /* a zeroed receive has not been counted */
    STAILQ_INIT(&t->receives);
    STAILQ_INIT(&t->sends);
    return t->buffers ? KV_OK : KV_ENOMEM;
}

void transfers_free(struct transfers *t)
{
    free(t->buffers);
    *t = (struct transfers){0};
}

void transfers_begin(struct transfers *t)
{
    t->ring = ring_open();
    log_debug("transfers", log_str("by", t->ring ? "io_uring" : "calls"));
}

void transfers_end(struct transfers *t)
{
    ring_close(t->ring);
    t->ring = NULL;
}

void transfers_wipe(struct transfers *t)
{
    secret_wipe(t->buffers, t->used);
    t->used = 0;
}

static void note_use(struct transfers *t, size_t bytes)
{
    if (bytes > t->used)
        t->used = bytes;
}

/* ---- the calls ------------------------------------------------------------------------------------------------- */

static ssize_t call(const struct ring_op *op)
{
    ssize_t n;
    if (!op->is_send) {
        n = recv(op->fd, op->slices->iov_base, op->slices->iov_len, MSG_DONTWAIT);
    } else if (op->count == 1) {
        n = send(op->fd, op->slices->iov_base, op->slices->iov_len, MSG_DONTWAIT | MSG_NOSIGNAL);
    } else {
        const struct msghdr head = {.msg_iov = (struct iovec *)op->slices, .msg_iovlen = op->count};
        n = sendmsg(op->fd, &head, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    return n < 0 ? -errno : n;
}

/* A ring for one is dearer than its call. One that fails is given up: what it did not do is done without it. */
static void make(struct transfers *t, struct ring_op *ops, unsigned count)
{
    if (t->ring && count > 1) {
        if (ring_run(t->ring, ops, count))
            return;
        ring_close(t->ring);
        t->ring = NULL;
    } else {
        for (unsigned i = 0; i < count; i++)
            ops[i].result = RING_NOT_DONE;
    }
    for (unsigned i = 0; i < count; i++)
        if (ops[i].result == RING_NOT_DONE)
            ops[i].result = call(&ops[i]);
}

/* ---- receiving ------------------------------------------------------------------------------------------------- */

void transfers_receive_later(struct transfers *t, struct receive *receive)
{
    if (receive->queued)
        return;
    receive->queued = true;
    STAILQ_INSERT_TAIL(&t->receives, receive, next);
    t->receive_count++;
    t->wanted++;
    if (receive->round != t->round) {
        receive->round = t->round;
        t->round_sockets++;
    }
}

unsigned transfers_count_anew(struct transfers *t)
{
    unsigned sockets = t->round_sockets;
    t->round_sockets = 0;
    t->round++;
    return sockets;
}

static struct receive *next_receive(struct transfers *t)
{
    struct receive *receive = STAILQ_FIRST(&t->receives);
    if (!receive)
        return NULL;
    STAILQ_REMOVE_HEAD(&t->receives, next);
    t->receive_count--;
    receive->queued = false;
    return receive;
}

static void receive_large(struct transfers *t, struct receive *receive)
{
    const struct iovec buffer = {t->buffers, LIMIT_READ_BYTES};
    for (int turn = 0; turn < LARGE_TURNS && receive->fd >= 0; turn++) {
        struct ring_op op = {.fd = receive->fd, .slices = &buffer, .count = 1};
        ssize_t n = call(&op);
        note_use(t, n > 0 ? (size_t)n : 0);
        receive->large = n >= SMALL_BYTES;
        if (!receive->received(receive, t->buffers, n) || n < LIMIT_READ_BYTES)
            return;
    }
}

/* RING_OPS at most, and all bursts alike: of 48, 24 and 24 keep two programs busy, 32 and 16 only the first. */
static unsigned burst_of(unsigned queued)
{
    unsigned bursts = (queued + RING_OPS - 1) / RING_OPS;
    return bursts ? (queued + bursts - 1) / bursts : 0;
}

/* One burst: small ones together, then those with more, each alone. */
void transfers_receive(struct transfers *t)
{
    unsigned burst = burst_of(t->receive_count);
    struct receive *nodes[RING_OPS], *large[RING_OPS];
    struct iovec slices[RING_OPS];
    struct ring_op ops[RING_OPS];
    unsigned n = 0, n_large = 0;
    struct receive *receive;
    while (n + n_large < burst && (receive = next_receive(t))) {
        if (receive->fd < 0)
            continue;
        if (receive->large) {
            large[n_large++] = receive;
            continue;
        }
        slices[n] = (struct iovec){t->buffers + n * SMALL_STRIDE, SMALL_BYTES};
        ops[n] = (struct ring_op){.fd = receive->fd, .slices = &slices[n], .count = 1};
        nodes[n++] = receive;
    }
    make(t, ops, n);
    note_use(t, (size_t)n * SMALL_STRIDE);
    for (unsigned i = 0; i < n; i++) {
        if (nodes[i]->fd < 0) /* ended by one before it */
            continue;
        bool more = nodes[i]->received(nodes[i], slices[i].iov_base, ops[i].result);
        if (more && ops[i].result == SMALL_BYTES) {
            nodes[i]->large = true;
            large[n_large++] = nodes[i]; /* all of it before what it is parsed into is passed on */
        }
    }
    for (unsigned i = 0; i < n_large; i++)
        receive_large(t, large[i]);
}

/* ---- sending --------------------------------------------------------------------------------------------------- */

void transfers_send_later(struct transfers *t, struct send *send)
{
    if (send->queued)
        return;
    send->queued = true;
    STAILQ_INSERT_TAIL(&t->sends, send, next);
}

static struct send *next_send(struct transfers *t)
{
    struct send *send = STAILQ_FIRST(&t->sends);
    STAILQ_REMOVE_HEAD(&t->sends, next);
    send->queued = false;
    return send;
}

/* The beginning of a chain, in `most` slices at most; *bytes is how much that is. */
static unsigned gather(const struct chain *chain, struct iovec *slices, unsigned most, size_t *bytes)
{
    unsigned n = 0;
    *bytes = 0;
    for (struct chunk *c = chain->head; c && n < most; c = c->next) {
        slices[n++] = (struct iovec){c->data + c->off, c->len};
        *bytes += c->len;
    }
    return n;
}

static void send_burst(struct transfers *t)
{
    struct send *nodes[RING_OPS];
    struct ring_op ops[RING_OPS];
    size_t offered[RING_OPS];
    struct iovec slices[BURST_SLICES];
    unsigned n = 0, used = 0;
    while (!STAILQ_EMPTY(&t->sends) && n < RING_OPS && used + SEND_SLICES <= BURST_SLICES) {
        struct send *send = next_send(t);
        if (send->fd < 0)
            continue;
        unsigned count = gather(send->chain, slices + used, SEND_SLICES, &offered[n]);
        ops[n] = (struct ring_op){.fd = send->fd, .is_send = true, .slices = slices + used, .count = count};
        nodes[n++] = send;
        used += count;
    }
    make(t, ops, n);
    for (unsigned i = 0; i < n; i++)
        if (nodes[i]->fd >= 0)
            nodes[i]->sent(nodes[i], ops[i].result, offered[i]);
}

void transfers_send(struct transfers *t)
{
    while (!STAILQ_EMPTY(&t->sends))
        send_burst(t);
}

ssize_t transfers_send_now(int fd, const struct chain *chain)
{
    struct iovec slices[SEND_SLICES];
    size_t bytes;
    struct ring_op op = {.fd = fd, .is_send = true, .slices = slices};
    op.count = gather(chain, slices, SEND_SLICES, &bytes);
    return call(&op);
}
