/* Socket options, in one place for dialled and listening sockets, and the limit of descriptors. */
#include "io/socket.h"

#include <netinet/in.h>
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

void socket_raise_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max)
        return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}
