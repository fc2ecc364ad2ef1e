/*
 * The wire against published bytes, both ways, and against what protobuf allows others to send. Heads have their own
 * tests in test_wire_heads.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tunnel.pb-c.h"
#include "wire_bytes.h"

#define HEAD(...) ((struct field[]){__VA_ARGS__}), .count = SIZE(((struct field[]){__VA_ARGS__}))
#define FIELD(text, what)                                                                                              \
    {                                                                                                                  \
        .name = {(text), sizeof(text) - 1}, .value = {(what), sizeof(what) - 1 }                                       \
    }

/* Every kind once with its bytes. The first part is what deployed peers send, taken from the wire. */
static struct vector {
    const char *label;
    enum wire_side side;
    const char *hex;
    struct wire_message message;
} vectors[] = {
    {"hello",
     WIRE_FROM_CLIENT,
     "12130a03746f6b12036170701a05302e312e352001",
     {.kind = WIRE_HELLO,
      .hello = {.token = {"tok", 3},
                .name = {"app", 3},
                .has_name = true,
                .client_version = {"0.1.5", 5},
                .takeover = true}}},
    {"welcome",
     WIRE_FROM_SERVER,
     "121f0a03737562121568747470733a2f2f7375622e746e6c2e746573742f188002",
     {.kind = WIRE_WELCOME,
      .welcome = {.subdomain = {"sub", 3}, .public_url = {"https://sub.tnl.test/", 21}, .max_concurrent = 256}}},
    {"request",
     WIRE_FROM_SERVER,
     "08071a280a0347455412042f613f621a090a04686f737412016822103230332e302e3131332e373a34353637",
     {.kind = WIRE_REQUEST_HEAD,
      .request_id = 7,
      .head = {.head = {.method = {"GET", 3},
                        .target = {"/a?b", 4},
                        .authority = {"h", 1},
                        .fields = HEAD(FIELD("host", "h"))},
               .remote_addr = {"203.0.113.7:4567", 16}}}},
    {"end of a request", WIRE_FROM_SERVER, "080722021001", {.kind = WIRE_DATA, .request_id = 7, .data = {.end = true}}},
    {"response",
     WIRE_FROM_CLIENT,
     "08071a2308c80112130a0e636f6e74656e742d6c656e67746812013212090a03782d621202c3a9",
     {.kind = WIRE_RESPONSE_HEAD,
      .request_id = 7,
      .head = {.head = {.status = 200, .fields = HEAD(FIELD("content-length", "2"), FIELD("x-b", "\xc3\xa9"))}}}},
    {"data", WIRE_FROM_CLIENT, "080722040a026f6b", {.kind = WIRE_DATA, .request_id = 7, .data = {.bytes = {"ok", 2}}}},
    {"end of a response",
     WIRE_FROM_CLIENT,
     "080722021001",
     {.kind = WIRE_DATA, .request_id = 7, .data = {.end = true}}},
    {"upgrade",
     WIRE_FROM_SERVER,
     "08081a4a0a0347455412022f771a150a0a636f6e6e656374696f6e1207557067726164651a140a07757067726164651209776562736f636b"
     "657422103230332e302e3131332e373a343536372801",
     {.kind = WIRE_REQUEST_HEAD,
      .request_id = 8,
      .head = {.head = {.method = {"GET", 3},
                        .target = {"/w", 2},
                        .protocol = {"websocket", 9},
                        .fields = HEAD(FIELD("connection", "Upgrade"), FIELD("upgrade", "websocket"))},
               .remote_addr = {"203.0.113.7:4567", 16},
               .is_upgrade = true}}},
    {"upgraded",
     WIRE_FROM_CLIENT,
     "08081a31086512140a07757067726164651209776562736f636b657412150a0a636f6e6e656374696f6e1207557067726164651801",
     {.kind = WIRE_RESPONSE_HEAD,
      .request_id = 8,
      .head = {.head = {.status = 101,
                        .protocol = {"websocket", 9},
                        .fields = HEAD(FIELD("upgrade", "websocket"), FIELD("connection", "Upgrade"))},
               .upgraded = true}}},
    {"data and end",
     WIRE_FROM_CLIENT,
     "080822060a0268691001",
     {.kind = WIRE_DATA, .request_id = 8, .data = {.bytes = {"hi", 2}, .end = true}}},
    {"ping", WIRE_FROM_SERVER, "3202082a", {.kind = WIRE_PING, .nonce = 42}},
    {"pong", WIRE_FROM_CLIENT, "3a02082a", {.kind = WIRE_PONG, .nonce = 42}},
    {"cancel", WIRE_FROM_SERVER, "08092a020801", {.kind = WIRE_CANCEL, .request_id = 9, .cancel_reason = 1}},
    {"error",
     WIRE_FROM_CLIENT,
     "08034238080112346572726f722073656e64696e67207265717565737420666f722075726c2028687474703a2f2f3132372e302e302e313a3"
     "1"
     "2f7829",
     {.kind = WIRE_ERROR,
      .request_id = 3,
      .error = {.code = 1,
                .reason = REASON_ORIGIN_REFUSED,
                .text = {"error sending request for url (http://127.0.0.1:1/x)", 52}}}},

    /* The same, from the other side or at its defaults. */
    {"hello without a name", WIRE_FROM_CLIENT, "12050a03746f6b", {.kind = WIRE_HELLO, .hello = {.token = {"tok", 3}}}},
    {"hello with an empty name", WIRE_FROM_CLIENT, "12021200", {.kind = WIRE_HELLO, .hello = {.has_name = true}}},
    {"empty hello", WIRE_FROM_CLIENT, "1200", {.kind = WIRE_HELLO}},
    {"ping of a client", WIRE_FROM_CLIENT, "3202082a", {.kind = WIRE_PING, .nonce = 42}},
    {"ping 0", WIRE_FROM_SERVER, "3200", {.kind = WIRE_PING}},
    {"cancel of a client", WIRE_FROM_CLIENT, "08092a00", {.kind = WIRE_CANCEL, .request_id = 9}},
    {"cancel of the tunnel", WIRE_FROM_SERVER, "2a020802", {.kind = WIRE_CANCEL, .cancel_reason = 2}},
    {"empty data", WIRE_FROM_SERVER, "08072200", {.kind = WIRE_DATA, .request_id = 7}},
    {"data for id 0", WIRE_FROM_SERVER, "22040a026f6b", {.kind = WIRE_DATA, .data = {.bytes = {"ok", 2}}}},
    {"last id", WIRE_FROM_SERVER, "08ffffffffffffffffff01 2200", {.kind = WIRE_DATA, .request_id = UINT64_MAX}},

    /* Additions. */
    {"hello with features",
     WIRE_FROM_CLIENT,
     "1223 0a0174 80011f 8801808004 92011030313233343536373839616263646566 9801c0a907",
     {.kind = WIRE_HELLO,
      .hello = {.token = {"t", 1},
                .features = 31,
                .initial_credit = 65536,
                .instance_id = {"0123456789abcdef", 16},
                .response_timeout_ms = 120000}}},
    {"welcome with features",
     WIRE_FROM_SERVER,
     "1212 80011f 8801808004 92010273 31 9a01026e31",
     {.kind = WIRE_WELCOME,
      .welcome = {.features = 31, .initial_credit = 65536, .session_id = {"s1", 2}, .server_name = {"n1", 2}}}},
    {"interim response",
     WIRE_FROM_CLIENT,
     "08071a02 0867",
     {.kind = WIRE_RESPONSE_HEAD, .request_id = 7, .head = {.head = {.status = 103}, .interim = true}}},
    {"credit of a server",
     WIRE_FROM_SERVER,
     "0807 820104 08808004",
     {.kind = WIRE_CREDIT, .request_id = 7, .credit = 65536}},
    {"credit of a client",
     WIRE_FROM_CLIENT,
     "0807 820104 08808004",
     {.kind = WIRE_CREDIT, .request_id = 7, .credit = 65536}},
    {"trailers of a server",
     WIRE_FROM_SERVER,
     "0807 8a0108 0a060a017812 0179",
     {.kind = WIRE_TRAILERS, .request_id = 7, .trailers = {.fields = HEAD(FIELD("x", "y"))}}},
    {"trailers of a client",
     WIRE_FROM_CLIENT,
     "0807 8a0108 0a060a0178120179",
     {.kind = WIRE_TRAILERS, .request_id = 7, .trailers = {.fields = HEAD(FIELD("x", "y"))}}},
    {"no trailers", WIRE_FROM_CLIENT, "0807 8a0100", {.kind = WIRE_TRAILERS, .request_id = 7}},
    {"reset of a server",
     WIRE_FROM_SERVER,
     "0807 92010a 08201206 636c6f736564",
     {.kind = WIRE_RESET,
      .request_id = 7,
      .error = {.code = 32, .reason = REASON_VISITOR_GONE, .text = {"closed", 6}}}},
    {"reset of a client",
     WIRE_FROM_CLIENT,
     "0807 920102 0812",
     {.kind = WIRE_RESET, .request_id = 7, .error = {.code = 18, .reason = REASON_ORIGIN_CLOSED}}},
    {"drain", WIRE_FROM_SERVER, "9a0104 08b0ea01", {.kind = WIRE_DRAIN, .drain_grace_ms = 30000}},
    {"pong of a server", WIRE_FROM_SERVER, "a20102 082a", {.kind = WIRE_PONG, .nonce = 42}},
};

static void assert_heads_equal(const struct head *a, const struct head *b)
{
    assert_slice_equal(a->method, b->method);
    assert_slice_equal(a->target, b->target);
    assert_slice_equal(a->authority, b->authority);
    assert_slice_equal(a->protocol, b->protocol);
    assert_int_equal(a->status, b->status);
    assert_int_equal(a->count, b->count);
    for (uint16_t i = 0; i < a->count; i++) {
        assert_slice_equal(a->fields[i].name, b->fields[i].name);
        assert_slice_equal(a->fields[i].value, b->fields[i].value);
    }
}

static void assert_messages_equal(const struct wire_message *a, const struct wire_message *b)
{
    assert_int_equal(a->kind, b->kind);
    assert_int_equal(a->request_id, b->request_id);
    switch (a->kind) {
    case WIRE_UNKNOWN:
        break;
    case WIRE_HELLO:
        assert_slice_equal(a->hello.token, b->hello.token);
        assert_slice_equal(a->hello.name, b->hello.name);
        assert_slice_equal(a->hello.client_version, b->hello.client_version);
        assert_slice_equal(a->hello.instance_id, b->hello.instance_id);
        assert_int_equal(a->hello.response_timeout_ms, b->hello.response_timeout_ms);
        assert_int_equal(a->hello.has_name, b->hello.has_name);
        assert_int_equal(a->hello.takeover, b->hello.takeover);
        assert_int_equal(a->hello.features, b->hello.features);
        assert_int_equal(a->hello.initial_credit, b->hello.initial_credit);
        break;
    case WIRE_WELCOME:
        assert_slice_equal(a->welcome.subdomain, b->welcome.subdomain);
        assert_slice_equal(a->welcome.public_url, b->welcome.public_url);
        assert_slice_equal(a->welcome.session_id, b->welcome.session_id);
        assert_slice_equal(a->welcome.server_name, b->welcome.server_name);
        assert_int_equal(a->welcome.max_concurrent, b->welcome.max_concurrent);
        assert_int_equal(a->welcome.features, b->welcome.features);
        assert_int_equal(a->welcome.initial_credit, b->welcome.initial_credit);
        break;
    case WIRE_REQUEST_HEAD:
    case WIRE_RESPONSE_HEAD:
        assert_heads_equal(&a->head.head, &b->head.head);
        assert_slice_equal(a->head.remote_addr, b->head.remote_addr);
        assert_int_equal(a->head.is_upgrade, b->head.is_upgrade);
        assert_int_equal(a->head.upgraded, b->head.upgraded);
        assert_int_equal(a->head.interim, b->head.interim);
        break;
    case WIRE_DATA:
        assert_slice_equal(a->data.bytes, b->data.bytes);
        assert_int_equal(a->data.end, b->data.end);
        break;
    case WIRE_CANCEL:
        assert_int_equal(a->cancel_reason, b->cancel_reason);
        break;
    case WIRE_PING:
    case WIRE_PONG:
        assert_int_equal(a->nonce, b->nonce);
        break;
    case WIRE_ERROR:
    case WIRE_RESET:
        assert_int_equal(a->error.code, b->error.code);
        assert_int_equal(a->error.reason, b->error.reason);
        assert_slice_equal(a->error.text, b->error.text);
        break;
    case WIRE_CREDIT:
        assert_int_equal(a->credit, b->credit);
        break;
    case WIRE_TRAILERS:
        assert_heads_equal(&a->trailers, &b->trailers);
        break;
    case WIRE_DRAIN:
        assert_int_equal(a->drain_grace_ms, b->drain_grace_ms);
        break;
    }
}

/* ---- published bytes ------------------------------------------------------------------------------------------- */

static void test_encode_vectors(void **state)
{
    (void)state;
    for (size_t i = 0; i < SIZE(vectors); i++) {
        struct buffer expected = BUFFER_INIT(4096), out = BUFFER_INIT(4096);
        put_hex(&expected, vectors[i].hex);
        int error = wire_encode(vectors[i].side, &vectors[i].message, &out);
        if (error)
            fail_msg("%s: %s", vectors[i].label, kv_strerror(error));
        assert_slice_equal(unprefixed(&out), buffer_slice(&expected));
        buffer_free(&expected);
        buffer_free(&out);
    }
}

static void test_decode_vectors(void **state)
{
    (void)state;
    struct wire_arena arena = {0};
    for (size_t i = 0; i < SIZE(vectors); i++) {
        struct buffer bytes = BUFFER_INIT(4096);
        struct wire_message message;
        put_hex(&bytes, vectors[i].hex);
        int error = wire_decode(vectors[i].side, buffer_slice(&bytes), &arena, &message);
        if (error)
            fail_msg("%s: %s", vectors[i].label, kv_strerror(error));
        assert_messages_equal(&message, &vectors[i].message);
        buffer_free(&bytes);
    }
    wire_arena_free(&arena);
}

/* A stranger's additions of every wire type, in front of and behind each vector, change nothing. */
static void test_unknown_fields_are_skipped(void **state)
{
    (void)state;
    static const char *const strange[] = {
        "a006 2a",               /* 100: varint */
        "a106 0102030405060708", /* 100: 64 bits */
        "a206 03 616263",        /* 100: bytes */
        "a506 01020304",         /* 100: 32 bits */
        "e206 00",               /* 108: bytes, none */
        "f8ffffff0f 01",         /* the largest field number there is */
    };
    struct wire_arena arena = {0};
    for (size_t i = 0; i < SIZE(vectors); i++) {
        for (size_t j = 0; j < SIZE(strange) * 2; j++) {
            struct buffer bytes = BUFFER_INIT(4096);
            struct wire_message message;
            if (j % 2 == 0)
                put_hex(&bytes, strange[j / 2]);
            put_hex(&bytes, vectors[i].hex);
            if (j % 2 == 1)
                put_hex(&bytes, strange[j / 2]);
            int error = wire_decode(vectors[i].side, buffer_slice(&bytes), &arena, &message);
            if (error)
                fail_msg("%s with %s: %s", vectors[i].label, strange[j / 2], kv_strerror(error));
            assert_messages_equal(&message, &vectors[i].message);
            buffer_free(&bytes);
        }
    }
    wire_arena_free(&arena);
}

/* A message cut anywhere is refused or is a shorter message; never more than what is there is read (the copy ends where
 * the bytes end, for the sanitizer to see). */
static void test_every_truncation(void **state)
{
    (void)state;
    struct wire_arena arena = {0};
    unsigned refused = 0;
    for (size_t i = 0; i < SIZE(vectors); i++) {
        struct buffer bytes = BUFFER_INIT(4096);
        put_hex(&bytes, vectors[i].hex);
        for (size_t len = 0; len < bytes.len; len++) {
            struct wire_message message;
            char *copy = test_malloc(len);
            memcpy(copy, bytes.data, len);
            int error = wire_decode(vectors[i].side, (struct slice){copy, len}, &arena, &message);
            assert_true(error == 0 || error == KV_EPROTO);
            refused += error == KV_EPROTO;
            if (error == 0)
                assert_int_equal(message.kind, WIRE_UNKNOWN); /* nothing but a request id */
            test_free(copy);
        }
        buffer_free(&bytes);
    }
    assert_true(refused > 0);
    wire_arena_free(&arena);
}

/* ---- what protobuf allows -------------------------------------------------------------------------------------- */

static void test_protobuf_freedom(void **state)
{
    (void)state;
    static const struct {
        const char *label, *hex;
        struct wire_message message;
    } cases[] = {
        {"nothing", "", {.kind = WIRE_UNKNOWN}},
        {"only an id", "0807", {.kind = WIRE_UNKNOWN, .request_id = 7}},
        {"a kind of tomorrow", "0807 f20100", {.kind = WIRE_UNKNOWN, .request_id = 7}},
        {"id behind data", "22040a026f6b 0807", {.kind = WIRE_DATA, .request_id = 7, .data = {.bytes = {"ok", 2}}}},
        {"two ids, the last counts", "0806 0807 2200", {.kind = WIRE_DATA, .request_id = 7}},
        {"end before bytes",
         "0807 2206 1001 0a026f6b",
         {.kind = WIRE_DATA, .request_id = 7, .data = {.bytes = {"ok", 2}, .end = true}}},
        {"end that is none",
         "0807 2206 0a026f6b 1000",
         {.kind = WIRE_DATA, .request_id = 7, .data = {.bytes = {"ok", 2}}}},
        {"end as another truth", "0807 2202 1002", {.kind = WIRE_DATA, .request_id = 7, .data = {.end = true}}},
        {"bytes twice, the last count",
         "0807 2206 0a0178 0a0179",
         {.kind = WIRE_DATA, .request_id = 7, .data = {.bytes = {"y", 1}}}},
        {"unknown field in data",
         "0807 2206 0a0178 f00101", /* 30 */
         {.kind = WIRE_DATA, .request_id = 7, .data = {.bytes = {"x", 1}}}},
        {"long varints",
         "088780808000 2287808000 0a82808000 6f6b",
         {.kind = WIRE_DATA, .request_id = 7, .data = {.bytes = {"ok", 2}}}},
        {"two kinds, the last counts",
         "0807 22030a0178 2a020801",
         {.kind = WIRE_CANCEL, .request_id = 7, .cancel_reason = 1}},
        {"and the other way round",
         "0807 2a020801 22030a0178",
         {.kind = WIRE_DATA, .request_id = 7, .data = {.bytes = {"x", 1}}}},
    };
    struct wire_arena arena = {0};
    for (size_t i = 0; i < SIZE(cases); i++) {
        for (int side = WIRE_FROM_SERVER; side <= WIRE_FROM_CLIENT; side++) {
            struct buffer bytes = BUFFER_INIT(4096);
            struct wire_message message;
            put_hex(&bytes, cases[i].hex);
            int error = wire_decode((enum wire_side)side, buffer_slice(&bytes), &arena, &message);
            if (error)
                fail_msg("%s: %s", cases[i].label, kv_strerror(error));
            assert_messages_equal(&message, &cases[i].message);
            buffer_free(&bytes);
        }
    }
    wire_arena_free(&arena);
}

static void test_malformed(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "08",                             /* a tag alone */
        "0880",                           /* a varint that does not end */
        "08ffffffffffffffffffff01",       /* eleven bytes of varint */
        "2201",                           /* shorter than it says */
        "22050a026f6b",                   /* the same, by one */
        "2203 0a026f6b",                  /* the chunk's bytes reach out of it */
        "22ffffffff0f",                   /* 4 GiB to come */
        "22ffffffffffffffff7f",           /* 2^63 */
        "2280808080808000",               /* a length is no longer than five bytes */
        "2001",                           /* data as a number */
        "32040a026f6b",                   /* ping's nonce as bytes */
        "0a00",                           /* the id as bytes */
        "07",                             /* wire type 7 */
        "00",                             /* field 0 */
        "485454502f312e3120323030204f4b", /* "HTTP/1.1 200 OK" */
    };
    struct wire_arena arena = {0};
    for (size_t i = 0; i < SIZE(cases); i++) {
        struct buffer bytes = BUFFER_INIT(4096);
        struct wire_message message;
        put_hex(&bytes, cases[i]);
        int error = wire_decode(WIRE_FROM_CLIENT, buffer_slice(&bytes), &arena, &message);
        if (error != KV_EPROTO)
            fail_msg("%s: %d", cases[i], error);
        assert_int_equal(message.kind, WIRE_UNKNOWN);
        buffer_free(&bytes);
    }
    wire_arena_free(&arena);
}

/* A number means what the sending side's frame says: 2 is Hello to one and Welcome to the other. */
static void test_sides_differ(void **state)
{
    (void)state;
    struct wire_arena arena = {0};
    struct wire_message message;
    assert_int_equal(wire_decode(WIRE_FROM_SERVER, (struct slice){"\x12\3\x0a\1x", 5}, &arena, &message), 0);
    assert_int_equal(message.kind, WIRE_WELCOME);
    assert_slice_equal(message.welcome.subdomain, SLICE("x"));
    assert_int_equal(wire_decode(WIRE_FROM_CLIENT, (struct slice){"\x12\3\x0a\1x", 5}, &arena, &message), 0);
    assert_int_equal(message.kind, WIRE_HELLO);
    assert_slice_equal(message.hello.token, SLICE("x"));
    /* Error is no kind of the server's. */
    assert_int_equal(wire_decode(WIRE_FROM_SERVER, (struct slice){"\x42\2\x08\1", 4}, &arena, &message), 0);
    assert_int_equal(message.kind, WIRE_UNKNOWN);
    wire_arena_free(&arena);
}

static void test_encode_refuses(void **state)
{
    (void)state;
    static const struct {
        const char *label;
        enum wire_side side;
        struct wire_message message;
        int error;
    } cases[] = {
        {"nothing", WIRE_FROM_CLIENT, {.kind = WIRE_UNKNOWN}, KV_EINVAL},
        {"no kind", WIRE_FROM_CLIENT, {.kind = (enum wire_kind)99}, KV_EINVAL},
        {"a server's hello", WIRE_FROM_SERVER, {.kind = WIRE_HELLO}, KV_EINVAL},
        {"a client's drain", WIRE_FROM_CLIENT, {.kind = WIRE_DRAIN}, KV_EINVAL},
        {"a server's error", WIRE_FROM_SERVER, {.kind = WIRE_ERROR}, KV_EINVAL},
        {"a stray byte", WIRE_FROM_CLIENT, {.kind = WIRE_HELLO, .hello = {.token = {"\xfc", 1}}}, KV_EINVAL},
        {"a cut character", WIRE_FROM_CLIENT, {.kind = WIRE_HELLO, .hello = {.token = {"\xc3", 1}}}, KV_EINVAL},
        {"a cut middle", WIRE_FROM_CLIENT, {.kind = WIRE_HELLO, .hello = {.token = {"\xe2\x82.", 3}}}, KV_EINVAL},
        {"an overlong NUL", WIRE_FROM_CLIENT, {.kind = WIRE_HELLO, .hello = {.token = {"\xc0\x80", 2}}}, KV_EINVAL},
        {"an overlong slash",
         WIRE_FROM_CLIENT,
         {.kind = WIRE_HELLO, .hello = {.token = {"\xe0\x80\xaf", 3}}},
         KV_EINVAL},
        {"a surrogate", WIRE_FROM_CLIENT, {.kind = WIRE_HELLO, .hello = {.token = {"\xed\xa0\x80", 3}}}, KV_EINVAL},
        {"beyond Unicode",
         WIRE_FROM_CLIENT,
         {.kind = WIRE_HELLO, .hello = {.token = {"\xf4\x90\x80\x80", 4}}},
         KV_EINVAL},
        {"a NUL", WIRE_FROM_CLIENT, {.kind = WIRE_HELLO, .hello = {.token = {"a\0b", 3}}}, KV_EINVAL},
        {"any character",
         WIRE_FROM_CLIENT,
         {.kind = WIRE_HELLO, .hello = {.token = {"z\xc3\xbc\xe2\x82\xac\xf0\x9f\xa6\x8a\xf4\x8f\xbf\xbf", 14}}},
         0},
    };
    for (size_t i = 0; i < SIZE(cases); i++) {
        struct buffer out = BUFFER_INIT(4096);
        buffer_append_string(&out, "before");
        int error = wire_encode(cases[i].side, &cases[i].message, &out);
        if (error != cases[i].error)
            fail_msg("%s: %d", cases[i].label, error);
        if (error)
            assert_slice_equal(buffer_slice(&out), SLICE("before"));
        buffer_free(&out);
    }

    struct buffer small = BUFFER_INIT(8);
    assert_int_equal(wire_encode(WIRE_FROM_CLIENT, &(struct wire_message){.kind = WIRE_PONG, .nonce = 42}, &small),
                     KV_ELIMIT);
    assert_int_equal(wire_encode(WIRE_FROM_CLIENT, &(struct wire_message){.kind = WIRE_PONG}, &small), 0);
    struct wire_message data = {.kind = WIRE_DATA, .data = {.bytes = {"x", 1}}};
    assert_int_equal(wire_encode(WIRE_FROM_CLIENT, &data, &small), KV_ELIMIT);
    assert_int_equal(small.len, 7);
    buffer_free(&small);
}

/* An error has to arrive: its text is cut and made ASCII. */
static void test_error_text(void **state)
{
    (void)state;
    char text[3000];
    struct wire_arena arena = {0};
    struct wire_message message = {.kind = WIRE_RESET, .error = {.code = 17, .text = {text, sizeof text}}}, back;
    struct buffer out = BUFFER_INIT(4096);
    memset(text, 'a', sizeof text);
    memcpy(text, "\xff\0\n~", 4);
    assert_int_equal(wire_encode(WIRE_FROM_SERVER, &message, &out), 0);
    assert_int_equal(wire_decode(WIRE_FROM_SERVER, unprefixed(&out), &arena, &back), 0);
    assert_int_equal(back.error.text.len, WIRE_ERROR_BYTES);
    assert_memory_equal(back.error.text.data, "???~aaaa", 8);
    buffer_free(&out);
    wire_arena_free(&arena);
}

/* ---- data ------------------------------------------------------------------------------------------------------ */

/* The framing made by hand equals protobuf-c's, and is read back in place, at every length of its varints. */
static void test_data_prefix(void **state)
{
    (void)state;
    static const uint64_t ids[] = {0, 1, 127, 128, 16383, 16384, UINT32_MAX, (uint64_t)1 << 62, UINT64_MAX};
    static const size_t lens[] = {0,     1,     120,   121,     122,     123,
                                  124,   125,   126,   127,     128,     129,
                                  16383, 16384, 16385, 2097151, 2097152, LIMIT_MESSAGE_BYTES - WIRE_DATA_PREFIX_LEN};
    char *body = test_malloc(LIMIT_MESSAGE_BYTES);
    memset(body, 'b', LIMIT_MESSAGE_BYTES);
    struct wire_arena arena = {0};
    for (size_t i = 0; i < SIZE(ids) * SIZE(lens) * 4; i++) {
        uint64_t id = ids[i / 4 / SIZE(lens)];
        size_t len = lens[i / 4 % SIZE(lens)];
        bool end = i % 2;
        enum wire_side side = i / 2 % 2 ? WIRE_FROM_CLIENT : WIRE_FROM_SERVER;

        Kavilo__Tunnel__V1__DataChunk chunk = KAVILO__TUNNEL__V1__DATA_CHUNK__INIT;
        Kavilo__Tunnel__V1__ServerFrame frame = KAVILO__TUNNEL__V1__SERVER_FRAME__INIT;
        chunk.data = (ProtobufCBinaryData){len, (uint8_t *)body};
        chunk.end_stream = end;
        frame.request_id = id;
        frame.kind_case = KAVILO__TUNNEL__V1__SERVER_FRAME__KIND_DATA;
        frame.data = &chunk;
        size_t size = kavilo__tunnel__v1__server_frame__get_packed_size(&frame);
        uint8_t *expected = test_malloc(size);
        kavilo__tunnel__v1__server_frame__pack(&frame, expected);

        struct wire_message message = {.kind = WIRE_DATA, .request_id = id, .data = {{body, len}, end}}, back;
        struct buffer out = BUFFER_INIT(LIMIT_MESSAGE_BYTES + GRPC_PREFIX_LEN);
        assert_int_equal(wire_encode(side, &message, &out), 0);
        struct slice bytes = unprefixed(&out);
        assert_slice_equal(bytes, ((struct slice){(char *)expected, size}));
        assert_int_equal(wire_decode(side, bytes, &arena, &back), 0);
        assert_messages_equal(&back, &message);
        if (len > 0 && id < (uint64_t)1 << 63)
            assert_in_range((uintptr_t)back.data.bytes.data, (uintptr_t)bytes.data, (uintptr_t)bytes.data + size - len);
        test_free(expected);
        buffer_free(&out);
    }
    struct buffer out = BUFFER_INIT(2 * LIMIT_MESSAGE_BYTES);
    struct wire_message message = {.kind = WIRE_DATA, .data = {.bytes = {body, LIMIT_MESSAGE_BYTES}}};
    assert_int_equal(wire_encode(WIRE_FROM_SERVER, &message, &out), KV_ELIMIT);
    wire_arena_free(&arena);
    test_free(body);
}

/* ---- the arena ------------------------------------------------------------------------------------------------- */

/* Messages that need much more memory than bytes are stopped; large honest ones are not, and their memory goes back. */
static void test_arena_is_bounded(void **state)
{
    (void)state;
    struct wire_arena arena = {0};
    struct wire_message message;
    struct buffer bytes = BUFFER_INIT(2 * LIMIT_MESSAGE_BYTES), head = BUFFER_INIT(LIMIT_MESSAGE_BYTES);

    while (head.len < LIMIT_MESSAGE_BYTES - 64)
        put_bytes(&head, 3, SLICE("")); /* two bytes make a Header of forty */
    put_bytes(&bytes, 3, buffer_slice(&head));
    assert_int_equal(wire_decode(WIRE_FROM_SERVER, buffer_slice(&bytes), &arena, &message), KV_ELIMIT);
    assert_int_equal(message.kind, WIRE_UNKNOWN);
    assert_true(arena.total <= LIMIT_MESSAGE_BYTES + 256 * 1024);
    buffer_free(&head);
    buffer_free(&bytes);

    char *body = test_calloc(1, LIMIT_MESSAGE_BYTES);
    struct buffer chunk = BUFFER_INIT(LIMIT_MESSAGE_BYTES);
    put_bytes(&chunk, 1, (struct slice){body, LIMIT_MESSAGE_BYTES - 64});
    put_bytes(&bytes, 4, buffer_slice(&chunk));
    put_number(&bytes, 1, 7); /* behind: not the framing that is read in place */
    assert_int_equal(wire_decode(WIRE_FROM_SERVER, buffer_slice(&bytes), &arena, &message), 0);
    assert_int_equal(message.kind, WIRE_DATA);
    assert_int_equal(message.data.bytes.len, LIMIT_MESSAGE_BYTES - 64);
    assert_int_equal(wire_decode(WIRE_FROM_SERVER, (struct slice){"\x32\2\x08\x2a", 4}, &arena, &message), 0);
    assert_int_equal(message.nonce, 42);
    assert_true(arena.total < 1024);
    assert_true(arena.first <= 64 * 1024);
    buffer_free(&chunk);
    buffer_free(&bytes);
    test_free(body);
    wire_arena_free(&arena);
    wire_arena_free(&arena);
}

/* After the first few, messages of one size come out of one block. */
static void test_arena_settles(void **state)
{
    (void)state;
    struct wire_arena arena = {0};
    struct wire_message message;
    struct buffer bytes = BUFFER_INIT(LIMIT_MESSAGE_BYTES), head = BUFFER_INIT(LIMIT_MESSAGE_BYTES);
    put_bytes(&head, 1, SLICE("GET"));
    put_bytes(&head, 2, SLICE("/"));
    for (int i = 0; i < 100; i++)
        put_header(&head, 3, SLICE("x-some-field"), SLICE("and some value for it"));
    put_bytes(&bytes, 3, buffer_slice(&head));
    const struct wire_block *settled = NULL;
    for (int i = 0; i < 5; i++) {
        assert_int_equal(wire_decode(WIRE_FROM_SERVER, buffer_slice(&bytes), &arena, &message), 0);
        if (i == 1)
            settled = arena.blocks;
        if (i > 1)
            assert_ptr_equal(arena.blocks, settled);
    }
    buffer_free(&head);
    buffer_free(&bytes);
    wire_arena_free(&arena);
}

/* ---- reasons --------------------------------------------------------------------------------------------------- */

static void test_reasons(void **state)
{
    (void)state;
    static const struct {
        enum close_reason reason;
        uint32_t detailed, deployed;
    } fixed[] = {
        {REASON_ORIGIN_OTHER, 0, 0},
        {REASON_ORIGIN_REFUSED, 1, 1},
        {REASON_ORIGIN_CONNECT_TIMEOUT, 2, 2},
        {REASON_ORIGIN_TIMEOUT, 17, 2},
        {REASON_VISITOR_GONE, 32, 0},
        {REASON_INTERNAL, 48, 0},
        {REASON_NONE, 0, 0},
    };
    for (size_t i = 0; i < SIZE(fixed); i++) {
        assert_int_equal(wire_reason_code(fixed[i].reason, true), fixed[i].detailed);
        assert_int_equal(wire_reason_code(fixed[i].reason, false), fixed[i].deployed);
    }
    for (int reason = REASON_NONE + 1; reason < REASON_COUNT; reason++) {
        uint32_t code = wire_reason_code((enum close_reason)reason, true);
        assert_true(code <= 2 || code >= 16);
        assert_int_equal(wire_reason_of(WIRE_FROM_SERVER, code), reason);
        /* A client's word is about its service, itself or the tunnel. */
        enum reason_side side = reason_text(wire_reason_of(WIRE_FROM_CLIENT, code))->side;
        assert_true(side == SIDE_SERVICE || side == SIDE_TUNNEL);
        if (reason_text((enum close_reason)reason)->side == SIDE_SERVICE)
            assert_int_equal(wire_reason_of(WIRE_FROM_CLIENT, code), reason);
        assert_in_range(wire_reason_code((enum close_reason)reason, false), 0, 2);
    }
    static const struct {
        enum close_reason said, heard;
    } clients[] = {
        {REASON_NO_TUNNEL, REASON_PROTOCOL},      {REASON_RATE_LIMITED, REASON_PROTOCOL},
        {REASON_BAD_REQUEST, REASON_PROTOCOL},    {REASON_INTERNAL, REASON_PROTOCOL},
        {REASON_KICKED, REASON_PROTOCOL},         {REASON_REVOKED, REASON_PROTOCOL},
        {REASON_BODY_TOO_LARGE, REASON_PROTOCOL}, {REASON_CLIENT_GONE, REASON_CLIENT_GONE},
        {REASON_SERVER_BUSY, REASON_TUNNEL_BUSY},
    };
    for (size_t i = 0; i < SIZE(clients); i++)
        assert_int_equal(wire_reason_of(WIRE_FROM_CLIENT, wire_reason_code(clients[i].said, true)), clients[i].heard);
    for (int side = WIRE_FROM_SERVER; side <= WIRE_FROM_CLIENT; side++) {
        assert_int_equal(wire_reason_of((enum wire_side)side, 3), REASON_ORIGIN_OTHER);
        assert_int_equal(wire_reason_of((enum wire_side)side, UINT32_MAX), REASON_ORIGIN_OTHER);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_encode_vectors),
        cmocka_unit_test(test_decode_vectors),
        cmocka_unit_test(test_unknown_fields_are_skipped),
        cmocka_unit_test(test_every_truncation),
        cmocka_unit_test(test_protobuf_freedom),
        cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_sides_differ),
        cmocka_unit_test(test_encode_refuses),
        cmocka_unit_test(test_error_text),
        cmocka_unit_test(test_data_prefix),
        cmocka_unit_test(test_arena_is_bounded),
        cmocka_unit_test(test_arena_settles),
        cmocka_unit_test(test_reasons),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
