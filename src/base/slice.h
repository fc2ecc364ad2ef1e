/*
 * A borrowed run of bytes. Whoever hands one out says how long it lives; a slice owns nothing and is passed by value.
 */
#ifndef KV_BASE_SLICE_H
#define KV_BASE_SLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct slice {
    const char *data; /* not NUL-terminated; may be NULL when len is 0 */
    size_t len;
};

#define SLICE(literal) ((struct slice){(literal), sizeof(literal) - 1})

static inline struct slice slice_of(const char *string)
{
    return (struct slice){string, string ? strlen(string) : 0};
}

static inline bool slice_equals(struct slice a, struct slice b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

typedef uint8_t slice_block __attribute__((vector_size(16))); /* of the compilers; may be two words */

/* Copies s to where there is room for it and returns what is behind it. Heads are written as dozens of texts of a few
 * bytes, for which a call costs more than they do: so blocks and words, the last of which overlaps the one before it.
 */
static inline char *slice_put(char *to, struct slice s)
{
    char *end = to + s.len;
    if (s.len > 2 * sizeof(slice_block)) {
        memcpy(to, s.data, s.len);
    } else if (s.len >= sizeof(slice_block)) {
        slice_block first, last;
        memcpy(&first, s.data, sizeof(first));
        memcpy(&last, s.data + s.len - sizeof(last), sizeof(last));
        memcpy(to, &first, sizeof(first));
        memcpy(end - sizeof(last), &last, sizeof(last));
    } else if (s.len >= sizeof(uint64_t)) {
        uint64_t first, last;
        memcpy(&first, s.data, sizeof(first));
        memcpy(&last, s.data + s.len - sizeof(last), sizeof(last));
        memcpy(to, &first, sizeof(first));
        memcpy(end - sizeof(last), &last, sizeof(last));
    } else if (s.len >= sizeof(uint32_t)) {
        uint32_t first, last;
        memcpy(&first, s.data, sizeof(first));
        memcpy(&last, s.data + s.len - sizeof(last), sizeof(last));
        memcpy(to, &first, sizeof(first));
        memcpy(end - sizeof(last), &last, sizeof(last));
    } else {
        for (const char *from = s.data; to < end; to++, from++)
            *to = *from;
    }
    return end;
}

/* Copies s with its ASCII capital letters as small ones. `to` has room for s.len bytes and may be s.data itself. */
void slice_lower(struct slice s, char *to);

/* ASCII case-insensitive comparison, as HTTP tokens need (RFC 9110, 5.1); the locale plays no part. */
bool slice_equals_nocase(struct slice a, struct slice b);

bool slice_starts_with(struct slice s, struct slice prefix);

/* Without leading and trailing SP and HTAB (OWS of RFC 9110, 5.6.3). */
static inline struct slice slice_trim(struct slice s)
{
    while (s.len > 0 && (s.data[0] == ' ' || s.data[0] == '\t')) {
        s.data++;
        s.len--;
    }
    while (s.len > 0 && (s.data[s.len - 1] == ' ' || s.data[s.len - 1] == '\t'))
        s.len--;
    return s;
}

/* Cuts the next element of a comma-separated list (RFC 9110, 5.6.1) from *rest, trimmed; empty elements are skipped.
 * False at the end of the list. Quoted strings are not looked into. */
bool slice_next_element(struct slice *rest, struct slice *element);

/* Decimal digits only, no sign, no spaces, no overflow. False otherwise, *out untouched. */
bool slice_to_u64(struct slice s, uint64_t *out);

/* A NUL-terminated copy to be freed with free(), or NULL without memory. */
char *slice_dup(struct slice s);

#endif
