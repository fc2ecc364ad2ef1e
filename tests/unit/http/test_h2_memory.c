/* A session's allocator: blocks of their own as malloc's would be, wherever they lie, and two pages for what is large
 * of a session that has said hello. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/sanitize.h"
#include "http/h2_memory.h"

static bool is_placed(const struct h2_memory *m, const void *p)
{
    return m->block.data && (const char *)p >= m->block.data && (const char *)p < m->block.data + SPARSE_BLOCK_BYTES;
}

static void lays_large_ones_into_the_block(void **state)
{
    (void)state;
    struct h2_memory memory;
    nghttp2_mem mem;
    h2_memory_begin(&memory, &mem);
    char *large = mem.calloc(1, 3001, mem.mem_user_data), *next = mem.malloc(4096, mem.mem_user_data);
    char *small = mem.malloc(100, mem.mem_user_data), *huge = mem.calloc(2, SPARSE_BLOCK_BYTES, mem.mem_user_data);
    assert_int_equal(is_placed(&memory, large) && is_placed(&memory, next), !SANITIZED);
    assert_false(is_placed(&memory, small) || is_placed(&memory, huge));
    assert_int_equal((uintptr_t)next % _Alignof(max_align_t), 0);
    for (size_t i = 0; i < 3001; i++)
        assert_int_equal(large[i], 0);
    memset(large, 1, 3001);
    memset(next, 2, 4096);
    memset(small, 3, 100);
    assert_int_equal(large[3000], 1);
    h2_memory_settle(&memory);
    char *later = mem.malloc(3000, mem.mem_user_data);
    assert_false(is_placed(&memory, later));
    if (!SANITIZED) /* whose calloc ends the process */
        assert_null(mem.calloc(SIZE_MAX, 2, mem.mem_user_data));
    char *all[] = {large, next, small, huge, later, NULL};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        mem.free(all[i], mem.mem_user_data);
    h2_memory_end(&memory);
}

static void moves_with_what_it_held(void **state)
{
    (void)state;
    struct h2_memory memory;
    nghttp2_mem mem;
    h2_memory_begin(&memory, &mem);
    char *large = mem.realloc(NULL, 5000, mem.mem_user_data), *small = mem.realloc(NULL, 50, mem.mem_user_data);
    assert_int_equal(is_placed(&memory, large), !SANITIZED);
    memset(large, 7, 5000);
    memset(small, 8, 50);
    large = mem.realloc(large, 100000, mem.mem_user_data);
    small = mem.realloc(small, 100000, mem.mem_user_data);
    assert_false(is_placed(&memory, large) || is_placed(&memory, small));
    for (size_t i = 0; i < 5000; i++)
        assert_int_equal(large[i], 7);
    for (size_t i = 0; i < 50; i++)
        assert_int_equal(small[i], 8);
    mem.free(large, mem.mem_user_data);
    mem.free(small, mem.mem_user_data);
    h2_memory_end(&memory);
}

static void exchange_settings(nghttp2_session *from, nghttp2_session *to)
{
    const uint8_t *data;
    ssize_t n;
    while ((n = nghttp2_session_mem_send(from, &data)) > 0)
        assert_int_equal(nghttp2_session_mem_recv(to, data, (size_t)n), n);
    assert_int_equal(n, 0);
}

/* What docs/PERFORMANCE.md says of an idle tunnel stands on this. Another version of nghttp2 may need other pages. */
static void takes_two_pages_for_an_idle_session(void **state)
{
    (void)state;
    struct h2_memory memories[2];
    nghttp2_mem mem[2];
    nghttp2_session_callbacks *callbacks;
    nghttp2_session *server, *client;
    if (SANITIZED || sysconf(_SC_PAGESIZE) != 4096)
        skip();
    h2_memory_begin(&memories[0], &mem[0]);
    h2_memory_begin(&memories[1], &mem[1]);
    assert_int_equal(nghttp2_session_callbacks_new(&callbacks), 0);
    assert_int_equal(nghttp2_session_server_new3(&server, callbacks, NULL, NULL, &mem[0]), 0);
    assert_int_equal(nghttp2_session_client_new3(&client, callbacks, NULL, NULL, &mem[1]), 0);
    h2_memory_settle(&memories[0]);
    h2_memory_settle(&memories[1]);
    const nghttp2_settings_entry window = {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 1 << 24};
    nghttp2_submit_settings(server, NGHTTP2_FLAG_NONE, &window, 1);
    nghttp2_submit_settings(client, NGHTTP2_FLAG_NONE, &window, 1);
    for (int round = 0; round < 2; round++) {
        exchange_settings(client, server);
        exchange_settings(server, client);
    }
    for (int side = 0; side < 2; side++) {
        unsigned char in_memory[SPARSE_BLOCK_BYTES / 4096];
        assert_int_equal(mincore(memories[side].block.data, SPARSE_BLOCK_BYTES, in_memory), 0);
        for (size_t i = 0; i < sizeof(in_memory); i++)
            assert_int_equal(in_memory[i] & 1, i < 2);
    }
    nghttp2_session_del(server);
    nghttp2_session_del(client);
    nghttp2_session_callbacks_del(callbacks);
    h2_memory_end(&memories[0]);
    h2_memory_end(&memories[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lays_large_ones_into_the_block),
        cmocka_unit_test(moves_with_what_it_held),
        cmocka_unit_test(takes_two_pages_for_an_idle_session),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
