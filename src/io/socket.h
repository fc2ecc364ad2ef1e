/* What every TCP socket of the program is set to. */
#ifndef KV_IO_SOCKET_H
#define KV_IO_SOCKET_H

/* No delay, because output is coalesced already; keepalive, so that a dead peer of a silent connection (an idle
 * WebSocket, a paused upload) is noticed after LIMIT_KEEPALIVE_* at last. A listening socket hands both on to what it
 * accepts (Linux, BSD), which saves the calls for each visitor. Failures are not told: nothing depends on these. Any
 * thread. */
void socket_set_options(int fd);

#endif
