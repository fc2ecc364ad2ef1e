/* What a request's head says about its body, what is taken out of it, and what an answer promises. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/limits.h"
#include "client/origin_head.h"

#define FIELDS_MAX 8

/* An owning head of a method, an upgrade ("" for none) and "name", "value" pairs that end with NULL. */
static struct head *make(const char *method, const char *protocol, const char *const *fields)
{
    struct head *h = head_new(FIELDS_MAX, 1024);
    assert_non_null(h);
    h->method = head_intern(h, slice_of(method));
    h->target = head_intern(h, SLICE("/"));
    h->protocol = head_intern(h, slice_of(protocol));
    for (; fields[0]; fields += 2)
        assert_int_equal(head_add(h, slice_of(fields[0]), slice_of(fields[1])), 0);
    return h;
}

#define FIELDS(...) ((const char *const[]){__VA_ARGS__, NULL})
#define NO_FIELDS   ((const char *const[]){NULL})

static void test_framing(void **state)
{
    (void)state;
    static const struct {
        const char *method, *protocol, *name, *value, *name2, *value2;
        int error;
        enum http1_framing framing;
        uint64_t length;
        bool open;
    } cases[] = {
        {"GET", "", NULL, NULL, NULL, NULL, 0, HTTP1_NO_BODY, 0, false},
        {"DELETE", "", NULL, NULL, NULL, NULL, 0, HTTP1_NO_BODY, 0, false},
        {"POST", "", NULL, NULL, NULL, NULL, 0, HTTP1_NO_BODY, 0, true},
        {"get", "", NULL, NULL, NULL, NULL, 0, HTTP1_NO_BODY, 0, true}, /* methods have case: this is another one */
        {"POST", "", "content-length", "0", NULL, NULL, 0, HTTP1_LENGTH, 0, false},
        {"GET", "", "content-length", "5", NULL, NULL, 0, HTTP1_LENGTH, 5, false},
        {"PUT", "", "content-length", "5", "content-length", "5", 0, HTTP1_LENGTH, 5, false},
        {"PUT", "", "content-length", "5", "content-length", "6", KV_EINVAL, 0, 0, false},
        {"PUT", "", "content-length", "-1", NULL, NULL, KV_EINVAL, 0, 0, false},
        {"PUT", "", "content-length", "", NULL, NULL, KV_EINVAL, 0, 0, false},
        {"PUT", "", "content-length", "9223372036854775808", NULL, NULL, KV_EINVAL, 0, 0, false},
        {"GET", "", "transfer-encoding", "chunked", NULL, NULL, 0, HTTP1_CHUNKED, 0, false},
        {"POST", "", "transfer-encoding", "chunked", "content-length", "7", 0, HTTP1_CHUNKED, 0, false},
        {"GET", "websocket", NULL, NULL, NULL, NULL, 0, HTTP1_NO_BODY, 0, false},
        {"POST", "x", NULL, NULL, NULL, NULL, 0, HTTP1_NO_BODY, 0, false},
        {"GET", "x", "content-length", "0", NULL, NULL, 0, HTTP1_LENGTH, 0, false},
        {"GET", "x", "content-length", "1", NULL, NULL, 0, HTTP1_LENGTH, 1, false},
        {"GET", "x", "transfer-encoding", "chunked", NULL, NULL, KV_EINVAL, 0, 0, false},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *const fields[] = {cases[i].name, cases[i].value, cases[i].name2, cases[i].value2, NULL};
        struct head *h = make(cases[i].method, cases[i].protocol, fields);
        struct origin_framing framing;
        print_message("case %zu\n", i);
        assert_int_equal(origin_head_framing(h, &framing), cases[i].error);
        if (!cases[i].error) {
            assert_int_equal(framing.framing, cases[i].framing);
            assert_int_equal(framing.length, cases[i].length);
            assert_int_equal(framing.open, cases[i].open);
        }
        head_free(h);
    }
}

static void test_wish_to_speak_http_is_taken_out(void **state)
{
    (void)state;
    static const char *const denied[] = {"h2c", "HTTP/2.0", "TLS/1.2", "websocket, h2c"};
    for (size_t i = 0; i < sizeof(denied) / sizeof(denied[0]); i++) {
        struct head *h = make("GET", denied[i], FIELDS("connection", "upgrade", "upgrade", denied[i]));
        origin_head_settle_upgrade(h);
        assert_int_equal(h->protocol.len, 0);
        assert_null(head_find(h, SLICE("upgrade")));
        head_free(h);
    }
    struct head *h = make("GET", "websocket", FIELDS("connection", "upgrade", "upgrade", "websocket"));
    origin_head_settle_upgrade(h);
    assert_true(slice_equals(h->protocol, SLICE("websocket")));
    assert_non_null(head_find(h, SLICE("upgrade")));
    head_free(h);
}

static void assert_value(const struct head *h, const char *name, const char *value)
{
    const struct field *field = head_find(h, slice_of(name));
    if (!value) {
        assert_null(field);
        return;
    }
    assert_non_null(field);
    assert_int_equal(field->value.len, strlen(value));
    assert_memory_equal(field->value.data, value, strlen(value));
}

/* A deployed server passes on what the visitor said about his own connection. */
static void test_fields_of_one_hop_go(void **state)
{
    (void)state;
    struct head *h = make("GET", "",
                          FIELDS("host", "h", "connection", "x-one, close, host, cookie, x-forwarded-for", "x-one", "1",
                                 "connection", "X-Two", "x-two", "2", "cookie", "c", "x-forwarded-for", "a"));
    origin_head_prepare(h, (struct slice){0}, SLICE("127.0.0.1:1"));
    assert_value(h, "x-one", NULL);
    assert_value(h, "x-two", NULL);
    assert_value(h, "connection", NULL);
    assert_value(h, "host", "h");
    assert_value(h, "cookie", "c");
    assert_value(h, "x-forwarded-for", "a");
    head_free(h);
}

static void test_te_and_expect(void **state)
{
    (void)state;
    struct head *h = make("POST", "", FIELDS("te", "gzip;q=0.5, trailers", "expect", "100-continue", "x", "y"));
    origin_head_prepare(h, (struct slice){0}, SLICE("a"));
    assert_value(h, "te", "trailers");
    assert_value(h, "expect", NULL);
    assert_value(h, "x", "y");
    head_free(h);
    h = make("POST", "", FIELDS("te", "gzip"));
    origin_head_prepare(h, (struct slice){0}, SLICE("a"));
    assert_value(h, "te", NULL);
    head_free(h);
}

static void test_host(void **state)
{
    (void)state;
    struct head *h = make("GET", "", FIELDS("host", "public.example"));
    origin_head_prepare(h, SLICE("inner.example:81"), SLICE("127.0.0.1:3000"));
    assert_value(h, "host", NULL);
    assert_true(slice_equals(h->authority, SLICE("inner.example:81")));
    head_free(h);
    h = make("GET", "", NO_FIELDS);
    origin_head_prepare(h, (struct slice){0}, SLICE("127.0.0.1:3000"));
    assert_true(slice_equals(h->authority, SLICE("127.0.0.1:3000")));
    head_free(h);
}

/* "name: value|" of each field, in order. */
static void assert_fields(const struct head *h, const char *text)
{
    char got[512] = "";
    for (size_t i = 0; i < h->count; i++) {
        size_t len = strlen(got);
        snprintf(got + len, sizeof(got) - len, "%.*s: %.*s|", (int)h->fields[i].name.len, h->fields[i].name.data,
                 (int)h->fields[i].value.len, h->fields[i].value.data);
    }
    assert_string_equal(got, text);
}

static void test_request_over_http2(void **state)
{
    (void)state;
    struct field storage[ORIGIN_H2_FIELDS_MAX];
    struct head out;
    struct head *h = make("POST", "",
                          FIELDS("host", "h:1", "te", "trailers", "transfer-encoding", "chunked", "content-length", "5",
                                 "keep-alive", "3", "proxy-connection", "x", "x-a", "1"));
    head_borrow(&out, storage, ORIGIN_H2_FIELDS_MAX);
    assert_int_equal(origin_head_for_h2(h, HTTP1_CHUNKED, true, false, &out), 0);
    assert_fields(&out, "te: trailers|x-a: 1|");
    assert_true(slice_equals(out.authority, SLICE("h:1")));
    assert_true(slice_equals(out.scheme, SLICE("https")));
    assert_true(slice_equals(out.method, SLICE("POST")));
    assert_int_equal(out.protocol.len, 0);
    head_free(h);

    h = make("PUT", "", FIELDS("content-length", "5", "content-length", "5"));
    h->authority = SLICE("a:2");
    head_borrow(&out, storage, ORIGIN_H2_FIELDS_MAX);
    assert_int_equal(origin_head_for_h2(h, HTTP1_LENGTH, false, false, &out), 0);
    assert_fields(&out, "content-length: 5|");
    assert_true(slice_equals(out.authority, SLICE("a:2")));
    assert_true(slice_equals(out.scheme, SLICE("http")));
    head_borrow(&out, storage, 0);
    assert_int_equal(origin_head_for_h2(h, HTTP1_LENGTH, false, false, &out), KV_EINVAL);
    head_free(h);
}

static void test_upgrade_over_http2(void **state)
{
    (void)state;
    struct field storage[ORIGIN_H2_FIELDS_MAX];
    struct head out;
    struct head *h = make("GET", "websocket, other",
                          FIELDS("upgrade", "websocket, other", "sec-websocket-key",
                                 "dGhlIHNhbXBsZSBub25jZQ==", "sec-websocket-version", "13"));
    head_borrow(&out, storage, ORIGIN_H2_FIELDS_MAX);
    assert_int_equal(origin_head_for_h2(h, HTTP1_NO_BODY, false, true, &out), 0);
    assert_fields(&out, "sec-websocket-version: 13|");
    assert_true(slice_equals(out.method, SLICE("CONNECT")));
    assert_true(slice_equals(out.protocol, SLICE("websocket")));

    /* A service that takes no upgrades is asked without. */
    head_borrow(&out, storage, ORIGIN_H2_FIELDS_MAX);
    assert_int_equal(origin_head_for_h2(h, HTTP1_NO_BODY, false, false, &out), 0);
    assert_true(slice_equals(out.method, SLICE("GET")));
    assert_int_equal(out.protocol.len, 0);
    assert_null(head_find(&out, SLICE("upgrade")));

    /* The key and the answer to it are the example of RFC 6455, 1.3. */
    struct head *answer = make("", "", FIELDS("sec-websocket-protocol", "chat", "sec-websocket-accept", "forged"));
    answer->status = 200;
    struct head *switched = origin_head_switched(h, answer);
    assert_non_null(switched);
    assert_int_equal(switched->status, 101);
    assert_true(slice_equals(switched->protocol, SLICE("websocket")));
    assert_fields(switched, "sec-websocket-protocol: chat|sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=|");
    head_free(switched);
    head_free(h);

    h = make("GET", "other", FIELDS("sec-websocket-key", "x"));
    switched = origin_head_switched(h, answer);
    assert_fields(switched, "sec-websocket-protocol: chat|");
    head_free(switched);
    head_free(answer);
    head_free(h);
}

static void test_idempotent(void **state)
{
    (void)state;
    static const char *const yes[] = {"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"};
    static const char *const no[] = {"POST", "PATCH", "CONNECT", "get", ""};
    for (size_t i = 0; i < sizeof(yes) / sizeof(yes[0]); i++)
        assert_true(origin_head_is_idempotent(&(struct head){.method = slice_of(yes[i])}));
    for (size_t i = 0; i < sizeof(no) / sizeof(no[0]); i++)
        assert_false(origin_head_is_idempotent(&(struct head){.method = slice_of(no[i])}));
}

static void test_idle_time(void **state)
{
    (void)state;
    static const struct {
        const char *value;
        uint64_t ms;
    } cases[] = {
        {"timeout=5", 4000},
        {"max=100, Timeout=5", 4000},
        {"timeout=1", 500},
        {"timeout=0", 500},
        {"timeout=31", LIMIT_ORIGIN_IDLE_MS},
        {"timeout=30", 29000},
        {"timeout=99999999999999999999", LIMIT_ORIGIN_IDLE_MS},
        {"timeout=18446744073709551615", LIMIT_ORIGIN_IDLE_MS},
        {"timeout=x", LIMIT_ORIGIN_IDLE_MS},
        {"timeout", LIMIT_ORIGIN_IDLE_MS},
        {"", LIMIT_ORIGIN_IDLE_MS},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct head *h = make("", "", FIELDS("keep-alive", cases[i].value));
        assert_int_equal(origin_head_idle_ms(h), cases[i].ms);
        head_free(h);
    }
    struct head *h = make("", "", NO_FIELDS);
    assert_int_equal(origin_head_idle_ms(h), LIMIT_ORIGIN_IDLE_MS);
    head_free(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_framing),
        cmocka_unit_test(test_wish_to_speak_http_is_taken_out),
        cmocka_unit_test(test_fields_of_one_hop_go),
        cmocka_unit_test(test_te_and_expect),
        cmocka_unit_test(test_host),
        cmocka_unit_test(test_request_over_http2),
        cmocka_unit_test(test_upgrade_over_http2),
        cmocka_unit_test(test_idempotent),
        cmocka_unit_test(test_idle_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
