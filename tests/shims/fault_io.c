/*
 * LD_PRELOAD: a kernel that does as little as it may. Calls of the process that move bytes or wait are interrupted,
 * told to come again, or moved in part, by a pattern that FAULT_IO seeds: "SEED PERCENT" of the calls are touched.
 *
 *     EINTR            reads, writes, waits, accepts and connects, on any descriptor
 *     EAGAIN, short    reads and writes of non-blocking TCP sockets only: elsewhere the kernel promises more
 *     ECONNABORTED     accepts: the visitor is gone again
 *
 * Nothing is lost or made up, so a program that handles these must be right under any pattern. There is no io_uring:
 * what it does passes by the functions of the C library.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define SLICES 64 /* of one vector that is cut short */

enum fault {
    NONE,
    INTERRUPTED,
    AGAIN,
    SHORT
};

static atomic_uint_least64_t state;
static unsigned percent;

__attribute__((constructor)) static void read_order(void)
{
    const char *order = getenv("FAULT_IO");
    char *end = NULL;
    if (!order)
        return;
    atomic_store(&state, strtoull(order, &end, 10));
    percent = (unsigned)strtoul(end, NULL, 10);
}

/* SplitMix64, one number a call; threads share the row, so a seed gives the same row but not the same schedule. */
static uint64_t draw(void)
{
    uint64_t z = atomic_fetch_add(&state, 0x9e3779b97f4a7c15U) + 0x9e3779b97f4a7c15U;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
}

static bool is_touched(void)
{
    return percent > 0 && draw() % 100 < percent;
}

static bool is_tcp_without_blocking(int fd)
{
    int domain = 0, type = 0;
    socklen_t len = sizeof(domain);
    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) != 0 || (domain != AF_INET && domain != AF_INET6))
        return false;
    len = sizeof(type);
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) != 0 || type != SOCK_STREAM)
        return false;
    return fcntl(fd, F_GETFL) & O_NONBLOCK;
}

/* What happens to one transfer; errno is set where it fails. */
static enum fault transfer_fault(int fd)
{
    if (!is_touched())
        return NONE;
    enum fault fault = is_tcp_without_blocking(fd) ? (enum fault)(1 + draw() % 3) : INTERRUPTED;
    if (fault != SHORT)
        errno = fault == AGAIN ? EAGAIN : EINTR;
    return fault;
}

static size_t cut(size_t size)
{
    return size > 1 ? 1 + draw() % (size < 4096 ? size - 1 : 4095) : size;
}

/* The first slices of a vector, cut to fewer bytes than it has; the new count. */
static int cut_vector(const struct iovec *from, int count, struct iovec *to)
{
    size_t total = 0;
    int n = 0;
    for (int i = 0; i < count; i++)
        total += from[i].iov_len;
    for (size_t left = cut(total); n < count && n < SLICES && left > 0; n++) {
        to[n] = from[n];
        if (to[n].iov_len > left)
            to[n].iov_len = left;
        left -= to[n].iov_len;
    }
    return n;
}

/* Defines the function behind us in the search order as `real`, with the type of the one that it stands in. */
#define REAL(name)                                                                                                     \
    static __typeof__(&name) real;                                                                                     \
    if (!real)                                                                                                         \
    real = (__typeof__(&name))(uintptr_t)dlsym(RTLD_NEXT, #name)

/* Ends the function with -1 where this call is to fail; shortens `size` where it is to do less. */
#define TRANSFER(fd, size)                                                                                             \
    do {                                                                                                               \
        enum fault fault = transfer_fault(fd);                                                                         \
        if (fault == INTERRUPTED || fault == AGAIN)                                                                    \
            return -1;                                                                                                 \
        if (fault == SHORT)                                                                                            \
            size = cut(size);                                                                                          \
    } while (0)

#define INTERRUPT()                                                                                                    \
    do {                                                                                                               \
        if (is_touched()) {                                                                                            \
            errno = EINTR;                                                                                             \
            return -1;                                                                                                 \
        }                                                                                                              \
    } while (0)

ssize_t read(int fd, void *to, size_t size)
{
    REAL(read);
    TRANSFER(fd, size);
    return real(fd, to, size);
}

ssize_t write(int fd, const void *from, size_t size)
{
    REAL(write);
    TRANSFER(fd, size);
    return real(fd, from, size);
}

ssize_t recv(int fd, void *to, size_t size, int flags)
{
    REAL(recv);
    TRANSFER(fd, size);
    return real(fd, to, size, flags);
}

ssize_t send(int fd, const void *from, size_t size, int flags)
{
    REAL(send);
    TRANSFER(fd, size);
    return real(fd, from, size, flags);
}

static ssize_t vector(ssize_t (*real)(int, const struct iovec *, int), int fd, const struct iovec *slices, int count)
{
    struct iovec fewer[SLICES];
    enum fault fault = transfer_fault(fd);
    if (fault == INTERRUPTED || fault == AGAIN)
        return -1;
    return fault == SHORT ? real(fd, fewer, cut_vector(slices, count, fewer)) : real(fd, slices, count);
}

ssize_t readv(int fd, const struct iovec *slices, int count)
{
    REAL(readv);
    return vector(real, fd, slices, count);
}

ssize_t writev(int fd, const struct iovec *slices, int count)
{
    REAL(writev);
    return vector(real, fd, slices, count);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    REAL(sendmsg);
    struct iovec fewer[SLICES];
    struct msghdr shorter = *message;
    enum fault fault = transfer_fault(fd);
    if (fault == INTERRUPTED || fault == AGAIN)
        return -1;
    if (fault != SHORT)
        return real(fd, message, flags);
    shorter.msg_iov = fewer;
    shorter.msg_iovlen = (size_t)cut_vector(message->msg_iov, (int)message->msg_iovlen, fewer);
    return real(fd, &shorter, flags);
}

int accept4(int fd, struct sockaddr *address, socklen_t *len, int flags)
{
    REAL(accept4);
    if (is_touched()) {
        static const int errors[] = {EINTR, EAGAIN, ECONNABORTED};
        errno = errors[draw() % 3];
        return -1;
    }
    return real(fd, address, len, flags);
}

/* A non-blocking connect that is interrupted goes on by itself (connect(2), POSIX). */
int connect(int fd, const struct sockaddr *address, socklen_t len)
{
    REAL(connect);
    int result = real(fd, address, len);
    if (result != 0 && errno == EINPROGRESS && is_touched())
        errno = EINTR;
    return result;
}

int epoll_wait(int fd, struct epoll_event *events, int most, int timeout)
{
    REAL(epoll_wait);
    INTERRUPT();
    return real(fd, events, is_touched() ? 1 : most, timeout);
}

int epoll_pwait(int fd, struct epoll_event *events, int most, int timeout, const sigset_t *mask)
{
    REAL(epoll_pwait);
    INTERRUPT();
    return real(fd, events, is_touched() ? 1 : most, timeout, mask);
}

/* A poll that does not wait is not interrupted either. */
int poll(struct pollfd *fds, nfds_t count, int timeout)
{
    REAL(poll);
    if (timeout != 0)
        INTERRUPT();
    return real(fds, count, timeout);
}

struct io_uring;
struct io_uring_params;
int io_uring_queue_init_params(unsigned entries, struct io_uring *ring, struct io_uring_params *params);

int io_uring_queue_init_params(unsigned entries, struct io_uring *ring, struct io_uring_params *params)
{
    (void)entries;
    (void)ring;
    (void)params;
    return -ENOSYS;
}

ssize_t getrandom(void *to, size_t size, unsigned flags)
{
    REAL(getrandom);
    INTERRUPT();
    return real(to, size, flags);
}
