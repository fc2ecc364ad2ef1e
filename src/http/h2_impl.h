/* The inside of an HTTP/2 session, shared by h2.c (what comes in, streams, the session), h2_head.c (heads that come
 * in), h2_out.c (what goes out) and h2_flood.c; nobody else includes it. */
#ifndef KV_HTTP_H2_IMPL_H
#define KV_HTTP_H2_IMPL_H

#include <nghttp2/nghttp2.h>

#include "base/bucket.h"
#include "base/buffer.h"
#include "base/limits.h"
#include "http/h2.h"
#include "http/h2_memory.h"

#define SENT_FIELDS_MAX (LIMIT_ANSWER_HEAD_FIELDS + 32) /* what others may send, and what forwarding adds */
#define SENT_BLOCK_MAX  (2 * LIMIT_ANSWER_HEAD_BYTES)   /* of such a head, packed at worst */

struct h2_session {
    nghttp2_session *ng;
    struct h2_memory memory; /* of ng */
    const struct h2_events *events;
    void *owner;
    void (*wake)(void *wake_arg);
    void (*signs)(void *wake_arg, struct h2_signs *out);
    void (*user_timeout)(void *wake_arg, unsigned ms);
    void *wake_arg;
    bool muted;
    struct h2_stream *streams;
    size_t stream_count;
    struct head *incoming;
    size_t incoming_bytes; /* decoded, wanted or not */
    bool incoming_too_large, target_too_long;
    struct buffer cookie; /* the crumbs of `incoming`, joined, if there are several */
    unsigned crumbs;
    bool server;
    int32_t newest;           /* stream that the peer opened */
    int32_t gap_from, gap_to; /* the last streams it skipped lie between these two */
    struct bucket allowance;  /* for frames */
    struct bucket resets;     /* that the peer may send */
    bool flooded;
    bool parting;      /* a GOAWAY went either way: before that no session has finished */
    struct chain *out; /* during h2_output */
    size_t out_limit;
};

struct h2_stream {
    struct h2_session *session;
    int32_t id;
    const struct h2_events *events; /* the session's, or those of whom it was handed to */
    void *user;                     /* NULL: nobody wants events */
    struct chain out;
    struct head *trailers;
    bool end_wanted;
    bool begun;     /* its HEADERS came, or have gone out */
    bool deferred;  /* nghttp2 waits for h2_resume */
    unsigned heads; /* submitted and not sent: a reset drops them */
    bool broken;    /* to be reset with reset_code when all that was given to it is sent */
    bool deaf;      /* its input is dropped */
    uint32_t reset_code;
    bool leftover; /* answered, and the rest of its request is dropped */
    bool stale;    /* since before the last h2_end_leftovers */
    struct h2_stream *next, **link;
};

/* ---- h2.c ------------------------------------------------------------------------------------------------------ */

struct h2_stream *h2_stream_new(struct h2_session *s);
void h2_stream_free(struct h2_stream *stream);
/* Resets a broken stream if all that was given to it is sent. */
void h2_settle_broken(struct h2_stream *stream);
/* Has h2_output called soon. */
void h2_wake(struct h2_session *s);

/* ---- h2_head.c ------------------------------------------------------------------------------------------------- */

/* A block begins. 0 or KV_ENOMEM. */
int h2_head_begin(struct h2_session *s);
/* Takes a field of it. False when the block is so large that the rest of it is not to be looked at. */
bool h2_head_take(struct h2_session *s, struct slice name, struct slice value);
/* The block is complete: `incoming` has all that was taken, unless it is too large. */
void h2_head_finish(struct h2_session *s);
/* Forgets it. */
void h2_head_end(struct h2_session *s);
/* Whether a head makes a request that can be passed on over any HTTP; settles its authority. */
bool h2_head_is_request(struct head *h);

/* ---- h2_out.c -------------------------------------------------------------------------------------------------- */

void h2_set_output_callbacks(nghttp2_session_callbacks *callbacks);

/* ---- h2_flood.c ------------------------------------------------------------------------------------------------ */

void h2_flood_start(struct h2_session *s);
void h2_set_flood_limits(nghttp2_option *option);
/* Takes tokens from the allowance. False when it is spent: the session is flooded, and a GOAWAY that says so queued. */
bool h2_spend(struct h2_session *s, uint32_t tokens);
/* The same without a look at the allowance, for floods that nghttp2 saw. */
void h2_flooded(struct h2_session *s);

void h2_earn_request(struct h2_session *s);
void h2_earn_data(struct h2_session *s);
void h2_earn_sent(struct h2_session *s, size_t bytes);
/* Pays for a head over the limits; false as h2_spend. */
bool h2_spend_oversized(struct h2_session *s);
/* The peer reset a stream; false as h2_spend. */
bool h2_spend_peer_reset(struct h2_session *s);
/* We reset a stream with this code. */
void h2_spend_reset(struct h2_session *s, uint32_t error_code);

#endif
