/*
 * Decoding without memory: every allocation of a large head fails once, and the head decodes as if nothing had been
 * when memory is back. The decoder is compiled into this test, so that its malloc is ours.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdbool.h>
#include <stdlib.h>

static unsigned until_failure; /* 0: never */

static void *failing_malloc(size_t size)
{
    if (until_failure > 0 && --until_failure == 0)
        return NULL;
    return malloc(size);
}

#define malloc failing_malloc
#include "../../../src/tunnel/wire_decode.c"
#undef malloc

#include "wire_bytes.h"

#define FIELDS 120

static void put_large_request(struct buffer *out)
{
    struct buffer head = BUFFER_INIT(LIMIT_MESSAGE_BYTES);
    put_bytes(&head, 1, SLICE("GET"));
    put_bytes(&head, 2, SLICE("/"));
    for (int i = 0; i < FIELDS; i++)
        put_header(&head, 3, SLICE("x-some-field"), SLICE("and a value that is about as long as values are"));
    put_bytes(&head, 100, SLICE("unknown, kept by the library all the same"));
    put_number(out, 1, 7);
    put_bytes(out, 3, buffer_slice(&head));
    buffer_free(&head);
}

static void test_every_allocation_fails(void **state)
{
    (void)state;
    struct buffer bytes = BUFFER_INIT(LIMIT_MESSAGE_BYTES);
    struct wire_message message;
    unsigned failures = 0;
    put_large_request(&bytes);
    for (unsigned n = 1;; n++) {
        struct wire_arena arena = {0};
        until_failure = n;
        int error = wire_decode(WIRE_FROM_SERVER, buffer_slice(&bytes), &arena, &message);
        bool reached = until_failure == 0;
        until_failure = 0;
        if (reached) {
            failures++;
            assert_int_equal(error, KV_ENOMEM);
            assert_int_equal(message.kind, WIRE_UNKNOWN);
            error = wire_decode(WIRE_FROM_SERVER, buffer_slice(&bytes), &arena, &message);
        }
        assert_int_equal(error, 0);
        assert_int_equal(message.request_id, 7);
        assert_int_equal(message.head.head.count, FIELDS);
        wire_arena_free(&arena);
        if (!reached)
            break;
    }
    assert_true(failures >= 4);
    buffer_free(&bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_allocation_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
