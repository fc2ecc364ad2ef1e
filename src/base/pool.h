/*
 * Memory for what every request needs and gives back within moments: exchanges, heads, messages, small chunks. Freed
 * blocks are kept by the thread that frees them, in classes of one size, and handed out again without a lock or a walk
 * through the heap. What is larger than POOL_BLOCK_MAX, or beyond POOL_KEEP_BYTES, is malloc's and free's as ever.
 *
 * Under the sanitizers nothing is kept, so that they see every block's own life.
 */
#ifndef KV_BASE_POOL_H
#define KV_BASE_POOL_H

#include <stddef.h>

/* The largest block that is kept: a chunk for heads (base/chunk.c) and the largest exchange fit. */
#define POOL_BLOCK_MAX  4096
/* What one thread keeps at most: the blocks of some 200 requests at once, little beside a process's other memory. */
#define POOL_KEEP_BYTES (1024UL * 1024)

/* A block of `size` bytes, aligned for anything, not cleared; NULL without memory. Any thread. */
void *pool_alloc(size_t size);

/* The same, all zero. */
void *pool_zalloc(size_t size);

/* Gives a block back; `size` is what it was asked for with. Any thread, not only the one that asked. NULL is legal. */
void pool_free(void *block, size_t size);

/* Has the heap keep some room at its ends instead of giving every freed chunk of a bulk transfer back to the kernel and
 * asking for it again: page faults were a quarter of such a transfer's time, and it now takes little more than half of
 * it. For the whole process; before there are threads. */
void pool_keep_heap(void);

/* Gives back to the heap what the calling thread keeps: called by a thread that ends. */
void pool_drain(void);

#endif
