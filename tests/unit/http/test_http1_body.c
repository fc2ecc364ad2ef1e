/* Bodies: what is delivered, what is refused and what is left behind, whole, cut at every place, byte by byte and with
 * small `most`. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "http/http1.h"
#include "http/http1_documented.h"

static enum http1_reading reading = HTTP1_STRICT;

struct outcome {
    enum http1_body_event last; /* END, BAD, or MORE when the input was used up before */
    const char *error;
    size_t rest;        /* bytes left behind the end */
    struct buffer data; /* the body, then the trailers as "name=value;" */
};

/* Feeds pieces of at most `step` bytes, the first of at most `first`. */
static struct outcome decode(enum http1_framing framing, uint64_t length, struct slice input, size_t first, size_t step,
                             size_t most)
{
    struct outcome o = {.data = BUFFER_INIT(1 << 20)};
    struct http1_body body;
    http1_body_start(&body, framing, length, reading);
    size_t fed = 0, piece = first < input.len ? first : input.len;
    for (;;) {
        char *memory = malloc(piece ? piece : 1);
        assert_non_null(memory);
        memcpy(memory, input.data + fed, piece);
        struct slice in = {memory, piece}, data;
        while ((o.last = http1_body_next(&body, &in, most, &data)) == HTTP1_BODY_DATA) {
            assert_true(data.len > 0 && data.len <= most);
            assert_int_equal(buffer_append_slice(&o.data, data), 0);
        }
        fed += piece - in.len;
        if (o.last == HTTP1_BODY_MORE)
            assert_int_equal(in.len, 0);
        free(memory);
        if (o.last != HTTP1_BODY_MORE || fed == input.len)
            break;
        piece = step < input.len - fed ? step : input.len - fed;
    }
    o.rest = input.len - fed;
    o.error = body.error;
    assert_int_equal(http1_body_eof_is_end(&body), o.last == HTTP1_BODY_END || framing == HTTP1_UNTIL_CLOSE);
    struct slice nothing = {"x", 1}, none;
    if (o.last != HTTP1_BODY_MORE) {
        enum http1_body_event again = http1_body_next(&body, &nothing, most, &none);
        assert_int_equal(again, o.last == HTTP1_BODY_END ? HTTP1_BODY_MORE : HTTP1_BODY_BAD);
        assert_int_equal(nothing.len, 1);
    }
    for (size_t i = 0; i < body.trailers.count; i++) {
        buffer_append_slice(&o.data, body.trailers.fields[i].name);
        buffer_append_string(&o.data, "=");
        buffer_append_slice(&o.data, body.trailers.fields[i].value);
        buffer_append_string(&o.data, ";");
    }
    http1_body_free(&body);
    http1_body_free(&body);
    return o;
}

static void assert_same(const struct outcome *a, const struct outcome *b)
{
    assert_int_equal(a->last, b->last);
    if (a->last != HTTP1_BODY_BAD)
        assert_int_equal(a->rest, b->rest);
    assert_string_equal(a->error ? a->error : "", b->error ? b->error : "");
    assert_int_equal(a->data.len, b->data.len);
    if (a->data.len)
        assert_memory_equal(a->data.data, b->data.data, a->data.len);
}

static struct outcome decode_every_way(enum http1_framing framing, uint64_t length, struct slice input)
{
    struct outcome whole = decode(framing, length, input, input.len, 1, SIZE_MAX);
    for (size_t cut = 0; cut <= input.len; cut++) {
        struct outcome o = decode(framing, length, input, cut, input.len, SIZE_MAX);
        assert_same(&whole, &o);
        buffer_free(&o.data);
    }
    for (size_t step = 1; step <= 3; step++)
        for (size_t most = 1; most <= 4; most++) {
            struct outcome o = decode(framing, length, input, step, step, most);
            assert_same(&whole, &o);
            buffer_free(&o.data);
        }
    return whole;
}

struct body_case {
    struct slice input;
    enum http1_body_event last;
    size_t rest;
    const char *said; /* data and trailers, or the error */
};

#define CASE(text, last, rest, said)                                                                                   \
    {                                                                                                                  \
        {(text), sizeof(text) - 1}, HTTP1_BODY_##last, (rest), (said)                                                  \
    }
#define BAD(text, error) CASE(text, BAD, 0, error)

static const struct body_case chunked[] = {
    CASE("", MORE, 0, ""),
    CASE("0\r\n\r\n", END, 0, ""),
    CASE("0\r\n\r\nGET / HTTP/1.1\r\n", END, 16, ""),
    CASE("000000000000000\r\n\r\n", END, 0, ""),
    CASE("3\r\nabc\r\n0\r\n\r\n", END, 0, "abc"),
    CASE("3\r\nabc\r\n2\r\n\r\n\r\n0\r\n\r\n", END, 0, "abc\r\n"),
    CASE("a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", END, 0, "01234567890123456789"),
    CASE("00000000000000b\r\n0123456789a\r\n0\r\n\r\n", END, 0, "0123456789a"),
    CASE("3\r\nab", MORE, 0, "ab"),
    CASE("3\r\nabc", MORE, 0, "abc"),
    CASE("3\r\nabc\r\n", MORE, 0, "abc"),
    CASE("3\r\nabc\r\n0\r\n", MORE, 0, "abc"),
    CASE("3\r\nabc\r\n0\r\n\r", MORE, 0, "abc"),
    CASE("fffffffffffffff\r\nabc", MORE, 0, "abc"),
    CASE("3;a;b=c;d=\"e;\\\"\\\\ f\t\";g\r\nabc\r\n0;last\r\n\r\n", END, 0, "abc"),
    CASE("3\r\nabc\r\n0\r\nGrpc-Status: 0\r\nX:\r\n\r\nrest", END, 4, "abcGrpc-Status=0;X=;"),
    CASE("0\r\nA: b\r\nA:  c \t\r\n\r\n", END, 0, "A=b;A=c;"),
    CASE("0\r\nA: b\r\n", MORE, 0, ""),
    CASE("0\r\nContent-Length: 5\r\nA: b\r\ntransfer-encoding: chunked\r\nHost: b\r\nConnection: close\r\nUpgrade: "
         "x\r\n\r\n",
         END, 0, "A=b;"),
};

/* Of an answer, whose service may be sloppy where only one reading exists. */
static const struct body_case tolerated[] = {
    CASE("3\nabc\n0\n\n", END, 0, "abc"),
    CASE("3\nabc\r\n0\r\n\nrest", END, 4, "abc"),
    CASE("3  \r\nabc\r\n0 \t\r\n\r\n", END, 0, "abc"),
    CASE("3 ; a = b\r\nabc\r\n0;;;\r\n\r\n", END, 0, "abc"),
    CASE("3;\"a\nabc\r\n0\r\n\r\n", END, 0, "abc"),
    CASE("3\r\nabc\r\n0\nA : b\nB: c\r\n\nrest", END, 4, "abcA=b;B=c;"),
    CASE("3\r\nabc\r\n0\nContent-Length: 2\n\n", END, 0, "abc"),
    BAD("\n", "bare LF in a chunk-size line"),
    BAD(" 3\nabc\n", "chunk size is not a hex number"),
    BAD("3x\nabc\n", "chunk size is not a hex number"),
    BAD("3\nabcd\n", "chunk data does not end with CRLF"),
    BAD("3\nabc\r\r\n", "chunk data does not end with CRLF"),
    BAD("3 \r \nabc\n", "bare CR in a chunk-size line"),
    BAD("0\r\n A: b\r\n\r\n", "white space at the start of a line"),
};

/* From RFC 9112, 7.1 turned round, and from findings about lenient chunk parsers: signs, white space and hex prefixes
 * that strtol takes, overflow, line ends inside extensions ("TERM.EXT"), and data that runs over its size. */
static const struct body_case bad_chunks[] = {
    BAD("\r\n", "chunk size is not a hex number"),
    BAD(";a\r\n", "chunk size is not a hex number"),
    BAD("+3\r\nabc\r\n", "chunk size is not a hex number"),
    BAD("-3\r\nabc\r\n", "chunk size is not a hex number"),
    BAD(" 3\r\nabc\r\n", "chunk size is not a hex number"),
    BAD("\t3\r\nabc\r\n", "chunk size is not a hex number"),
    BAD("3 \r\nabc\r\n", "chunk size is not a hex number"),
    BAD("3\t\r\nabc\r\n", "chunk size is not a hex number"),
    BAD("3 ;a\r\nabc\r\n", "chunk size is not a hex number"),
    BAD("0x3\r\nabc\r\n", "chunk size is not a hex number"),
    BAD("3h\r\nabc\r\n", "chunk size is not a hex number"),
    BAD("3_0\r\n", "chunk size is not a hex number"),
    BAD("g\r\n", "chunk size is not a hex number"),
    BAD("3,3\r\n", "chunk size is not a hex number"),
    BAD("\xb2\r\n", "chunk size is not a hex number"),
    BAD("3\0\r\n", "chunk size is not a hex number"),
    BAD("\n", "bare LF in a chunk-size line"),
    BAD("3\nabc\r\n", "bare LF in a chunk-size line"),
    BAD("0\n\n", "bare LF in a chunk-size line"),
    BAD("3;a\nabc\r\n", "bare LF in a chunk-size line"),
    BAD("3;a=\"\nabc\r\n", "bare LF in a chunk-size line"),
    BAD("3\rabc\r\n", "bare CR in a chunk-size line"),
    BAD("3\r\r\nabc\r\n", "bare CR in a chunk-size line"),
    BAD("3;a\rb\r\n", "bare CR in a chunk-size line"),
    BAD("0000000000000003\r\nabc\r\n", "chunk size has too many digits"),
    BAD("ffffffffffffffff\r\n", "chunk size has too many digits"),
    BAD("10000000000000003\r\nabc\r\n", "chunk size has too many digits"),
    BAD("3;\r\nabc\r\n", "malformed chunk extension"),
    BAD("3;;a\r\nabc\r\n", "malformed chunk extension"),
    BAD("3; a\r\nabc\r\n", "malformed chunk extension"),
    BAD("3;a =b\r\nabc\r\n", "malformed chunk extension"),
    BAD("3;a=\r\nabc\r\n", "malformed chunk extension"),
    BAD("3;a= b\r\nabc\r\n", "malformed chunk extension"),
    BAD("3;a=b c\r\nabc\r\n", "malformed chunk extension"),
    BAD("3;a=\"b\"c\r\nabc\r\n", "malformed chunk extension"),
    BAD("3;a=\"b\r\nabc\r\n", "malformed chunk extension"),
    BAD("3;a=\"\\\r\nabc\r\n", "malformed chunk extension"),
    BAD("3;a\x01\r\nabc\r\n", "malformed chunk extension"),
    BAD("3;a=\"\x7f\"\r\nabc\r\n", "malformed chunk extension"),
    BAD("3;a=\"\xc3\xa9\"\r\nabc\r\n", "malformed chunk extension"),
    BAD("3;a\0b\r\nabc\r\n", "malformed chunk extension"),
    BAD("3\r\nabcd\r\n", "chunk data does not end with CRLF"),
    BAD("3\r\nabc\n0\r\n\r\n", "chunk data does not end with CRLF"),
    BAD("3\r\nabc0\r\n\r\n", "chunk data does not end with CRLF"),
    BAD("3\r\nabc\r0\r\n\r\n", "chunk data does not end with CRLF"),
    BAD("0\r\nabc\r\n\r\n", "field line without a colon"),
    BAD("0\r\n a: b\r\n\r\n", "white space at the start of a line"),
    BAD("0\r\na : b\r\n\r\n", "white space in or behind a field name"),
    BAD("0\r\n: b\r\n\r\n", "empty field name"),
    BAD("0\r\na: b\n\r\n", "bare LF"),
    BAD("0\r\n\n", "bare LF"),
    BAD("0\r\n\rx", "bare CR"),
    BAD("0\r\na: \0\r\n\r\n", "control byte"),
};

static void check(const struct body_case *c, enum http1_framing framing, uint64_t length)
{
    struct outcome o = decode_every_way(framing, length, c->input);
    if (o.last != c->last)
        fail_msg("%.*s\n  ended with %d (%s)", (int)c->input.len, c->input.data, (int)o.last, o.error ? o.error : "");
    if (o.last == HTTP1_BODY_BAD) {
        assert_true(is_documented(o.error));
        if (strcmp(o.error, c->said) != 0)
            fail_msg("%.*s\n  expected: %s\n  got: %s", (int)c->input.len, c->input.data, c->said, o.error);
    } else {
        assert_int_equal(o.data.len, strlen(c->said));
        assert_memory_equal(o.data.data ? o.data.data : "", c->said, o.data.len);
        assert_int_equal(o.rest, c->rest);
    }
    buffer_free(&o.data);
}

static void reads_chunks(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(chunked) / sizeof(chunked[0]); i++)
        check(&chunked[i], HTTP1_CHUNKED, 0);
}

static void refuses_bad_chunks(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(bad_chunks) / sizeof(bad_chunks[0]); i++)
        check(&bad_chunks[i], HTTP1_CHUNKED, 0);
}

static void reads_lengths(void **state)
{
    (void)state;
    const struct body_case none = CASE("next", END, 4, ""), whole = CASE("abcd", END, 0, "abcd"),
                           rest = CASE("abcdGET", END, 3, "abcd"), part = CASE("abc", MORE, 0, "abc"),
                           long_part = CASE("abc", MORE, 0, "abc"), until_close = CASE("a\r\n\0z", MORE, 0, "a\r\n");
    check(&none, HTTP1_NO_BODY, 0);
    check(&none, HTTP1_LENGTH, 0);
    check(&whole, HTTP1_LENGTH, 4);
    check(&rest, HTTP1_LENGTH, 4);
    check(&part, HTTP1_LENGTH, 4);
    check(&long_part, HTTP1_LENGTH, INT64_MAX);
    struct outcome o = decode_every_way(HTTP1_UNTIL_CLOSE, 0, until_close.input);
    assert_int_equal(o.last, HTTP1_BODY_MORE);
    assert_int_equal(o.data.len, until_close.input.len);
    buffer_free(&o.data);
}

static void waits_without_room(void **state)
{
    (void)state;
    struct http1_body body;
    struct slice in = SLICE("3\r\nabc\r\n0\r\n\r\nx"), data;
    http1_body_start(&body, HTTP1_CHUNKED, 0, HTTP1_STRICT);
    assert_int_equal(http1_body_next(&body, &in, 0, &data), HTTP1_BODY_MORE);
    assert_int_equal(in.len, 11);
    assert_int_equal(http1_body_next(&body, &in, 0, &data), HTTP1_BODY_MORE);
    assert_int_equal(in.len, 11);
    assert_int_equal(http1_body_next(&body, &in, 9, &data), HTTP1_BODY_DATA);
    assert_true(slice_equals(data, SLICE("abc")));
    assert_int_equal(http1_body_next(&body, &in, 0, &data), HTTP1_BODY_END);
    assert_int_equal(in.len, 1);
    assert_null(body.line.data); /* no memory was taken */
    http1_body_free(&body);

    in = SLICE("x");
    http1_body_start(&body, HTTP1_LENGTH, 0, HTTP1_STRICT);
    assert_int_equal(http1_body_next(&body, &in, 0, &data), HTTP1_BODY_END);
    assert_int_equal(http1_body_next(&body, &in, 0, &data), HTTP1_BODY_MORE);
    assert_int_equal(in.len, 1);
}

/* `fill` characters between before and after, decoded in three ways; NULL error: accepted. */
static void expect_cap(const char *before, size_t fill, const char *after, const char *error)
{
    struct buffer b = BUFFER_INIT(1 << 20);
    buffer_append_string(&b, before);
    for (size_t i = 0; i < fill; i++)
        buffer_append_string(&b, "x");
    buffer_append_string(&b, after);
    static const size_t steps[] = {1, 100, SIZE_MAX / 2};
    for (size_t i = 0; i < 3; i++) {
        struct outcome o = decode(HTTP1_CHUNKED, 0, buffer_slice(&b), steps[i], steps[i], SIZE_MAX);
        assert_int_equal(o.last, error ? HTTP1_BODY_BAD : HTTP1_BODY_END);
        assert_string_equal(o.error ? o.error : "", error ? error : "");
        assert_true(!error || is_documented(error));
        buffer_free(&o.data);
    }
    buffer_free(&b);
}

static void holds_the_caps(void **state)
{
    (void)state;
    expect_cap("0;", LIMIT_CHUNK_LINE_BYTES - 4, "\r\n\r\n", NULL);
    expect_cap("0;", LIMIT_CHUNK_LINE_BYTES - 3, "\r\n\r\n", "chunk-size line is too long");
    expect_cap("0;", LIMIT_CHUNK_LINE_BYTES * 2, "", "chunk-size line is too long");
    struct buffer chunks = BUFFER_INIT(1 << 16); /* the cap is one line's, not the body's */
    for (size_t i = 0; i < LIMIT_CHUNK_LINE_BYTES; i++)
        buffer_append_string(&chunks, "00001\r\nx\r\n");
    buffer_append(&chunks, "", 1); /* the NUL */
    expect_cap(chunks.data, 0, "0\r\n\r\n", NULL);
    buffer_free(&chunks);
    expect_cap("0\r\nA:", LIMIT_TRAILER_BYTES - 6, "\r\n\r\n", NULL);
    expect_cap("0\r\nA:", LIMIT_TRAILER_BYTES - 5, "\r\n\r\n", "trailers are too large");
    expect_cap("0\r\nA:", LIMIT_TRAILER_BYTES * 2, "\n", "trailers are too large");

    for (size_t fields = HTTP1_TRAILERS_MAX; fields <= HTTP1_TRAILERS_MAX + 1; fields++) {
        struct buffer b = BUFFER_INIT(1 << 20);
        buffer_append_string(&b, "0\r\n");
        for (size_t i = 0; i < fields; i++)
            buffer_append_string(&b, "a: b\r\n");
        buffer_append(&b, "", 1); /* the NUL */
        expect_cap(b.data, 0, "\r\n", fields > HTTP1_TRAILERS_MAX ? "too many trailer fields" : NULL);
        buffer_free(&b);
    }
}

static void tolerates_sloppy_services(void **state)
{
    (void)state;
    reading = HTTP1_TOLERANT;
    for (size_t i = 0; i < sizeof(tolerated) / sizeof(tolerated[0]); i++)
        check(&tolerated[i], HTTP1_CHUNKED, 0);
    for (size_t i = 0; i < sizeof(chunked) / sizeof(chunked[0]); i++)
        check(&chunked[i], HTTP1_CHUNKED, 0);
    reading = HTTP1_STRICT;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_chunks),   cmocka_unit_test(refuses_bad_chunks),
        cmocka_unit_test(reads_lengths),  cmocka_unit_test(waits_without_room),
        cmocka_unit_test(holds_the_caps), cmocka_unit_test(tolerates_sloppy_services),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
