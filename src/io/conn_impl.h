/* The inside of a connection, shared by conn.c (its life), conn_socket.c (reading and writing), conn_tls.c (records)
 * and conn_preamble.c (PROXY headers); nobody else includes it. */
#ifndef KV_IO_CONN_IMPL_H
#define KV_IO_CONN_IMPL_H

#include <netinet/in.h>
#include <uv.h>

#include "io/conn.h"
#include "io/transfer.h"
#include "io/worker.h"

struct conn_preamble;
struct conn_tls;

enum conn_state {
    CONN_DIALLING,  /* no socket yet */
    CONN_HANDSHAKE, /* TLS is being set up */
    CONN_OPEN,
    CONN_LINGERING, /* closed by the owner: sending the rest, dropping what comes */
    CONN_CLOSED,    /* taken apart; freed when libuv lets go */
};

struct conn {
    uv_poll_t poll;
    int watched; /* the UV_ events that `poll` is started for */
    struct worker *worker;
    const struct conn_events *events; /* NULL once the owner has closed */
    void *owner;
    struct conn_tls *tls;           /* NULL: plain */
    struct conn_preamble *preamble; /* NULL: no PROXY header is awaited */
    struct receive receive;         /* its fd is the socket, -1 before there is one and after the end */
    struct send send;
    struct chain out;  /* ready for the socket */
    struct chain kept; /* clear bytes that came with a pause */
    struct flush_node flush;
    struct free_node free;
    struct deadline deadline;
    struct dial *dial;
    char *error_text;
    size_t linger_left;
    uint64_t linger_acknowledged, linger_moved_at, linger_look_ms;
    struct conn_patience *patience; /* NULL: none */
    uint64_t given;                 /* bytes that the kernel took since the beginning */
    union {
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } peer;
    enum conn_state state;
    int send_error; /* -errno: the peer takes no more; 0 */
    bool dialled;
    bool breaking; /* lingering, and to end with a reset */
    bool counted;  /* in patience->sending */
    bool paused;
    bool socket_ended; /* the socket has no more to read */
    bool read_ended;   /* the owner has been told of the end; with TLS the socket may have more, and nobody wants it */
    bool blocked;      /* the kernel took less than it was offered: out waits for room, or for ever */
    bool broken;       /* libuv has said that the socket is in error */
    bool shutdown_wanted, shutdown_sent;
    bool progressed; /* bytes left since the owner was told */
};

/* ---- conn.c, for the others ------------------------------------------------------------------------------------ */

/* Takes the connection apart; nothing is delivered after this. */
void conn_dispose(struct conn *c);
/* Ends the connection and tells the owner. text may be NULL. */
void conn_fail(struct conn *c, int error, const char *text);
/* Ends the wait for the peer. What it has not taken by now is lost, and must not look complete. */
void conn_stop_lingering(struct conn *c);
/* Open for the owner from here on. */
void conn_become_ready(struct conn *c);
void conn_remember_peer(struct conn *c, const struct sockaddr *address);

/* ---- conn_socket.c, for the others ----------------------------------------------------------------------------- */

/* Prepares a fresh connection without a socket. */
void conn_socket_init(struct conn *c);
/* Takes the socket over and starts to read it. 0; KV_EIO, and then the socket is still the caller's. */
int conn_socket_open(struct conn *c, int fd);
/* Has the loop report what the connection waits for, no less. (More is harmless and stops by itself.) */
void conn_watch(struct conn *c);
/* Offers what is queued to the kernel once, without a word about the outcome: the last words of one that is to fail. */
void conn_offer_output(struct conn *c);
/* Clear bytes for the owner, or for the floor while lingering. */
void conn_deliver(struct conn *c, struct slice bytes);
void conn_deliver_eof(struct conn *c);

/* ---- conn_preamble.c, for conn_socket.c ------------------------------------------------------------------------ */

/* Takes the PROXY header from the front of `bytes`. False when it is not whole yet or the connection has failed. */
bool conn_preamble_read(struct conn *c, struct slice *bytes);

/* ---- conn_tls.c, for the others -------------------------------------------------------------------------------- */

struct conn_tls *conn_tls_new(struct tls_context *context, bool server, struct slice server_name);
void conn_tls_free(struct conn_tls *tls);
/* Sends the first flight of a client. */
void conn_tls_start(struct conn *c);
/* Puts a client's layer over what there is, starts it, and gives it the bytes that came for it already. */
void conn_tls_lay(struct conn *c, struct conn_tls *over, struct slice first);
/* Takes ciphertext and delivers what it yields; with an empty slice, what was kept while the connection was paused. */
void conn_tls_read(struct conn *c, struct slice ciphertext);
/* The transport ended. */
void conn_tls_eof(struct conn *c);
/* Encrypts what waits in the plain chain into c->out. */
void conn_tls_write(struct conn *c);
/* Queues close_notify; true if that left bytes to write. */
bool conn_tls_shutdown(struct conn *c);
bool conn_tls_has_input(const struct conn *c);
struct chain *conn_tls_plain(struct conn_tls *tls);
/* Clear bytes that wait for encryption. */
size_t conn_tls_unsent(const struct conn_tls *tls);
struct slice conn_tls_alpn(const struct conn_tls *tls);

#endif
