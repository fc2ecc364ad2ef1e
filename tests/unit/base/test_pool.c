/* The pool: blocks of their own, contents untouched by the lists, sizes at the edges of a class, threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <string.h>

#include "base/pool.h"

#define BLOCKS 400

static const size_t sizes[] = {0, 1, 63, 64, 65, 1000, POOL_BLOCK_MAX - 1, POOL_BLOCK_MAX, POOL_BLOCK_MAX + 1, 100000};
#define SIZES (sizeof(sizes) / sizeof(sizes[0]))

/* Every block is filled with its own number; a byte that two of them share would show. */
static void hands_out_blocks_of_their_own(void **state)
{
    (void)state;
    unsigned char *blocks[BLOCKS];
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < BLOCKS; i++) {
            blocks[i] = pool_alloc(sizes[i % SIZES]);
            assert_non_null(blocks[i]);
            assert_int_equal((uintptr_t)blocks[i] % _Alignof(max_align_t), 0);
            memset(blocks[i], (int)(i & 0xff), sizes[i % SIZES]);
        }
        for (size_t i = 0; i < BLOCKS; i++) {
            for (size_t at = 0; at < sizes[i % SIZES]; at++)
                assert_int_equal(blocks[i][at], i & 0xff);
            pool_free(blocks[i], sizes[i % SIZES]);
        }
    }
    pool_drain();
}

static void clears_what_it_hands_out_again(void **state)
{
    (void)state;
    for (int round = 0; round < 3; round++) {
        unsigned char *block = pool_zalloc(100);
        for (size_t i = 0; i < 100; i++)
            assert_int_equal(block[i], 0);
        memset(block, 0xff, 100);
        pool_free(block, 100);
    }
    pool_free(NULL, 100);
    pool_drain();
}

/* Far more than a thread keeps: what is over goes back to the heap, and a drained pool is as good as a new one. */
static void keeps_no_more_than_it_says(void **state)
{
    (void)state;
    enum {
        MANY = 2 * POOL_KEEP_BYTES / POOL_BLOCK_MAX
    };
    static void *blocks[MANY];
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < MANY; i++)
            assert_non_null(blocks[i] = pool_alloc(POOL_BLOCK_MAX));
        for (size_t i = 0; i < MANY; i++)
            pool_free(blocks[i], POOL_BLOCK_MAX);
        pool_drain();
    }
}

static void *free_it(void *block)
{
    pool_free(block, 200);
    void *same_size = pool_alloc(200);
    memset(same_size, 1, 200);
    pool_free(same_size, 200);
    pool_drain();
    return NULL;
}

static void is_freed_by_another_thread(void **state)
{
    (void)state;
    pthread_t thread;
    void *block = pool_alloc(200);
    assert_int_equal(pthread_create(&thread, NULL, free_it, block), 0);
    pthread_join(thread, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hands_out_blocks_of_their_own),
        cmocka_unit_test(clears_what_it_hands_out_again),
        cmocka_unit_test(keeps_no_more_than_it_says),
        cmocka_unit_test(is_freed_by_another_thread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
