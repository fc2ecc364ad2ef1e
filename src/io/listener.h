/*
 * Listening sockets. Every worker has its own on the same port (SO_REUSEPORT), so the kernel spreads visitors and no
 * accept is handed between threads.
 */
#ifndef KV_IO_LISTENER_H
#define KV_IO_LISTENER_H

#include <stdint.h>
#include <sys/socket.h>

#include "base/slice.h"

struct listener;
struct worker;

/* A socket address as text, "203.0.113.7:4567" or "[2001:db8::1]:443": room for the longest and its NUL. */
#define SOCKADDR_TEXT_LEN 64

/* "host:port", "[v6]:port", or ":port", "*:port" and "port" for every address of both families, which is [::]. A host
 * is a literal address or "localhost", which is 127.0.0.1. 0, or KV_EINVAL with nothing written. */
int sockaddr_parse(struct slice text, struct sockaddr_storage *out);
socklen_t sockaddr_len(const struct sockaddr *address);
void sockaddr_format(const struct sockaddr *address, char out[SOCKADDR_TEXT_LEN]);
/* The address without the port. */
void sockaddr_format_host(const struct sockaddr *address, char out[SOCKADDR_TEXT_LEN]);
uint16_t sockaddr_port(const struct sockaddr *address);

/* Binds `count` sockets to one address, one for each worker, and listens on them, all or none; to be done before
 * anything else starts, so that a busy port stops the start. The first is bound for itself alone and opened to the
 * others afterwards: a port that anyone else listens on is an error even where SO_REUSEPORT would have shared it. Port
 * 0 picks a free one, which is filled into *address. [::] takes IPv4 visitors too and becomes 0.0.0.0 on a system
 * without IPv6. 0, or KV_EIO with errno set. Any thread. */
int listener_bind(struct sockaddr_storage *address, int *fds, unsigned count);

/* A listener on a bound socket, whose connections count in a share of the descriptors (io/descriptors.h), which it owns
 * from here on; it does not accept yet. All that can fail is done here. The worker's thread. NULL without memory, or
 * when the loop cannot watch the socket, and then the socket is closed. */
struct listener *listener_new(struct worker *worker, int fd, unsigned share, void (*accepted)(void *arg, int fd),
                              void *arg);

/* Accepts, and gives each connection's socket to accepted() (non-blocking, close-on-exec, the callee's from there on),
 * at most LIMIT_ACCEPT_TURN a turn. When descriptors run out, or its share of them is taken, it pauses for
 * LIMIT_ACCEPT_PAUSE_MS and says so; live connections are not touched. The worker's thread. */
void listener_start(struct listener *listener);

/* Stops accepting and closes the socket; legal before the start. NULL is legal. */
void listener_stop(struct listener *listener);

#endif
