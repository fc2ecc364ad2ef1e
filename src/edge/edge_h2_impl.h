/* The inside of a visitor's HTTP/2 connection, shared by edge_h2.c (requests, bodies up, the connection) and
 * edge_h2_answer.c (answers); nobody else includes it. */
#ifndef KV_EDGE_EDGE_H2_IMPL_H
#define KV_EDGE_EDGE_H2_IMPL_H

#include "edge/edge_impl.h"
#include "edge/edge_stall.h"
#include "http/h2_conn.h"

struct edge_h2 {
    struct edge *edge;
    struct worker *worker;
    struct h2_conn *conn;
    struct edge_peer peer;
    struct address_hold hold;
    size_t streams; /* visitors' */
    void *guest;    /* the one that is no visitor's */
    bool draining, closed;
    struct deadline idle;      /* without a stream */
    struct deadline leftovers; /* requests that were answered before they were whole */
    struct deadline notice;    /* from the first GOAWAY to the last */
    struct edge_h2 *prev, *next;
    struct free_node free;
};

/* One stream: a request and its answer. */
struct edge_stream {
    struct half half;
    struct edge_h2 *h2;
    struct h2_stream *stream;    /* NULL when it is gone */
    struct edge_waiter waiter;   /* for a tunnel that is expected */
    struct edge_request waiting; /* the request, while it waits; its head is the next */
    struct head *waiting_head;
    struct chain pending; /* body bytes the tunnel has no room for */
    struct head *trailers;
    uint64_t body_bytes;
    bool body_ended; /* by the visitor */
    bool body_sent;  /* and all of it has gone up */
    struct edge_manner manner;
    bool no_body, connects, answered, expects_continue;
    struct head *held;    /* gRPC's trailers-only answer, until it is known that nothing follows */
    uint64_t answer_left; /* of a length that the answer announced */
    bool has_length;
    size_t owed;                  /* answer bytes queued whose room was not given back */
    bool over;                    /* the exchange is left, and the rest of the answer is on its way out */
    uint64_t queued;              /* answer bytes given to the stream */
    uint64_t taken;               /* of them: the connection had taken them at the last look */
    uint64_t fence;               /* where the connection's output ended then */
    struct edge_stall upload;     /* a request's body that does not come, or is not taken */
    struct edge_stall answer_out; /* an answer that the visitor does not take */
    struct deadline raw_idle;     /* an upgraded stream that carries nothing */
    struct deadline answer;       /* from the end of the request to the answer's head */
    struct free_node free;
};

/* ---- edge_h2.c ------------------------------------------------------------------------------------------------- */

/* The request fails: the visitor is told, or the stream is reset so that nobody takes it for complete. */
void edge_h2_fail(struct edge_stream *s, enum close_reason reason, const char *text);
/* Leaves the exchange, after our last word on the HTTP/2 stream: what is queued goes out, as fast as the visitor takes
 * it, and what still comes is dropped. */
void edge_h2_leave(struct edge_stream *s, enum close_reason reason, const char *text);
/* Sends up as much as there is room for; true unless the stream failed. */
bool edge_h2_send_up(struct edge_stream *s);
/* The request is complete, or asks to upgrade: now it is the tunnel's turn. How long it has is known from `opened` on.
 */
void edge_h2_await_answer(struct edge_stream *s);
/* Watches over the request's body, or over an upgraded stream: bytes moved, or what it is has changed. */
void edge_h2_await_body(struct edge_stream *s);
/* Answer bytes were queued: the visitor has to take some of them in time. */
void edge_h2_await_visitor(struct edge_stream *s);

/* ---- edge_h2_answer.c ------------------------------------------------------------------------------------------ */

extern const struct half_events edge_h2_half_events;
/* The connection has taken all there was of a stream. */
void edge_h2_on_writable(void *user);

#endif
