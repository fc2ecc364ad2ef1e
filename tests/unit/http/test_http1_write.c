/* Written heads to the letter, what is refused (and then leaves the buffer alone), and the way back through the
 * parser. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/error.h"
#include "http/http1.h"

#define FIELDS_MAX 8

static struct head head_with(struct field *storage, const char *const *pairs)
{
    struct head h;
    head_borrow(&h, storage, FIELDS_MAX);
    for (; pairs[0]; pairs += 2)
        assert_int_equal(head_add(&h, slice_of(pairs[0]), slice_of(pairs[1])), 0);
    return h;
}

#define PAIRS(...) ((const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})

static void assert_written(struct buffer *out, int result, const char *expected)
{
    assert_int_equal(result, 0);
    if (out->len != strlen(expected) || memcmp(out->data, expected, out->len) != 0)
        fail_msg("expected:\n%s\ngot:\n%.*s", expected, (int)out->len, out->data);
    buffer_free(out);
}

static struct head request_with(struct field *storage, const char *const *pairs)
{
    struct head h = head_with(storage, pairs);
    h.method = SLICE("POST");
    h.target = SLICE("/x?y");
    return h;
}

#define LINE "POST /x?y HTTP/1.1\r\n"

static void writes_requests(void **state)
{
    (void)state;
    struct buffer out = BUFFER_INIT(4096);
    struct field storage[FIELDS_MAX];
    struct head h = request_with(storage, PAIRS("host", "a", "x", "y", "empty", ""));
    assert_written(&out, http1_write_request(&out, &h, HTTP1_NO_BODY, 0), LINE "host: a\r\nx: y\r\nempty: \r\n\r\n");
    assert_written(&out, http1_write_request(&out, &h, HTTP1_LENGTH, 0),
                   LINE "host: a\r\nx: y\r\nempty: \r\ncontent-length: 0\r\n\r\n");
    assert_written(&out, http1_write_request(&out, &h, HTTP1_LENGTH, UINT64_MAX),
                   LINE "host: a\r\nx: y\r\nempty: \r\ncontent-length: 18446744073709551615\r\n\r\n");
    assert_written(&out, http1_write_request(&out, &h, HTTP1_CHUNKED, 0),
                   LINE "host: a\r\nx: y\r\nempty: \r\ntransfer-encoding: chunked\r\n\r\n");

    h = request_with(storage, PAIRS("x", "y"));
    h.authority = SLICE("b:80");
    assert_written(&out, http1_write_request(&out, &h, HTTP1_NO_BODY, 0), LINE "host: b:80\r\nx: y\r\n\r\n");
    h = request_with(storage, PAIRS("host", "a", "te", "trailers"));
    assert_written(&out, http1_write_request(&out, &h, HTTP1_NO_BODY, 0),
                   LINE "host: a\r\nte: trailers\r\nconnection: te\r\n\r\n");
    h.protocol = SLICE("websocket");
    assert_written(&out, http1_write_request(&out, &h, HTTP1_NO_BODY, 0),
                   LINE "host: a\r\nte: trailers\r\nconnection: upgrade, te\r\nupgrade: websocket\r\n\r\n");
    h = request_with(storage, PAIRS("host", "a"));
    h.protocol = SLICE("websocket");
    assert_written(&out, http1_write_request(&out, &h, HTTP1_NO_BODY, 0),
                   LINE "host: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
}

static void copies_no_framing_through(void **state)
{
    (void)state;
    struct buffer out = BUFFER_INIT(4096);
    struct field storage[FIELDS_MAX];
    struct head h =
        request_with(storage, PAIRS("Host", "a", "Content-Length", "5", "Transfer-Encoding", "chunked", "Connection",
                                    "close", "Upgrade", "x", "Keep-Alive", "y", "proxy-connection", "z"));
    assert_written(&out, http1_write_request(&out, &h, HTTP1_NO_BODY, 0), LINE "Host: a\r\n\r\n");
    assert_written(&out, http1_write_request(&out, &h, HTTP1_LENGTH, 7), LINE "Host: a\r\ncontent-length: 7\r\n\r\n");
    h.status = 200;
    assert_written(&out, http1_write_response(&out, &h, HTTP1_CHUNKED, 0, true, false),
                   "HTTP/1.1 200 OK\r\nHost: a\r\ntransfer-encoding: chunked\r\n\r\n");
    assert_written(&out, http1_write_last_chunk(&out, &h), "0\r\nHost: a\r\n\r\n");
}

static void refuses_what_reads_differently(void **state)
{
    (void)state;
    struct buffer out = BUFFER_INIT(4096);
    buffer_append_string(&out, "before");
    struct field storage[FIELDS_MAX];
    static const struct {
        const char *name, *value;
    } bad[] = {{"x", "a\r\nb: c"}, {"x", "a\nb"}, {"x", "a\rb"},   {"x", "a\x01"}, {"x", "a\x7f"}, {"", "a"},
               {"x y", "a"},       {"x:", "a"},   {"x\r\ny", "a"}, {"\xc3", "a"},  {"host", "b"},  {"Host", "a"}};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct head h = request_with(storage, PAIRS("host", "a", bad[i].name, bad[i].value));
        assert_int_equal(http1_write_request(&out, &h, HTTP1_NO_BODY, 0), KV_EINVAL);
        h.status = 200;
        if (!slice_equals_nocase(slice_of(bad[i].name), SLICE("host"))) {
            assert_int_equal(http1_write_response(&out, &h, HTTP1_LENGTH, 0, true, false), KV_EINVAL);
            assert_int_equal(http1_write_last_chunk(&out, &h), KV_EINVAL);
        }
    }
    static const char *const methods[] = {"", "G T", "G\r\nT", "GET\n"};
    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
        struct head h = request_with(storage, PAIRS("host", "a"));
        h.method = slice_of(methods[i]);
        assert_int_equal(http1_write_request(&out, &h, HTTP1_NO_BODY, 0), KV_EINVAL);
    }
    static const char *const targets[] = {"", "/a b", "/a\r\nb", "/\xc3\xa9", "/a#b", "/\x7f"};
    for (size_t i = 0; i < sizeof(targets) / sizeof(targets[0]); i++) {
        struct head h = request_with(storage, PAIRS("host", "a"));
        h.target = slice_of(targets[i]);
        assert_int_equal(http1_write_request(&out, &h, HTTP1_NO_BODY, 0), KV_EINVAL);
    }
    static const char *const protocols[] = {"a b", "a\r\nb: c", ","};
    for (size_t i = 0; i < sizeof(protocols) / sizeof(protocols[0]); i++) {
        struct head h = request_with(storage, PAIRS("host", "a"));
        h.protocol = slice_of(protocols[i]);
        assert_int_equal(http1_write_request(&out, &h, HTTP1_NO_BODY, 0), KV_EINVAL);
        h.status = 101;
        assert_int_equal(http1_write_response(&out, &h, HTTP1_NO_BODY, 0, true, false), KV_EINVAL);
    }
    struct head h = request_with(storage, PAIRS("x", "y"));
    assert_int_equal(http1_write_request(&out, &h, HTTP1_NO_BODY, 0), KV_EINVAL); /* no host at all */
    h.authority = SLICE("a b");
    assert_int_equal(http1_write_request(&out, &h, HTTP1_NO_BODY, 0), KV_EINVAL);
    h.authority = SLICE("a");
    assert_int_equal(http1_write_request(&out, &h, HTTP1_UNTIL_CLOSE, 0), KV_EINVAL);
    static const unsigned statuses[] = {0, 99, 1000, 101};
    for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++) {
        h.status = (uint16_t)statuses[i];
        assert_int_equal(http1_write_response(&out, &h, HTTP1_NO_BODY, 0, true, false), KV_EINVAL);
    }
    h.status = 204;
    assert_int_equal(http1_write_response(&out, &h, HTTP1_LENGTH, 0, true, false), KV_EINVAL);
    h.status = 103;
    assert_int_equal(http1_write_response(&out, &h, HTTP1_CHUNKED, 0, true, false), KV_EINVAL);
    h.status = 200;
    assert_int_equal(http1_write_response(&out, &h, HTTP1_CHUNKED, 0, true, true), KV_EINVAL);
    assert_written(&out, 0, "before");

    struct buffer small = BUFFER_INIT(8);
    assert_int_equal(http1_write_request(&small, &h, HTTP1_NO_BODY, 0), KV_ELIMIT);
    assert_int_equal(http1_write_response(&small, &h, HTTP1_NO_BODY, 0, true, false), KV_ELIMIT);
    assert_int_equal(http1_write_last_chunk(&small, &h), KV_ELIMIT);
    assert_null(small.data);
}

static void writes_responses(void **state)
{
    (void)state;
    struct buffer out = BUFFER_INIT(4096);
    struct field storage[FIELDS_MAX];
    struct head h = head_with(storage, PAIRS("x", "y"));
    h.status = 404;
    assert_written(&out, http1_write_response(&out, &h, HTTP1_LENGTH, 12, true, false),
                   "HTTP/1.1 404 Not Found\r\nx: y\r\ncontent-length: 12\r\n\r\n");
    assert_written(&out, http1_write_response(&out, &h, HTTP1_LENGTH, 12, false, false),
                   "HTTP/1.1 404 Not Found\r\nx: y\r\ncontent-length: 12\r\nconnection: close\r\n\r\n");
    assert_written(&out, http1_write_response(&out, &h, HTTP1_LENGTH, 12, true, true),
                   "HTTP/1.1 404 Not Found\r\nx: y\r\ncontent-length: 12\r\nconnection: keep-alive\r\n\r\n");
    assert_written(&out, http1_write_response(&out, &h, HTTP1_UNTIL_CLOSE, 0, true, true),
                   "HTTP/1.1 404 Not Found\r\nx: y\r\nconnection: close\r\n\r\n");
    h.status = 100;
    assert_written(&out, http1_write_response(&out, &h, HTTP1_NO_BODY, 0, false, false),
                   "HTTP/1.1 100 Continue\r\nx: y\r\n\r\n");
    h.status = 101;
    h.protocol = SLICE("websocket");
    assert_written(&out, http1_write_response(&out, &h, HTTP1_NO_BODY, 0, false, false),
                   "HTTP/1.1 101 Switching Protocols\r\nx: y\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
}

static void describes_absent_bodies(void **state)
{
    (void)state;
    struct buffer out = BUFFER_INIT(4096);
    struct field storage[FIELDS_MAX];
    struct head h = head_with(storage, PAIRS("content-length", "5", "content-length", "5"));
    h.status = 200; /* to HEAD */
    assert_written(&out, http1_write_response(&out, &h, HTTP1_NO_BODY, 0, true, false),
                   "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n");
    h.status = 304;
    assert_written(&out, http1_write_response(&out, &h, HTTP1_NO_BODY, 0, true, false),
                   "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n");
    h.status = 204;
    assert_written(&out, http1_write_response(&out, &h, HTTP1_NO_BODY, 0, true, false),
                   "HTTP/1.1 204 No Content\r\n\r\n");
    h.status = 200;
    assert_written(&out, http1_write_response(&out, &h, HTTP1_UNTIL_CLOSE, 0, true, false),
                   "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n");
    h = head_with(storage, PAIRS("content-length", "+5"));
    h.status = 200;
    assert_written(&out, http1_write_response(&out, &h, HTTP1_NO_BODY, 0, true, false), "HTTP/1.1 200 OK\r\n\r\n");
}

static void writes_chunks(void **state)
{
    (void)state;
    static const struct {
        uint64_t len;
        const char *text;
    } sizes[] = {{1, "1\r\n"},    {15, "f\r\n"},        {16, "10\r\n"},
                 {255, "ff\r\n"}, {65536, "10000\r\n"}, {UINT64_MAX, "ffffffffffffffff\r\n"},
                 {0, "0\r\n"}};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        char prefix[HTTP1_CHUNK_PREFIX_LEN];
        size_t len = http1_chunk_prefix(sizes[i].len, prefix);
        assert_int_equal(len, strlen(sizes[i].text));
        assert_memory_equal(prefix, sizes[i].text, len);
    }
    struct buffer out = BUFFER_INIT(4096);
    struct field storage[FIELDS_MAX];
    struct head h = head_with(storage, PAIRS("grpc-status", "0", "grpc-message", ""));
    assert_written(&out, http1_write_last_chunk(&out, NULL), "0\r\n\r\n");
    assert_written(&out, http1_write_last_chunk(&out, &h), "0\r\ngrpc-status: 0\r\ngrpc-message: \r\n\r\n");
}

static void knows_phrases(void **state)
{
    (void)state;
    assert_string_equal(http_status_phrase(100), "Continue");
    assert_string_equal(http_status_phrase(404), "Not Found");
    assert_string_equal(http_status_phrase(413), "Content Too Large");
    assert_string_equal(http_status_phrase(511), "Network Authentication Required");
    assert_string_equal(http_status_phrase(0), "Status");
    assert_string_equal(http_status_phrase(299), "Status");
    assert_string_equal(http_status_phrase(999), "Status");
    /* The table is searched by halves: every entry is reached only if it is in order. */
    unsigned known = 0;
    for (unsigned status = 0; status < 1000; status++)
        known += strcmp(http_status_phrase(status), "Status") != 0;
    assert_int_equal(known, 60);
}

/* Parse, write, parse: the second reading says what the first one said. */
static void comes_back_through_the_parser(void **state)
{
    (void)state;
    static const char *const requests[] = {
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /a?b HTTP/1.1\r\nHost: a:1\r\nX: \t y z\t\r\nContent-Length: 7\r\n\r\n",
        "PUT http://a/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    };
    for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
        struct http1_message first, second;
        struct buffer out = BUFFER_INIT(4096), again = BUFFER_INIT(4096);
        size_t scanned = 0;
        assert_true(http1_parse_request(slice_of(requests[i]), &scanned, &first) > 0);
        assert_int_equal(http1_write_request(&out, &first.head, first.framing, first.length), 0);
        scanned = 0;
        assert_int_equal(http1_parse_request(buffer_slice(&out), &scanned, &second), out.len);
        assert_true(slice_equals(first.head.method, second.head.method));
        assert_true(slice_equals(first.head.target, second.head.target));
        assert_true(slice_equals(first.head.authority, second.head.authority));
        assert_true(slice_equals(first.head.protocol, second.head.protocol));
        assert_int_equal(first.framing, second.framing);
        assert_int_equal(first.length, second.length);
        assert_int_equal(first.upgrade, second.upgrade);
        assert_int_equal(http1_write_request(&again, &second.head, second.framing, second.length), 0);
        assert_true(slice_equals(buffer_slice(&out), buffer_slice(&again)));
        buffer_free(&out);
        buffer_free(&again);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_requests),
        cmocka_unit_test(copies_no_framing_through),
        cmocka_unit_test(refuses_what_reads_differently),
        cmocka_unit_test(writes_responses),
        cmocka_unit_test(describes_absent_bodies),
        cmocka_unit_test(writes_chunks),
        cmocka_unit_test(knows_phrases),
        cmocka_unit_test(comes_back_through_the_parser),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
