/* The inside of a connection, shared by conn.c (sockets), conn_tls.c (records) and conn_preamble.c (PROXY
 * headers); nobody else includes it. */
#ifndef KV_IO_CONN_IMPL_H
#define KV_IO_CONN_IMPL_H

#include <netinet/in.h>
#include <uv.h>

#include "io/conn.h"
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
    uv_tcp_t tcp;
    struct worker *worker;
    const struct conn_events *events; /* NULL once the owner has closed */
    void *owner;
    struct conn_tls *tls;           /* NULL: plain */
    struct conn_preamble *preamble; /* NULL: no PROXY header is awaited */
    struct chain out;               /* ready for the socket */
    struct pending_write *pending;
    struct flush_node flush;
    struct free_node free;
    struct deadline deadline;
    struct dial *dial;
    char *error_text;
    size_t linger_left, linger_unsent;
    uint64_t given; /* bytes that libuv or the kernel took since the beginning */
    union {
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } peer;
    enum conn_state state;
    bool dialled;
    bool has_handle;
    bool paused;
    bool read_ended;
    bool shutdown_wanted, shutdown_sent;
    bool progressed; /* bytes left since the owner was told */
};

/* ---- conn.c, for conn_tls.c ------------------------------------------------------------------------------------ */

/* Ends the connection and tells the owner. text may be NULL. */
void conn_fail(struct conn *c, int error, const char *text);
/* Offers what is queued to the kernel once, without a word about the outcome: the last words of one that is to fail. */
void conn_offer_output(struct conn *c);
/* Clear bytes for the owner, or for the floor while lingering. */
void conn_deliver(struct conn *c, struct slice bytes);
void conn_deliver_eof(struct conn *c);
/* Open for the owner from here on. */
void conn_become_ready(struct conn *c);
void conn_remember_peer(struct conn *c, const struct sockaddr *address);

/* ---- conn_preamble.c, for conn.c ------------------------------------------------------------------------------- */

/* Takes the PROXY header from the front of `bytes`. False when it is not whole yet or the connection has failed. */
bool conn_preamble_read(struct conn *c, struct slice *bytes);

/* ---- conn_tls.c, for conn.c ------------------------------------------------------------------------------------ */

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
