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

/* "host:port", ":port" (every address, both families), "[v6]:port" or "port"; a host must be a literal address or
 * "localhost". 0, or KV_EINVAL with nothing written. */
int sockaddr_parse(struct slice text, struct sockaddr_storage *out);
void sockaddr_format(const struct sockaddr *address, char out[SOCKADDR_TEXT_LEN]);
/* The address without the port. */
void sockaddr_format_host(const struct sockaddr *address, char out[SOCKADDR_TEXT_LEN]);
uint16_t sockaddr_port(const struct sockaddr *address);

/* Binds and listens with SO_REUSEPORT; to be done before anything else starts, so that a busy port stops the start.
 * The port of *address is filled in when it was 0. Returns the socket, or KV_EIO with errno set. Any thread. */
int listener_bind(struct sockaddr_storage *address);

/* Accepts on a bound socket (which the listener owns from here on) and gives each connection's socket to accepted(),
 * at most LIMIT_ACCEPT_TURN a turn. When descriptors run out it pauses for LIMIT_ACCEPT_PAUSE_MS and says so; live
 * connections are not touched. The worker's thread. NULL without memory. */
struct listener *listener_start(struct worker *worker, int fd, void (*accepted)(void *arg, int fd), void *arg);

/* Stops accepting and closes the socket. NULL is legal. */
void listener_stop(struct listener *listener);

#endif
