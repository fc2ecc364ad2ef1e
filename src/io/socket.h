/* What every TCP socket of the program is set to, and how many there may be. */
#ifndef KV_IO_SOCKET_H
#define KV_IO_SOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* No delay, because output is coalesced already; keepalive, so that a dead peer of a silent connection (an idle
 * WebSocket, a paused upload) is noticed after LIMIT_KEEPALIVE_* at last. A listening socket hands both on to what it
 * accepts (Linux, BSD), which saves the calls for each visitor. Failures are not told: nothing depends on these. Any
 * thread. */
void socket_set_options(int fd);

/* Ends the connection (ETIMEDOUT) when bytes that were sent stay unacknowledged for so long (TCP_USER_TIMEOUT, RFC
 * 5482), instead of after the quarter of an hour that retransmissions may take; 0 goes back to that. Linux ends a
 * connection then too whose window opens again and again but never wide enough for the segment that waits: that is for
 * slow readers to be spared (socket_progress). Nothing where the system has no such option. Any thread. */
void socket_set_user_timeout(int fd, unsigned ms);

struct socket_progress {
    size_t unacknowledged; /* bytes in the kernel's hands that the peer's machine has not acknowledged */
    bool window_shut;      /* and none of them is on the way: the peer has too little room */
};

/* Zeros where the system does not tell. Any thread. */
void socket_progress(int fd, struct socket_progress *out);

/* Whether anybody on this machine listens on a TCP port, as the kernel's own tables have it: nobody is asked, so no
 * service takes the question for a connection. True where the system does not tell. Blocks on files of /proc. */
bool socket_port_is_listened(uint16_t port);

/* Raises the process's soft limit of open descriptors to the hard one: a connection is one, and the usual soft limit of
 * 1024 is meant for programs that use select(2). At the start, before descriptors are many. */
void socket_raise_limit(void);

#endif
