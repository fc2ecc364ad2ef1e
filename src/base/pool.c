/* Free lists, one a class and a thread. A free block holds the pointer to the next. */
#include "base/pool.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "base/sanitize.h"

#define HEAP_KEEP_BYTES (4 * 1024 * 1024) /* at the end of each thread's heap; more goes back to the kernel */
#define HEAP_STEP_BYTES (256 * 1024)      /* by which a heap grows */

#define CLASS_BYTES     64 /* a cache line: blocks of one class are that much apart in size */
#define CLASSES         (POOL_BLOCK_MAX / CLASS_BYTES)

struct free_block {
    struct free_block *next;
};

static _Thread_local struct {
    struct free_block *lists[CLASSES];
    size_t bytes; /* in all lists */
} kept;

static size_t class_of(size_t size)
{
    return size > 0 ? (size - 1) / CLASS_BYTES : 0;
}

static size_t class_bytes(size_t class)
{
    return (class + 1) * CLASS_BYTES;
}

void *pool_alloc(size_t size)
{
    if (SANITIZED || size > POOL_BLOCK_MAX)
        return malloc(size > 0 ? size : 1);
    size_t class = class_of(size);
    struct free_block *block = kept.lists[class];
    if (!block)
        return malloc(class_bytes(class));
    kept.lists[class] = block->next;
    kept.bytes -= class_bytes(class);
    return block;
}

void *pool_zalloc(size_t size)
{
    void *block = pool_alloc(size);
    return block ? memset(block, 0, size) : NULL;
}

void pool_free(void *block, size_t size)
{
    size_t class = class_of(size);
    if (SANITIZED || !block || size > POOL_BLOCK_MAX || kept.bytes + class_bytes(class) > POOL_KEEP_BYTES) {
        free(block);
        return;
    }
    struct free_block *freed = block;
    freed->next = kept.lists[class];
    kept.lists[class] = freed;
    kept.bytes += class_bytes(class);
}

void pool_keep_heap(void)
{
#ifdef __GLIBC__
    mallopt(M_TRIM_THRESHOLD, HEAP_KEEP_BYTES);
    mallopt(M_TOP_PAD, HEAP_STEP_BYTES);
#endif
}

void pool_drain(void)
{
    for (size_t class = 0; class < CLASSES; class ++) {
        while (kept.lists[class]) {
            struct free_block *block = kept.lists[class];
            kept.lists[class] = block->next;
            free(block);
        }
    }
    kept.bytes = 0;
}
