/*
 * An HTTP/2 session on a connection: moves bytes between the two, keeps output within its caps and takes both down
 * together. Every HTTP/2 user of the program is built on one: the tunnel's link on both sides, the edge, origins.
 */
#ifndef KV_HTTP_H2_CONN_H
#define KV_HTTP_H2_CONN_H

#include "base/slice.h"
#include "http/h2.h"

struct conn;
struct h2_conn;

struct h2_conn_events {
    struct h2_events h2; /* their owner is the one given to h2_conn_new */
    /* The connection ended by itself, once; every stream has had its `closed` before. `error` and `text` as the
     * connection told them, KV_EPROTO when the peer broke HTTP/2, or KV_ELIMIT when it flooded us. The h2_conn is freed
     * after the turn. */
    void (*ended)(void *owner, int error, const char *text);
};

/* Takes over a connection that is ready, with bytes of it that were read already (`first`, may be empty: they are
 * handled before this returns). options.server decides the side; options.wake and its like are set here. The h2_conn is
 * stored to *out before any event. 0, or KV_ENOMEM and then the connection stays the caller's. */
int h2_conn_new(struct conn *conn, const struct h2_options *options, const struct h2_conn_events *events, void *owner,
                struct slice first, struct h2_conn **out);

struct h2_session *h2_conn_session(struct h2_conn *hc);
struct conn *h2_conn_conn(struct h2_conn *hc);
/* For a stream's `closed`: 0 while the connection lives, otherwise the error that `ended` will tell, and its text. */
int h2_conn_error(const struct h2_conn *hc, const char **text);

/* Sends what is queued, GOAWAY with error_code last, and closes; no event comes after. NULL is legal. */
void h2_conn_close(struct h2_conn *hc, uint32_t error_code);
/* The same with NO_ERROR, but the peer is left to close first (conn_part): gRPC libraries take the end of the
 * connection for the end of a call whose status they have just read. NULL is legal. */
void h2_conn_part(struct h2_conn *hc);
/* Closes at once, without a word; no event comes after. NULL is legal. */
void h2_conn_abort(struct h2_conn *hc);

#endif
