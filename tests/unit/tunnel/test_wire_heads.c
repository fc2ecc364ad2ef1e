/* Heads on the wire: what is refused (and still names its exchange), what is tidied, what an upgrade needs, the caps.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "wire_bytes.h"

/* A RequestHead of exchange 7, as bytes, with up to two fields. */
struct request_row {
    const char *label;
    struct slice method, target, names[2], values[2];
    bool is_upgrade;
    int error;
};

static void put_request(struct buffer *out, const struct request_row *row)
{
    struct buffer head = BUFFER_INIT(LIMIT_MESSAGE_BYTES);
    put_bytes(&head, 1, row->method);
    put_bytes(&head, 2, row->target);
    for (size_t i = 0; i < 2; i++) {
        if (row->names[i].data)
            put_header(&head, 3, row->names[i], row->values[i]);
    }
    if (row->is_upgrade)
        put_number(&head, 5, 1);
    put_number(out, 1, 7);
    put_bytes(out, 3, buffer_slice(&head));
    buffer_free(&head);
}

#define TEXT(literal)                                                                                                  \
    {                                                                                                                  \
        literal, sizeof(literal) - 1                                                                                   \
    }
#define GET TEXT("GET"), TEXT("/")

static void test_request_rules(void **state)
{
    (void)state;
    static const struct request_row rows[] = {
        {"plain", GET, {TEXT("host")}, {TEXT("h")}, false, 0},
        {"without host", GET, {{0}}, {{0}}, false, 0},
        {"asterisk", TEXT("OPTIONS"), TEXT("*"), {{0}}, {{0}}, false, 0},
        {"odd method", TEXT("M-SEARCH"), TEXT("/"), {{0}}, {{0}}, false, 0},
        {"obs-text in a value", GET, {TEXT("x")}, {TEXT("\xff\x80")}, false, 0},
        {"empty value", GET, {TEXT("x")}, {TEXT("")}, false, 0},
        {"tab in a value", GET, {TEXT("x")}, {TEXT("a\tb")}, false, 0},
        {"upgrade", GET, {TEXT("connection"), TEXT("upgrade")}, {TEXT("Upgrade"), TEXT("websocket")}, true, 0},

        {"no method", TEXT(""), TEXT("/"), {{0}}, {{0}}, false, KV_EPROTO},
        {"space in method", TEXT("GET "), TEXT("/"), {{0}}, {{0}}, false, KV_EPROTO},
        {"NUL in method", TEXT("GET\0X"), TEXT("/"), {{0}}, {{0}}, false, KV_EPROTO},
        {"CRLF in method", TEXT("GET\r\n"), TEXT("/"), {{0}}, {{0}}, false, KV_EPROTO},
        {"no target", TEXT("GET"), TEXT(""), {{0}}, {{0}}, false, KV_EPROTO},
        {"space in target", TEXT("GET"), TEXT("/ HTTP/1.1"), {{0}}, {{0}}, false, KV_EPROTO},
        {"CR in target", TEXT("GET"), TEXT("/\r"), {{0}}, {{0}}, false, KV_EPROTO},
        {"NUL in target", TEXT("GET"), TEXT("/\0x"), {{0}}, {{0}}, false, KV_EPROTO},
        {"UTF-8 in target", TEXT("GET"), TEXT("/\xc3\xbc"), {{0}}, {{0}}, false, KV_EPROTO},
        {"DEL in target", TEXT("GET"), TEXT("/\x7f"), {{0}}, {{0}}, false, KV_EPROTO},
        {"fragment", TEXT("GET"), TEXT("/#a"), {{0}}, {{0}}, false, KV_EPROTO},
        {"absolute-form", TEXT("GET"), TEXT("http://h/"), {{0}}, {{0}}, false, KV_EPROTO},
        {"authority-form", TEXT("CONNECT"), TEXT("h:443"), {{0}}, {{0}}, false, KV_EPROTO},
        {"asterisk of another method", TEXT("GET"), TEXT("*"), {{0}}, {{0}}, false, KV_EPROTO},
        {"asterisk and more", TEXT("OPTIONS"), TEXT("*x"), {{0}}, {{0}}, false, KV_EPROTO},
        {"empty name", GET, {TEXT("")}, {TEXT("v")}, false, KV_EPROTO},
        {"pseudo-field", GET, {TEXT(":path")}, {TEXT("/x")}, false, KV_EPROTO},
        {"space in name", GET, {TEXT("a b")}, {TEXT("v")}, false, KV_EPROTO},
        {"NUL in name", GET, {TEXT("host\0x")}, {TEXT("v")}, false, KV_EPROTO},
        {"UTF-8 in name", GET, {TEXT("\xc3\xbc")}, {TEXT("v")}, false, KV_EPROTO},
        {"LF in value", GET, {TEXT("x")}, {TEXT("a\nb")}, false, KV_EPROTO},
        {"CRLF at the end", GET, {TEXT("x")}, {TEXT("a\r\n")}, false, KV_EPROTO},
        {"NUL in value", GET, {TEXT("x")}, {TEXT("a\0b")}, false, KV_EPROTO},
        {"DEL in value", GET, {TEXT("x")}, {TEXT("\x7f")}, false, KV_EPROTO},
        {"two hosts", GET, {TEXT("host"), TEXT("host")}, {TEXT("h"), TEXT("h")}, false, KV_EPROTO},
        {"two hosts, one in disguise", GET, {TEXT("host"), TEXT("HOST")}, {TEXT("h"), TEXT("i")}, false, KV_EPROTO},
        {"upgrade to nothing", GET, {{0}}, {{0}}, true, KV_EPROTO},
        {"upgrade to blanks", GET, {TEXT("upgrade")}, {TEXT("  ")}, true, KV_EPROTO},
    };
    struct wire_arena arena = {0};
    for (size_t i = 0; i < SIZE(rows); i++) {
        struct buffer bytes = BUFFER_INIT(LIMIT_MESSAGE_BYTES);
        struct wire_message message;
        put_request(&bytes, &rows[i]);
        int error = wire_decode(WIRE_FROM_SERVER, buffer_slice(&bytes), &arena, &message);
        if (error != rows[i].error)
            fail_msg("%s: %d", rows[i].label, error);
        assert_int_equal(message.kind, WIRE_REQUEST_HEAD);
        assert_int_equal(message.request_id, 7);
        buffer_free(&bytes);
    }
    wire_arena_free(&arena);
}

/* What is refused on the way in is not let out either. Names that are only in the wrong case are put right. */
static void test_request_rules_on_the_way_out(void **state)
{
    (void)state;
    static const struct {
        struct slice method, target, name, value;
        int error;
    } rows[] = {
        {GET, TEXT("Host"), TEXT("h"), 0},
        {TEXT("G T"), TEXT("/"), TEXT("host"), TEXT("h"), KV_EINVAL},
        {TEXT("GET"), TEXT("/\xc3\xbc"), TEXT("host"), TEXT("h"), KV_EINVAL},
        {TEXT("GET"), TEXT("a/b"), TEXT("host"), TEXT("h"), KV_EINVAL},
        {GET, TEXT("\xc3\xbc"), TEXT("h"), KV_EINVAL},
        {GET, TEXT("x"), TEXT("a\r\nb: c"), KV_EINVAL},
        {GET, TEXT(""), TEXT("x"), KV_EINVAL},
    };
    for (size_t i = 0; i < SIZE(rows); i++) {
        struct field field = {.name = rows[i].name, .value = rows[i].value};
        struct wire_message message = {.kind = WIRE_REQUEST_HEAD, .request_id = 7};
        struct buffer out = BUFFER_INIT(LIMIT_MESSAGE_BYTES);
        head_borrow(&message.head.head, &field, 1);
        message.head.head.count = 1;
        message.head.head.method = rows[i].method;
        message.head.head.target = rows[i].target;
        assert_int_equal(wire_encode(WIRE_FROM_SERVER, &message, &out), rows[i].error);
        assert_int_equal(out.len > 0, rows[i].error == 0);
        buffer_free(&out);
    }
}

static void test_response_rules(void **state)
{
    (void)state;
    static const struct {
        const char *label;
        uint64_t status;
        struct slice name, value;
        bool upgraded;
        int error;
        bool interim;
    } rows[] = {
        {"200", 200, {0}, {0}, false, 0, false},
        {"100", 100, {0}, {0}, false, 0, true},
        {"103", 103, {0}, {0}, false, 0, true},
        {"199", 199, {0}, {0}, false, 0, true},
        {"999", 999, {0}, {0}, false, 0, false},
        {"switch", 101, TEXT("upgrade"), TEXT("websocket"), true, 0, false},
        {"upgrade offered", 426, TEXT("upgrade"), TEXT("h2c"), false, 0, false},
        {"0", 0, {0}, {0}, false, KV_EPROTO, false},
        {"99", 99, {0}, {0}, false, KV_EPROTO, false},
        {"1000", 1000, {0}, {0}, false, KV_EPROTO, false},
        {"65736, 200 in 16 bits", 65736, {0}, {0}, false, KV_EPROTO, false},
        {"a switch nobody asked for", 101, TEXT("upgrade"), TEXT("websocket"), false, KV_EPROTO, false},
        {"a switch to nothing", 101, {0}, {0}, true, KV_EPROTO, false},
        {"a switch with 200", 200, TEXT("upgrade"), TEXT("websocket"), true, KV_EPROTO, false},
        {"a bad name", 200, TEXT("a:"), TEXT("v"), false, KV_EPROTO, false},
        {"a bad value", 200, TEXT("a"), TEXT("\n"), false, KV_EPROTO, false},
    };
    struct wire_arena arena = {0};
    for (size_t i = 0; i < SIZE(rows); i++) {
        struct buffer head = BUFFER_INIT(4096), bytes = BUFFER_INIT(4096);
        struct wire_message message;
        put_number(&head, 1, rows[i].status);
        if (rows[i].name.data)
            put_header(&head, 2, rows[i].name, rows[i].value);
        if (rows[i].upgraded)
            put_number(&head, 3, 1);
        put_number(&bytes, 1, 7);
        put_bytes(&bytes, 3, buffer_slice(&head));
        int error = wire_decode(WIRE_FROM_CLIENT, buffer_slice(&bytes), &arena, &message);
        if (error != rows[i].error)
            fail_msg("%s: %d", rows[i].label, error);
        assert_int_equal(message.kind, WIRE_RESPONSE_HEAD);
        assert_int_equal(message.request_id, 7);
        if (error == 0) {
            assert_int_equal(message.head.head.status, rows[i].status);
            assert_int_equal(message.head.interim, rows[i].interim);
            assert_slice_equal(message.head.head.protocol, rows[i].upgraded ? rows[i].value : (struct slice){0});
        }
        buffer_free(&head);
        buffer_free(&bytes);
    }
    wire_arena_free(&arena);
}

static void test_bad_trailers(void **state)
{
    (void)state;
    struct wire_arena arena = {0};
    struct buffer trailers = BUFFER_INIT(4096), bytes = BUFFER_INIT(4096);
    struct wire_message message;
    put_header(&trailers, 1, SLICE("grpc-status"), SLICE("0\r\nx: y"));
    put_number(&bytes, 1, 7);
    put_bytes(&bytes, 17, buffer_slice(&trailers));
    for (int side = WIRE_FROM_SERVER; side <= WIRE_FROM_CLIENT; side++) {
        assert_int_equal(wire_decode((enum wire_side)side, buffer_slice(&bytes), &arena, &message), KV_EPROTO);
        assert_int_equal(message.kind, WIRE_TRAILERS);
        assert_int_equal(message.request_id, 7);
    }
    buffer_free(&trailers);
    buffer_free(&bytes);
    wire_arena_free(&arena);
}

/* Lower-cased names, trimmed values, authority and protocol found; the fields themselves all stay, in order. */
static void test_request_is_tidied(void **state)
{
    (void)state;
    struct wire_arena arena = {0};
    struct buffer head = BUFFER_INIT(4096), bytes = BUFFER_INIT(4096);
    struct wire_message message;
    put_header(&head, 3, SLICE("X-Mixed"), SLICE(" \t v w \t"));
    put_header(&head, 3, SLICE("Upgrade"), SLICE("websocket"));
    put_header(&head, 3, SLICE("HOST"), SLICE("App.Example:80"));
    put_header(&head, 3, SLICE("upgrade"), SLICE("h2c"));
    put_bytes(&head, 1, SLICE("GET"));
    put_bytes(&head, 2, SLICE("/"));
    put_bytes(&head, 4, SLICE("[::1]:9"));
    put_bytes(&bytes, 3, buffer_slice(&head));

    for (int upgrade = 0; upgrade < 2; upgrade++) {
        assert_int_equal(wire_decode(WIRE_FROM_SERVER, buffer_slice(&bytes), &arena, &message), 0);
        const struct head *h = &message.head.head;
        assert_int_equal(h->count, 4);
        assert_slice_equal(h->fields[0].name, SLICE("x-mixed"));
        assert_slice_equal(h->fields[0].value, SLICE("v w"));
        assert_slice_equal(h->fields[2].name, SLICE("host"));
        assert_slice_equal(h->fields[3].value, SLICE("h2c"));
        assert_slice_equal(h->authority, SLICE("App.Example:80"));
        assert_slice_equal(h->protocol, upgrade ? SLICE("websocket") : SLICE(""));
        assert_slice_equal(message.head.remote_addr, SLICE("[::1]:9"));
        assert_int_equal(message.head.is_upgrade, upgrade);

        buffer_consume(&bytes, bytes.len);
        put_number(&head, 5, 1);
        put_bytes(&bytes, 3, buffer_slice(&head));
    }
    buffer_free(&head);
    buffer_free(&bytes);
    wire_arena_free(&arena);
}

/* The number of the visitor's connection, by our own reader and, behind a field that it does not know, by protobuf-c.
 */
static void test_visitor_connection(void **state)
{
    (void)state;
    static const uint64_t numbers[] = {0, 1, 127, 128, UINT64_C(1) << 55, UINT64_MAX};
    struct wire_arena arena = {0};
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        struct buffer bytes = BUFFER_INIT(4096);
        struct wire_message message = {.kind = WIRE_REQUEST_HEAD, .request_id = 3}, read;
        message.head.head.method = SLICE("GET");
        message.head.head.target = SLICE("/");
        message.head.visitor_connection = numbers[i];
        assert_int_equal(wire_encode(WIRE_FROM_SERVER, &message, &bytes), 0);
        struct slice payload = {bytes.data + GRPC_PREFIX_LEN, bytes.len - GRPC_PREFIX_LEN};
        assert_int_equal(wire_decode(WIRE_FROM_SERVER, payload, &arena, &read), 0);
        assert_true(read.head.visitor_connection == numbers[i]);

        put_number(&bytes, 99, 1);
        payload = (struct slice){bytes.data + GRPC_PREFIX_LEN, bytes.len - GRPC_PREFIX_LEN};
        assert_int_equal(wire_decode(WIRE_FROM_SERVER, payload, &arena, &read), 0);
        assert_true(read.head.visitor_connection == numbers[i]);
        buffer_free(&bytes);
    }
    wire_arena_free(&arena);
}

/* A head of ours, without the fields that only deployed peers need, out and in again. */
static void check_added_fields(enum wire_side side, const struct wire_message *sent, const char *const *expected)
{
    struct wire_arena arena = {0};
    struct wire_message got;
    struct buffer out = BUFFER_INIT(4096);
    assert_int_equal(wire_encode(side, sent, &out), 0);
    assert_int_equal(wire_decode(side, unprefixed(&out), &arena, &got), 0);
    const struct head *h = &got.head.head;
    for (uint16_t i = 0; i < h->count; i++) {
        assert_non_null(expected[2 * i]);
        assert_slice_equal(h->fields[i].name, slice_of(expected[2 * i]));
        assert_slice_equal(h->fields[i].value, slice_of(expected[2 * i + 1]));
    }
    assert_null(expected[2 * h->count]);
    assert_slice_equal(h->authority, sent->head.head.authority);
    assert_slice_equal(h->protocol, sent->head.head.protocol);
    assert_int_equal(got.head.is_upgrade, side == WIRE_FROM_SERVER && h->protocol.len > 0);
    assert_int_equal(got.head.upgraded, h->status == 101);
    buffer_free(&out);
    wire_arena_free(&arena);
}

static void test_added_fields(void **state)
{
    (void)state;
    struct field fields[3] = {{.name = SLICE("a"), .value = SLICE("b")}};
    struct wire_message request = {
        .kind = WIRE_REQUEST_HEAD,
        .head = {.head = {.method = SLICE("GET"), .target = SLICE("/"), .fields = fields, .count = 1}}};
    struct wire_message response = {.kind = WIRE_RESPONSE_HEAD,
                                    .head = {.head = {.status = 101, .fields = fields, .count = 1}}};

    check_added_fields(WIRE_FROM_SERVER, &request, (const char *const[]){"a", "b", NULL});
    request.head.head.authority = SLICE("h:80");
    check_added_fields(WIRE_FROM_SERVER, &request, (const char *const[]){"host", "h:80", "a", "b", NULL});
    request.head.head.protocol = SLICE("websocket");
    check_added_fields(
        WIRE_FROM_SERVER, &request,
        (const char *const[]){"host", "h:80", "a", "b", "connection", "Upgrade", "upgrade", "websocket", NULL});
    response.head.head.protocol = SLICE("websocket");
    check_added_fields(WIRE_FROM_CLIENT, &response,
                       (const char *const[]){"a", "b", "upgrade", "websocket", "connection", "Upgrade", NULL});

    /* What is there already, in whatever case, is not added. */
    fields[1] = (struct field){.name = SLICE("Host"), .value = SLICE("h:80")};
    fields[2] = (struct field){.name = SLICE("Upgrade"), .value = SLICE("websocket")};
    request.head.head.count = response.head.head.count = 3;
    check_added_fields(WIRE_FROM_SERVER, &request,
                       (const char *const[]){"a", "b", "host", "h:80", "upgrade", "websocket", NULL});
    response.head.head.authority = SLICE("h:80");
    check_added_fields(WIRE_FROM_CLIENT, &response,
                       (const char *const[]){"a", "b", "host", "h:80", "upgrade", "websocket", NULL});
}

static void test_switch_to_nothing_is_not_sent(void **state)
{
    (void)state;
    struct wire_message message = {.kind = WIRE_RESPONSE_HEAD, .head = {.head = {.status = 101}}};
    struct buffer out = BUFFER_INIT(4096);
    assert_int_equal(wire_encode(WIRE_FROM_CLIENT, &message, &out), KV_EINVAL);
    message.head.head.status = 99;
    assert_int_equal(wire_encode(WIRE_FROM_CLIENT, &message, &out), KV_EINVAL);
    assert_int_equal(out.len, 0);
}

static void test_address(void **state)
{
    (void)state;
    struct wire_arena arena = {0};
    struct wire_message message = {.kind = WIRE_REQUEST_HEAD,
                                   .head = {.head = {.method = SLICE("GET"), .target = SLICE("/")}}};
    static const struct {
        struct slice address;
        int error;
    } rows[] = {
        {TEXT("[fe80::1%eth0]:80"), 0},
        {TEXT(""), 0},
        {TEXT("1.2.3.4:5\r\nx: y"), KV_EPROTO},
        {TEXT("\xff"), KV_EPROTO},
    };
    for (size_t i = 0; i < SIZE(rows); i++) {
        struct buffer head = BUFFER_INIT(4096), bytes = BUFFER_INIT(4096), out = BUFFER_INIT(4096);
        struct wire_message got;
        message.head.remote_addr = rows[i].address;
        assert_int_equal(wire_encode(WIRE_FROM_SERVER, &message, &out), rows[i].error ? KV_EINVAL : 0);
        put_bytes(&head, 1, SLICE("GET"));
        put_bytes(&head, 2, SLICE("/"));
        put_bytes(&head, 4, rows[i].address);
        put_bytes(&bytes, 3, buffer_slice(&head));
        assert_int_equal(wire_decode(WIRE_FROM_SERVER, buffer_slice(&bytes), &arena, &got), rows[i].error);
        assert_int_equal(got.kind, WIRE_REQUEST_HEAD);
        buffer_free(&head);
        buffer_free(&bytes);
        buffer_free(&out);
    }
    wire_arena_free(&arena);
}

/* The caps: one field or one byte more is too much, in both directions; the exchange is named all the same. */
static void test_caps(void **state)
{
    (void)state;
    static char text[WIRE_HEAD_BYTES];
    memset(text, 'v', sizeof text);
    struct wire_arena arena = {0};
    for (int over = 0; over < 2; over++) {
        int error = over ? KV_ELIMIT : 0;
        for (int many_fields = 0; many_fields < 2; many_fields++) {
            struct field fields[WIRE_HEAD_FIELDS + 1];
            struct wire_message message = {.kind = WIRE_REQUEST_HEAD, .request_id = 7}, got;
            struct buffer head = BUFFER_INIT(LIMIT_MESSAGE_BYTES), bytes = BUFFER_INIT(LIMIT_MESSAGE_BYTES),
                          out = BUFFER_INIT(LIMIT_MESSAGE_BYTES);
            size_t count = many_fields ? (size_t)(WIRE_HEAD_FIELDS + over) : 1;
            size_t fixed = strlen("GET"
                                  "/"
                                  "1.2.3.4:5"
                                  "x");
            struct slice value = {text, many_fields ? 1 : (size_t)(WIRE_HEAD_BYTES + over) - fixed};
            put_bytes(&head, 1, SLICE("GET"));
            put_bytes(&head, 2, SLICE("/"));
            put_bytes(&head, 4, SLICE("1.2.3.4:5"));
            for (size_t i = 0; i < count; i++) {
                fields[i] = (struct field){.name = SLICE("x"), .value = value};
                put_header(&head, 3, SLICE("x"), value);
            }
            put_number(&bytes, 1, 7);
            put_bytes(&bytes, 3, buffer_slice(&head));
            assert_int_equal(wire_decode(WIRE_FROM_SERVER, buffer_slice(&bytes), &arena, &got), error);
            assert_int_equal(got.kind, WIRE_REQUEST_HEAD);
            assert_int_equal(got.request_id, 7);

            message.head.head = (struct head){.method = SLICE("GET"), .target = SLICE("/"), .fields = fields};
            message.head.head.count = (uint16_t)count;
            message.head.remote_addr = SLICE("1.2.3.4:5");
            assert_int_equal(wire_encode(WIRE_FROM_SERVER, &message, &out), error);
            buffer_free(&head);
            buffer_free(&bytes);
            buffer_free(&out);
        }
    }
    wire_arena_free(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_request_rules),
        cmocka_unit_test(test_request_rules_on_the_way_out),
        cmocka_unit_test(test_response_rules),
        cmocka_unit_test(test_bad_trailers),
        cmocka_unit_test(test_request_is_tidied),
        cmocka_unit_test(test_visitor_connection),
        cmocka_unit_test(test_added_fields),
        cmocka_unit_test(test_address),
        cmocka_unit_test(test_switch_to_nothing_is_not_sent),
        cmocka_unit_test(test_caps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
