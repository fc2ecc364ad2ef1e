/* The inside of the edge, shared by its files; nobody else includes it. */
#ifndef KV_EDGE_EDGE_IMPL_H
#define KV_EDGE_EDGE_IMPL_H

#include <stdatomic.h>

#include "base/buffer.h"
#include "base/limits.h"
#include "base/reason.h"
#include "base/slice.h"
#include "edge/edge.h"
#include "http/head.h"
#include "io/conn.h"
#include "io/network.h"
#include "io/worker.h"
#include "tunnel/exchange.h"

/* An answer's head as it is written: a whole one from the tunnel, and what framing it adds. */
#define ANSWER_HEAD_MAX (2 * LIMIT_ANSWER_HEAD_BYTES)

struct h2_stream;
struct edge_h1;
struct edge_h2;
struct edge_waiter;
struct newcomer;
struct redirect;

/* What one worker has; touched by that worker alone, but for the counters, which others read. */
struct edge_local {
    _Alignas(64) struct newcomer *newcomers; /* until it is known what they speak */
    struct redirect *redirects;
    struct edge_h1 *h1_conns;
    struct edge_h2 *h2_conns;
    bool draining;
    struct buffer scratch; /* a head on its way out: see edge_scratch */
    uint64_t next_request; /* numbers the requests that reach no tunnel */
    uint64_t connections;  /* numbers visitors' connections, from a random beginning: no other server's are the same */
    atomic_size_t alive;
    uint64_t proxy_warned_at;    /* worker_now() of the last warning about a PROXY header, if there was one */
    struct edge *edge;           /* set while there are waiters */
    struct edge_waiter *waiters; /* whose tunnel is expected */
    size_t waiting;
    struct deadline arrival; /* when they are looked at again */
    atomic_uint_fast64_t connections_refused, requests_limited;
    atomic_uint_fast64_t requests, body_limit_exceeded, floods, proxy_headers_refused, waited;
    atomic_uint_fast64_t responses[EDGE_STATUS_MAX];
};

struct edge {
    struct edge_settings settings;
    struct address_limit *limit;   /* NULL: none is set */
    struct edge_local *locals;     /* one a worker */
    unsigned count;                /* of them */
    atomic_bool stopping;          /* nobody is waited for any more */
    struct conn_patience patience; /* with visitors that still take what is left to send */
};

static inline struct edge_local *edge_local(struct edge *edge)
{
    return &edge->locals[worker_index(worker_current())];
}

/* The owner is the only writer: no read-modify-write is needed, only an untorn store. */
static inline void edge_counter_add(atomic_uint_fast64_t *counter, uint64_t n)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n, memory_order_relaxed);
}

static inline void edge_count_response(struct edge_local *local, unsigned status)
{
    if (status < EDGE_STATUS_MAX)
        edge_counter_add(&local->responses[status], 1);
}

static inline void edge_count_body_limit(struct edge_local *local)
{
    edge_counter_add(&local->body_limit_exceeded, 1);
}

/* The worker's own empty buffer, to write a head into; whoever asks next has it. */
static inline struct buffer *edge_scratch(struct edge *edge)
{
    struct edge_local *local = edge_local(edge);
    local->scratch.len = 0;
    return &local->scratch;
}

/* The next of the ids for requests that reach no tunnel. */
void edge_request_id(struct edge *edge, char out[EXCHANGE_ID_LEN]);

/* ---- edge_conn.c ----------------------------------------------------------------------------------------------- */

/* Closes the calling worker's connections that have not said anything yet. */
void edge_newcomers_close(struct edge *edge);

/* Has a connection just accepted begin with a PROXY header if it comes from one who is to send it. True then: who the
 * visitor is will be known with its first bytes. */
bool edge_expect_proxy_header(const struct edge *edge, struct conn *conn);

/* ---- edge_redirect.c ------------------------------------------------------------------------------------------- */

/* Closes the calling worker's connections that wait for a request to redirect. */
void edge_redirects_close(struct edge *edge);

/* ---- edge_route.c ---------------------------------------------------------------------------------------------- */

/* The tunnel's name in a host, the label next to the base host; empty for any other host, the base host itself
 * included. `host` has room for what the label points into. */
struct slice edge_label_of(struct edge *edge, struct slice authority, char host[LIMIT_HOST_BYTES + 1]);

/* The link that serves the host that a request was read for, and the tunnel's own part of that host, without the labels
 * in front, as the visitor wrote it; REASON_NONE, or why not. */
enum close_reason edge_route(struct edge *edge, const struct head *request, struct address *link,
                             struct slice *tunnel_host);

/* The same part, in lower case, of a request that edge_route has found a link for. */
struct slice edge_tunnel_host(const struct edge *edge, const struct head *request, char out[LIMIT_HOST_BYTES]);

/* The label next to the base host; empty for any other host, the base host itself included. Both in the form that
 * http_host_of gives. */
struct slice edge_subdomain(struct slice host, struct slice base);

/* ---- edge_arrival.c -------------------------------------------------------------------------------------------- */

/* A request whose tunnel is not here yet and is expected (registry_expects); embedded in what waits. */
struct edge_waiter {
    char label[LIMIT_LABEL_BYTES + 1]; /* empty: it does not wait */
    void (*again)(struct edge_waiter *waiter);
    struct edge_waiter *prev, *next;
};

/* True if a request with this authority is to wait: then it does, and `again` is called once when its tunnel has come
 * or is no longer expected. False if it can go on now. */
bool edge_wait(struct edge *edge, struct edge_waiter *waiter, struct slice authority);
/* Legal when it does not wait. The worker that it waits on. */
void edge_wait_cancel(struct edge *edge, struct edge_waiter *waiter);

static inline bool edge_waits(const struct edge_waiter *waiter)
{
    return waiter->label[0] != '\0';
}

/* ---- edge_forward.c -------------------------------------------------------------------------------------------- */

/* Who a connection leads to, as text, made once: "203.0.113.7:4567" and the address in it. */
struct edge_peer {
    char text[EXCHANGE_REMOTE_LEN];
    uint8_t host_at, host_len;
    uint64_t site;                  /* whom requests count for (ip_site); 0: no one, or whom the proxy tells */
    uint64_t connection;            /* its number; 0 for a trusted proxy's, which carries many visitors */
    const struct networks *trusted; /* NULL: it is no proxy whose word counts */
};
/* Numbers the connection: once for each. */
void edge_peer_of(struct edge *edge, const struct conn *conn, struct edge_peer *peer);

/* A visitor's request as far as its codec has read it. */
struct edge_request {
    const struct head *head; /* may borrow */
    struct slice version;    /* of HTTP: "1.0", "1.1", "2"; static text */
    uint64_t length;         /* of the body, if it is known; else 0 */
    bool unknown_length;     /* a body of unknown length follows */
    bool complete;           /* nothing follows */
};

/* Counts a connection for its visitor. False if it is one too many for that address, and has been counted as refused.
 * Proxies named as trusted speak for many, and are not held to it. */
bool edge_hold_take(struct edge *edge, const struct conn *conn, struct address_hold *hold);

/* Counts a request that has come and holds it against its visitor's rate; REASON_NONE, or REASON_RATE_LIMITED. Once a
 * request, before it may wait for its tunnel: places to wait are few. */
enum close_reason edge_admit(struct edge *edge, const struct head *head, const struct conn *conn,
                             const struct edge_peer *peer);
/* Finds the tunnel of a request that was admitted; REASON_NONE, or why it is to be refused. */
enum close_reason edge_find_tunnel(struct edge *edge, const struct edge_request *request, struct address *link);

/* Opens the exchange. 0 or KV_ENOMEM. */
int edge_open(const struct edge *edge, const struct edge_request *request, struct conn *conn,
              const struct edge_peer *peer, struct address link, struct half *half, const struct half_events *events,
              void *owner);

/* What every head from a tunnel goes through on its way to the visitor, interim ones too: cookies stay with their host,
 * and a final one gets Strict-Transport-Security. *head owns, and may be replaced. 0 or KV_ENOMEM. */
int edge_dress_answer(const struct edge *edge, struct head **head);
/* Adds Strict-Transport-Security to an answer that is to have it and does not (RFC 6797, 7.1). As above. */
int edge_add_hsts(const struct edge *edge, struct head **head);

/* Whether an answer to this request has no content, whatever its service sends (RFC 9110, 15.3.5, 15.3.6 and 15.4.5):
 * its body is dropped. */
bool edge_is_bodyless(const struct head *answer, bool to_head);

/* Whether a request may switch its connection to this protocol. Over HTTP/1 it is served without its wish if not. */
bool edge_allows_upgrade(const struct edge *edge, struct slice protocol);

/* An extended CONNECT becomes the upgrade that the local service knows: GET with a key of its own making (RFC 8441, 5).
 * NULL without memory. */
struct head *edge_make_upgrade(const struct head *head);

/* ---- edge_error.c ---------------------------------------------------------------------------------------------- */

enum edge_body_type {
    EDGE_TEXT,
    EDGE_JSON,
    EDGE_HTML
};

/* What kind of page a visitor would like, by Accept (RFC 9110, 12.5.1); text when anything will do. */
enum edge_body_type edge_wanted_type(const struct head *request);

/* An error answer: an owning head and a body. status 0 in the reason's row means that none can be sent: KV_ENOTFOUND.
 * KV_ENOMEM. The caller frees both. */
int edge_error_make(enum close_reason reason, enum edge_body_type type, const char *request_id, struct head **head,
                    struct buffer *body);

/* ---- edge_h2_error.c ------------------------------------------------------------------------------------------- */

/* What an error answer to a request looks like. */
struct edge_manner {
    enum edge_body_type type;
    bool is_head, is_grpc;
};
struct edge_manner edge_manner_of(const struct head *request);

/* An error answer on a stream that has had none, counted. request_id NULL or empty: a new one. False if the reason has
 * no answer, or without memory: reset the stream. */
bool edge_h2_refuse(struct edge *edge, struct h2_stream *stream, enum close_reason reason, struct edge_manner manner,
                    const char *request_id);
/* Ends a gRPC call that has had its answer's head: trailers say why there is no more. False without memory. */
bool edge_h2_end_grpc(struct h2_stream *stream, enum close_reason reason, const char *request_id);

/* Whether an answer's head is gRPC's last word already: it has to go out as one frame that ends the stream, or it is
 * taken for metadata. */
bool edge_is_trailers_only(const struct head *answer);

/* ---- edge_error_page.c ----------------------------------------------------------------------------------------- */

/* Appends the page for a browser. 0, KV_ENOMEM or KV_ELIMIT. */
int edge_page_write(struct buffer *page, const struct reason_text *row, const char *request_id);
/* Content-Security-Policy of that page. */
extern const char edge_page_policy[];

/* ---- edge_h1.c ------------------------------------------------------------------------------------------------- */

/* Serves HTTP/1 on a connection that is ready, and takes over its hold; `first` holds bytes that came already. On
 * failure the connection is aborted. */
void edge_h1_start(struct edge *edge, struct conn *conn, struct address_hold hold, struct slice first);
/* Closes it if nothing is in flight, otherwise after the answer; with `now` at once. */
void edge_h1_drain(struct edge_h1 *h1, bool now);
struct edge_h1 *edge_h1_next(const struct edge_h1 *h1);

/* ---- edge_h2.c ---- */

/* The same for HTTP/2; edge_h2_last_call tells the visitor to open no more streams here (RFC 9113, 6.8). */
void edge_h2_start(struct edge *edge, struct conn *conn, struct address_hold hold, struct slice first);
void edge_h2_last_call(struct edge_h2 *h2);
void edge_h2_drain(struct edge_h2 *h2, bool now);
struct edge_h2 *edge_h2_next(const struct edge_h2 *h2);

#endif
