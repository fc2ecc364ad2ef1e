/* The forwarding rules, one test a rule, on heads as the parser gives them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "http/forward.h"
#include "http/http1.h"

static const struct forward_facts stranger = {
    .peer_address = {"203.0.113.7", 11}, .visitor_address = {"203.0.113.7", 11}, .scheme = {"https", 5}};
static const struct forward_facts proxy = {.peer_address = {"203.0.113.7", 11},
                                           .visitor_address = {"1.2.3.4", 7},
                                           .scheme = {"https", 5},
                                           .peer_trusted = true};

/* What every request of a stranger ends with. */
#define TAIL                                                                                                           \
    "x-forwarded-for: 203.0.113.7\nx-forwarded-proto: https\nx-forwarded-host: a.example\nx-real-ip: 203.0.113.7\n"
/* What every request through a named proxy ends with that says nothing of the visitor. */
#define PROXY_TAIL                                                                                                     \
    "x-forwarded-for: 203.0.113.7\nx-forwarded-proto: https\nx-forwarded-host: a.example\nx-real-ip: 1.2.3.4\n"
#define TOP "host: a.example\n"

static void assert_fields(const struct head *h, const char *expected)
{
    struct buffer text = BUFFER_INIT(1 << 16);
    buffer_append_string(&text, "");
    for (size_t i = 0; i < h->count; i++) {
        assert_int_equal(strlen(h->fields[i].name.data), h->fields[i].name.len);
        assert_int_equal(strlen(h->fields[i].value.data), h->fields[i].value.len);
        buffer_printf(&text, "%s: %s\n", h->fields[i].name.data, h->fields[i].value.data);
    }
    if (text.len != strlen(expected) || (text.len && memcmp(text.data, expected, text.len) != 0))
        fail_msg("expected:\n%s\ngot:\n%.*s", expected, (int)text.len, text.data);
    buffer_free(&text);
}

static void check_request(const char *fields, const struct forward_facts *facts, const char *expected)
{
    char text[2048];
    int len = snprintf(text, sizeof(text), "GET /x?y HTTP/1.1\r\nHost: a.example\r\n%s\r\n", fields);
    struct http1_message m;
    size_t scanned = 0;
    assert_int_equal(http1_parse_request((struct slice){text, (size_t)len}, &scanned, &m), len);
    struct head *out = forward_request(&m.head, facts);
    assert_non_null(out);
    assert_string_equal(out->method.data, "GET");
    assert_string_equal(out->target.data, "/x?y");
    assert_string_equal(out->scheme.data, "https");
    assert_string_equal(out->authority.data, "a.example");
    assert_fields(out, expected);
    head_free(out);
}

static void passes_the_rest_as_it_is(void **state)
{
    (void)state;
    check_request("", &stranger, TOP TAIL);
    check_request("User-Agent: x\r\nACCEPT: */*\r\nContent-Length: 3\r\nEmpty:\r\nX: \xc3\xa9\r\nx: again\r\n",
                  &stranger,
                  TOP "user-agent: x\naccept: */*\ncontent-length: 3\nempty: \nx: \xc3\xa9\nx: again\n" TAIL);
    check_request("Authorization: Bearer x\r\nTrailer: Checksum\r\nCache-Control: no-store\r\n", &stranger,
                  TOP "authorization: Bearer x\ntrailer: Checksum\ncache-control: no-store\n" TAIL);
    check_request("Via: 1.1 x\r\nForwarded-Stuff: y\r\nProxy-Status: z\r\nTea: t\r\n", &stranger,
                  TOP "via: 1.1 x\nforwarded-stuff: y\nproxy-status: z\ntea: t\n" TAIL);
}

/* Behind what is there, and nothing that Connection says takes either away. */
static void notes_its_pass(void **state)
{
    (void)state;
    struct forward_facts facts = stranger;
    facts.version = SLICE("1.1");
    facts.host = SLICE("a.example");
    check_request("", &facts, TOP TAIL "via: 1.1 a.example\ncdn-loop: a.example\n");
    check_request("Via: 2 x\r\nCDN-Loop: y\r\nConnection: via, cdn-loop\r\nCDN_Loop: z\r\n", &facts,
                  TOP "via: 2 x\ncdn-loop: y\n" TAIL "via: 1.1 a.example\ncdn-loop: a.example\n");
}

static void removes_hop_by_hop(void **state)
{
    (void)state;
    check_request("Connection: keep-alive\r\n", &stranger, TOP TAIL);
    check_request("Keep-Alive: timeout=5\r\n", &stranger, TOP TAIL);
    check_request("Proxy-Connection: keep-alive\r\n", &stranger, TOP TAIL);
    check_request("Proxy-Authorization: Basic x\r\n", &stranger, TOP TAIL);
    check_request("Proxy-Authenticate: Basic\r\n", &stranger, TOP TAIL);
    check_request("Transfer-Encoding: chunked\r\n", &stranger, TOP TAIL);
    check_request("Upgrade: websocket\r\n", &stranger, TOP TAIL);
    check_request("HTTP2-Settings: AAMAAABk\r\n", &stranger, TOP TAIL);
    check_request("Expect: 100-continue\r\n", &stranger, TOP TAIL);
    check_request("Proxy: http://evil.example\r\n", &stranger, TOP TAIL);
}

static void passes_te_trailers_alone(void **state)
{
    (void)state;
    check_request("TE: deflate\r\n", &stranger, TOP TAIL);
    check_request("TE: deflate, Trailers;q=0.5\r\n", &stranger, TOP TAIL);
    check_request("TE: gzip\r\nTE: deflate, Trailers\r\n", &stranger, TOP "te: trailers\n" TAIL);
    check_request("Connection: TE\r\nTE: trailers\r\n", &stranger, TOP "te: trailers\n" TAIL);
}

static void removes_what_connection_names(void **state)
{
    (void)state;
    check_request("X-Foo: 1\r\nConnection: close, x-foo\r\nX-Bar: 2\r\n", &stranger, TOP "x-bar: 2\n" TAIL);
    check_request("X-Foo: 1\r\nConnection: a ,\tX-FOO,,b\r\nConnection: cache-control\r\nCache-Control: x\r\n",
                  &stranger, TOP TAIL);
}

static void connection_removes_nothing_of_ours(void **state)
{
    (void)state;
    check_request("Connection: host, content-length, transfer-encoding, cookie, x-forwarded-for, x-forwarded-proto, "
                  "x-forwarded-host, x-real-ip\r\nContent-Length: 3\r\nCookie: a=b\r\n",
                  &stranger, TOP "content-length: 3\ncookie: a=b\n" TAIL);
}

/* What is named behind the bound passes; what is named before it goes, however much stands behind it. */
static void bounds_connection(void **state)
{
    (void)state;
    struct buffer fields = BUFFER_INIT(1024);
    buffer_append_string(&fields, "Connection: close, keep-alive, x-first");
    for (int i = 1; i < FORWARD_OPTIONS_MAX; i++)
        buffer_append_string(&fields, ", a");
    buffer_append_string(&fields, ", x-late\r\nX-First: 1\r\nX-Late: 2\r\n");
    buffer_append(&fields, "", 1);
    check_request(fields.data, &stranger, TOP "x-late: 2\n" TAIL);
    buffer_free(&fields);
}

static void internal_names_are_ours_alone(void **state)
{
    (void)state;
    check_request("Kavilo-Error: x\r\nkavilo-: y\r\nkavilo: z\r\n", &stranger, TOP "kavilo: z\n" TAIL);
    check_request("Kavilo-Error: x\r\n", &proxy, TOP PROXY_TAIL);
}

static void underscores_are_no_disguise(void **state)
{
    (void)state;
    check_request("X_Forwarded_For: 1.2.3.4\r\nx-forwarded_proto: http\r\nX_Real_IP: 1.2.3.4\r\nContent_Length: 5\r\n"
                  "Transfer_Encoding: chunked\r\nKAVILO_ERROR: x\r\nProxy_Connection: x\r\nx_forwarded_y: z\r\n"
                  "If_Match: x\r\nmy_field: y\r\n",
                  &proxy, TOP "if_match: x\nmy_field: y\n" PROXY_TAIL);
}

static void a_stranger_cannot_speak_for_others(void **state)
{
    (void)state;
    check_request("X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: b\r\nX-Real-IP: 1.2.3.4\r\n"
                  "X-Forwarded-Port: 1\r\nX-Forwarded-Server: s\r\nForwarded: for=1.2.3.4\r\n",
                  &stranger, TOP TAIL);
}

static void a_trusted_proxy_is_believed(void **state)
{
    (void)state;
    check_request("X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: http\r\nx-forwarded-for: 5.6.7.8, 9.9.9.9\r\n"
                  "X-Forwarded-Port: 1\r\n",
                  &proxy,
                  TOP "x-forwarded-port: 1\n"
                      "x-forwarded-for: 1.2.3.4, 5.6.7.8, 9.9.9.9, 203.0.113.7\nx-forwarded-proto: http\n"
                      "x-forwarded-host: a.example\nx-real-ip: 1.2.3.4\n");
    /* Its own line is the last one. */
    check_request("X-Forwarded-Host: evil\r\nX-Forwarded-Host: b\r\n", &proxy,
                  TOP "x-forwarded-for: 203.0.113.7\nx-forwarded-proto: https\nx-forwarded-host: b\n"
                      "x-real-ip: 1.2.3.4\n");
    check_request("X-Forwarded-Proto:\r\nX-Forwarded-For:\r\n", &proxy, TOP PROXY_TAIL);
}

/* Proxies pass on fields that they do not know: these may be a stranger's word. */
static void a_trusted_proxy_may_carry_lies(void **state)
{
    (void)state;
    check_request("X-Real-IP: 6.6.6.6\r\nForwarded: for=6.6.6.6;proto=gopher\r\n", &proxy, TOP PROXY_TAIL);
}

static void tells_in_forwarded(void **state)
{
    (void)state;
    struct forward_path path = {.count = 1};
    struct forward_facts alone = stranger, behind = proxy;
    alone.path = behind.path = &path;
    assert_int_equal(ip_parse(SLICE("203.0.113.7"), &path.hops[0]), 0);
    check_request("Forwarded: for=6.6.6.6\r\nX-Forwarded-Host: evil\r\n", &alone,
                  TOP TAIL "forwarded: for=203.0.113.7;host=a.example;proto=https\n");
    assert_int_equal(ip_parse(SLICE("2001:db8::1"), &path.hops[path.count++]), 0);
    check_request(
        "X-Forwarded-For: 2001:db8::1\r\nX-Forwarded-Host: b.example:8443, c\r\nX-Forwarded-Proto: http,https\r\n"
        "Forwarded: for=6.6.6.6\r\n",
        &behind,
        TOP "x-forwarded-for: 2001:db8::1, 203.0.113.7\nx-forwarded-proto: http,https\n"
            "x-forwarded-host: b.example:8443, c\nx-real-ip: 1.2.3.4\n"
            "forwarded: for=\"[2001:db8::1]\";host=\"b.example:8443\";proto=http, for=203.0.113.7\n");
}

static void joins_cookies(void **state)
{
    (void)state;
    check_request("Cookie: a=1\r\nX: y\r\ncookie: b=2\r\nCOOKIE: c=3\r\n", &stranger,
                  TOP "cookie: a=1; b=2; c=3\nx: y\n" TAIL);
}

static void keeps_the_protocol_of_an_upgrade(void **state)
{
    (void)state;
    struct slice text = SLICE("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    struct http1_message m;
    size_t scanned = 0;
    assert_int_equal(http1_parse_request(text, &scanned, &m), text.len);
    struct head *out = forward_request(&m.head, &stranger);
    assert_string_equal(out->protocol.data, "websocket");
    assert_null(head_find(out, SLICE("upgrade")));
    head_free(out);
}

/* As many fields as a head can have, all of them to be kept: room is there to the last byte. */
static void has_room_for_the_largest(void **state)
{
    (void)state;
    struct buffer text = BUFFER_INIT(LIMIT_HEAD_BYTES);
    buffer_append_string(&text, "GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n");
    for (size_t i = 2; i < HTTP1_FIELDS_MAX; i++)
        buffer_append_string(&text, i % 2 ? "X-Forwarded-For:1\r\n" : "Cookie:a\r\n");
    buffer_append_string(&text, "\r\n");
    struct http1_message m;
    size_t scanned = 0;
    assert_true(http1_parse_request(buffer_slice(&text), &scanned, &m) > 0);
    struct head *out = forward_request(&m.head, &proxy);
    assert_non_null(out);
    assert_int_equal(out->count, 7);
    assert_int_equal(head_value(out, SLICE("cookie")).len, 59 * 1 + 58 * 2);
    assert_int_equal(head_value(out, SLICE("x-forwarded-for")).len, 59 * 1 + 59 * 2 + 11);
    head_free(out);
    buffer_free(&text);
}

/* ---- responses and trailers ------------------------------------------------------------------------------------ */

static struct head *response_of(const char *text)
{
    struct http1_message m;
    size_t scanned = 0;
    assert_int_equal(http1_parse_response(slice_of(text), &scanned, SLICE("GET"), &m), strlen(text));
    struct head *out = forward_response(&m.head);
    assert_non_null(out);
    assert_int_equal(out->status, m.head.status);
    return out;
}

static void check_response(const char *text, const char *expected)
{
    struct head *out = response_of(text);
    assert_fields(out, expected);
    head_free(out);
}

static void forwards_responses(void **state)
{
    (void)state;
    check_response("HTTP/1.1 200 OK\r\nServer: x\r\nConnection: close, x-foo, content-length\r\nContent-Length: 2\r\n"
                   "X-Foo: 1\r\nKeep-Alive: x\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nKavilo-Error: no_tunnel\r\n"
                   "Trailer: t\r\nX_Y: z\r\n\r\n",
                   "server: x\ncontent-length: 2\nset-cookie: a\nset-cookie: b\ntrailer: t\nx_y: z\n");
    check_response(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nUpgrade: h2c\r\nTE: x\r\nProxy-Authenticate: y\r\n\r\n", "");
    check_response("HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n", "content-length: 2\n");
    check_response("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\nX: y\r\n\r\n", "x: y\n");
    check_response("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nContent-Length: 0\r\n\r\n", "link: </a>\n");

    struct head *out = response_of("HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                                   "Sec-WebSocket-Accept: x\r\n\r\n");
    assert_string_equal(out->protocol.data, "websocket");
    assert_fields(out, "sec-websocket-accept: x\n");
    head_free(out);
}

/* Heads from the tunnel's wire have not been through the parser: the protocol stands in the field alone, and a length
 * may be there twice. */
static void forwards_unparsed_responses(void **state)
{
    (void)state;
    struct field storage[4];
    struct head h;
    head_borrow(&h, storage, 4);
    h.status = 101;
    head_add(&h, SLICE("upgrade"), SLICE("x"));
    struct head *out = forward_response(&h);
    assert_string_equal(out->protocol.data, "x");
    head_free(out);

    h.status = 200;
    head_add(&h, SLICE("content-length"), SLICE("5"));
    head_add(&h, SLICE("content-length"), SLICE("6"));
    out = forward_response(&h);
    assert_fields(out, "content-length: 5\n");
    assert_int_equal(out->protocol.len, 0);
    head_free(out);
}

static void filters_trailers(void **state)
{
    (void)state;
    static const char *const dropped[] = {
        "transfer-encoding",
        "content-length",
        "host",
        "connection",
        "te",
        "keep-alive",
        "upgrade",
        "trailer",
        "authorization",
        "proxy-authorization",
        "www-authenticate",
        "set-cookie",
        "cookie",
        "cache-control",
        "max-forwards",
        "range",
        "expect",
        "if-match",
        "If-None-Match",
        "pragma",
        "age",
        "expires",
        "date",
        "location",
        "retry-after",
        "vary",
        "warning",
        "content-type",
        "content-encoding",
        "content-range",
        "x-forwarded-for",
        "forwarded",
        "x-real-ip",
        "kavilo-error",
        "Content_Length",
    };
    struct field storage[64];
    struct head h;
    head_borrow(&h, storage, 64);
    head_add(&h, SLICE("Grpc-Status"), SLICE("0"));
    for (size_t i = 0; i < sizeof(dropped) / sizeof(dropped[0]); i++)
        head_add(&h, slice_of(dropped[i]), SLICE("x"));
    head_add(&h, SLICE("grpc-message"), SLICE(""));
    head_add(&h, SLICE("Server-Timing"), SLICE("a"));
    struct head *out = forward_trailers(&h);
    assert_non_null(out);
    assert_fields(out, "grpc-status: 0\ngrpc-message: \nserver-timing: a\n");
    head_free(out);
}

static void names_hop_by_hop(void **state)
{
    (void)state;
    static const char *const yes[] = {"Connection",          "Keep-Alive", "Proxy-Connection",  "Proxy-Authenticate",
                                      "Proxy-Authorization", "TE",         "Transfer-Encoding", "Upgrade",
                                      "HTTP2-Settings"};
    static const char *const no[] = {"",    "Trailer", "Host", "Content-Length", "Expect",
                                     "Via", "t",       "tea",  "Keep_Alive"};
    for (size_t i = 0; i < sizeof(yes) / sizeof(yes[0]); i++)
        assert_true(forward_is_hop_by_hop(field_id_of(slice_of(yes[i]))));
    for (size_t i = 0; i < sizeof(no) / sizeof(no[0]); i++)
        assert_false(forward_is_hop_by_hop(field_id_of(slice_of(no[i]))));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(passes_the_rest_as_it_is),
        cmocka_unit_test(notes_its_pass),
        cmocka_unit_test(removes_hop_by_hop),
        cmocka_unit_test(passes_te_trailers_alone),
        cmocka_unit_test(removes_what_connection_names),
        cmocka_unit_test(connection_removes_nothing_of_ours),
        cmocka_unit_test(bounds_connection),
        cmocka_unit_test(internal_names_are_ours_alone),
        cmocka_unit_test(underscores_are_no_disguise),
        cmocka_unit_test(a_stranger_cannot_speak_for_others),
        cmocka_unit_test(a_trusted_proxy_is_believed),
        cmocka_unit_test(a_trusted_proxy_may_carry_lies),
        cmocka_unit_test(tells_in_forwarded),
        cmocka_unit_test(joins_cookies),
        cmocka_unit_test(keeps_the_protocol_of_an_upgrade),
        cmocka_unit_test(has_room_for_the_largest),
        cmocka_unit_test(forwards_responses),
        cmocka_unit_test(forwards_unparsed_responses),
        cmocka_unit_test(filters_trailers),
        cmocka_unit_test(names_hop_by_hop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
