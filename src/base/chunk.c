/*
 * Chunks and chains. A chunk is one block of the pool, so that it can be freed on any thread and the sanitizers see
 * every one.
 * The two totals are relaxed atomics: they order nothing, they only have to add up.
 *
 * Invariant of a chain: no chunk in it is empty, and `bytes` is the sum of their lengths.
 */
#include "base/chunk.h"

#include <assert.h>
#include <stdatomic.h>

#include "base/blake3.h"
#include "base/error.h"
#include "base/pool.h"

/* A chunk that chain_append makes: most response heads fit into one. */
enum {
    APPEND_CAPACITY = 2048 - sizeof(struct chunk)
};

static atomic_size_t live_count;
static atomic_size_t live_bytes;

struct chunk *chunk_alloc(size_t capacity)
{
    if (capacity > UINT32_MAX)
        return NULL;
    struct chunk *c = pool_alloc(sizeof(*c) + capacity);
    if (!c)
        return NULL;
    *c = (struct chunk){.capacity = (uint32_t)capacity};
    atomic_fetch_add_explicit(&live_count, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&live_bytes, capacity, memory_order_relaxed);
    return c;
}

struct chunk *chunk_copy(const void *data, size_t len)
{
    struct chunk *c = chunk_alloc(len);
    if (!c)
        return NULL;
    if (len > 0)
        memcpy(c->data, data, len);
    c->len = (uint32_t)len;
    return c;
}

void chunk_free(struct chunk *c)
{
    if (!c)
        return;
    atomic_fetch_sub_explicit(&live_count, 1, memory_order_relaxed);
    atomic_fetch_sub_explicit(&live_bytes, c->capacity, memory_order_relaxed);
    if (c->secret)
        secret_wipe(c->data, c->capacity);
    pool_free(c, sizeof(*c) + c->capacity);
}

size_t chunk_live_count(void)
{
    return atomic_load_explicit(&live_count, memory_order_relaxed);
}

size_t chunk_live_bytes(void)
{
    return atomic_load_explicit(&live_bytes, memory_order_relaxed);
}

void chain_push(struct chain *q, struct chunk *c)
{
    if (c->len == 0) {
        chunk_free(c);
        return;
    }
    c->next = NULL;
    if (q->tail)
        q->tail->next = c;
    else
        q->head = c;
    q->tail = c;
    q->bytes += c->len;
}

int chain_append(struct chain *q, const void *data, size_t len)
{
    size_t room = q->tail ? chunk_room(q->tail) : 0;
    size_t first = len < room ? len : room;
    size_t rest = len - first;
    struct chunk *c = NULL;

    /* The allocation comes before the first byte is copied: all or nothing. */
    if (rest > 0) {
        c = chunk_alloc(rest > APPEND_CAPACITY ? rest : APPEND_CAPACITY);
        if (!c)
            return KV_ENOMEM;
        memcpy(c->data, (const char *)data + first, rest);
        c->len = (uint32_t)rest;
    }
    if (first > 0) {
        struct chunk *tail = q->tail;
        memcpy(tail->data + tail->off + tail->len, data, first);
        tail->len += (uint32_t)first;
        q->bytes += first;
    }
    if (c)
        chain_push(q, c);
    return 0;
}

struct chunk *chain_pop(struct chain *q)
{
    struct chunk *c = q->head;
    if (!c)
        return NULL;
    q->head = c->next;
    if (!q->head)
        q->tail = NULL;
    q->bytes -= c->len;
    c->next = NULL;
    return c;
}

int chain_move(struct chain *dst, struct chain *src, size_t n)
{
    assert(n <= src->bytes);
    while (n > 0 && src->head->len <= n) {
        struct chunk *c = chain_pop(src);
        n -= c->len;
        chain_push(dst, c);
    }
    if (n == 0)
        return 0;
    int error = chain_append(dst, src->head->data + src->head->off, n);
    if (!error)
        chain_consume(src, n);
    return error;
}

void chain_consume(struct chain *q, size_t n)
{
    assert(n <= q->bytes);
    while (n > 0 && q->head->len <= n) {
        n -= q->head->len;
        chunk_free(chain_pop(q));
    }
    if (n > 0) {
        q->head->off += (uint32_t)n;
        q->head->len -= (uint32_t)n;
        q->bytes -= n;
    }
}

size_t chain_read(struct chain *q, void *out, size_t n)
{
    size_t copied = 0;

    while (q->head && copied < n) {
        size_t part = q->head->len < n - copied ? q->head->len : n - copied;
        memcpy((char *)out + copied, q->head->data + q->head->off, part);
        chain_consume(q, part);
        copied += part;
    }
    return copied;
}

void chain_free(struct chain *q)
{
    while (q->head)
        chunk_free(chain_pop(q));
}
