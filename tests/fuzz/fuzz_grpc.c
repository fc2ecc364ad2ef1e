/*
 * The gRPC layer under hostile bytes. The first byte says how large the parts are in which the rest arrives; the rest
 * is read in such parts and at once, and both must give the same messages and the same end. The same bytes are a
 * grpc-message too: decoding is idempotent through encoding.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "base/error.h"
#include "grpc/grpc.h"

#define READER_LIMIT 4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int condition)
{
    if (!condition)
        abort();
}

/* Reads `stream` in parts; every message is appended to `log`, with its prefix. Returns what ended the reading. */
static int read_stream(struct slice stream, size_t part, struct buffer *log)
{
    struct grpc_reader reader = {.limit = READER_LIMIT};
    int result = 0;
    while (stream.len > 0 && result == 0) {
        size_t len = part < stream.len ? part : stream.len;
        char *copy = malloc(len); /* so that a read behind the part is seen */
        require(copy != NULL);
        memcpy(copy, stream.data, len);
        struct slice input = {copy, len}, bytes;
        struct chunk *whole;
        while ((result = grpc_read(&reader, &input, &bytes, &whole)) == 1) {
            char prefix[GRPC_PREFIX_LEN];
            require(bytes.len <= READER_LIMIT);
            grpc_prefix(bytes.len, prefix);
            require(buffer_append(log, prefix, sizeof prefix) == 0);
            require(buffer_append_slice(log, bytes) == 0);
            chunk_free(whole);
        }
        require(result == KV_EPROTO || result == KV_ELIMIT || (result == 0 && input.len == 0));
        stream = (struct slice){stream.data + len, stream.len - len};
        free(copy);
    }
    grpc_reader_free(&reader);
    return result;
}

static void check_stream(struct slice stream, size_t part)
{
    struct buffer at_once = BUFFER_INIT(SIZE_MAX / 2), in_parts = BUFFER_INIT(SIZE_MAX / 2);
    int one = read_stream(stream, SIZE_MAX, &at_once), two = read_stream(stream, part, &in_parts);
    require(one == two);
    require(slice_equals(buffer_slice(&at_once), buffer_slice(&in_parts)));
    /* What was read is what stood there. */
    require(slice_starts_with(stream, buffer_slice(&at_once)));
    buffer_free(&at_once);
    buffer_free(&in_parts);
    require(chunk_live_count() == 0);
}

static void check_message(struct slice encoded)
{
    char text[256], again[256], out[sizeof text * 3];
    grpc_decode_message(encoded, text, sizeof text);
    require(memchr(text, 0, sizeof text) != NULL);
    grpc_encode_message(text, out, sizeof out);
    grpc_decode_message(slice_of(out), again, sizeof again);
    require(strcmp(text, again) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct slice rest = {(const char *)data + 1, size - 1};
    check_stream(rest, (size_t)data[0] + 1);
    check_message(rest);
    return 0;
}
