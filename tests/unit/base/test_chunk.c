/* Chunks and chains: ownership, the two totals, and a long random run against a plain array. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/chunk.h"
#include "base/error.h"

static int expect_nothing_alive(void **state)
{
    (void)state;
    return chunk_live_count() == 0 && chunk_live_bytes() == 0 ? 0 : -1;
}

/* Pushes a copy; a test that has no memory fails. */
static void push(struct chain *q, const char *text)
{
    struct chunk *c = chunk_copy(text, strlen(text));
    assert_non_null(c);
    chain_push(q, c);
}

static void assert_chain(const struct chain *q, const char *expected)
{
    size_t len = 0;
    const struct chunk *last = NULL;

    for (const struct chunk *c = q->head; c; c = c->next) {
        assert_true(c->len > 0);
        assert_true(len + c->len <= strlen(expected));
        assert_memory_equal(c->data + c->off, expected + len, c->len);
        len += c->len;
        last = c;
    }
    assert_int_equal(len, strlen(expected));
    assert_int_equal(q->bytes, len);
    assert_ptr_equal(q->tail, last);
}

static void test_chunks_are_counted(void **state)
{
    (void)state;
    struct chunk *a = chunk_alloc(100);
    struct chunk *b = chunk_copy("hello", 5);
    struct chunk *empty = chunk_copy(NULL, 0);

    assert_int_equal(chunk_live_count(), 3);
    assert_int_equal(chunk_live_bytes(), 105);
    assert_int_equal(chunk_room(a), 100);
    assert_int_equal(chunk_room(b), 0);
    assert_true(slice_equals(chunk_slice(b), SLICE("hello")));
    assert_int_equal(chunk_slice(empty).len, 0);
    chunk_free(a);
    chunk_free(b);
    chunk_free(empty);
    chunk_free(NULL);
    assert_int_equal(chunk_live_count(), 0);
}

static void test_too_large_a_chunk(void **state)
{
    (void)state;
    assert_null(chunk_alloc((size_t)UINT32_MAX + 1));
    assert_null(chunk_copy("", (size_t)UINT32_MAX + 1));
    assert_int_equal(chunk_live_count(), 0);
}

static void test_push_and_pop(void **state)
{
    struct chain q = {0};

    (void)state;
    assert_null(chain_pop(&q));
    push(&q, "ab");
    push(&q, "");
    push(&q, "c");
    assert_int_equal(chunk_live_count(), 2);
    assert_chain(&q, "abc");

    struct chunk *c = chain_pop(&q);
    assert_true(slice_equals(chunk_slice(c), SLICE("ab")));
    assert_null(c->next);
    assert_chain(&q, "c");
    chunk_free(c);
    chunk_free(chain_pop(&q));
    assert_chain(&q, "");
    push(&q, "again");
    assert_chain(&q, "again");
    chain_free(&q);
    assert_chain(&q, "");
}

static void test_append_fills_the_tail_first(void **state)
{
    struct chain q = {0};
    struct chunk *c = chunk_alloc(4);

    (void)state;
    memcpy(c->data, "ab", 2);
    c->len = 2;
    chain_push(&q, c);
    assert_int_equal(chain_append(&q, "c", 1), 0);
    assert_ptr_equal(q.tail, c);
    assert_int_equal(chain_append(&q, "def", 3), 0);
    assert_ptr_not_equal(q.tail, c);
    assert_int_equal(chain_append(&q, "", 0), 0);
    assert_int_equal(chain_append(&q, "g", 1), 0);
    assert_chain(&q, "abcdefg");
    assert_int_equal(chunk_live_count(), 2);
    chain_free(&q);
}

static void test_consume_and_read(void **state)
{
    struct chain q = {0};
    char out[8];

    (void)state;
    push(&q, "abc");
    push(&q, "def");
    chain_consume(&q, 0);
    chain_consume(&q, 1);
    assert_chain(&q, "bcdef");
    chain_consume(&q, 3);
    assert_chain(&q, "ef");
    assert_int_equal(chunk_live_count(), 1);
    push(&q, "gh");
    assert_int_equal(chain_read(&q, out, 3), 3);
    assert_memory_equal(out, "efg", 3);
    assert_int_equal(chain_read(&q, out, sizeof(out)), 1);
    assert_int_equal(out[0], 'h');
    assert_int_equal(chain_read(&q, out, sizeof(out)), 0);
    assert_chain(&q, "");
}

static void test_move(void **state)
{
    struct chain from = {0}, to = {0};

    (void)state;
    push(&to, "0");
    push(&from, "abc");
    push(&from, "def");
    struct chunk *first = from.head;
    assert_int_equal(chain_move(&to, &from, 5), 0);
    assert_chain(&to, "0abcde");
    assert_chain(&from, "f");
    assert_ptr_equal(to.head->next, first); /* a whole chunk moves by pointer */
    assert_int_equal(chain_move(&to, &from, 0), 0);
    assert_int_equal(chain_move(&to, &from, 1), 0);
    assert_chain(&to, "0abcdef");
    assert_chain(&from, "");
    chain_free(&to);
}

/* Bytes numbered 0, 1, 2 ... go in at one end by every door and come out at the other in the same order. */
static void test_random_run(void **state)
{
    struct chain in = {0}, out = {0};
    uint32_t seed = 1;
    uint32_t next_in = 0, next_out = 0;
    char buffer[5000];

    (void)state;
    for (int step = 0; step < 20000; step++) {
        seed = seed * 1103515245 + 12345;
        size_t n = (seed >> 8) % sizeof(buffer);
        switch (seed >> 28) {
        case 0:
        case 1:
        case 2:
        case 3:
        case 4:
            n /= 4;
            for (size_t i = 0; i < n; i++)
                buffer[i] = (char)next_in++;
            if (seed & 0x80) {
                assert_int_equal(chain_append(&in, buffer, n), 0);
            } else {
                struct chunk *c = chunk_copy(buffer, n);
                assert_non_null(c);
                chain_push(&in, c);
            }
            break;
        case 5:
        case 6:
        case 7:
        case 8:
            if (n > in.bytes)
                n = in.bytes;
            assert_int_equal(chain_move(&out, &in, n), 0);
            break;
        case 9:
        case 10:
            if (n > out.bytes)
                n = out.bytes;
            chain_consume(&out, n);
            next_out += (uint32_t)n;
            break;
        default:
            n = chain_read(&out, buffer, n);
            for (size_t i = 0; i < n; i++)
                assert_true(buffer[i] == (char)next_out++);
        }
        assert_int_equal(in.bytes + out.bytes, next_in - next_out);
    }
    assert_true(next_out > 1000000);
    chain_free(&in);
    chain_free(&out);
}

static void *allocate_and_free(void *shared)
{
    struct chunk **handed_over = shared;

    chunk_free(*handed_over);
    for (size_t i = 0; i < 10000; i++)
        chunk_free(chunk_alloc(i % 100));
    return NULL;
}

/* The pool hands the same block out again: nothing of the secret is in it. */
static void test_a_secret_is_wiped(void **state)
{
    static const char secret[] = "user:a password of some length";
    (void)state;
    struct chunk *c = chunk_copy(secret, sizeof(secret));
    assert_non_null(c);
    c->secret = true;
    chunk_free(c);
    c = chunk_alloc(sizeof(secret));
    assert_non_null(c);
    assert_false(c->secret);
    for (size_t i = 0; i + 4 <= sizeof(secret); i++)
        assert_memory_not_equal(c->data + i, secret + i, 4);
    chunk_free(c);
}

static void test_totals_across_threads(void **state)
{
    pthread_t threads[4];
    struct chunk *chunks[4];

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        chunks[i] = chunk_alloc(1000);
        assert_int_equal(pthread_create(&threads[i], NULL, allocate_and_free, &chunks[i]), 0);
    }
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(chunk_live_count(), 0);
    assert_int_equal(chunk_live_bytes(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_chunks_are_counted, expect_nothing_alive),
        cmocka_unit_test_teardown(test_too_large_a_chunk, expect_nothing_alive),
        cmocka_unit_test_teardown(test_push_and_pop, expect_nothing_alive),
        cmocka_unit_test_teardown(test_append_fills_the_tail_first, expect_nothing_alive),
        cmocka_unit_test_teardown(test_consume_and_read, expect_nothing_alive),
        cmocka_unit_test_teardown(test_move, expect_nothing_alive),
        cmocka_unit_test_teardown(test_random_run, expect_nothing_alive),
        cmocka_unit_test_teardown(test_a_secret_is_wiped, expect_nothing_alive),
        cmocka_unit_test_teardown(test_totals_across_threads, expect_nothing_alive),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
