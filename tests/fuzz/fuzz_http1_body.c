/*
 * Bodies. The first byte chooses the framing and how tolerantly it is read, the second the size of the pieces and of
 * `most`, the third a length. Invariants: cutting changes nothing; never more bytes than were framed; nothing is taken
 * behind the end; chunks written by us from what was read give the same body and trailers.
 */
#include "http1_check.h"

struct reading {
    enum http1_body_event last;
    const char *error;
    size_t taken;
    struct buffer data, trailers;
};

static void free_reading(struct reading *r)
{
    buffer_free(&r->data);
    buffer_free(&r->trailers);
}

static struct reading read_body(enum http1_framing framing, uint64_t length, enum http1_reading how, struct slice input,
                                size_t step, size_t most)
{
    struct reading r = {.data = BUFFER_INIT(1 << 22), .trailers = BUFFER_INIT(1 << 20)};
    struct http1_body body;
    http1_body_start(&body, framing, length, how);
    do {
        size_t piece = step < input.len - r.taken ? step : input.len - r.taken;
        char *copy = malloc(piece + 1);
        CHECK(copy);
        if (piece)
            memcpy(copy, input.data + r.taken, piece);
        struct slice in = {copy, piece}, data;
        while ((r.last = http1_body_next(&body, &in, most, &data)) == HTTP1_BODY_DATA) {
            CHECK(data.len > 0 && data.len <= most && data.data >= copy && data.data + data.len <= copy + piece);
            CHECK(buffer_append_slice(&r.data, data) == 0);
        }
        CHECK(r.last != HTTP1_BODY_MORE || in.len == 0);
        r.taken += piece - in.len;
        free(copy);
    } while (r.last == HTTP1_BODY_MORE && r.taken < input.len);
    if (r.last == HTTP1_BODY_END)
        CHECK(http1_write_last_chunk(&r.trailers, &body.trailers) == 0);
    CHECK((r.last == HTTP1_BODY_BAD) == (body.error != NULL));
    r.error = body.error;
    http1_body_free(&body);
    return r;
}

static void check_same(const struct reading *a, const struct reading *b)
{
    CHECK(a->last == b->last && slice_equals(buffer_slice(&a->data), buffer_slice(&b->data)));
    CHECK(slice_equals(buffer_slice(&a->trailers), buffer_slice(&b->trailers)));
    if (a->last == HTTP1_BODY_BAD)
        CHECK(strcmp(a->error, b->error) == 0);
    else
        CHECK(a->taken == b->taken);
}

/* One chunk of everything, then the last chunk as the first reading wrote it. */
static void check_rewritten(const struct reading *r)
{
    struct buffer out = BUFFER_INIT(1 << 22);
    char prefix[HTTP1_CHUNK_PREFIX_LEN];
    if (r->data.len) {
        CHECK(buffer_append(&out, prefix, http1_chunk_prefix(r->data.len, prefix)) == 0);
        CHECK(buffer_append_slice(&out, buffer_slice(&r->data)) == 0);
        CHECK(buffer_append_string(&out, "\r\n") == 0);
    }
    CHECK(buffer_append_slice(&out, buffer_slice(&r->trailers)) == 0);
    struct reading again = read_body(HTTP1_CHUNKED, 0, HTTP1_STRICT, buffer_slice(&out), SIZE_MAX, SIZE_MAX);
    if (again.last == HTTP1_BODY_BAD) /* our spaces may take a section over its cap */
        CHECK(r->trailers.len > LIMIT_TRAILER_BYTES);
    else
        CHECK(again.last == HTTP1_BODY_END && slice_equals(buffer_slice(&r->data), buffer_slice(&again.data)) &&
              slice_equals(buffer_slice(&r->trailers), buffer_slice(&again.trailers)));
    free_reading(&again);
    buffer_free(&out);
}

/* What is read strictly is read tolerantly in the same way. */
static void check_tolerated(const struct reading *r, struct slice input)
{
    struct reading again = read_body(HTTP1_CHUNKED, 0, HTTP1_TOLERANT, input, SIZE_MAX, SIZE_MAX);
    check_same(r, &again);
    free_reading(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 3)
        return 0;
    /* Chunked most of the time: it is where the decoder can be wrong. */
    enum http1_framing framing = data[0] < 4 ? (enum http1_framing)data[0] : HTTP1_CHUNKED;
    enum http1_reading how = data[0] & 8 ? HTTP1_TOLERANT : HTTP1_STRICT;
    size_t step = (size_t)(data[1] & 15) + 1, most = (size_t)(data[1] >> 4) + 1;
    uint64_t length = framing == HTTP1_LENGTH ? data[2] : 0;
    struct slice input = {(const char *)data + 3, size - 3};

    struct reading whole = read_body(framing, length, how, input, SIZE_MAX, SIZE_MAX);
    struct reading pieces = read_body(framing, length, how, input, step, most);
    check_same(&whole, &pieces);
    CHECK(whole.data.len <= input.len && whole.taken <= input.len);
    if (framing == HTTP1_LENGTH)
        CHECK(whole.data.len == (input.len < length ? input.len : length) && whole.taken == whole.data.len);
    if (framing == HTTP1_NO_BODY)
        CHECK(whole.data.len == 0 && whole.taken == 0 && whole.last == HTTP1_BODY_END);
    if (framing == HTTP1_UNTIL_CLOSE)
        CHECK(whole.data.len == input.len && whole.last == HTTP1_BODY_MORE);
    if (framing == HTTP1_CHUNKED && whole.last == HTTP1_BODY_END)
        check_rewritten(&whole);
    if (framing == HTTP1_CHUNKED && how == HTTP1_STRICT && whole.last == HTTP1_BODY_END)
        check_tolerated(&whole, input);
    free_reading(&whole);
    free_reading(&pieces);
    return 0;
}
