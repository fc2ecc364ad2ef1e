/*
 * One request to the local service and its answer, whichever HTTP the service speaks: from heads and body bytes to a
 * connection and back. It knows neither tunnel nor exchange; relay.c joins the two. origin_h1.c is the way over
 * HTTP/1.1, origin_h2.c the one over HTTP/2.
 *
 *     origin_start ── request: head, origin_send ..., origin_send_end
 *                  ── answer:  interim heads, head, data ..., end         (each direction ends by itself)
 *                  ── or: failed | origin_cancel                          (at any moment; nothing comes after)
 *
 * After a 101 both directions are raw bytes; each ends by itself.
 *
 * What the owner cannot take stays here, at most one read of it, and the service is not read from until origin_read_on.
 * A connection that was kept from an earlier exchange and turns out to be dead before a byte of the answer came is
 * replaced by a new one, once, if the request has no body and may be repeated (RFC 9112, 9.3.1). Over HTTP/2, what the
 * service says it has not begun with is sent again, too (RFC 9113, 8.7).
 *
 * All functions run on the pool's worker. No event is delivered from inside these calls but origin_read_on.
 */
#ifndef KV_CLIENT_ORIGIN_H
#define KV_CLIENT_ORIGIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/chunk.h"
#include "base/reason.h"
#include "client/origin_head.h"
#include "client/origin_mux.h"
#include "http/http1.h"
#include "io/worker.h"

struct conn;
struct h2_stream;
struct origin;
struct origin_pool;

struct origin_events {
    /* A head of the answer: interim ones (not 100), then the final one or a 101. Borrowed until return. */
    void (*head)(void *owner, const struct head *answer);
    /* Body bytes that the owner can take now. */
    size_t (*room)(void *owner);
    /* Body bytes, at most room(), borrowed until return. */
    void (*data)(void *owner, struct slice bytes);
    /* The answer is complete; trailers (NULL without) are borrowed until return. Unless the exchange was upgraded or
     * its request is still on its way, the connection is free for others again. */
    void (*end)(void *owner, const struct head *trailers);
    /* So many of the bytes given to origin_send have left for the service, or been dropped. */
    void (*left)(void *owner, size_t bytes);
    /* The answer will not come, or not to its end; nothing is open any more. */
    void (*failed)(void *owner, enum close_reason reason, const char *text);
};

/* What is asked of the service. */
struct origin_request {
    const struct head *head; /* stays the caller's, and lives until the end */
    struct origin_framing framing;
    unsigned response_ms; /* from the request's end to the answer's head; 0: no bound */
    uint64_t visitor;     /* the connection of the visitor that asks; 0: not known */
};

/* What a way to the service does; the functions below say what each means. */
struct origin_ops {
    int (*send)(struct origin *origin, struct chunk *chunk);
    int (*send_end)(struct origin *origin, const struct head *trailers);
    void (*read_on)(struct origin *origin);
    void (*cancel)(struct origin *origin, bool abrupt);
};

/* Embedded in its owner; zeroed when unused. */
struct origin {
    const struct origin_ops *ops; /* NULL: not started */
    struct origin_pool *pool;
    const struct origin_events *events;
    void *owner;
    const struct head *request;
    unsigned response_ms;
    struct deadline response;
    bool open; /* something may still come or go */

    /* to the service */
    enum http1_framing framing;
    uint64_t length_left; /* of a body with a length */
    size_t owed;          /* bytes given to us that have not been told as left */
    struct chain early;   /* bytes that cannot go yet: of an upgrade before the 101, or before there is a connection */
    bool upgrade;         /* asked for */
    bool request_ended;

    /* from the service */
    struct buffer in; /* an unfinished head, or what the owner had no room for */
    unsigned interim;
    bool head_seen;
    bool raw; /* after a 101 */
    bool answer_ended;
    bool cancelled;

    /* over HTTP/1.1 */
    struct conn *conn; /* NULL: not started, or over */
    size_t scanned;
    struct http1_body body;
    uint64_t idle_ms;
    bool ready;           /* connected */
    bool reused;          /* from the pool: may be dead already */
    uint64_t was_idle_ms; /* there, if it was anyone's */
    uint64_t visitor;     /* the connection of the visitor that asks; 0: not known */
    bool personal;        /* the connection is logged in, or about to be: it serves this visitor alone */
    bool single_use;      /* the connection is not for another request: the service may have left a body unread */
    bool begun;           /* some of the request has left */
    bool repeatable;      /* the request may be sent again, and is its head alone */
    bool heard;           /* a byte of the answer came */
    bool keep_alive;

    /* over HTTP/2 */
    struct origin_seat seat;
    struct h2_stream *stream;  /* NULL: waits for a seat, or over */
    struct chain replay;       /* a copy of the request's body, while the request may have to be sent again */
    bool replayable, connects; /* an extended CONNECT */
    unsigned tries;
    struct head *request_trailers, *answer_trailers;
    bool answer_whole;          /* nothing more comes; the rest is in `in` */
    enum close_reason lost_for; /* the stream is gone for this reason, to be told behind what is in `in`; or NONE */
    char lost_text[64];
};

/* 0; KV_EINVAL for a head that cannot be sent; KV_ENOMEM. */
int origin_start(struct origin *origin, struct origin_pool *pool, const struct origin_request *request,
                 const struct origin_events *events, void *owner);

/* Request body bytes; takes the chunk. 0; KV_ECLOSED when nobody wants it any more (the answer is complete, or the head
 * announced no body): it was dropped, and no `left` follows; KV_EINVAL for more than the announced length and
 * KV_ENOMEM: cancel then. */
static inline int origin_send(struct origin *origin, struct chunk *chunk)
{
    return origin->ops->send(origin, chunk);
}

/* The request is complete (or, after a 101, our direction): trailers may be NULL and are copied. 0; KV_EINVAL for less
 * than the announced length; KV_ENOMEM: cancel then. */
static inline int origin_send_end(struct origin *origin, const struct head *trailers)
{
    return origin->ops->send_end(origin, trailers);
}

/* room() grew. */
static inline void origin_read_on(struct origin *origin)
{
    if (origin->ops)
        origin->ops->read_on(origin);
}

/* Ends it now: `abrupt` tells the service with a reset that this is no orderly end, otherwise what is queued is still
 * sent. Legal at any time, more than once, on a zeroed one, and needed before its memory goes. */
static inline void origin_cancel(struct origin *origin, bool abrupt)
{
    if (origin->ops)
        origin->ops->cancel(origin, abrupt);
}

static inline bool origin_is_open(const struct origin *origin)
{
    return origin->open;
}

/* After a 101, and still so after the end. */
static inline bool origin_is_raw(const struct origin *origin)
{
    return origin->raw;
}

#endif
