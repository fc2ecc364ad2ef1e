/*
 * A byte-stream connection, plain or TLS: the only place that reads and writes sockets. Reads go through buffers of the
 * worker, so an idle connection holds its struct and nothing else; writes are queued and leave in one piece at the end
 * of the turn.
 *
 *     conn_accept | conn_dial ── open ── conn_close | conn_abort ── closed (once) ── freed at the end of the turn
 *
 * All functions run on the connection's worker. No event is delivered from inside a call except where it says so, and
 * none after `closed`.
 */
#ifndef KV_IO_CONN_H
#define KV_IO_CONN_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/chunk.h"
#include "base/error.h"
#include "base/slice.h"

struct conn;
struct tls_context;
struct worker;

struct conn_events {
    /* Ready to carry bytes: TCP connected and, with TLS, the handshake done. Accepted plain connections are ready when
     * they are made and get no such event. May be NULL. */
    void (*ready)(void *owner);
    /* Bytes that arrived, valid until return. The owner takes all of them; to be given no more it pauses. */
    void (*data)(void *owner, struct slice bytes);
    /* The peer ended its direction; ours goes on. */
    void (*eof)(void *owner);
    /* Before output is written: put what is pending into conn_write now. For codecs that are asked for bytes (HTTP/2);
     * NULL for those that write at once. */
    void (*fill)(void *owner);
    /* Bytes left for the kernel; conn_unsent() tells how many have not. May be NULL. */
    void (*sent)(void *owner);
    /* The end, exactly once, unless conn_abort or conn_close was called by the owner itself: KV_ECLOSED for an orderly
     * or reset peer, KV_ETIMEDOUT, KV_EREFUSED, KV_ETLS, KV_EPROTO, KV_EIO. The conn is freed after the turn. */
    void (*closed)(void *owner, int error);
    /* The peer takes no more, so what is queued, and what follows, will not leave. What it said before is still
     * delivered, through pauses as ever: `data`, `eof` if it had ended its direction, then `closed`. With NULL here a
     * pause meanwhile means `closed` at once, because it may be one that waits for something to leave. Not told to
     * one who becomes the owner later: `closed` is all that it hears then. */
    void (*unsendable)(void *owner);
};

/* ---- making one ------------------------------------------------------------------------------------------------ */

/* Takes over an accepted, connected socket (closed on failure). With a TLS context the handshake starts, bounded by
 * LIMIT_HEAD_MS. 0, KV_ENOMEM or KV_EIO. */
int conn_accept(struct worker *worker, int fd, struct tls_context *tls, const struct conn_events *events, void *owner,
                struct conn **out);

/* The connection begins with a PROXY header (io/proxy_protocol.h), to be read before TLS and before the owner's first
 * bytes; conn_peer tells its address from then on. To be called right after conn_accept. Without one within
 * LIMIT_PROXY_HEADER_MS, or with a wrong one, the connection ends: KV_ETIMEDOUT, KV_EPROTO. */
void conn_expect_proxy_header(struct conn *conn);

struct dial_options {
    struct slice host; /* name or address, without brackets */
    uint16_t port;
    struct tls_context *tls; /* NULL: plain */
    struct slice tls_name;   /* name to verify and to send as SNI; empty: host */
    unsigned timeout_ms;     /* for resolving, connecting (all addresses) and the handshake together */
};

/* Resolves and connects; every address of both families is tried in turn, a slow one is overtaken by the next after
 * 250 ms (RFC 8305). Always returns at once; `ready` or `closed` tells. NULL only without memory. */
struct conn *conn_dial(struct worker *worker, const struct dial_options *options, const struct conn_events *events,
                       void *owner);

/* Starts TLS as a client on a connection that is open, plain or TLS already (at most one layer): what follows is inside
 * it. `first` has bytes of the peer's that were read already. The handshake is bounded by LIMIT_HEAD_MS; `ready` or
 * `closed` tells the owner, possibly from inside this call. For connections whose peer has just agreed to lead to
 * another one (proxies). 0; KV_ENOMEM, KV_ECLOSED: nothing has changed. */
int conn_start_tls(struct conn *conn, struct tls_context *tls, struct slice name, struct slice first);

/* Whether the peer has said nothing that its owner has not heard: neither a byte nor an end had come when the loop
 * looked last, in this turn. For connections that are kept and about to be used again. */
bool conn_is_silent(const struct conn *conn);

/* Hands the connection to another owner, for instance from a pool to a request. */
void conn_set_owner(struct conn *conn, const struct conn_events *events, void *owner);

/* ---- reading --------------------------------------------------------------------------------------------------- */

/* Stops and restarts `data` and `eof`. While paused a dead peer is noticed by sending only. */
void conn_pause(struct conn *conn);
void conn_resume(struct conn *conn);

/* ---- writing --------------------------------------------------------------------------------------------------- */

/* Queues a chunk, which is the connection's from here on. */
void conn_write(struct conn *conn, struct chunk *chunk);
/* Queues a copy. 0 or KV_ENOMEM (the connection should then be aborted: its stream has a hole). */
int conn_write_copy(struct conn *conn, const void *data, size_t len);
/* Moves a whole chain. */
void conn_write_chain(struct conn *conn, struct chain *chain);
/* Asks for a turn-end flush, which calls `fill`. Writing asks by itself. */
void conn_flush_later(struct conn *conn);
/* Bytes queued that the kernel has not taken. */
size_t conn_unsent(const struct conn *conn);
/* Ends our direction after what is queued has left; reading goes on. */
void conn_shutdown(struct conn *conn);

/* ---- ending ---------------------------------------------------------------------------------------------------- */

/* Sends what is queued, ends our direction, reads and drops for a moment (LIMIT_LINGER_*) so that the peer gets the
 * answer rather than a reset, then closes. A peer that still takes something is waited for; one that takes nothing for
 * LIMIT_LINGER_MS is not, unless there is patience with it. The owner hears nothing more: forget the pointer. */
void conn_close(struct conn *conn);
/* The same for output that is not whole and must not look so: when it has reached the peer's machine the connection is
 * reset. */
void conn_break(struct conn *conn);
/* The same, but our direction stays open until the peer has ended its own, LIMIT_LINGER_MS at most: for a peer that
 * takes the connection's end for a failure although what came before it said otherwise. */
void conn_part(struct conn *conn);
/* Closes at once and drops what is queued; with `reset` the peer sees RST, which no one can take for an orderly end.
 * The owner hears nothing more. NULL is legal. */
void conn_abort(struct conn *conn, bool reset);

/* How long a peer may take nothing of what is left when its connection's owner has closed. */
struct conn_patience {
    /* Whether it is at its end: nothing was acknowledged for so long. On the connection's worker. */
    bool (*is_spent)(const struct conn_patience *patience, uint64_t silent_ms);
    atomic_size_t sending; /* closed connections with something queued */
};
/* It outlives the connection. */
void conn_set_patience(struct conn *conn, struct conn_patience *patience);

struct conn_progress {
    uint64_t queued;       /* bytes written since the connection was made; with TLS, nearly (its own are few) */
    uint64_t acknowledged; /* of them: have reached the peer's machine */
    bool sending;          /* further ones have not */
    bool window_shut;      /* the peer's machine has no room for them */
};
/* Two system calls. */
void conn_progress(const struct conn *conn, struct conn_progress *out);
/* Has the connection end when nothing of what was sent is acknowledged for so long; 0: as the system has it
 * (socket_set_user_timeout). */
void conn_set_user_timeout(struct conn *conn, unsigned ms);

/* ---- facts ----------------------------------------------------------------------------------------------------- */

struct worker *conn_worker(const struct conn *conn);
bool conn_is_tls(const struct conn *conn);
/* ALPN protocol that was chosen; empty without TLS or without agreement. Lives as long as the conn. */
struct slice conn_alpn(const struct conn *conn);
/* The peer's socket address as it was when the connection was made, or as a PROXY header had it. */
const struct sockaddr *conn_peer(const struct conn *conn);
/* The operating system's or OpenSSL's own words for the last failure ("Connection refused"); never NULL. In `closed`.
 */
const char *conn_error_text(const struct conn *conn);

#endif
