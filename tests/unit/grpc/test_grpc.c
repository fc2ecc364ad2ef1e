/* The gRPC layer: messages cut from a stream split in every way, prefixes, statuses and their texts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "grpc/grpc.h"

#define SIZE(array) (sizeof(array) / sizeof((array)[0]))

/* ---- reading --------------------------------------------------------------------------------------------------- */

static const size_t message_sizes[] = {0, 1, 5, 0, 0, 40, 2};
#define STREAM_MAX 128

/* A stream of messages whose bytes count up through the whole stream, so that a byte lost or doubled shows. */
static size_t make_stream(char out[STREAM_MAX])
{
    size_t used = 0;
    char counter = 0;
    for (size_t i = 0; i < SIZE(message_sizes); i++) {
        grpc_prefix(message_sizes[i], out + used);
        used += GRPC_PREFIX_LEN;
        for (size_t j = 0; j < message_sizes[i]; j++)
            out[used++] = counter++;
    }
    return used;
}

struct progress {
    size_t messages;
    size_t collected; /* of them in chunks */
    char counter;
};

/* Reads all that a part of the stream holds. The part is moved to its own allocation first: what is handed out in place
 * must not reach outside it. */
static void read_part(struct grpc_reader *reader, const char *data, size_t len, struct progress *progress)
{
    char *part = test_malloc(len);
    memcpy(part, data, len);
    struct slice input = {part, len}, bytes;
    struct chunk *whole;
    int result;
    while ((result = grpc_read(reader, &input, &bytes, &whole)) == 1) {
        assert_true(progress->messages < SIZE(message_sizes));
        assert_int_equal(bytes.len, message_sizes[progress->messages++]);
        for (size_t i = 0; i < bytes.len; i++)
            assert_int_equal(bytes.data[i], progress->counter++);
        if (whole) {
            progress->collected++;
            assert_int_equal(whole->capacity, bytes.len);
            assert_ptr_equal(bytes.data, whole->data);
            chunk_free(whole);
        } else if (bytes.len > 0) {
            assert_in_range((uintptr_t)bytes.data, (uintptr_t)part, (uintptr_t)part + len - bytes.len);
        }
    }
    assert_int_equal(result, 0);
    assert_int_equal(input.len, 0);
    test_free(part);
}

static void test_read_at_once(void **state)
{
    (void)state;
    char stream[STREAM_MAX];
    struct grpc_reader reader = {.limit = 40};
    struct progress progress = {0};
    read_part(&reader, stream, make_stream(stream), &progress);
    assert_int_equal(progress.messages, SIZE(message_sizes));
    assert_int_equal(progress.collected, 0);
}

static void test_read_split_anywhere(void **state)
{
    (void)state;
    char stream[STREAM_MAX];
    size_t len = make_stream(stream);
    for (size_t first = 1; first < len; first++) {
        for (size_t second = first; second < len; second++) {
            struct grpc_reader reader = {.limit = 40};
            struct progress progress = {0};
            read_part(&reader, stream, first, &progress);
            if (second > first)
                read_part(&reader, stream + first, second - first, &progress);
            read_part(&reader, stream + second, len - second, &progress);
            assert_int_equal(progress.messages, SIZE(message_sizes));
            assert_in_range(progress.collected, 0, 2);
        }
    }
    assert_int_equal(chunk_live_count(), 0);
}

static void test_read_bytewise(void **state)
{
    (void)state;
    char stream[STREAM_MAX];
    size_t len = make_stream(stream);
    struct grpc_reader reader = {.limit = 40};
    struct progress progress = {0};
    for (size_t i = 0; i < len; i++)
        read_part(&reader, stream + i, 1, &progress);
    assert_int_equal(progress.messages, SIZE(message_sizes));
    /* A single byte lies whole in its part; longer ones had to be collected. */
    assert_int_equal(progress.collected, 3);
    assert_int_equal(chunk_live_count(), 0);
}

static void test_read_refuses(void **state)
{
    (void)state;
    static const struct {
        struct slice bytes;
        int error;
    } cases[] = {
        {{"\1\0\0\0\1x", 6}, KV_EPROTO},        /* compressed */
        {{"\1", 1}, KV_EPROTO},                 /* and known to be so from its first byte */
        {{"HTTP/", 5}, KV_EPROTO},              /* no gRPC at all */
        {{"\0\0\0\0\x0b", 5}, KV_ELIMIT},       /* one over the limit */
        {{"\0\xff\xff\xff\xff", 5}, KV_ELIMIT}, /* the longest there is */
        {{"\0\0\0\0\x0a", 5}, 0},               /* at the limit */
        {{"\0\0\0\0", 4}, 0},
        {{"", 0}, 0},
        {{NULL, 0}, 0},
    };
    for (size_t i = 0; i < SIZE(cases); i++) {
        struct grpc_reader reader = {.limit = 10};
        struct slice input = cases[i].bytes, bytes;
        struct chunk *whole;
        assert_int_equal(grpc_read(&reader, &input, &bytes, &whole), cases[i].error);
        assert_null(whole);
        assert_int_equal(bytes.len, 0);
        if (cases[i].error) /* stays so, whatever follows */
            assert_int_equal(grpc_read(&reader, &(struct slice){"\0\0\0\0\0", 5}, &bytes, &whole), cases[i].error);
        grpc_reader_free(&reader);
    }
    assert_int_equal(chunk_live_count(), 0);
}

static void test_reader_free_starts_again(void **state)
{
    (void)state;
    struct grpc_reader reader = {.limit = 10};
    struct slice input = {"\0\0\0\0\4ab", 7}, bytes;
    struct chunk *whole;
    assert_int_equal(grpc_read(&reader, &input, &bytes, &whole), 0);
    assert_int_equal(chunk_live_count(), 1);
    grpc_reader_free(&reader);
    assert_int_equal(chunk_live_count(), 0);
    input = (struct slice){"\0\0\0\0\1z", 6};
    assert_int_equal(grpc_read(&reader, &input, &bytes, &whole), 1);
    assert_true(slice_equals(bytes, SLICE("z")));
}

static void test_prefix(void **state)
{
    (void)state;
    static const struct {
        size_t len;
        const char *prefix;
    } cases[] = {
        {0, "\0\0\0\0\0"},
        {255, "\0\0\0\0\xff"},
        {256, "\0\0\0\1\0"},
        {0x12345678, "\0\x12\x34\x56\x78"},
    };
    for (size_t i = 0; i < SIZE(cases); i++) {
        char prefix[GRPC_PREFIX_LEN];
        grpc_prefix(cases[i].len, prefix);
        assert_memory_equal(prefix, cases[i].prefix, GRPC_PREFIX_LEN);
    }
}

/* ---- status ---------------------------------------------------------------------------------------------------- */

static void test_status_names(void **state)
{
    (void)state;
    assert_string_equal(grpc_status_name(GRPC_OK), "OK");
    assert_string_equal(grpc_status_name(GRPC_ALREADY_EXISTS), "ALREADY_EXISTS");
    assert_string_equal(grpc_status_name(GRPC_UNAUTHENTICATED), "UNAUTHENTICATED");
    for (int status = 0; status <= 16; status++)
        assert_non_null(grpc_status_name(status));
    assert_string_equal(grpc_status_name(17), "UNKNOWN");
    assert_string_equal(grpc_status_name(-1), "UNKNOWN");
}

static void test_encode_message(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t size;
        const char *encoded;
    } cases[] = {
        {"tunnel 'laptop' is already connected from another client", 100,
         "tunnel 'laptop' is already connected from another client"},
        {"100% sure\r\n", 100, "100%25 sure%0D%0A"},
        {"gr\xc3\xbc\xc3\x9f\x7f", 100, "gr%C3%BC%C3%9F%7F"},
        {"~ !", 100, "~ !"},
        {"", 100, ""},
        {"abc", 4, "abc"},
        {"abc", 3, "ab"},
        {"a%", 5, "a%25"},
        {"a%", 4, "a"}, /* an escape is not cut */
        {"a\xc3\xbc", 8, "a%C3%BC"},
        {"a\xc3\xbc", 7, "a"}, /* nor is a character */
        {"\xe2\x82\xac!", 4, ""},
        {"\xff\xfe", 100, "%FF%FE"},
        {"abc", 1, ""},
    };
    for (size_t i = 0; i < SIZE(cases); i++) {
        char out[128];
        memset(out, 'x', sizeof out);
        grpc_encode_message(cases[i].text, out, cases[i].size);
        assert_string_equal(out, cases[i].encoded);
        assert_int_equal(out[cases[i].size], 'x');
    }
    grpc_encode_message("abc", NULL, 0);
}

static void test_decode_message(void **state)
{
    (void)state;
    static const struct {
        struct slice encoded;
        size_t size;
        const char *text;
    } cases[] = {
        {SLICE("100%25 sure"), 100, "100% sure"},
        {SLICE("gr%C3%BC%c3%9f"), 100, "gr\xc3\xbc\xc3\x9f"},
        {SLICE("%"), 100, "%"},
        {SLICE("a%2"), 100, "a%2"},
        {SLICE("%zz%4"), 100, "%zz%4"},
        {SLICE("%4g%g4"), 100, "%4g%g4"},
        {SLICE("%25%"), 100, "%%"},
        {SLICE("%2541"), 100, "%41"},
        {SLICE("a%00b%1b[31m\n"), 100, "a b [31m "},
        {SLICE("abcdef"), 4, "abc"},
        {SLICE("%41%42%43"), 3, "AB"},
        {{NULL, 0}, 100, ""},
        {SLICE("abc"), 1, ""},
    };
    for (size_t i = 0; i < SIZE(cases); i++) {
        char out[128];
        memset(out, 'x', sizeof out);
        grpc_decode_message(cases[i].encoded, out, cases[i].size);
        assert_string_equal(out, cases[i].text);
        assert_int_equal(out[cases[i].size], 'x');
    }
    grpc_decode_message(SLICE("abc"), NULL, 0);
}

static void test_message_there_and_back(void **state)
{
    (void)state;
    for (int c = 1; c < 256; c++) {
        char text[] = {'a', (char)(unsigned char)c, 'b', '\0'}, encoded[16], decoded[16];
        grpc_encode_message(text, encoded, sizeof encoded);
        grpc_decode_message(slice_of(encoded), decoded, sizeof decoded);
        if (c < ' ' || c == 0x7f)
            text[1] = ' ';
        assert_string_equal(decoded, text);
    }
}

static void test_status_of(void **state)
{
    (void)state;
    static const struct {
        const char *status, *message; /* NULL: no such field */
        int expected;
        const char *text;
    } cases[] = {
        {"0", NULL, GRPC_OK, ""},   {"6", "tunnel 'a' is taken%21", GRPC_ALREADY_EXISTS, "tunnel 'a' is taken!"},
        {"99", "m", 99, "m"},       {"4294967296", "m", GRPC_UNKNOWN, "m"},
        {NULL, "lost", -1, "lost"}, {"", NULL, -1, ""},
        {"-1", NULL, -1, ""},       {"x", NULL, -1, ""},
    };
    for (size_t i = 0; i < SIZE(cases); i++) {
        struct field fields[3];
        struct head head;
        char text[64];
        head_borrow(&head, fields, SIZE(fields));
        head_add(&head, SLICE("content-type"), SLICE("application/grpc"));
        if (cases[i].status)
            head_add(&head, SLICE("grpc-status"), slice_of(cases[i].status));
        if (cases[i].message)
            head_add(&head, SLICE("grpc-message"), slice_of(cases[i].message));
        assert_int_equal(grpc_status_of(&head, text, sizeof text), cases[i].expected);
        assert_string_equal(text, cases[i].text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read_at_once),
        cmocka_unit_test(test_read_split_anywhere),
        cmocka_unit_test(test_read_bytewise),
        cmocka_unit_test(test_read_refuses),
        cmocka_unit_test(test_reader_free_starts_again),
        cmocka_unit_test(test_prefix),
        cmocka_unit_test(test_status_names),
        cmocka_unit_test(test_encode_message),
        cmocka_unit_test(test_decode_message),
        cmocka_unit_test(test_message_there_and_back),
        cmocka_unit_test(test_status_of),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
