/*
 * Bodies travel in chunks: one allocation that is moved, never shared, from the socket that read it to the socket that
 * writes it, across workers too. Every chunk alive is counted, and so is every byte, which is how the tests know that
 * nothing leaks and the process knows when its budget is spent.
 *
 * A chain is a queue of chunks with a byte count: the output of a connection, the backlog of an exchange.
 */
#ifndef KV_BASE_CHUNK_H
#define KV_BASE_CHUNK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/slice.h"

struct chunk {
    struct chunk *next;
    uint32_t capacity;
    uint32_t off; /* first byte not consumed yet */
    uint32_t len; /* bytes from off on */
    bool secret;  /* overwritten when it is freed; what is copied out of it is not */
    _Alignas(8) char data[];
};

/* An empty chunk with room for `capacity` bytes (at most UINT32_MAX), or NULL without memory. Any thread. */
struct chunk *chunk_alloc(size_t capacity);

/* A chunk that holds a copy of these bytes, or NULL without memory. */
struct chunk *chunk_copy(const void *data, size_t len);

/* NULL is legal. Any thread, not only the one that allocated. */
void chunk_free(struct chunk *c);

/* Bytes free behind the used ones. */
static inline size_t chunk_room(const struct chunk *c)
{
    return c->capacity - c->off - c->len;
}

static inline struct slice chunk_slice(const struct chunk *c)
{
    return (struct slice){c->data + c->off, c->len};
}

/* Live totals of the whole process, for metrics, the budget and leak assertions. Any thread. */
size_t chunk_live_count(void);
size_t chunk_live_bytes(void);

struct chain {
    struct chunk *head, *tail;
    size_t bytes;
};

/* Takes ownership of c. Empty chunks are freed at once. */
void chain_push(struct chain *q, struct chunk *c);

/* Copies bytes into the tail chunk's room, then into a new one: for heads and frame headers between bodies.
 * 0 or KV_ENOMEM, and then nothing was appended. */
int chain_append(struct chain *q, const void *data, size_t len);

/* The first chunk, now the caller's, or NULL. */
struct chunk *chain_pop(struct chain *q);

/* Moves the first n bytes (n <= src->bytes) behind dst; whole chunks by pointer, a split one by copying its moved part.
 * 0 or KV_ENOMEM, and then the bytes moved so far stay moved. */
int chain_move(struct chain *dst, struct chain *src, size_t n);

/* Drops the first n bytes (n <= bytes). */
void chain_consume(struct chain *q, size_t n);

/* Copies up to n bytes out of the front and drops them; returns how many. */
size_t chain_read(struct chain *q, void *out, size_t n);

void chain_free(struct chain *q);

#endif
