/* What the HTTP/1 fuzzers share: feeding a head in pieces, and holding two readings of it against each other. */
#ifndef FUZZ_HTTP1_CHECK_H
#define FUZZ_HTTP1_CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "http/forward.h"
#include "http/http1.h"
#include "http/syntax.h"

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                            \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

/* to_method NULL: a request. */
static inline ssize_t parse(struct slice input, size_t *scanned, const char *to_method, struct http1_message *m)
{
    return to_method ? http1_parse_response(input, scanned, slice_of(to_method), m)
                     : http1_parse_request(input, scanned, m);
}

/* Feeds growing prefixes, each in memory of exactly its size, until there is a verdict; the last one is the whole, left
 * in *m. */
static inline ssize_t parse_pieces(struct slice input, size_t step, const char *to_method, struct http1_message *m)
{
    size_t scanned = 0;
    for (size_t len = step; len < input.len; len += step) {
        char *copy = malloc(len);
        CHECK(copy);
        memcpy(copy, input.data, len);
        ssize_t result = parse((struct slice){copy, len}, &scanned, to_method, m);
        free(copy);
        if (result < 0)
            return result;
        if (result > 0) { /* once more, on memory that lives on */
            scanned = 0;
            return parse(input, &scanned, to_method, m);
        }
    }
    return parse(input, &scanned, to_method, m);
}

static inline void check_same_head(const struct head *a, const struct head *b)
{
    CHECK(slice_equals(a->method, b->method) && slice_equals(a->target, b->target));
    CHECK(slice_equals(a->authority, b->authority) && slice_equals(a->protocol, b->protocol));
    CHECK(a->status == b->status && a->count == b->count);
    for (size_t i = 0; i < a->count; i++) {
        CHECK(slice_equals(a->fields[i].name, b->fields[i].name));
        CHECK(slice_equals(a->fields[i].value, b->fields[i].value));
    }
}

/* However the input is cut, the verdict is that of the whole. */
static inline void check_pieces(struct slice input, const char *to_method, ssize_t result,
                                const struct http1_message *whole)
{
    static const size_t steps[] = {1, 2, 3, 7, 61, 1009};
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        struct http1_message m;
        if (input.len / steps[i] > 8192)
            continue;
        CHECK(parse_pieces(input, steps[i], to_method, &m) == result);
        CHECK(m.reason == whole->reason);
        CHECK((m.error == NULL) == (whole->error == NULL) && (!m.error || strcmp(m.error, whole->error) == 0));
        if (result > 0) {
            check_same_head(&m.head, &whole->head);
            CHECK(m.framing == whole->framing && m.length == whole->length && m.upgrade == whole->upgrade);
            CHECK(m.keep_alive == whole->keep_alive && m.expect_continue == whole->expect_continue);
        }
    }
}

/* What the parser calls judged passes the writers' own look, and names were told apart. */
static inline void check_judged(const struct head *h, bool request)
{
    CHECK(h->judged);
    CHECK(!request || (http_is_token(h->method) && http_is_target(h->target)));
    for (size_t i = 0; i < h->count; i++) {
        CHECK(http_is_token(h->fields[i].name) && http_is_field_value(h->fields[i].value));
        CHECK(h->fields[i].id == field_id_of(h->fields[i].name));
        CHECK(!head_lacks(h, h->fields[i].id));
    }
}

/* Fields that cross a hop, in their order; framing is compared apart. */
static inline size_t next_end_to_end(const struct head *h, size_t i)
{
    while (i < h->count &&
           (forward_is_hop_by_hop(field_id(&h->fields[i])) || field_id(&h->fields[i]) == FIELD_CONTENT_LENGTH))
        i++;
    return i;
}

static inline void check_same_fields(const struct head *a, const struct head *b)
{
    size_t i = next_end_to_end(a, 0), j = next_end_to_end(b, 0);
    while (i < a->count && j < b->count) {
        CHECK(slice_equals(a->fields[i].name, b->fields[j].name));
        CHECK(slice_equals(a->fields[i].value, b->fields[j].value));
        i = next_end_to_end(a, i + 1);
        j = next_end_to_end(b, j + 1);
    }
    CHECK(i == a->count && j == b->count);
}

#endif
