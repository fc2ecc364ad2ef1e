/* Visitors of an edge: a socket whose other end the edge has accepted, and what is said and heard there. cmocka.h is
 * included before. */
#ifndef KV_TEST_EDGE_VISIT_H
#define KV_TEST_EDGE_VISIT_H

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "io/on_worker.h"

/* `accept` is run on the worker with the address of the edge's end. Returns the visitor's. */
static inline int edge_visit(struct worker *worker, void (*accept)(struct worker *worker, void *fd))
{
    int fds[2];
    struct timeval patience = {.tv_sec = TEST_PATIENCE_S};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    setsockopt(fds[0], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    on_worker(worker, accept, &fds[1]);
    return fds[0];
}

static inline void say(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

/* Reads until `text` has come. */
static inline void expect(int fd, const char *text)
{
    char seen[65536];
    size_t len = 0;
    do {
        ssize_t n = recv(fd, seen + len, sizeof(seen) - 1 - len, 0);
        if (n <= 0)
            fail_msg("ended before '%s': %.*s", text, (int)len, seen);
        len += (size_t)n;
        seen[len] = '\0';
    } while (!strstr(seen, text));
}

static inline bool has_ended(int fd)
{
    char byte[4096];
    ssize_t n;
    while ((n = recv(fd, byte, sizeof(byte), 0)) > 0)
        continue;
    return n == 0 || errno == ECONNRESET;
}

static inline void nothing(struct worker *worker, void *arg)
{
    (void)worker;
    (void)arg;
}

/* The worker has gone round and seen all that was said before. */
static inline void let_it_read(struct worker *worker)
{
    for (int turn = 0; turn < 3; turn++)
        on_worker(worker, nothing, NULL);
}

#endif
