/* io_uring in step; ring.h tells why that is enough. Without liburing at build time, or another kernel than Linux, no
 * ring ever opens. */
#include "io/ring.h"

static bool forbidden;

void ring_forbid(void)
{
    forbidden = true;
}

#ifdef KV_IO_URING

#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

struct ring {
    struct io_uring uring;
    struct msghdr heads[RING_OPS]; /* of sends with more than one slice; read by the kernel while it is called */
};

struct ring *ring_open(void)
{
    /* COOP_TASKRUN is Linux 5.19 and SINGLE_ISSUER 6.0. Older ones have io_uring too, and what they had to mend. */
    struct io_uring_params params = {.flags = IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SINGLE_ISSUER};
    struct ring *ring = forbidden ? NULL : calloc(1, sizeof(*ring));
    if (!ring)
        return NULL;
    if (io_uring_queue_init_params(RING_OPS, &ring->uring, &params) != 0) {
        free(ring);
        return NULL;
    }
    io_uring_register_ring_fd(&ring->uring); /* saves the look-up of its descriptor; nothing depends on it */
    return ring;
}

void ring_close(struct ring *ring)
{
    if (!ring)
        return;
    io_uring_queue_exit(&ring->uring);
    free(ring);
}

static void prepare(struct io_uring_sqe *sqe, const struct ring_op *op, struct msghdr *head)
{
    const struct iovec *first = op->slices;
    if (!op->is_send) {
        io_uring_prep_recv(sqe, op->fd, first->iov_base, first->iov_len, MSG_DONTWAIT);
    } else if (op->count == 1) {
        io_uring_prep_send(sqe, op->fd, first->iov_base, first->iov_len, MSG_DONTWAIT | MSG_NOSIGNAL);
    } else {
        *head = (struct msghdr){.msg_iov = (struct iovec *)op->slices, .msg_iovlen = op->count};
        io_uring_prep_sendmsg(sqe, op->fd, head, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
}

/* Takes the results that are there; how many. */
static unsigned collect(struct ring *ring, struct ring_op *ops)
{
    struct io_uring_cqe *cqe;
    unsigned cursor, n = 0;
    io_uring_for_each_cqe(&ring->uring, cursor, cqe)
    {
        ops[cqe->user_data].result = cqe->res;
        n++;
    }
    io_uring_cq_advance(&ring->uring, n);
    return n;
}

bool ring_run(struct ring *ring, struct ring_op *ops, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->uring); /* never NULL: each run leaves the queue empty */
        prepare(sqe, &ops[i], &ring->heads[i]);
        sqe->user_data = i;
        ops[i].result = RING_NOT_DONE;
    }
    int result = io_uring_submit(&ring->uring);
    unsigned taken = result > 0 ? (unsigned)result : 0, done = collect(ring, ops);
    /* All is complete by now, but for a kernel without memory, which leaves some of it in the queue. */
    while (done < count && (result >= 0 || result == -EINTR)) {
        result = io_uring_submit_and_wait(&ring->uring, 1);
        taken += result > 0 ? (unsigned)result : 0;
        done += collect(ring, ops);
    }
    /* They are taken in order. What was taken without a result may have been made: it must not be made again. */
    for (unsigned i = 0; i < taken && done < count; i++)
        if (ops[i].result == RING_NOT_DONE)
            ops[i].result = -EIO;
    return done == count;
}

#else

struct ring *ring_open(void)
{
    return NULL;
}

void ring_close(struct ring *ring)
{
    (void)ring;
}

bool ring_run(struct ring *ring, struct ring_op *ops, unsigned count)
{
    (void)ring;
    for (unsigned i = 0; i < count; i++)
        ops[i].result = RING_NOT_DONE;
    return false;
}

#endif
