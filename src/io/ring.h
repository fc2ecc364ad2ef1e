/*
 * Many transfers in one system call, by io_uring, where the kernel has it and lets us. The ring is used in step: all
 * that is submitted is complete when the call returns, because every transfer is told not to wait. So nothing is ever
 * under way in the kernel, and buffers and descriptors are free again at once, as they are after send(2) and recv(2).
 */
#ifndef KV_IO_RING_H
#define KV_IO_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

struct ring;

#define RING_OPS      32 /* of one call: saves as many system calls as matter, and none waits long for the others */
#define RING_NOT_DONE ((ssize_t)-1000) /* no errno */

/* One recv(2) into slices[0], or one send(2) of all slices; neither waits, and no SIGPIPE is raised. */
struct ring_op {
    int fd;
    bool is_send;
    const struct iovec *slices;
    unsigned count;
    ssize_t result; /* bytes; 0: the peer's end, of a receive; or -errno */
};

/* NULL where there is no io_uring (the system, the kernel's age or settings, a sandbox) or no memory: then transfers
 * are made one by one. To be called by the thread that will run it. */
struct ring *ring_open(void);

/* NULL is legal. */
void ring_close(struct ring *ring);

/* Makes `count` (1..RING_OPS) transfers and fills in their results. True if all are done. False when the kernel would
 * not: then `result` of those that were not made is RING_NOT_DONE, and the ring must be closed. */
bool ring_run(struct ring *ring, struct ring_op *ops, unsigned count);

/* For the whole process, before its workers start: open no ring from now on. For operators, and for what counts system
 * calls. */
void ring_forbid(void);

#endif
