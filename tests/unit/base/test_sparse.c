/* Sparse blocks: zero each time, a page at most for a byte, given back when they are freed; and one thread's are not
 * another's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/error.h"
#include "base/sanitize.h"
#include "base/sparse.h"

#define BLOCKS 150 /* more than two regions */

static size_t pages_of(size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (bytes + page - 1) / page;
}

/* Pages of a block that are in memory; -1 when the block is not even mapped. */
static int resident(const char *data)
{
    unsigned char in_memory[SPARSE_BLOCK_BYTES / 4096];
    int count = 0;
    if (mincore((void *)(uintptr_t)data, SPARSE_BLOCK_BYTES, in_memory) != 0)
        return -1;
    for (size_t i = 0; i < pages_of(SPARSE_BLOCK_BYTES); i++)
        count += in_memory[i] & 1;
    return count;
}

static void take(struct sparse_block blocks[BLOCKS], int mark)
{
    for (size_t i = 0; i < BLOCKS; i++) {
        assert_int_equal(sparse_alloc(&blocks[i]), KV_OK);
        for (size_t at = 0; at < SPARSE_BLOCK_BYTES; at++)
            assert_int_equal(blocks[i].data[at], 0);
        memset(blocks[i].data, mark + (int)i, SPARSE_BLOCK_BYTES);
    }
}

/* Each holds what was written into it, so no two share a byte. */
static void check(const struct sparse_block *block, int mark)
{
    for (size_t at = 0; at < SPARSE_BLOCK_BYTES; at++)
        assert_int_equal((unsigned char)block->data[at], (unsigned char)mark);
}

static void are_zero_and_nobody_elses(void **state)
{
    (void)state;
    struct sparse_block blocks[BLOCKS];
    take(blocks, 1);
    for (size_t i = 0; i < BLOCKS; i += 2) {
        check(&blocks[i], 1 + (int)i);
        sparse_free(&blocks[i]);
        assert_null(blocks[i].data);
    }
    for (size_t i = 0; i < BLOCKS; i += 2) {
        assert_int_equal(sparse_alloc(&blocks[i]), KV_OK);
        assert_int_equal(blocks[i].data[0] | blocks[i].data[SPARSE_BLOCK_BYTES - 1], 0);
        memset(blocks[i].data, 1 + (int)i, SPARSE_BLOCK_BYTES);
    }
    for (size_t i = 0; i < BLOCKS; i++) {
        check(&blocks[i], 1 + (int)i);
        sparse_free(&blocks[i]);
    }
}

static void hold_what_was_touched(void **state)
{
    (void)state;
    struct sparse_block one, other;
    assert_int_equal(sparse_alloc(&one), KV_OK);
    assert_int_equal(sparse_alloc(&other), KV_OK);
    char *data = one.data;
    assert_int_equal(resident(data), 0);
    data[0] = 1;
    assert_int_equal(resident(data), 1);
    memset(data, 1, SPARSE_BLOCK_BYTES);
    assert_int_equal(resident(data), pages_of(SPARSE_BLOCK_BYTES));
    sparse_free(&one);
    assert_int_equal(resident(data), 0);
    sparse_free(&other); /* the last of its region */
    assert_int_equal(resident(data), -1);
    sparse_free(&other);
}

/* Blocks of many regions, freed in an order in which none is empty for long. */
static void leave_no_region(void **state)
{
    (void)state;
    struct sparse_block blocks[BLOCKS];
    char *data[BLOCKS];
    take(blocks, 0);
    for (size_t i = 0; i < BLOCKS; i++)
        data[i] = blocks[i].data;
    for (size_t i = 0; i < BLOCKS; i++)
        sparse_free(&blocks[i * 7 % BLOCKS]);
    for (size_t i = 0; i < BLOCKS; i++)
        assert_int_equal(resident(data[i]), -1);
}

static void say_when_there_is_no_memory(void **state)
{
    (void)state;
    struct rlimit before, none = {0};
    struct sparse_block block;
    if (SANITIZED) /* their runtime wants memory of its own */
        skip();
    assert_int_equal(getrlimit(RLIMIT_AS, &before), 0);
    none.rlim_max = before.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_AS, &none), 0);
    int error = sparse_alloc(&block);
    assert_int_equal(setrlimit(RLIMIT_AS, &before), 0);
    assert_int_equal(error, KV_ENOMEM);
    assert_null(block.data);
    sparse_free(&block);
    assert_int_equal(sparse_alloc(&block), KV_OK);
    sparse_free(&block);
}

static void *use(void *arg)
{
    struct sparse_block blocks[BLOCKS];
    int mark = (int)(intptr_t)arg;
    for (int round = 0; round < 3; round++) {
        take(blocks, mark);
        for (size_t i = 0; i < BLOCKS; i++) {
            check(&blocks[i], mark + (int)i);
            sparse_free(&blocks[i]);
        }
    }
    return NULL;
}

static void are_each_threads_own(void **state)
{
    (void)state;
    pthread_t threads[4];
    for (intptr_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, use, (void *)(i * 50)), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(are_zero_and_nobody_elses), cmocka_unit_test(hold_what_was_touched),
        cmocka_unit_test(leave_no_region),           cmocka_unit_test(say_when_there_is_no_memory),
        cmocka_unit_test(are_each_threads_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
