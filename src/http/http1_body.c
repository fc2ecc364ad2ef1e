/*
 * Bodies being read: a length, chunks, or everything until the connection ends (RFC 9112, 6.3 and 7.1).
 *
 * The chunked decoder goes byte by byte through size lines and run by run through data:
 *
 *     SIZE -> [EXT ...] -> SIZE_LF -> DATA -> DATA_CR -> DATA_LF -> SIZE     (chunk of n > 0 bytes)
 *                             `-----> TRAILERS -> DONE                       (last chunk)
 *
 * A size is 1 to 15 hex digits, so that it cannot overflow, and nothing else: no sign, no 0x, no white space.
 * Extensions have to follow their grammar without white space, within LIMIT_CHUNK_LINE_BYTES, and are dropped. A
 * tolerant reading skips what stands behind the size, white space too, and takes LF alone for a line end. The size line
 * of "0" decides nothing by itself: the body ends behind its trailer section, which is collected, as a head is, and
 * checked as one when it is complete.
 */
#include <stdlib.h>

#include "base/error.h"
#include "http/forward.h"
#include "http/http1.h"
#include "http/http1_line.h"
#include "http/syntax.h"

#define SIZE_DIGITS_MAX 15

enum state {
    STATE_PLAIN, /* no chunks: left counts, or does not with HTTP1_UNTIL_CLOSE */
    STATE_SIZE,
    STATE_EXT_NAME_FIRST,
    STATE_EXT_NAME,
    STATE_EXT_VALUE_FIRST,
    STATE_EXT_TOKEN,
    STATE_EXT_QUOTED,
    STATE_EXT_ESCAPED,
    STATE_EXT_QUOTED_END,
    STATE_EXT_IGNORED, /* of a tolerant reading, whatever it is */
    STATE_SIZE_LF,
    STATE_DATA,
    STATE_DATA_CR,
    STATE_DATA_LF,
    STATE_TRAILERS,
    STATE_DONE,  /* everything is in, END not yet told */
    STATE_ENDED, /* END told */
    STATE_BAD,
};

/* Everything but the trailer array, which is most of the struct and is filled by count. */
void http1_body_start(struct http1_body *body, enum http1_framing framing, uint64_t length, enum http1_reading reading)
{
    body->framing = framing;
    body->reading = reading;
    body->left = framing == HTTP1_LENGTH ? length : 0;
    body->state = STATE_PLAIN;
    body->digits = body->line_bytes = 0;
    body->line = (struct buffer)BUFFER_INIT(LIMIT_TRAILER_BYTES);
    body->line_at = 0;
    body->error = NULL;
    head_borrow(&body->trailers, NULL, 0);
    if (framing == HTTP1_CHUNKED)
        body->state = STATE_SIZE;
    else if (framing == HTTP1_NO_BODY || (framing == HTTP1_LENGTH && length == 0))
        body->state = STATE_DONE;
}

void http1_body_free(struct http1_body *body)
{
    if (body->line.capacity == 0) /* there were no trailers */
        return;
    buffer_free(&body->line);
    free(body->trailers.fields);
    head_borrow(&body->trailers, NULL, 0);
}

static enum http1_body_event bad(struct http1_body *body, const char *error)
{
    body->state = STATE_BAD;
    body->error = error;
    return HTTP1_BODY_BAD;
}

static void advance(struct slice *input, size_t len)
{
    input->data += len;
    input->len -= len;
}

/* ---- chunk-size lines ------------------------------------------------------------------------------------------ */

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return (c | 0x20) - 'a' + 10;
}

/* Behind a size, an extension name or a value: the next extension, or the line's end. -1 for anything else. */
static int after_part(char c)
{
    return c == ';' ? STATE_EXT_NAME_FIRST : c == '\r' ? STATE_SIZE_LF : -1;
}

static int step_size(struct http1_body *body, char c, const char **error)
{
    if (http_char_is(c, HTTP_CHAR_HEX)) {
        if (++body->digits > SIZE_DIGITS_MAX) {
            *error = "chunk size has too many digits";
            return -1;
        }
        body->left = body->left << 4 | (unsigned)hex_value(c);
        return STATE_SIZE;
    }
    *error = c == '\n' ? "bare LF in a chunk-size line" : "chunk size is not a hex number";
    if (body->digits == 0)
        return -1;
    return body->reading == HTTP1_TOLERANT && http_is_space(c) ? STATE_EXT_IGNORED : after_part(c);
}

static int behind_size_line(const struct http1_body *body)
{
    return body->left ? STATE_DATA : STATE_TRAILERS;
}

/* One byte of a chunk-size line (RFC 9112, 7.1 and 7.1.1). The next state, or -1 and *error. */
static int step_line(struct http1_body *body, char c, const char **error)
{
    bool token = http_char_is(c, HTTP_CHAR_TOKEN);
    if (c == '\n' && body->reading == HTTP1_TOLERANT && (body->state != STATE_SIZE || body->digits > 0))
        return behind_size_line(body);
    if (body->state == STATE_SIZE)
        return step_size(body, c, error);
    if (body->state == STATE_SIZE_LF) {
        *error = "bare CR in a chunk-size line";
        if (c != '\n')
            return -1;
        return behind_size_line(body);
    }
    *error = c == '\n' ? "bare LF in a chunk-size line" : "malformed chunk extension";
    if (body->reading == HTTP1_TOLERANT) /* nobody looks at what stands behind the size */
        return c == '\r' ? STATE_SIZE_LF : STATE_EXT_IGNORED;
    switch ((enum state)body->state) {
    case STATE_EXT_NAME_FIRST:
        return token ? STATE_EXT_NAME : -1;
    case STATE_EXT_NAME:
        return token ? STATE_EXT_NAME : c == '=' ? STATE_EXT_VALUE_FIRST : after_part(c);
    case STATE_EXT_VALUE_FIRST:
        return token ? STATE_EXT_TOKEN : c == '"' ? STATE_EXT_QUOTED : -1;
    case STATE_EXT_TOKEN:
        return token ? STATE_EXT_TOKEN : after_part(c);
    case STATE_EXT_QUOTED:
        if (c == '"')
            return STATE_EXT_QUOTED_END;
        if (c == '\\')
            return STATE_EXT_ESCAPED;
        return http_char_is(c, HTTP_CHAR_QUOTED) ? STATE_EXT_QUOTED : -1;
    case STATE_EXT_ESCAPED: /* quoted-pair: HTAB, SP or visible */
        return c == '\t' || (c >= ' ' && c < 0x7f) ? STATE_EXT_QUOTED : -1;
    case STATE_EXT_QUOTED_END:
        return after_part(c);
    default:
        return -1;
    }
}

static void begin_line(struct http1_body *body)
{
    body->state = STATE_SIZE;
    body->left = 0;
    body->digits = 0;
    body->line_bytes = 0;
}

/* Takes the bytes of a chunk-size line, and of the CRLF behind a chunk's data, until data, trailers or an error. */
static bool take_line(struct http1_body *body, struct slice *input, const char **error)
{
    while (input->len > 0 && body->state != STATE_DATA && body->state != STATE_TRAILERS) {
        char c = *input->data;
        if (body->state == STATE_DATA_CR || body->state == STATE_DATA_LF) {
            if (c == '\n' && body->reading == HTTP1_TOLERANT)
                body->state = STATE_DATA_LF;
            if (c != (body->state == STATE_DATA_CR ? '\r' : '\n')) {
                *error = "chunk data does not end with CRLF";
                return false;
            }
            if (body->state == STATE_DATA_CR)
                body->state = STATE_DATA_LF;
            else
                begin_line(body);
        } else {
            int next = step_line(body, c, error);
            if (next < 0)
                return false;
            body->state = next;
            if (++body->line_bytes > LIMIT_CHUNK_LINE_BYTES) {
                *error = "chunk-size line is too long";
                return false;
            }
        }
        advance(input, 1);
    }
    return true;
}

/* ---- trailers -------------------------------------------------------------------------------------------------- */

/* Fields that some parsers heed even here, as if they stood in the head. They may not be sent (RFC 9110, 6.5.1), and
 * are dropped. */
static bool steers_message(enum field_id id)
{
    return forward_is_hop_by_hop(id) || id == FIELD_HOST || id == FIELD_CONTENT_LENGTH;
}

/* All lines of a complete section into body->trailers. NULL, or what is wrong. */
static const char *parse_trailers(struct http1_body *body)
{
    struct slice section = buffer_slice(&body->line);
    const char *error = NULL;
    struct field *fields = calloc(HTTP1_TRAILERS_MAX, sizeof(*fields));
    if (!fields)
        return "no memory for trailers";
    head_borrow(&body->trailers, fields, HTTP1_TRAILERS_MAX);
    for (size_t line = 0, at = 0;; line = at) {
        struct field field;
        if (http1_line_find(section, &at, body->reading, &error) != HTTP1_LINE_WHOLE)
            return error;
        struct slice text = {section.data + line, at - line};
        at += http1_line_end(section, at);
        if (text.len == 0)
            return NULL;
        if (!http1_field_split(text, body->reading, &field, &error))
            return error;
        if (!steers_message(field.id) && head_add(&body->trailers, field.name, field.value))
            return "too many trailer fields";
    }
}

/* Collects lines until the empty one. Bytes behind it stay in *input; memory is taken only if there is a line. */
static enum http1_body_event take_trailers(struct http1_body *body, struct slice *input)
{
    bool lf_alone = body->reading == HTTP1_TOLERANT && slice_starts_with(*input, SLICE("\n"));
    if (body->line.len == 0 && (lf_alone || slice_starts_with(*input, SLICE("\r\n")))) {
        advance(input, lf_alone ? 1 : 2);
        body->state = STATE_DONE;
        return HTTP1_BODY_MORE;
    }
    while (input->len > 0) {
        const char *lf = memchr(input->data, '\n', input->len);
        size_t len = lf ? (size_t)(lf - input->data) + 1 : input->len;
        size_t room = body->line.limit - body->line.len;
        if (room == 0)
            return bad(body, "trailers are too large");
        if (len > room)
            len = room;
        if (buffer_append(&body->line, input->data, len))
            return bad(body, "no memory for trailers");
        advance(input, len);

        const char *error = NULL;
        enum http1_line found = http1_line_find(buffer_slice(&body->line), &body->line_at, body->reading, &error);
        if (found == HTTP1_LINE_BAD)
            return bad(body, error);
        if (found == HTTP1_LINE_PART)
            continue;
        bool empty = body->line_at == 0 || body->line.data[body->line_at - 1] == '\n';
        body->line_at += http1_line_end(buffer_slice(&body->line), body->line_at);
        if (empty) {
            error = parse_trailers(body);
            if (error)
                return bad(body, error);
            body->state = STATE_DONE;
            break;
        }
    }
    return HTTP1_BODY_MORE;
}

/* ---- the whole ------------------------------------------------------------------------------------------------- */

static enum http1_body_event take_data(struct http1_body *body, struct slice *input, size_t most, struct slice *data)
{
    bool counted = body->framing != HTTP1_UNTIL_CLOSE;
    size_t len = input->len < most ? input->len : most;
    if (counted && len > body->left)
        len = (size_t)body->left;
    if (len == 0)
        return HTTP1_BODY_MORE;
    *data = (struct slice){input->data, len};
    advance(input, len);
    if (counted) {
        body->left -= len;
        if (body->left == 0)
            body->state = body->state == STATE_DATA ? STATE_DATA_CR : STATE_DONE;
    }
    return HTTP1_BODY_DATA;
}

enum http1_body_event http1_body_next(struct http1_body *body, struct slice *input, size_t most, struct slice *data)
{
    for (;;) {
        const char *error = NULL;
        switch ((enum state)body->state) {
        case STATE_BAD:
            return HTTP1_BODY_BAD;
        case STATE_ENDED:
            return HTTP1_BODY_MORE;
        case STATE_DONE:
            body->state = STATE_ENDED;
            return HTTP1_BODY_END;
        case STATE_PLAIN:
        case STATE_DATA:
            return take_data(body, input, most, data);
        case STATE_TRAILERS:
            if (take_trailers(body, input) == HTTP1_BODY_BAD)
                return HTTP1_BODY_BAD;
            if (body->state == STATE_TRAILERS)
                return HTTP1_BODY_MORE;
            break;
        default:
            if (!take_line(body, input, &error))
                return bad(body, error);
            if (body->state != STATE_DATA && body->state != STATE_TRAILERS)
                return HTTP1_BODY_MORE;
            break;
        }
    }
}

bool http1_body_eof_is_end(const struct http1_body *body)
{
    if (body->state == STATE_BAD)
        return false;
    return body->framing == HTTP1_UNTIL_CLOSE || body->state == STATE_DONE || body->state == STATE_ENDED;
}
