/* Socket options, in one place for dialled and listening sockets, and the limit of descriptors. */
#include "io/socket.h"

#include <netinet/in.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#ifdef __linux__
#include <linux/sockios.h>
#include <linux/tcp.h> /* its tcp_info has the window, the C library's has not */
#else
#include <netinet/tcp.h>
#endif

#include "base/limits.h"

static void set(int fd, int level, int option, int value)
{
    setsockopt(fd, level, option, &value, sizeof(value));
}

void socket_set_options(int fd)
{
    set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set(fd, IPPROTO_TCP, TCP_KEEPIDLE, LIMIT_KEEPALIVE_IDLE_S);
    set(fd, IPPROTO_TCP, TCP_KEEPINTVL, LIMIT_KEEPALIVE_STEP_S);
    set(fd, IPPROTO_TCP, TCP_KEEPCNT, LIMIT_KEEPALIVE_PROBES);
}

void socket_set_user_timeout(int fd, unsigned ms)
{
#ifdef TCP_USER_TIMEOUT
    set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, (int)ms);
#else
    (void)fd;
    (void)ms;
#endif
}

void socket_progress(int fd, struct socket_progress *out)
{
    *out = (struct socket_progress){0};
#ifdef SIOCOUTQ
    int bytes = 0;
    struct tcp_info info = {0};
    socklen_t len = sizeof(info);
    if (ioctl(fd, SIOCOUTQ, &bytes) != 0 || bytes <= 0)
        return;
    out->unacknowledged = (size_t)bytes;
    out->window_shut = getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0 && info.tcpi_unacked == 0 &&
                       info.tcpi_snd_wnd < out->unacknowledged;
#else
    (void)fd;
#endif
}

#define STATE_LISTEN 0x0a /* TCP_LISTEN, as the tables write it */

/* A line of the table: "  0: 0100007F:0BB8 00000000:0000 0A ...". Adds to *lines those that could be read. */
static bool is_listed(const char *table, uint16_t port, unsigned *lines)
{
    char line[512];
    unsigned local, state;
    bool found = false;
    FILE *file = fopen(table, "re");
    while (file && !found && fgets(line, sizeof(line), file)) {
        if (sscanf(line, " %*u: %*[0-9A-Fa-f]:%x %*[0-9A-Fa-f]:%*x %x", &local, &state) != 2) /* NOLINT(cert-err34-c) */
            continue;
        ++*lines;
        found = state == STATE_LISTEN && local == port;
    }
    if (file)
        fclose(file);
    return found;
}

bool socket_port_is_listened(uint16_t port)
{
    unsigned lines = 0;
    return is_listed("/proc/net/tcp", port, &lines) || is_listed("/proc/net/tcp6", port, &lines) || lines == 0;
}

void socket_raise_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max)
        return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}
