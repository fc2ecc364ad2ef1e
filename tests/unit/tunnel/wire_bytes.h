/* Bytes for the tests of the wire: from hexadecimal text, and protobuf fields put together by hand. */
#ifndef KV_TEST_WIRE_BYTES_H
#define KV_TEST_WIRE_BYTES_H

#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "base/error.h"
#include "grpc/grpc.h"
#include "tunnel/wire.h"

#define SIZE(array) (sizeof(array) / sizeof((array)[0]))

/* Appends the bytes of hexadecimal text; spaces between bytes are skipped. */
static inline void put_hex(struct buffer *out, const char *hex)
{
    for (; *hex; hex++) {
        char digits[3] = {hex[0], hex[1], '\0'}, byte;
        if (*hex == ' ')
            continue;
        char *end;
        byte = (char)(unsigned char)strtoul(digits, &end, 16);
        assert_ptr_equal(end, digits + 2);
        assert_int_equal(buffer_append(out, &byte, 1), 0);
        hex++;
    }
}

static inline void put_varint(struct buffer *out, uint64_t value)
{
    do {
        char byte = (char)(unsigned char)((value & 0x7f) | (value >= 0x80 ? 0x80 : 0));
        assert_int_equal(buffer_append(out, &byte, 1), 0);
        value >>= 7;
    } while (value > 0);
}

static inline void put_number(struct buffer *out, unsigned field, uint64_t value)
{
    put_varint(out, field << 3 | 0);
    put_varint(out, value);
}

static inline void put_bytes(struct buffer *out, unsigned field, struct slice bytes)
{
    put_varint(out, field << 3 | 2);
    put_varint(out, bytes.len);
    assert_int_equal(buffer_append_slice(out, bytes), 0);
}

/* A Header as field `field` of the message in `out`. */
static inline void put_header(struct buffer *out, unsigned field, struct slice name, struct slice value)
{
    struct buffer header = BUFFER_INIT(LIMIT_MESSAGE_BYTES);
    put_bytes(&header, 1, name);
    put_bytes(&header, 2, value);
    put_bytes(out, field, buffer_slice(&header));
    buffer_free(&header);
}

/* The content of the one gRPC message in b. */
static inline struct slice unprefixed(const struct buffer *b)
{
    char prefix[GRPC_PREFIX_LEN];
    assert_true(b->len >= GRPC_PREFIX_LEN);
    grpc_prefix(b->len - GRPC_PREFIX_LEN, prefix);
    assert_memory_equal(b->data, prefix, GRPC_PREFIX_LEN);
    return (struct slice){b->data + GRPC_PREFIX_LEN, b->len - GRPC_PREFIX_LEN};
}

#define assert_slice_equal(a, b)                                                                                       \
    do {                                                                                                               \
        struct slice one_ = (a), two_ = (b);                                                                           \
        assert_int_equal(one_.len, two_.len);                                                                          \
        if (one_.len > 0)                                                                                              \
            assert_memory_equal(one_.data, two_.data, one_.len);                                                       \
    } while (0)

#endif
