/*
 * HTTP/2 (RFC 9113) over nghttp2, for either side of a connection: bytes in, events out, frames pulled when there is
 * room for them. No I/O. The tunnel's link, the control plane and the edge are built on it.
 *
 * Limits against floods are applied here, so that no user of a session can forget one: field count and size, reset
 * rates, and an allowance for frames that do no work (docs/SECURITY-HTTP.md). The connection's window is returned on
 * receipt, a stream's when its user says that the bytes have left (h2_consume): one stalled stream then stops nobody
 * else.
 *
 * All functions run on the session's one thread. Those that queue frames call options.wake, whose duty is to have
 * h2_output called soon; they may be called from inside events.
 */
#ifndef KV_HTTP_H2_H
#define KV_HTTP_H2_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/chunk.h"
#include "base/slice.h"
#include "http/head.h"

struct h2_session;
struct h2_stream;

/* What the connection below a session knows of the peer's life. */
struct h2_signs {
    uint64_t heard;        /* worker_now() when bytes last came from it, of whatever kind */
    uint64_t acknowledged; /* bytes of ours that have reached its machine, since the beginning */
    bool sending;          /* further ones have not */
    bool window_shut;      /* its machine has no room for them */
};

struct h2_options {
    bool server;
    bool extended_connect;  /* RFC 8441, servers */
    uint32_t stream_window; /* INITIAL_WINDOW_SIZE that we announce */
    uint32_t connection_window;
    uint32_t max_frame_size;      /* that we accept: 16384 .. 2^24-1 */
    uint32_t max_concurrent;      /* peer-initiated streams */
    void (*wake)(void *wake_arg); /* frames wait for h2_output */
    /* Of the connection below, asked by h2_signs and h2_set_user_timeout; NULL where there is none. */
    void (*signs)(void *wake_arg, struct h2_signs *out);
    void (*user_timeout)(void *wake_arg, unsigned ms);
    void *wake_arg;
};

struct h2_events {
    /* A request arrived (server). The head borrows until return; target, authority and scheme are set from the pseudo
     * fields, protocol from an extended CONNECT. Returns the stream's user data; NULL after h2_reset or a complete
     * h2_respond, and no further event comes for the stream. */
    void *(*request)(void *owner, struct h2_stream *stream, const struct head *head, bool end);
    /* A request whose head is over the limits (server); `head` has what came before that. To be answered whole with
     * h2_respond, or reset; no further event comes for the stream. NULL: it is reset with ENHANCE_YOUR_CALM. */
    void (*oversized)(void *owner, struct h2_stream *stream, const struct head *head, bool target_too_long);
    /* A response head arrived (client): status set; interim ones (1xx) come first. */
    void (*response)(void *user, const struct head *head, bool end);
    void (*trailers)(void *user, const struct head *trailers);
    /* A head or trailers came that are over the limits (client); the stream is reset with ENHANCE_YOUR_CALM. May be
     * NULL. */
    void (*oversized_answer)(void *user);
    /* Body bytes, borrowed until return. */
    void (*data)(void *user, struct slice bytes);
    /* The peer ended its direction (after the last data or the trailers). */
    void (*end)(void *user);
    /* The stream is gone, the last event for it: error_code is 0 (NO_ERROR) after an orderly end of both directions.
     * REFUSED_STREAM says that the peer has done nothing with the request, be it by its own word (a reset, or a GOAWAY
     * for lower streams: RFC 9113, 8.7) or because the request never left. The stream pointer is stale on return. */
    void (*closed)(void *user, uint32_t error_code);
    /* The stream's output chain is empty and the connection has room: push more into it now, or not. May be NULL. */
    void (*writable)(void *user);
    /* A frame of the stream is about to be made and has room for more than its output chain holds: push more into it
     * now, or not. May be NULL. */
    void (*fill)(void *user);
    /* Some of the stream's output chain has gone into frames. May be NULL. */
    void (*sent)(void *user);
    /* A stream was answered whole before its request was, and nobody has a use for the rest, which is read and dropped:
     * call h2_end_leftovers in a moment (server). NULL: such a stream is reset behind its answer. */
    void (*leftover)(void *owner);
    /* The peer's SETTINGS came and are in force: its first, or later ones. May be NULL. */
    void (*settings)(void *owner);
    /* The peer answered a PING of ours, or sent GOAWAY. May be NULL. */
    void (*pong)(void *owner, uint64_t opaque);
    void (*goaway)(void *owner, uint32_t error_code);
};

/* NULL without memory. The SETTINGS go out with the first h2_output. */
struct h2_session *h2_new(const struct h2_options *options, const struct h2_events *events, void *owner);
/* Delivers `closed` with this code for every stream that is left; events from inside are the last ones. */
void h2_close_streams(struct h2_session *session, uint32_t error_code);
/* Frees session and streams; no event is delivered. NULL is legal. Not from inside an event. */
void h2_free(struct h2_session *session);
/* From here on no event is delivered and input is dropped; what is queued can still be put out. Legal inside an event.
 */
void h2_mute(struct h2_session *session);

/* Takes all bytes. 0, KV_EPROTO when the peer broke the protocol, KV_ELIMIT when it floods us (a GOAWAY may be queued:
 * output once more, then close), or KV_ENOMEM. */
int h2_input(struct h2_session *session, struct slice bytes);

/* Appends frames to `out` until `out` holds `limit` bytes or there is nothing to send. 0, KV_ENOMEM, KV_EPROTO or, when
 * the peer made us reset too much, KV_ELIMIT. */
int h2_output(struct h2_session *session, struct chain *out, size_t limit);

/* True when the session has neither anything to read nor to send any more: close the connection. */
bool h2_finished(struct h2_session *session);

/* Opens a stream (client). end: no body follows. The head's authority, scheme, target, method and, for an extended
 * CONNECT, protocol become pseudo fields. NULL when the session cannot open streams any more. */
struct h2_stream *h2_request(struct h2_session *session, const struct head *head, bool end, void *user);
/* Sends a response head (server); interim for 1xx. 0, KV_ENOMEM, or KV_ELIMIT for one with too many fields. */
int h2_respond(struct h2_stream *stream, const struct head *head, bool end);
/* The stream's output chain: push chunks, then call h2_resume. */
struct chain *h2_stream_output(struct h2_stream *stream);
void h2_resume(struct h2_stream *stream);
/* Ends our direction after the output chain, with trailers (copied) or without (NULL). 0, KV_ENOMEM or KV_ELIMIT. */
int h2_end(struct h2_stream *stream, const struct head *trailers);
/* RST_STREAM; `closed` follows when the frame is written. */
void h2_reset(struct h2_stream *stream, uint32_t error_code);
/* The same behind what the stream's output chain has. */
void h2_reset_behind(struct h2_stream *stream, uint32_t error_code);
/* Nobody wants the rest of the peer's direction: it is read and dropped. Of the events for what comes in, `closed`
 * alone follows. */
void h2_drop_input(struct h2_stream *stream);
/* Takes tokens of the peer's allowance against floods, for work of the user's own. False when it is spent: the session
 * ends (KV_ELIMIT of h2_input). */
bool h2_charge(struct h2_stream *stream, uint32_t tokens);
/* Resets the streams that `leftover` told of before the last call, with NO_ERROR: their answers have had a moment to
 * arrive, which a reset that comes with them would overtake (RFC 9113, 8.1). True if there are others: call again. */
bool h2_end_leftovers(struct h2_session *session);
/* n body bytes have left: the peer may send as many more. */
void h2_consume(struct h2_stream *stream, size_t n);

void h2_ping(struct h2_session *session, uint64_t opaque);
/* GOAWAY: no new streams, the running ones may end. */
void h2_goaway(struct h2_session *session, uint32_t error_code);
/* Fills in what the connection knows of the peer; untouched where there is none. */
void h2_signs(const struct h2_session *session, struct h2_signs *out);
/* Has the connection end when the peer's machine acknowledges nothing for so long (conn_set_user_timeout); 0: as long
 * as the system has it. */
void h2_set_user_timeout(struct h2_session *session, unsigned ms);
/* Asks for no new streams, while those on the way are still taken; h2_goaway follows a moment later (RFC 9113, 6.8). */
void h2_shutdown_notice(struct h2_session *session);
/* Streams alive. */
size_t h2_stream_count(const struct h2_session *session);
/* What the peer's SETTINGS allow: streams of ours at once, and extended CONNECT (RFC 8441, 3). */
uint32_t h2_peer_max_streams(const struct h2_session *session);
bool h2_peer_takes_connect(const struct h2_session *session);

void *h2_stream_user(struct h2_stream *stream);
void h2_set_stream_user(struct h2_stream *stream, void *user);
/* Has the stream's events delivered to another room's functions from here on (not request, pong and goaway, which are
 * the session's). Inside `request`, whose return value is then that room's user data. */
void h2_hand_over(struct h2_stream *stream, const struct h2_events *events);
/* Lets the peer send this much on the stream, and on its connection, before it waits for us. */
void h2_widen(struct h2_stream *stream, uint32_t window);
struct h2_session *h2_stream_session(struct h2_stream *stream);

/* RFC 9113, section 7 */
enum h2_error {
    H2_NO_ERROR = 0,
    H2_PROTOCOL_ERROR = 1,
    H2_INTERNAL_ERROR = 2,
    H2_FLOW_CONTROL_ERROR = 3,
    H2_REFUSED_STREAM = 7,
    H2_CANCEL = 8,
    H2_ENHANCE_YOUR_CALM = 11,
    H2_HTTP_1_1_REQUIRED = 13,
};

/* "REFUSED_STREAM", for the log. */
const char *h2_error_name(uint32_t error_code);

#endif
