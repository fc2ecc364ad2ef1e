/* Socket options, in one place for dialled and listening sockets, and the limit of descriptors. */
#include "io/socket.h"

#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
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
#include "base/slice.h"

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

/* The next word of a line, cut from *line. */
static struct slice next_word(struct slice *line)
{
    size_t start = 0, end;
    while (start < line->len && line->data[start] == ' ')
        start++;
    for (end = start; end < line->len && line->data[end] != ' ' && line->data[end] != '\n';)
        end++;
    struct slice word = {line->data + start, end - start};
    *line = (struct slice){line->data + end, line->len - end};
    return word;
}

/* The hexadecimal number at the end of a word. False if there is none. */
static bool hex_at_end(struct slice word, size_t digits, unsigned *out)
{
    *out = 0;
    for (size_t i = word.len < digits ? 0 : word.len - digits; i < word.len; i++) {
        static const char digits_of[] = "0123456789ABCDEF";
        const char *digit = memchr(digits_of, word.data[i], sizeof(digits_of) - 1);
        if (!digit)
            return false;
        *out = *out << 4 | (unsigned)(digit - digits_of);
    }
    return word.len >= digits;
}

/* A line of the table: "  0: 0100007F:0BB8 00000000:0000 0A ...". Adds to *lines those that could be read. */
static bool is_listed(const char *table, uint16_t port, unsigned *lines)
{
    char text[512];
    bool found = false;
    FILE *file = fopen(table, "re");
    while (file && !found && fgets(text, sizeof(text), file)) {
        struct slice line = slice_of(text);
        unsigned local, state;
        (void)next_word(&line); /* its number */
        struct slice here = next_word(&line);
        (void)next_word(&line); /* the other end */
        if (!hex_at_end(here, 4, &local) || !hex_at_end(next_word(&line), 2, &state))
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
