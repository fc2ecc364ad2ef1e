/* The inside of a visitor's HTTP/1 connection, shared by edge_h1.c (requests, bodies up) and edge_h1_answer.c
 * (answers); nobody else includes it. */
#ifndef KV_EDGE_EDGE_H1_IMPL_H
#define KV_EDGE_EDGE_H1_IMPL_H

#include "edge/edge_impl.h"
#include "edge/edge_stall.h"
#include "http/http1.h"
#include "io/conn.h"

/* One request and its answer. */
struct edge_exchange {
    struct half half;
    struct edge_h1 *h1;
    struct http1_body body;
    uint64_t body_bytes;
    struct edge_stall upload; /* the body does not come, or is not taken */
    struct deadline answer;   /* from the end of the request to the answer's head */
    bool body_done;           /* nothing more of the visitor's is to come; of an upgrade: of its raw bytes */
    bool body_taken; /* with wants_upgrade: the request's body has gone up, and what follows waits for the 101 */
    bool expects_continue;
    bool wants_upgrade, upgraded;
    bool is_head, http10, keep_alive;
    enum edge_body_type error_type;

    bool bodyless; /* what comes of the answer's body is dropped */
    bool answered; /* the final head is written */
    bool answer_ended;
    enum http1_framing framing;
    uint64_t answer_left; /* with HTTP1_LENGTH */
    size_t owed;          /* answer bytes queued whose room was not given back */
};

struct edge_h1 {
    struct edge *edge;
    struct conn *conn;
    struct edge_peer peer;
    struct address_hold hold;
    struct edge_exchange *exchange; /* NULL between requests */
    struct buffer input;            /* bytes not taken yet */
    size_t scanned;
    struct edge_waiter waiter; /* for the tunnel of the head in `input` */
    bool admitted;             /* that head, which has waited, counts already */
    bool processing, eof, closing;
    bool sent_since;              /* output left since `reading` was armed behind the visitor's end */
    struct deadline reading;      /* a head, the idle time, an upgrade's too */
    struct edge_stall answer_out; /* the visitor takes nothing */
    struct edge_h1 *prev, *next;
    struct free_node free;
};

static inline struct worker *edge_h1_worker(const struct edge_h1 *h1)
{
    return conn_worker(h1->conn);
}

/* The request is whole, and what the visitor sends next is another protocol's, or another request. */
static inline bool edge_h1_awaits_switch(const struct edge_exchange *x)
{
    return x->wants_upgrade && x->body_taken && !x->upgraded;
}

/* ---- edge_h1.c ------------------------------------------------------------------------------------------------- */

/* Leaves the exchange at hand, if there is one; the connection stays. */
void edge_h1_end_exchange(struct edge_h1 *h1, enum close_reason reason, const char *text);
/* Sends what is queued and closes. */
void edge_h1_close(struct edge_h1 *h1, enum close_reason reason, const char *text);
/* Cuts the connection at once, so that nobody takes what was sent for complete. */
void edge_h1_cut(struct edge_h1 *h1, enum close_reason reason, const char *text);
/* The request at hand fails. Without an answer under way the visitor is told; with one, what was good of it is sent
 * first, and then the connection ends so that the answer cannot look complete. */
void edge_h1_fail(struct edge_h1 *h1, enum close_reason reason, const char *text);
/* The request is complete: now it is the tunnel's turn. How long it has is known from `opened` on. */
void edge_h1_await_answer(struct edge_exchange *x);
/* Output was queued: the visitor has to take some of it in time. */
void edge_h1_await_visitor(struct edge_h1 *h1);
/* Bytes of an upgraded connection came, either way: its idle time begins anew. */
void edge_h1_await_raw(struct edge_h1 *h1);
/* True when so much output waits for the visitor that its next request has to. */
bool edge_h1_is_choked(const struct edge_h1 *h1);
/* Looks again at the input that was kept. */
void edge_h1_resume(struct edge_h1 *h1);
/* Reads from the socket, or not, as the input that is kept allows. */
void edge_h1_adjust_reading(struct edge_h1 *h1);

/* ---- edge_h1_answer.c ------------------------------------------------------------------------------------------ */

extern const struct half_events edge_h1_half_events;
/* The connection's `sent`. */
void edge_h1_on_sent(void *owner);

#endif
