/* Responses: refusals with the rule they name, and which framing each answer has (RFC 9112, 6.3). Each case is read
 * whole, cut at every place and byte by byte. */
#include "http/http1_feed.h"

#include "base/error.h"
#include "http/http1_documented.h"

#define OK "HTTP/1.1 200 OK\r\n"

struct refusal {
    struct slice input;
    const char *error;
};

#define REFUSED(text, error)                                                                                           \
    {                                                                                                                  \
        {(text), sizeof(text) - 1}, (error)                                                                            \
    }

static const struct refusal refusals[] = {
    REFUSED("SSH-2.0-OpenSSH_9.2\r\n", "not an HTTP/1 status line"),
    REFUSED("\x15\x03\x03\x00\x02", "not an HTTP/1 status line"),
    REFUSED("\r\nHTTP/1.1 200 OK\r\n\r\n", "not an HTTP/1 status line"),
    REFUSED("http/1.1 200 OK\r\n\r\n", "not an HTTP/1 status line"),
    REFUSED("HTTP/2 200\r\n\r\n", "not an HTTP/1 status line"),
    REFUSED("HTTP/0.9 200 OK\r\n\r\n", "not an HTTP/1 status line"),
    REFUSED("ICY 200 OK\r\n\r\n", "not an HTTP/1 status line"),
    REFUSED("HTTP/1.\r\n\r\n", "version is not HTTP/1"),
    REFUSED("HTTP/1.1\r\n\r\n", "malformed status line"),
    REFUSED("HTTP/1.1 \r\n\r\n", "malformed status line"),
    REFUSED("HTTP/1.1 20\r\n\r\n", "malformed status line"),
    REFUSED("HTTP/1.1 2000 OK\r\n\r\n", "malformed status line"),
    REFUSED("HTTP/1.1\t200 OK\r\n\r\n", "malformed status line"),
    REFUSED("HTTP/1.1 200\tOK\r\n\r\n", "malformed status line"),
    REFUSED("HTTP/1.1  20 OK\r\n\r\n", "status is not a number from 100 to 999"),
    REFUSED("HTTP/1.1 2OO OK\r\n\r\n", "status is not a number from 100 to 999"),
    REFUSED("HTTP/1.1 -20 OK\r\n\r\n", "status is not a number from 100 to 999"),
    REFUSED("HTTP/1.1 099 OK\r\n\r\n", "status is not a number from 100 to 999"),
    REFUSED("HTTP/1.1 200 O\0K\r\n\r\n", "control byte"),
    REFUSED("HTTP/1.1 200 OK\r\r\n\r\n", "bare CR"),
    REFUSED(OK "X: y\r\n z\r\n\r\n", "white space at the start of a line"),
    REFUSED(OK "X\r\n\r\n", "field line without a colon"),
    REFUSED(OK "X: \x08\r\n\r\n", "control byte"),
    REFUSED(OK "Transfer-Encoding: gzip, chunked\r\n\r\n",
            "Transfer-Encoding that is not known, with chunked behind it"),
    REFUSED(OK "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", "more than one Transfer-Encoding"),
    REFUSED(OK "Content-Length: 1\r\nContent-Length: 2\r\n\r\n", "differing Content-Length"),
    REFUSED(OK "Content-Length: 1, 2\r\n\r\n", "differing Content-Length"),
    REFUSED(OK "Content-Length: 1\r\nX: y\r\nContent-Length: 1, 1, 3\r\n\r\n", "differing Content-Length"),
    REFUSED(OK "Content-Length:\r\n\r\n", "empty Content-Length"),
    REFUSED(OK "Content-Length: 1,\r\n\r\n", "empty Content-Length"),
    REFUSED(OK "Content-Length: ,1\r\n\r\n", "empty Content-Length"),
    REFUSED(OK "Content-Length: 1\r\nContent-Length:\r\n\r\n", "empty Content-Length"),
    REFUSED(OK "Content-Length: -1\r\n\r\n", "Content-Length is not a number"),
    REFUSED(OK "Content-Length: 1 1\r\n\r\n", "Content-Length is not a number"),
    REFUSED(OK "Content-Length: 9223372036854775808\r\n\r\n", "Content-Length is too large"),
    REFUSED("HTTP/1.1 304 Not Modified\r\nContent-Length: x\r\n\r\n", "Content-Length is not a number"),
    REFUSED("HTTP/1.1 100 Continue\r\nContent-Length: 1\r\n\r\n", "interim response with a body"),
    REFUSED("HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\n", "interim response with a body"),
    REFUSED("HTTP/1.1 101 Switching Protocols\r\n\r\n", "101 without one Upgrade"),
    REFUSED("HTTP/1.1 101 Switching Protocols\r\nUpgrade: a\r\nUpgrade: b\r\n\r\n", "101 without one Upgrade"),
    REFUSED("HTTP/1.1 101 Switching Protocols\r\nUpgrade: a b\r\n\r\n", "101 without one Upgrade"),
};

static void refuses(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
        const struct refusal *r = &refusals[i];
        struct verdict v = feed_every_way(r->input, "GET");
        if (!v.error || strcmp(v.error, r->error) != 0)
            fail_msg("%.*s\n  expected: %s\n  got: %s", (int)r->input.len, r->input.data, r->error,
                     v.error ? v.error : "no refusal");
        assert_int_equal(v.result, KV_EINVAL);
        assert_int_equal(v.reason, REASON_ORIGIN_BAD_RESPONSE);
        assert_true(is_documented(v.error));
        buffer_free(&v.text);
    }
}

struct acceptance {
    const char *to_method;
    struct slice input;
    size_t rest;
    const char *text;
};

#define ACCEPTED(method, text, rest, description)                                                                      \
    {                                                                                                                  \
        (method), {(text), sizeof(text) - 1}, (rest), (description)                                                    \
    }

/* |||protocol|status|framing <enum> <length>|http10 keep_alive - upgrade */
static const struct acceptance acceptances[] = {
    ACCEPTED("GET", OK "Content-Length: 2\r\n\r\nok", 2, "||||200|framing 1 2|0100\nContent-Length: 2\n"),
    ACCEPTED("GET", "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", 0, "||||200|framing 1 0|0100\nContent-Length: 0\n"),
    ACCEPTED("GET", "HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", 0, "||||200|framing 1 0|0100\nContent-Length: 0\n"),
    ACCEPTED("GET", "HTTP/1.1 200 Tr\xc3\xa8s bien\tfait\r\ncontent-length:1\r\n\r\n", 0,
             "||||200|framing 1 1|0100\ncontent-length: 1\n"),
    ACCEPTED("GET", "HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n", 0,
             "||||999|framing 1 0|0100\nContent-Length: 0\n"),
    ACCEPTED("GET", OK "Transfer-Encoding: CHUNKED\r\n\r\n", 0,
             "||||200|framing 2 0|0100\nTransfer-Encoding: CHUNKED\n"),
    ACCEPTED("GET", OK "\r\n", 0, "||||200|framing 3 0|0000\n"),
    ACCEPTED("GET", OK "Connection: keep-alive\r\n\r\n", 0, "||||200|framing 3 0|0000\nConnection: keep-alive\n"),
    ACCEPTED("GET", OK "Connection: close\r\nContent-Length: 1\r\n\r\n", 0,
             "||||200|framing 1 1|0000\nConnection: close\nContent-Length: 1\n"),
    ACCEPTED("GET", "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n", 0, "||||200|framing 1 1|1000\nContent-Length: 1\n"),
    ACCEPTED("GET", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\n", 0,
             "||||200|framing 1 1|1100\nConnection: keep-alive\nContent-Length: 1\n"),
    ACCEPTED("GET", OK "Content-Length: 2\r\nX: y\r\ncontent-length: 2\r\nZ:\r\n\r\n", 0,
             "||||200|framing 1 2|0100\nContent-Length: 2\nX: y\nZ: \n"),
    ACCEPTED("GET", OK "A: b\r\nContent-Length: 2, 2 ,02\r\n\r\n", 0,
             "||||200|framing 1 2|0100\nA: b\nContent-Length: 2\n"),
    ACCEPTED("HEAD", OK "Content-Length: 2\r\n\r\n", 0, "||||200|framing 0 0|0100\nContent-Length: 2\n"),
    ACCEPTED("HEAD", OK "Transfer-Encoding: chunked\r\n\r\n", 0,
             "||||200|framing 0 0|0100\nTransfer-Encoding: chunked\n"),
    ACCEPTED("HEAD", OK "\r\n", 0, "||||200|framing 0 0|0100\n"),
    ACCEPTED("CONNECT", OK "\r\n", 0, "||||200|framing 0 0|0100\n"),
    ACCEPTED("CONNECT", "HTTP/1.1 400 No\r\n\r\n", 0, "||||400|framing 3 0|0000\n"),
    ACCEPTED("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 0,
             "||||304|framing 0 0|0100\nContent-Length: 9\n"),
    ACCEPTED("GET", "HTTP/1.1 204 No Content\r\n\r\n", 0, "||||204|framing 0 0|0100\n"),
    ACCEPTED("GET", "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", 0,
             "||||204|framing 0 0|0100\nContent-Length: 0\n"),
    ACCEPTED("GET", "HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n", 0,
             "||||204|framing 0 0|0000\nContent-Length: 3\n"),
    ACCEPTED("GET", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", 0,
             "||||204|framing 0 0|0000\nTransfer-Encoding: chunked\n"),
    /* One reading, however sloppily it is written. */
    ACCEPTED("GET", "HTTP/1.1 200 OK\nContent-Type: text/plain\n\nhello", 5,
             "||||200|framing 3 0|0000\nContent-Type: text/plain\n"),
    ACCEPTED("GET", "HTTP/1.1 200 OK\nA: b\r\nContent-Length: 2\n\r\nok", 2,
             "||||200|framing 1 2|0100\nA: b\nContent-Length: 2\n"),
    ACCEPTED("GET", OK "X : y\r\nContent-Length \t: 1\r\n\r\n", 0,
             "||||200|framing 1 1|0100\nX: y\nContent-Length: 1\n"),
    ACCEPTED("GET", OK "Content-Length: 1\r\nTransfer-Encoding: chunked \r\nContent-Length: x\r\n\r\n", 0,
             "||||200|framing 2 0|0000\nTransfer-Encoding: chunked\n"),
    ACCEPTED("GET", OK "Transfer-Encoding: identity\r\nContent-Length: 1\r\n\r\n", 0,
             "||||200|framing 1 1|0100\nTransfer-Encoding: identity\nContent-Length: 1\n"),
    ACCEPTED("GET", OK "Transfer-Encoding: identity\r\n\r\n", 0,
             "||||200|framing 3 0|0000\nTransfer-Encoding: identity\n"),
    ACCEPTED("GET", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n", 0,
             "||||200|framing 2 0|1000\nConnection: keep-alive\nTransfer-Encoding: chunked\n"),
    ACCEPTED("GET", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", 19, "||||100|framing 0 0|0100\n"),
    ACCEPTED("GET", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", 0, "||||103|framing 0 0|0100\nLink: </a>\n"),
    ACCEPTED("GET", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81", 1,
             "|||websocket|101|framing 0 0|0001\nConnection: Upgrade\nUpgrade: websocket\n"),
};

static void accepts_and_frames(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(acceptances) / sizeof(acceptances[0]); i++) {
        const struct acceptance *a = &acceptances[i];
        struct verdict v = feed_every_way(a->input, a->to_method);
        if (v.result < 0)
            fail_msg("%.*s\n  refused: %s", (int)a->input.len, a->input.data, v.error);
        assert_int_equal(v.result, a->input.len - a->rest);
        assert_int_equal(v.text.len, strlen(a->text));
        assert_memory_equal(v.text.data, a->text, v.text.len);
        buffer_free(&v.text);
    }
}

static void holds_the_caps(void **state)
{
    (void)state;
    struct buffer b = BUFFER_INIT(1 << 20);
    buffer_append_string(&b, OK);
    for (size_t i = 0; i <= HTTP1_ANSWER_FIELDS_MAX; i++)
        buffer_append_string(&b, "X: y\r\n");
    buffer_append_string(&b, "\r\n");
    struct verdict v = feed(buffer_slice(&b), "GET", b.len, 1);
    assert_int_equal(v.result, KV_ELIMIT);
    assert_int_equal(v.reason, REASON_ORIGIN_HEAD_TOO_LARGE);
    assert_string_equal(v.error, "too many fields");

    b.len = strlen(OK);
    while (b.len < LIMIT_ANSWER_HEAD_BYTES)
        buffer_append_string(&b,
                             "X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n");
    v = feed(buffer_slice(&b), "GET", 1, 1000);
    assert_int_equal(v.result, KV_ELIMIT);
    assert_string_equal(v.error, "head is too large");
    buffer_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses),
        cmocka_unit_test(accepts_and_frames),
        cmocka_unit_test(holds_the_caps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
