/*
 * The server's listening ports: sockets of its own making, or those that a service manager or a predecessor hands over.
 *
 *     port_open (main thread, before the workers) ── port_prepare, port_listen, port_stop (each worker) ── port_close
 *
 * A port has sockets, usually one a worker (SO_REUSEPORT), and listeners on them. The kernel has queued visitors at
 * each socket, so each of them is listened to, whatever the number of workers is now: more sockets than workers are
 * spread over these, and with fewer the workers share. Listeners work on duplicates; the sockets themselves stay with
 * the port, so that a successor can have them with all who wait there.
 */
#ifndef KV_CMD_TUNNELD_PORTS_H
#define KV_CMD_TUNNELD_PORTS_H

#include <stdbool.h>
#include <sys/socket.h>

struct activation;
struct listener;

#define PORT_SOCKETS_MAX 64 /* as many as there can be workers */

struct port {
    const char *name; /* "edge": of --edge-listen, and of its sockets in LISTEN_FDNAMES */
    const char *text; /* the address, as the flag says */
    unsigned share;   /* of the descriptors, for its connections */
    void (*accepted)(void *arg, int fd);
    void *arg;
    struct sockaddr_storage address; /* what it is bound to */
    int fds[PORT_SOCKETS_MAX];
    unsigned count; /* of fds */
    bool inherited;
    struct listener *listeners[PORT_SOCKETS_MAX];
};

/* Takes the sockets of its name out of `given`, or binds one a worker; without an address it has none. CLI_EXIT_OK, or
 * the exit status, and then the sentence has been printed. */
int port_open(struct port *port, unsigned workers, struct activation *given);

/* On each worker: makes the listeners of its share of the sockets, which do not accept yet. What fails is logged. */
void port_prepare(struct port *port, unsigned worker, unsigned workers);
/* When all workers have prepared: whether each socket has its listeners. */
bool port_is_prepared(const struct port *port, unsigned workers);
/* On each worker, when it is prepared: accepts. Cannot fail. */
void port_listen(struct port *port, unsigned worker, unsigned workers);
/* On each worker: no more. Legal when it does not listen. */
void port_stop(struct port *port, unsigned worker, unsigned workers);

/* After the workers have stopped: our hold on the sockets ends. Legal when it is not open. */
void port_close(struct port *port);

#endif
