/*
 * HTTP/1.1 as bytes in, events out (RFC 9112): a strict, incremental parser (http1_parse.c), body framing both ways
 * (http1_body.c) and a writer (http1_write.c). No I/O, no allocation per field; the same functions serve the edge, the
 * origin side, the tests and the fuzzers. No locks: a message, a body and a buffer belong to one worker at a time.
 *
 * A message has one framing or none. Whatever two parsers could read differently is refused (the list is in
 * docs/SECURITY-HTTP.md): the next parser behind the tunnel then has nothing to disagree about.
 */
#ifndef KV_HTTP_HTTP1_H
#define KV_HTTP_HTTP1_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buffer.h"
#include "base/reason.h"
#include "base/slice.h"
#include "http/head.h"

enum http1_framing {
    HTTP1_NO_BODY,     /* neither length nor chunks; a response that cannot have a body */
    HTTP1_LENGTH,      /* Content-Length, 0 included */
    HTTP1_CHUNKED,     /* Transfer-Encoding: chunked */
    HTTP1_UNTIL_CLOSE, /* responses only */
};

/* Strict towards visitors, wherever two parsers could disagree; tolerant towards the owner's own service, wherever only
 * one reading exists: what it sends is written anew anyway. */
enum http1_reading {
    HTTP1_STRICT,
    HTTP1_TOLERANT,
};

/* Field lines accepted in one head: eight of LIMIT_HEAD_FIELDS are left for what the forwarding rules add. */
#define HTTP1_FIELDS_MAX        (LIMIT_HEAD_FIELDS - 8)
/* The same in an answer. */
#define HTTP1_ANSWER_FIELDS_MAX LIMIT_ANSWER_HEAD_FIELDS
/* Longest method: the registered ones end at 17 (RFC 9110, 16.1). */
#define HTTP1_METHOD_MAX        32

/* Not to be copied: head.fields points into it. */
struct http1_message {
    struct head head; /* borrows from the input, and from the next member */
    struct field fields[HTTP1_ANSWER_FIELDS_MAX];
    enum http1_framing framing;
    uint64_t length;      /* with HTTP1_LENGTH; at most INT64_MAX */
    bool http10;          /* HTTP/1.0 was spoken */
    bool keep_alive;      /* the connection may carry another message after this one */
    bool expect_continue; /* request with a body: Expect: 100-continue */
    bool upgrade;         /* request: Upgrade with Connection: upgrade; response: 101. head.protocol has the value */
    const char *error;    /* after a refusal: which rule, for the log and tests ("bare LF"); static text */
    enum close_reason reason; /* after a refusal: REASON_BAD_REQUEST, REASON_NOT_IMPLEMENTED, REASON_HEAD_TOO_LARGE,
                                 REASON_TARGET_TOO_LONG or, for responses, REASON_ORIGIN_BAD_RESPONSE and
                                 REASON_ORIGIN_HEAD_TOO_LARGE */
};

/*
 * Parses one request head at the start of `input`.
 * > 0: its length in bytes, *m filled; m->head borrows from input (target may be static text, see below).
 *   0: incomplete, call again with more bytes behind the same ones; *scanned, 0 at first, is the parser's note of what
 *      it has looked at, so that a slow head costs linear time. A control byte, a first word that is no method and any
 * line that breaks the grammar are refused as soon as they are there; rules about the head as a whole when it is
 * complete. How the bytes were cut never changes the result. < 0: refused (KV_EINVAL, or KV_ELIMIT for a head over
 * LIMIT_HEAD_BYTES, LIMIT_TARGET_BYTES or HTTP1_FIELDS_MAX); m->error and m->reason say why. One empty line before the
 * request line is skipped (RFC 9112, 2.2) and counted in the length. The target is in origin-form or "*" for OPTIONS;
 * absolute-form is stored as origin-form ("/" for an empty path, "*" with OPTIONS), and its authority in place of
 * Host's; CONNECT is refused. A wish to upgrade that http_upgrade_is_allowed denies, or with a chunked body, is not
 * taken up: upgrade stays false, which RFC 9110, 7.8 allows.
 */
ssize_t http1_parse_request(struct slice input, size_t *scanned, struct http1_message *m);

/* The same for a response head; to_method decides about its body (RFC 9112, 6.3). Interim (1xx) heads are returned one
 * by one with HTTP1_NO_BODY. Reason phrases are skipped. Equal Content-Length duplicates, as lines or as a list, are
 * merged into one field; no empty line is skipped. The limits are LIMIT_ANSWER_HEAD_BYTES and HTTP1_ANSWER_FIELDS_MAX.
 * The reading is tolerant: LF alone ends a line, white space before a colon is dropped, chunked wins over
 * Content-Length and counts in HTTP/1.0 too (the connection is then not to be kept), and "identity" is no coding. */
ssize_t http1_parse_response(struct slice input, size_t *scanned, struct slice to_method, struct http1_message *m);

/* ---- bodies, reading ------------------------------------------------------------------------------------------- */

enum http1_body_event {
    HTTP1_BODY_MORE, /* nothing further in these bytes */
    HTTP1_BODY_DATA, /* *data is a run of body bytes, borrowed from the input; never empty */
    HTTP1_BODY_END,  /* the body is complete; for chunked ones body->trailers holds the trailer fields */
    HTTP1_BODY_BAD,  /* the framing is broken: body->error; so is every later call */
};

#define HTTP1_TRAILERS_MAX 32

/* A body being read, made ready by http1_body_start. */
struct http1_body {
    enum http1_framing framing;
    enum http1_reading reading;
    uint64_t left;        /* bytes of the body or of the current chunk */
    int state;            /* of the decoder, see http1_body.c */
    unsigned digits;      /* of the current chunk size */
    unsigned line_bytes;  /* of the current chunk-size line */
    struct buffer line;   /* the trailer section, if there is one; empty otherwise */
    size_t line_at;       /* where the unfinished trailer line was left */
    struct head trailers; /* after HTTP1_BODY_END; borrows from line until http1_body_free, which frees its fields */
    const char *error;
};

/* Memory is taken for a trailer section alone. */
void http1_body_start(struct http1_body *body, enum http1_framing framing, uint64_t length, enum http1_reading reading);
/* Legal on a zeroed body, and more than once. */
void http1_body_free(struct http1_body *body);

/* Takes from the front of *input (which it advances) and returns the next event. At most `most` bytes of data are
 * returned in one event; with most == 0 and data next it returns HTTP1_BODY_MORE and leaves the rest in *input.
 * HTTP1_BODY_END is returned once, as soon as the last byte is in, also for a body of length 0 (so call again after
 * data, with an empty input too); then HTTP1_BODY_MORE, and bytes behind the body stay in *input. */
enum http1_body_event http1_body_next(struct http1_body *body, struct slice *input, size_t most, struct slice *data);

/* True when the connection's end is this body's proper end (HTTP1_UNTIL_CLOSE, or complete already). */
bool http1_body_eof_is_end(const struct http1_body *body);

/* ---- writing --------------------------------------------------------------------------------------------------- */

/*
 * Both writers append a whole head or nothing: 0, KV_ELIMIT, KV_ENOMEM, or KV_EINVAL for what could be read as
 * something else by the next parser: a method or name that is no token, a target with other than visible ASCII, a value
 * with control bytes, more than one Host, a framing that the message cannot have. Framing fields and Connection are
 * made from the arguments; connection, keep-alive, proxy-connection, upgrade, transfer-encoding and content-length
 * fields of the head are not copied through (one exception below).
 */

/* A request. Host comes from the head's host field, or from head->authority if there is none; one of the two is needed.
 * head->protocol not empty: "Connection: upgrade" and "Upgrade: <it>". A te field gets its "Connection: te".
 * HTTP1_UNTIL_CLOSE is KV_EINVAL. */
int http1_write_request(struct buffer *out, const struct head *head, enum http1_framing framing, uint64_t length);

/* A response with a standard reason phrase. keep_alive false, or HTTP1_UNTIL_CLOSE, adds "Connection: close"; for an
 * HTTP/1.0 visitor that asked for keep-alive pass http10 to add "Connection: keep-alive"; http10 with HTTP1_CHUNKED is
 * KV_EINVAL. A 101 needs head->protocol and gets "Connection: upgrade"; other 1xx get no Connection. HTTP1_NO_BODY
 * writes no framing field; a content-length that describes an absent body (HEAD, 304) stays a plain field in head and
 * is written once, except with 1xx and 204, which may not have one (RFC 9110, 8.6). */
int http1_write_response(struct buffer *out, const struct head *head, enum http1_framing framing, uint64_t length,
                         bool keep_alive, bool http10);

/* "<hex>\r\n" for a chunk of len bytes; returns its length. The chunk's bytes and "\r\n" are the caller's to add. */
#define HTTP1_CHUNK_PREFIX_LEN 20
size_t http1_chunk_prefix(uint64_t len, char out[HTTP1_CHUNK_PREFIX_LEN]);

/* The last chunk and the trailer section (trailers may be NULL; framing fields in it are left out). All or nothing: 0,
 * KV_ELIMIT, KV_ENOMEM or KV_EINVAL. */
int http1_write_last_chunk(struct buffer *out, const struct head *trailers);

/* The standard phrase of a status ("Not Found"), "Status" for unknown ones. */
const char *http_status_phrase(unsigned status);

#endif
