/*
 * HTTP/1.1 as bytes in, events out (RFC 9112): a strict, incremental parser, body framing both ways and a writer.
 * No I/O, no allocation per field; the same functions serve the edge, the origin side, the tests and the fuzzers.
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
    HTTP1_LENGTH,      /* Content-Length */
    HTTP1_CHUNKED,     /* Transfer-Encoding: chunked */
    HTTP1_UNTIL_CLOSE, /* responses only */
};

struct http1_message {
    struct head head;                        /* borrows from the input */
    struct field fields[LIMIT_HEAD_FIELDS];
    enum http1_framing framing;
    uint64_t length;       /* with HTTP1_LENGTH */
    bool http10;           /* HTTP/1.0 was spoken */
    bool keep_alive;       /* the connection may carry another message after this one */
    bool expect_continue;  /* Expect: 100-continue (requests) */
    bool upgrade;          /* request: Upgrade with Connection: upgrade; response: 101 */
    const char *error;     /* after a refusal: which rule, for the log and tests ("bare LF"); static text */
    enum close_reason reason; /* after a refusal: REASON_BAD_REQUEST, REASON_HEAD_TOO_LARGE or, for responses,
                                 REASON_ORIGIN_BAD_RESPONSE */
};

/*
 * Parses one request head at the start of `input`.
 * > 0: its length in bytes, *m filled; m->head borrows from input.
 *   0: incomplete, call again with more bytes behind the same ones; *scanned (0 at first) remembers what was looked at,
 *      so that a slow head costs linear time. An incomplete head that can only become a refusal is refused at once.
 * < 0: refused (KV_EINVAL, or KV_ELIMIT for a head over LIMIT_HEAD_BYTES, LIMIT_TARGET_BYTES or LIMIT_HEAD_FIELDS);
 *      m->error and m->reason say why.
 * One empty line before the request line is skipped (RFC 9112, 2.2). The target is in origin-form or "*" for OPTIONS;
 * absolute-form is accepted if its authority equals Host and is then stored as origin-form; CONNECT is refused.
 */
ssize_t http1_parse_request(struct slice input, size_t *scanned, struct http1_message *m);

/* The same for a response head; to_method decides about its body (RFC 9112, 6.3). Interim (1xx) heads are returned one
 * by one with HTTP1_NO_BODY. Reason phrases are skipped. `Content-Length` equal duplicates are merged. */
ssize_t http1_parse_response(struct slice input, size_t *scanned, struct slice to_method, struct http1_message *m);

/* ---- bodies, reading ---- */

enum http1_body_event {
    HTTP1_BODY_MORE, /* nothing further in these bytes */
    HTTP1_BODY_DATA, /* *data is a run of body bytes, borrowed from the input */
    HTTP1_BODY_END,  /* the body is complete; for chunked ones body->trailers holds the trailer fields */
    HTTP1_BODY_BAD,  /* the framing is broken: body->error */
};

/* A body being read. Zeroed and given its framing by http1_body_start. */
struct http1_body {
    enum http1_framing framing;
    uint64_t left;          /* bytes of the body or of the current chunk */
    int state;              /* of the chunked decoder */
    struct buffer line;     /* an unfinished chunk-size line or the trailer section; empty otherwise */
    struct head trailers;   /* after HTTP1_BODY_END; borrows from line until http1_body_free */
    struct field trailer_fields[16];
    const char *error;
};

void http1_body_start(struct http1_body *body, enum http1_framing framing, uint64_t length);
void http1_body_free(struct http1_body *body);

/* Takes from the front of *input (which it advances) and returns the next event. At most `most` bytes of data are
 * returned in one event; with most == 0 and data next it returns HTTP1_BODY_MORE and leaves the rest in *input.
 * HTTP1_BODY_END is returned once, as soon as the last byte is in, also for a body of length 0; bytes behind it stay in
 * *input. */
enum http1_body_event http1_body_next(struct http1_body *body, struct slice *input, size_t most, struct slice *data);

/* True when the connection's end is this body's proper end (HTTP1_UNTIL_CLOSE, or complete already). */
bool http1_body_eof_is_end(const struct http1_body *body);

/* ---- writing ---- */

/* Appends a request head: request line, fields, framing fields and Connection made from the arguments (never copied
 * through), empty line. `upgrade_protocol` not empty: "Connection: upgrade" and "Upgrade: <it>". The head is expected
 * to be without hop-by-hop fields (http/forward.h). 0, KV_ELIMIT or KV_ENOMEM. */
int http1_write_request(struct buffer *out, const struct head *head, enum http1_framing framing, uint64_t length);

/* Appends a response head with a standard reason phrase. keep_alive false adds "Connection: close"; for an HTTP/1.0
 * visitor that asked for keep-alive pass http10 to add "Connection: keep-alive". HTTP1_NO_BODY writes no framing
 * field; a content-length that describes an absent body (HEAD, 304) stays a plain field in head. */
int http1_write_response(struct buffer *out, const struct head *head, enum http1_framing framing, uint64_t length,
                         bool keep_alive, bool http10);

/* "<hex>\r\n" for a chunk of len bytes; returns its length. */
#define HTTP1_CHUNK_PREFIX_LEN 20
size_t http1_chunk_prefix(uint64_t len, char out[HTTP1_CHUNK_PREFIX_LEN]);

/* The last chunk and the trailer section (trailers may be NULL). 0, KV_ELIMIT or KV_ENOMEM. */
int http1_write_last_chunk(struct buffer *out, const struct head *trailers);

/* The standard phrase of a status ("Not Found"), "Status" for unknown ones. */
const char *http_status_phrase(unsigned status);

#endif
