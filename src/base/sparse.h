/*
 * Blocks of which little is ever touched: pages that nobody has written to cost nothing. malloc lays small blocks
 * between large ones and hands out again what others have written to, so there the same bytes would hold several times
 * as many pages.
 *
 * A block is all zero when it is handed out, begins at a page, and gives its pages back to the kernel as soon as it is
 * freed. Each thread has its own, without a lock; a block is freed on the thread that asked for it.
 */
#ifndef KV_BASE_SPARSE_H
#define KV_BASE_SPARSE_H

/* Address space of one block: an HTTP/2 session's (http/h2_memory.c), which is the only user. */
#define SPARSE_BLOCK_BYTES (24 * 1024)

struct sparse_region;

/* Zeroed, it is none. */
struct sparse_block {
    char *data;
    struct sparse_region *region;
};

/* 0 with *out, or KV_ENOMEM with none in *out. */
int sparse_alloc(struct sparse_block *out);

/* Gives a block back, and makes it none; none is legal. */
void sparse_free(struct sparse_block *block);

#endif
