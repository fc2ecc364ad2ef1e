/*
 * A growable run of bytes with a cap: the one way to collect bytes whose number somebody else decides.
 * A zeroed struct with a limit is an empty buffer; no memory is held until the first byte.
 */
#ifndef KV_BASE_BUFFER_H
#define KV_BASE_BUFFER_H

#include <stddef.h>

#include "base/slice.h"

struct buffer {
    char *data;
    size_t len;
    size_t capacity;
    size_t limit; /* len never exceeds it; the reason stands in base/limits.h */
};

#define BUFFER_INIT(cap)                                                                                               \
    {                                                                                                                  \
        .limit = (cap)                                                                                                 \
    }

/* Room for `more` bytes behind len, all or nothing: 0, KV_ELIMIT or KV_ENOMEM. Pointers into the buffer become stale.
 */
int buffer_reserve(struct buffer *b, size_t more);

/* Appends; all or nothing: 0, KV_ELIMIT or KV_ENOMEM. */
int buffer_append(struct buffer *b, const void *data, size_t len);
int buffer_append_slice(struct buffer *b, struct slice s);
int buffer_append_string(struct buffer *b, const char *string);
int buffer_printf(struct buffer *b, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Drops the first n bytes (n <= len); gives the memory back when nothing is left. */
void buffer_consume(struct buffer *b, size_t n);

/* Empties and gives the memory back; the limit stays, and the buffer can be used again. */
void buffer_free(struct buffer *b);

static inline struct slice buffer_slice(const struct buffer *b)
{
    return (struct slice){b->data, b->len};
}

#endif
