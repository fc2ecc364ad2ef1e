/*
 * Lines of an HTTP/1 head or trailer section (RFC 9112, 2.2 and 5): shared by the head parser and the body decoder, for
 * nobody else.
 */
#ifndef KV_HTTP_HTTP1_LINE_H
#define KV_HTTP_HTTP1_LINE_H

#include "http/head.h"
#include "http/http1.h"

enum http1_line {
    HTTP1_LINE_BAD = -1, /* *error says which rule */
    HTTP1_LINE_PART = 0, /* no line end yet */
    HTTP1_LINE_WHOLE = 1,
};

/*
 * Looks for the CRLF that ends the line in `in`, from *at on; what stands between the line's start and *at has been
 * looked at before. WHOLE: *at is the position of the CR, or of an LF alone, which ends a line of a tolerant reading.
 * PART: *at is where to go on when more bytes are there. BAD: a bare LF, a bare CR or another control byte but HTAB,
 * whichever comes first.
 */
enum http1_line http1_line_find(struct slice in, size_t *at, enum http1_reading reading, const char **error);

/* Bytes of the line end at a position that http1_line_find gave. */
static inline size_t http1_line_end(struct slice in, size_t at)
{
    return in.data[at] == '\r' ? 2 : 1;
}

/* Splits a field line (without its end, free of control bytes) into name and trimmed value; a tolerant reading takes
 * white space before the colon away (RFC 9112, 5.1). False: *error. */
bool http1_field_split(struct slice line, enum http1_reading reading, struct field *out, const char **error);

#endif
