/*
 * Regions of 64 blocks, mapped together, because a mapping for each block would soon be more mappings than a process
 * may have. A region's free blocks are bits of one word. Regions with a free block are in their thread's list; one that
 * is all free is unmapped, so that nothing is left to give back when a thread ends.
 */
#include "base/sparse.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <utlist.h>

#include "base/error.h"

#define BLOCKS       64
#define REGION_BYTES ((size_t)BLOCKS * SPARSE_BLOCK_BYTES)
#define ALL_FREE     UINT64_MAX

struct sparse_region {
    char *base;
    struct sparse_region **owner; /* the list of its thread */
    uint64_t free;                /* bit n: block n */
    struct sparse_region *prev, *next;
};

static _Thread_local struct sparse_region *roomy;

static struct sparse_region *region_new(void)
{
    struct sparse_region *region = calloc(1, sizeof(*region));
    if (!region)
        return NULL;
    region->base = mmap(NULL, REGION_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (region->base == MAP_FAILED) {
        free(region);
        return NULL;
    }
    /* A huge page would be all of it touched. A kernel that knows no huge pages refuses, and that is as good. */
    madvise(region->base, REGION_BYTES, MADV_NOHUGEPAGE);
    region->owner = &roomy;
    region->free = ALL_FREE;
    DL_PREPEND(roomy, region);
    return region;
}

static void region_free(struct sparse_region *region)
{
    DL_DELETE(roomy, region);
    munmap(region->base, REGION_BYTES);
    free(region);
}

int sparse_alloc(struct sparse_block *out)
{
    struct sparse_region *region = roomy ? roomy : region_new();
    *out = (struct sparse_block){0};
    if (!region)
        return KV_ENOMEM;
    size_t number = (size_t)__builtin_ctzll(region->free);
    region->free &= region->free - 1; /* the lowest bit */
    if (region->free == 0)
        DL_DELETE(roomy, region);
    *out = (struct sparse_block){region->base + number * SPARSE_BLOCK_BYTES, region};
    return KV_OK;
}

void sparse_free(struct sparse_block *block)
{
    struct sparse_region *region = block->region;
    if (!region)
        return;
    assert(region->owner == &roomy);
    size_t number = (size_t)(block->data - region->base) / SPARSE_BLOCK_BYTES;
    if (region->free == 0)
        DL_PREPEND(roomy, region);
    region->free |= UINT64_C(1) << number;
    if (region->free == ALL_FREE)
        region_free(region);
    else if (madvise(block->data, SPARSE_BLOCK_BYTES, MADV_DONTNEED) != 0)
        memset(block->data, 0, SPARSE_BLOCK_BYTES); /* locked pages stay, and have to be zero for the next */
    *block = (struct sparse_block){0};
}
