/*
 * nghttp2's allocator of one session. In a block things are only ever laid behind each other: what is freed there is
 * freed with the block, so it is zero when it is handed out, as calloc wants it. Nothing here depends on what nghttp2
 * asks for and in which order (1.52: the session, the table, the frame buffer); that only decides how many pages are
 * touched.
 */
#include "http/h2_memory.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/sanitize.h"

#define LARGE_BYTES 2048 /* smaller ones lie densely in the heap, and would push the frame buffer to a third page */

static bool is_placed(const struct h2_memory *m, const void *p)
{
    uintptr_t begin = (uintptr_t)m->block.data, at = (uintptr_t)p;
    return begin && at >= begin && at - begin < SPARSE_BLOCK_BYTES;
}

/* Zeroed room in the block, or NULL. */
static void *place(struct h2_memory *m, size_t size)
{
    const size_t align = _Alignof(max_align_t);
    size_t room = m->block.data ? SPARSE_BLOCK_BYTES - m->used : 0;
    if (size < LARGE_BYTES || size > room)
        return NULL;
    char *placed = m->block.data + m->used;
    size = (size + align - 1) & ~(align - 1);
    m->used += size < room ? size : room;
    return placed;
}

static void *on_malloc(size_t size, void *arg)
{
    void *placed = place(arg, size);
    return placed ? placed : malloc(size);
}

static void *on_calloc(size_t count, size_t size, void *arg)
{
    size_t bytes;
    void *placed = __builtin_mul_overflow(count, size, &bytes) ? NULL : place(arg, bytes);
    return placed ? placed : calloc(count, size);
}

static void on_free(void *p, void *arg)
{
    if (!is_placed(arg, p))
        free(p);
}

static void *on_realloc(void *p, size_t size, void *arg)
{
    const struct h2_memory *m = arg;
    if (!p)
        return on_malloc(size, arg);
    if (!is_placed(m, p))
        return realloc(p, size);
    /* How large it was is not known, but it ended within the block. */
    size_t most = (size_t)(m->block.data + SPARSE_BLOCK_BYTES - (char *)p);
    void *moved = malloc(size);
    return moved ? memcpy(moved, p, size < most ? size : most) : NULL;
}

void h2_memory_begin(struct h2_memory *m, nghttp2_mem *mem)
{
    *m = (struct h2_memory){0};
    if (!SANITIZED)
        sparse_alloc(&m->block); /* without one the heap does */
    *mem = (nghttp2_mem){
        .mem_user_data = m,
        .malloc = on_malloc,
        .free = on_free,
        .calloc = on_calloc,
        .realloc = on_realloc,
    };
}

void h2_memory_settle(struct h2_memory *m)
{
    m->used = SPARSE_BLOCK_BYTES;
}

void h2_memory_end(struct h2_memory *m)
{
    sparse_free(&m->block);
}
