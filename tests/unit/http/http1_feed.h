/*
 * Feeding the HTTP/1 parser in pieces, for its unit tests: a head has to read the same whole, cut in two at every place
 * and byte by byte. Every piece lives in memory of exactly its size, so that the sanitizer sees a read behind it.
 */
#ifndef TEST_HTTP1_FEED_H
#define TEST_HTTP1_FEED_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "http/http1.h"

struct verdict {
    ssize_t result;
    const char *error;
    enum close_reason reason;
    struct buffer text; /* everything the parser said, one thing a line */
};

static inline void describe(const struct http1_message *m, struct buffer *out)
{
    const struct head *h = &m->head;
    buffer_printf(out, "%.*s|%.*s|%.*s|%.*s|%u|framing %d %llu|%d%d%d%d\n", (int)h->method.len, h->method.data,
                  (int)h->target.len, h->target.data, (int)h->authority.len, h->authority.data, (int)h->protocol.len,
                  h->protocol.data, h->status, (int)m->framing, (unsigned long long)m->length, m->http10, m->keep_alive,
                  m->expect_continue, m->upgrade);
    for (size_t i = 0; i < h->count; i++) {
        buffer_append_slice(out, h->fields[i].name);
        buffer_append_string(out, ": ");
        buffer_append_slice(out, h->fields[i].value);
        buffer_append_string(out, "\n");
    }
}

/* to_method NULL: a request. */
static inline ssize_t parse_piece(struct slice input, size_t len, size_t *scanned, const char *to_method,
                                  struct http1_message *m, char **memory)
{
    *memory = malloc(len ? len : 1);
    assert_non_null(*memory);
    memcpy(*memory, input.data, len);
    struct slice piece = {*memory, len};
    return to_method ? http1_parse_response(piece, scanned, slice_of(to_method), m)
                     : http1_parse_request(piece, scanned, m);
}

/* Feeds prefixes that end at first, first + step, ... and last the whole, until there is a verdict. */
static inline struct verdict feed(struct slice input, const char *to_method, size_t first, size_t step)
{
    struct verdict v = {.text = BUFFER_INIT(1 << 20)};
    struct http1_message m;
    size_t scanned = 0;
    for (size_t len = first < input.len ? first : input.len;; len = len + step < input.len ? len + step : input.len) {
        char *memory;
        v.result = parse_piece(input, len, &scanned, to_method, &m, &memory);
        v.error = m.error;
        v.reason = m.reason;
        if (v.result > 0)
            describe(&m, &v.text);
        free(memory);
        if (v.result != 0 || len == input.len)
            return v;
    }
}

static inline void assert_same_verdict(const struct verdict *a, const struct verdict *b)
{
    assert_int_equal(a->result, b->result);
    assert_int_equal(a->reason, b->reason);
    if (a->error || b->error)
        assert_string_equal(a->error ? a->error : "", b->error ? b->error : "");
    assert_int_equal(a->text.len, b->text.len);
    if (a->text.len)
        assert_memory_equal(a->text.data, b->text.data, a->text.len);
}

/* The verdict on the whole, after all ways of cutting it have given the same. The caller frees text. */
static inline struct verdict feed_every_way(struct slice input, const char *to_method)
{
    struct verdict whole = feed(input, to_method, input.len, 1);
    for (size_t cut = 0; cut < input.len; cut++) {
        struct verdict pieces = feed(input, to_method, cut, input.len);
        assert_same_verdict(&whole, &pieces);
        buffer_free(&pieces.text);
    }
    for (size_t step = 1; step < 4; step++) {
        struct verdict pieces = feed(input, to_method, step, step);
        assert_same_verdict(&whole, &pieces);
        buffer_free(&pieces.text);
    }
    return whole;
}

#endif
