/*
 * Listening sockets: addresses as text, binding one port for every worker, accepting.
 *
 *     sockaddr_parse ─ listener_bind (main thread, before any worker has work) ─ listener_new, _start (each worker)
 *
 * A listener accepts until the kernel has no more or the turn's share is taken, then lets the loop serve the live
 * connections. When accept(2) fails for want of descriptors or memory it rests for a moment: the waiting connection
 * stays in the kernel's queue, and polling at once would spin.
 *
 *     accepting ──EMFILE...──> resting ──LIMIT_ACCEPT_PAUSE_MS──> accepting
 *         └──────────────────────┴── listener_stop ──> closing ──> freed by the last close callback
 */
#include "io/listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <uv.h>

#include "base/error.h"
#include "base/limits.h"
#include "base/log.h"
#include "io/descriptors.h"
#include "io/socket.h"
#include "io/worker.h"

#define BACKLOG         4096  /* the kernel cuts it to net.core.somaxconn, which is 4096 too since Linux 5.4 */
#define INCIDENT_MS     10000 /* a shortage within this time of the last one is the same one, and said already */
#define ADDRESS_LITERAL 64    /* the longest literal address with a zone, and its NUL */

struct listener {
    struct worker *worker;
    int fd;
    unsigned share; /* of the descriptors */
    void (*accepted)(void *arg, int fd);
    void *arg;
    uv_poll_t poll;
    uv_timer_t rest;
    unsigned open_handles;
    bool stopped;
    bool short_before;
    uint64_t short_at; /* worker_now() of the last shortage, if there was one */
};

/* ---- addresses as text ----------------------------------------------------------------------------------------- */

static bool parse_host(struct slice host, uint16_t port, struct sockaddr_storage *out)
{
    char text[ADDRESS_LITERAL];
    if (host.len >= sizeof(text) || memchr(host.data, '\0', host.len))
        return false;
    memcpy(text, host.data, host.len);
    text[host.len] = '\0';
    if (uv_ip4_addr(text, port, (struct sockaddr_in *)out) == 0)
        return true;
    return uv_ip6_addr(text, port, (struct sockaddr_in6 *)out) == 0;
}

int sockaddr_parse(struct slice text, struct sockaddr_storage *out)
{
    if (text.len == 0)
        return KV_EINVAL;
    /* The port is behind the last colon; without a colon it is all there is. */
    size_t colon = text.len;
    while (colon > 0 && text.data[colon - 1] != ':')
        colon--;
    struct slice host = {text.data, colon > 0 ? colon - 1 : 0};
    uint64_t port;
    if (!slice_to_u64((struct slice){text.data + colon, text.len - colon}, &port) || port > UINT16_MAX)
        return KV_EINVAL;

    struct sockaddr_storage address = {0};
    bool bracketed = host.len > 2 && host.data[0] == '[' && host.data[host.len - 1] == ']';
    if (bracketed)
        host = (struct slice){host.data + 1, host.len - 2};
    else if (host.len > 0 && memchr(host.data, ':', host.len))
        return KV_EINVAL; /* "::1:80" could be read in two ways */
    if (host.len == 0 || slice_equals(host, SLICE("*")))
        host = SLICE("::");
    else if (slice_equals_nocase(host, SLICE("localhost")))
        host = SLICE("127.0.0.1");
    if (!parse_host(host, (uint16_t)port, &address) || (bracketed && address.ss_family != AF_INET6))
        return KV_EINVAL;
    *out = address;
    return 0;
}

socklen_t sockaddr_len(const struct sockaddr *address)
{
    return address->sa_family == AF_INET6 ? (socklen_t)sizeof(struct sockaddr_in6)
                                          : (socklen_t)sizeof(struct sockaddr_in);
}

uint16_t sockaddr_port(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET6)
        return ntohs(((const struct sockaddr_in6 *)(const void *)address)->sin6_port);
    if (address->sa_family == AF_INET)
        return ntohs(((const struct sockaddr_in *)(const void *)address)->sin_port);
    return 0;
}

static void set_port(struct sockaddr_storage *address, uint16_t port)
{
    if (address->ss_family == AF_INET6)
        ((struct sockaddr_in6 *)address)->sin6_port = htons(port);
    else
        ((struct sockaddr_in *)address)->sin_port = htons(port);
}

/* An IPv4 visitor of a [::] socket comes as ::ffff:a.b.c.d and is shown, and forwarded, as what it is. */
static bool is_mapped(const struct sockaddr *address)
{
    return address->sa_family == AF_INET6 &&
           IN6_IS_ADDR_V4MAPPED(&((const struct sockaddr_in6 *)(const void *)address)->sin6_addr);
}

void sockaddr_format_host(const struct sockaddr *address, char out[SOCKADDR_TEXT_LEN])
{
    const void *bytes = NULL;
    int family = address->sa_family;
    if (family == AF_INET) {
        bytes = &((const struct sockaddr_in *)(const void *)address)->sin_addr;
    } else if (family == AF_INET6) {
        bytes = &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr;
        if (is_mapped(address)) {
            bytes = (const char *)bytes + 12; /* RFC 4291, 2.5.5.2: the last four bytes */
            family = AF_INET;
        }
    }
    if (!bytes || !inet_ntop(family, bytes, out, SOCKADDR_TEXT_LEN))
        snprintf(out, SOCKADDR_TEXT_LEN, "unknown");
}

void sockaddr_format(const struct sockaddr *address, char out[SOCKADDR_TEXT_LEN])
{
    char host[SOCKADDR_TEXT_LEN];
    sockaddr_format_host(address, host);
    bool brackets = address->sa_family == AF_INET6 && !is_mapped(address);
    snprintf(out, SOCKADDR_TEXT_LEN, "%s%.46s%s:%u", brackets ? "[" : "", host, brackets ? "]" : "",
             (unsigned)sockaddr_port(address));
}

/* ---- binding --------------------------------------------------------------------------------------------------- */

/* Closes without touching errno, which the caller is about to report. */
static void close_quietly(int fd)
{
    int saved = errno;
    close(fd);
    errno = saved;
}

static int set_flag(int fd, int level, int option, int value)
{
    return setsockopt(fd, level, option, &value, sizeof(value));
}

/* A socket that is bound and listens, or -1 with errno. */
static int bind_one(const struct sockaddr_storage *address, bool shared)
{
    const struct sockaddr *any = (const struct sockaddr *)address;
    int fd = socket(any->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    /* SO_REUSEADDR: connections of the last run in TIME_WAIT must not keep the port from us. */
    if (set_flag(fd, SOL_SOCKET, SO_REUSEADDR, 1) != 0 || (shared && set_flag(fd, SOL_SOCKET, SO_REUSEPORT, 1) != 0) ||
        (any->sa_family == AF_INET6 && set_flag(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0) != 0) ||
        bind(fd, any, sockaddr_len(any)) != 0 || listen(fd, BACKLOG) != 0) {
        close_quietly(fd);
        return -1;
    }
    socket_set_options(fd);
    return fd;
}

static bool is_any_v6(const struct sockaddr_storage *address)
{
    return address->ss_family == AF_INET6 &&
           IN6_IS_ADDR_UNSPECIFIED(&((const struct sockaddr_in6 *)(const void *)address)->sin6_addr);
}

/*
 * The first socket of a port. It binds and listens without SO_REUSEPORT, which the kernel allows to one socket alone,
 * so a port in use is found out; only then it is opened to the sockets of the other workers. It listens all the time in
 * between: there is no moment in which the port is nobody's and a third party could slip in.
 */
static int bind_first(struct sockaddr_storage *address)
{
    int fd = bind_one(address, false);
    if (fd < 0 && is_any_v6(address) && (errno == EAFNOSUPPORT || errno == EADDRNOTAVAIL)) {
        uint16_t port = sockaddr_port((const struct sockaddr *)address);
        struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(port)};
        *address = (struct sockaddr_storage){0};
        memcpy(address, &any, sizeof(any));
        fd = bind_one(address, false);
    }
    if (fd < 0)
        return -1;

    struct sockaddr_storage bound = {0};
    socklen_t len = sizeof(bound);
    if (getsockname(fd, (struct sockaddr *)&bound, &len) != 0 || set_flag(fd, SOL_SOCKET, SO_REUSEPORT, 1) != 0) {
        close_quietly(fd);
        return -1;
    }
    set_port(address, sockaddr_port((const struct sockaddr *)&bound));
    return fd;
}

int listener_bind(struct sockaddr_storage *address, int *fds, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        fds[i] = i == 0 ? bind_first(address) : bind_one(address, true);
        if (fds[i] < 0) {
            while (i > 0)
                close_quietly(fds[--i]);
            return KV_EIO;
        }
    }
    return 0;
}

/* ---- accepting ------------------------------------------------------------------------------------------------- */

/* Why accept(2) failed, as far as it matters here. */
enum accept_failure {
    ACCEPT_DRAINED,  /* no one waits */
    ACCEPT_NEXT,     /* that visitor is gone already, or its network is (accept(2), "Error handling") */
    ACCEPT_SHORTAGE, /* none of our descriptors, buffers or memory left; or a failure not known: rest as well */
};

static enum accept_failure accept_failure(int error)
{
    switch (error) {
    case EAGAIN:
        return ACCEPT_DRAINED;
    case EINTR:
    case ECONNABORTED:
    case EPERM: /* a firewall rule forbade it */
    case EPROTO:
    case ENETDOWN:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case ENONET:
    case EHOSTUNREACH:
    case EOPNOTSUPP:
    case ENETUNREACH:
        return ACCEPT_NEXT;
    default:
        return ACCEPT_SHORTAGE;
    }
}

static void on_readable(uv_poll_t *poll, int status, int events);

static void on_rested(uv_timer_t *timer)
{
    struct listener *listener = timer->data;
    uv_poll_start(&listener->poll, UV_READABLE, on_readable);
}

static void rest(struct listener *listener, int error)
{
    uint64_t now = worker_now(listener->worker);
    if (!listener->short_before || now - listener->short_at > INCIDENT_MS)
        log_warn("cannot accept connections, trying again shortly; live ones go on", log_str("cause", strerror(error)),
                 log_uint("again_in_ms", LIMIT_ACCEPT_PAUSE_MS));
    listener->short_before = true;
    listener->short_at = now;
    uv_poll_stop(&listener->poll);
    uv_timer_start(&listener->rest, on_rested, LIMIT_ACCEPT_PAUSE_MS, 0);
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    (void)status; /* an error of the socket is accept4's to tell */
    (void)events;
    struct listener *listener = poll->data;
    for (unsigned i = 0; i < LIMIT_ACCEPT_TURN && !listener->stopped; i++) {
        if (!descriptors_may_take(listener->share)) {
            rest(listener, EMFILE);
            break;
        }
        int fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            descriptors_take(fd, listener->share);
            listener->accepted(listener->arg, fd);
            continue;
        }
        enum accept_failure failure = accept_failure(errno);
        if (failure == ACCEPT_NEXT)
            continue;
        if (failure == ACCEPT_SHORTAGE)
            rest(listener, errno);
        break;
    }
}

static void on_closed(uv_handle_t *handle)
{
    struct listener *listener = handle->data;
    if (--listener->open_handles == 0)
        free(listener);
}

struct listener *listener_new(struct worker *worker, int fd, unsigned share, void (*accepted)(void *arg, int fd),
                              void *arg)
{
    struct listener *listener = calloc(1, sizeof(*listener));
    if (!listener)
        goto err_memory;
    *listener = (struct listener){.worker = worker, .fd = fd, .share = share, .accepted = accepted, .arg = arg};
    uv_loop_t *loop = worker_loop(worker);
    if (uv_poll_init(loop, &listener->poll, fd) != 0)
        goto err_poll;
    uv_timer_init(loop, &listener->rest);
    listener->poll.data = listener;
    listener->rest.data = listener;
    listener->open_handles = 2;
    return listener;

err_poll:
    free(listener);
err_memory:
    close(fd);
    return NULL;
}

void listener_start(struct listener *listener)
{
    /* It fails for a descriptor that another handle of the loop watches, and this one is ours alone. */
    uv_poll_start(&listener->poll, UV_READABLE, on_readable);
}

void listener_stop(struct listener *listener)
{
    if (!listener || listener->stopped)
        return;
    listener->stopped = true;
    uv_close((uv_handle_t *)&listener->poll, on_closed);
    uv_close((uv_handle_t *)&listener->rest, on_closed);
    close(listener->fd); /* after uv_close, which takes it out of the loop's poll set */
}
