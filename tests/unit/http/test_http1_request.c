/* Requests: every class of refusal with the rule it names, and what is accepted with everything the parser made of it.
 * Each case is read whole, cut at every place and byte by byte. */
#include "http/http1_feed.h"

#include "base/error.h"
#include "http/http1_documented.h"

#define HOST "Host: a.example\r\n"
#define POST "POST / HTTP/1.1\r\n" HOST

struct refusal {
    struct slice input;
    const char *error;
};

#define REFUSED(text, error)                                                                                           \
    {                                                                                                                  \
        {(text), sizeof(text) - 1}, (error)                                                                            \
    }

static const struct refusal first_lines[] = {
    REFUSED("G(T / HTTP/1.1\r\n", "method is not a token"),
    REFUSED(" GET / HTTP/1.1\r\n", "method is not a token"),
    REFUSED("\x16\x03\x01\x02", "method is not a token"),
    REFUSED("\0GET / HTTP/1.1\r\n", "method is not a token"),
    REFUSED("G\xc3\x89T / HTTP/1.1\r\n", "method is not a token"),
    REFUSED("GET\t/ HTTP/1.1\r\n", "method is not a token"),
    REFUSED("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG / HTTP/1.1\r\n", "method is too long"),
    REFUSED("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG", "method is too long"),
    REFUSED("\r\n\r\nGET / HTTP/1.1\r\n", "empty line before the request"),
    REFUSED("\nGET / HTTP/1.1\r\n", "bare LF"),
    REFUSED("\r\n\nGET / HTTP/1.1\r\n", "bare LF"),
    REFUSED("\rGET / HTTP/1.1\r\n", "bare CR"),
    REFUSED("\r\n\rGET / HTTP/1.1\r\n", "bare CR"),
    REFUSED("GET\r\n", "request line without a target"),
    REFUSED("GET\n", "bare LF"),
    REFUSED("GET\r/ HTTP/1.1\r\n", "bare CR"),
    REFUSED("GET \r\n", "request line without a target"),
    REFUSED("GET /\r\n", "request line without a version (HTTP/0.9)"),
    REFUSED("GET  / HTTP/1.1\r\n", "empty target"),
    REFUSED("GET / \r\n", "version is not HTTP/1"),
    REFUSED("GET /  HTTP/1.1\r\n", "version is not HTTP/1"),
    REFUSED("GET / HTTP/1.1 \r\n", "version is not HTTP/1"),
    REFUSED("GET / http/1.1\r\n", "version is not HTTP/1"),
    REFUSED("GET / HTTP/1.x\r\n", "version is not HTTP/1"),
    REFUSED("GET / HTTP/1.10\r\n", "version is not HTTP/1"),
    REFUSED("GET / HTTP/01.1\r\n", "version is not HTTP/1"),
    REFUSED("GET / HTTP/1,1\r\n", "version is not HTTP/1"),
    REFUSED("GET / HTTP/0.9\r\n", "version is not HTTP/1"),
    REFUSED("GET / ICAP/1.0\r\n", "version is not HTTP/1"),
    REFUSED("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "version is not HTTP/1"),
    REFUSED("GET /a b HTTP/1.1\r\n", "version is not HTTP/1"),
    REFUSED("GET /a\tb HTTP/1.1\r\n", "target is not visible ASCII"),
    REFUSED("GET /\xc3\xa9 HTTP/1.1\r\n", "target is not visible ASCII"),
    REFUSED("GET /a\x80 HTTP/1.1\r\n", "target is not visible ASCII"),
    REFUSED("GET /a#b HTTP/1.1\r\n", "fragment in the target"),
    REFUSED("GET /a\x7f HTTP/1.1\r\n", "control byte"),
    REFUSED("GET /a\0b HTTP/1.1\r\n", "control byte"),
    REFUSED("GET /a\x1b HTTP/1.1\r\n", "control byte"),
    REFUSED("GET / HTTP/1.1\n", "bare LF"),
    REFUSED("GET / HTTP/1.1\r\r\n", "bare CR"),
    REFUSED("GET / HTTP/1.1\rHost: a\r\n\r\n", "bare CR"),
};

static const struct refusal field_lines[] = {
    REFUSED("GET / HTTP/1.1\r\n Host: a\r\n\r\n", "white space at the start of a line"),
    REFUSED("GET / HTTP/1.1\r\n\tHost: a\r\n\r\n", "white space at the start of a line"),
    REFUSED("GET / HTTP/1.1\r\n" HOST "X: a\r\n b\r\n\r\n", "white space at the start of a line"),
    REFUSED("GET / HTTP/1.1\r\n" HOST "X: a\r\n\tb\r\n\r\n", "white space at the start of a line"),
    REFUSED("GET / HTTP/1.1\r\n" HOST " \r\n\r\n", "white space at the start of a line"),
    REFUSED("GET / HTTP/1.1\r\nHost : a\r\n\r\n", "white space in or behind a field name"),
    REFUSED("GET / HTTP/1.1\r\nHost\t: a\r\n\r\n", "white space in or behind a field name"),
    REFUSED("GET / HTTP/1.1\r\nX Y: a\r\n\r\n", "white space in or behind a field name"),
    REFUSED("GET / HTTP/1.1\r\nHost a.example\r\n\r\n", "white space in or behind a field name"),
    REFUSED("GET / HTTP/1.1\r\nHost\r\n\r\n", "field line without a colon"),
    REFUSED("GET / HTTP/1.1\r\n: a\r\n\r\n", "empty field name"),
    REFUSED("GET / HTTP/1.1\r\n:\r\n\r\n", "empty field name"),
    REFUSED("GET / HTTP/1.1\r\nX(): a\r\n\r\n", "field name is not a token"),
    REFUSED("GET / HTTP/1.1\r\nX\xc3\xa9: a\r\n\r\n", "field name is not a token"),
    REFUSED("GET / HTTP/1.1\r\n\"X\": a\r\n\r\n", "field name is not a token"),
    REFUSED("GET / HTTP/1.1\r\n{}: a\r\n\r\n", "field name is not a token"),
    REFUSED("GET / HTTP/1.1\r\n" HOST "X\0: a\r\n\r\n", "control byte"),
    REFUSED("GET / HTTP/1.1\r\n" HOST "X: a\0b\r\n\r\n", "control byte"),
    REFUSED("GET / HTTP/1.1\r\n" HOST "X: a\x01\r\n\r\n", "control byte"),
    REFUSED("GET / HTTP/1.1\r\n" HOST "X: a\x0b\r\n\r\n", "control byte"),
    REFUSED("GET / HTTP/1.1\r\n" HOST "X: a\x0c\r\n\r\n", "control byte"),
    REFUSED("GET / HTTP/1.1\r\n" HOST "X: a\x7f\r\n\r\n", "control byte"),
    REFUSED("GET / HTTP/1.1\r\n" HOST "X: \x1f\r\n\r\n", "control byte"),
    REFUSED("GET / HTTP/1.1\r\nHost: a\n\r\n", "bare LF"),
    REFUSED("GET / HTTP/1.1\r\n" HOST "\n", "bare LF"),
    REFUSED("GET / HTTP/1.1\r\n" HOST "X: a\rY: b\r\n\r\n", "bare CR"),
    REFUSED("GET / HTTP/1.1\r\n" HOST "X: a\r\r\n\r\n", "bare CR"),
    REFUSED("GET / HTTP/1.1\r\n" HOST "\rX: b\r\n\r\n", "bare CR"),
};

static const struct refusal framings[] = {
    REFUSED(POST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "both Transfer-Encoding and Content-Length"),
    REFUSED(POST "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n",
            "both Transfer-Encoding and Content-Length"),
    REFUSED(POST "Content-Length:\r\nTransfer-Encoding: chunked\r\n\r\n", "both Transfer-Encoding and Content-Length"),
    REFUSED(POST "content-length: 5\r\nCONTENT-LENGTH: 6\r\n\r\n", "more than one Content-Length"),
    REFUSED(POST "Content-Length: 5\r\nContent-Length: 5\r\n\r\n", "more than one Content-Length"),
    REFUSED(POST "Content-Length: 5\r\nContent-Length:\r\n\r\n", "more than one Content-Length"),
    REFUSED(POST "Content-Length:\r\n\r\n", "empty Content-Length"),
    REFUSED(POST "Content-Length: \t \r\n\r\n", "empty Content-Length"),
    REFUSED(POST "Content-Length: +5\r\n\r\n", "Content-Length is not a number"),
    REFUSED(POST "Content-Length: -5\r\n\r\n", "Content-Length is not a number"),
    REFUSED(POST "Content-Length: -0\r\n\r\n", "Content-Length is not a number"),
    REFUSED(POST "Content-Length: 5, 5\r\n\r\n", "Content-Length is not a number"),
    REFUSED(POST "Content-Length: 5,6\r\n\r\n", "Content-Length is not a number"),
    REFUSED(POST "Content-Length: 5,\r\n\r\n", "Content-Length is not a number"),
    REFUSED(POST "Content-Length: 0x5\r\n\r\n", "Content-Length is not a number"),
    REFUSED(POST "Content-Length: 5.0\r\n\r\n", "Content-Length is not a number"),
    REFUSED(POST "Content-Length: 1_0\r\n\r\n", "Content-Length is not a number"),
    REFUSED(POST "Content-Length: 5 5\r\n\r\n", "Content-Length is not a number"),
    REFUSED(POST "Content-Length: \"5\"\r\n\r\n", "Content-Length is not a number"),
    REFUSED(POST "Content-Length: 1e3\r\n\r\n", "Content-Length is not a number"),
    REFUSED(POST "Content-Length: \xef\xbc\x95\r\n\r\n", "Content-Length is not a number"),
    REFUSED(POST "Content-Length: 9223372036854775808\r\n\r\n", "Content-Length is too large"),
    REFUSED(POST "Content-Length: 18446744073709551616\r\n\r\n", "Content-Length is too large"),
    REFUSED(POST "Content-Length: 18446744073709551621\r\n\r\n", "Content-Length is too large"),
    REFUSED(POST "Content-Length: 99999999999999999999999999999999\r\n\r\n", "Content-Length is too large"),
    REFUSED(POST "Content-Length: 5 \r\n\r\n", "odd white space around Content-Length"),
    REFUSED(POST "Content-Length: 5\t\r\n\r\n", "odd white space around Content-Length"),
    REFUSED(POST "Content-Length:\t5\r\n\r\n", "odd white space around Content-Length"),
    REFUSED(POST "Content-Length: \t 5\r\n\r\n", "odd white space around Content-Length"),
    REFUSED(POST "Transfer-Encoding:\tchunked\r\n\r\n", "odd white space around Transfer-Encoding"),
    REFUSED(POST "Transfer-Encoding: chunked\t\r\n\r\n", "odd white space around Transfer-Encoding"),
    REFUSED(POST "Transfer-Encoding: chunked \r\n\r\n", "odd white space around Transfer-Encoding"),
    REFUSED(POST "Transfer-Encoding: gzip\r\n\r\n", "Transfer-Encoding other than chunked"),
    REFUSED(POST "Transfer-Encoding: identity\r\n\r\n", "Transfer-Encoding other than chunked"),
    REFUSED(POST "Transfer-Encoding: gzip, chunked\r\n\r\n",
            "Transfer-Encoding that is not known, with chunked behind it"),
    REFUSED(POST "Transfer-Encoding: gzip, chunked;q=1\r\n\r\n", "Transfer-Encoding other than chunked"),
    REFUSED(POST "Transfer-Encoding: chunked, gzip, chunked\r\n\r\n", "Transfer-Encoding other than chunked"),
    REFUSED(POST "Transfer-Encoding: chunked, gzip\r\n\r\n", "Transfer-Encoding other than chunked"),
    REFUSED(POST "Transfer-Encoding: chunked, chunked\r\n\r\n", "Transfer-Encoding other than chunked"),
    REFUSED(POST "Transfer-Encoding: chunked,\r\n\r\n", "Transfer-Encoding other than chunked"),
    REFUSED(POST "Transfer-Encoding: ,chunked\r\n\r\n", "Transfer-Encoding other than chunked"),
    REFUSED(POST "Transfer-Encoding: xchunked\r\n\r\n", "Transfer-Encoding other than chunked"),
    REFUSED(POST "Transfer-Encoding: chunkedx\r\n\r\n", "Transfer-Encoding other than chunked"),
    REFUSED(POST "Transfer-Encoding: \"chunked\"\r\n\r\n", "Transfer-Encoding other than chunked"),
    REFUSED(POST "Transfer-Encoding: chunked;q=1\r\n\r\n", "Transfer-Encoding other than chunked"),
    REFUSED(POST "Transfer-Encoding: chunked\xa0\r\n\r\n", "Transfer-Encoding other than chunked"),
    REFUSED(POST "Transfer-Encoding:\r\n\r\n", "Transfer-Encoding other than chunked"),
    REFUSED(POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", "more than one Transfer-Encoding"),
    REFUSED(POST "Transfer-Encoding: chunked\r\nTransfer-encoding: identity\r\n\r\n",
            "more than one Transfer-Encoding"),
    REFUSED(POST "Transfer-Encoding:\r\nTransfer-Encoding: chunked\r\n\r\n", "more than one Transfer-Encoding"),
    REFUSED("POST / HTTP/1.0\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n", "Transfer-Encoding in HTTP/1.0"),
    REFUSED("POST / HTTP/1.0\r\n" HOST "Transfer-Encoding: identity\r\n\r\n", "Transfer-Encoding in HTTP/1.0"),
};

static const struct refusal hosts[] = {
    REFUSED("GET / HTTP/1.1\r\n\r\n", "no Host"),
    REFUSED("GET / HTTP/1.1\r\nX-Host: a\r\n\r\n", "no Host"),
    REFUSED("GET / HTTP/1.0\r\n\r\n", "HTTP/1.0 request without Host"),
    REFUSED("GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", "more than one Host"),
    REFUSED("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "more than one Host"),
    REFUSED("GET / HTTP/1.1\r\nHost:\r\nHost: b\r\n\r\n", "more than one Host"),
    REFUSED("GET / HTTP/1.1\r\nHost:\r\n\r\n", "Host is not a host"),
    REFUSED("GET / HTTP/1.1\r\nHost: :80\r\n\r\n", "Host is not a host"),
    REFUSED("GET / HTTP/1.1\r\nHost: a:80a\r\n\r\n", "Host is not a host"),
    REFUSED("GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", "Host is not a host"),
    REFUSED("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "Host is not a host"),
    REFUSED("GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", "Host is not a host"),
    REFUSED("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", "Host is not a host"),
    REFUSED("GET / HTTP/1.1\r\nHost: http://a\r\n\r\n", "Host is not a host"),
    REFUSED("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", "Host is not a host"),
    REFUSED("GET / HTTP/1.1\r\nHost: a..b\r\n\r\n", "Host is not a host"),
    REFUSED("GET / HTTP/1.1\r\nHost: .\r\n\r\n", "Host is not a host"),
    REFUSED("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", "Host is not a host"),
    REFUSED("GET / HTTP/1.1\r\nHost: \xc3\xa9.example\r\n\r\n", "Host is not a host"),
};

static const struct refusal targets[] = {
    REFUSED("CONNECT a.example:443 HTTP/1.1\r\n" HOST "\r\n", "CONNECT is not offered"),
    REFUSED("CONNECT / HTTP/1.1\r\n" HOST "\r\n", "CONNECT is not offered"),
    REFUSED("GET * HTTP/1.1\r\n" HOST "\r\n", "target * without OPTIONS"),
    REFUSED("OPTIONS *a HTTP/1.1\r\n" HOST "\r\n", "target is neither a path nor an http URL"),
    REFUSED("GET a.example HTTP/1.1\r\n" HOST "\r\n", "target is neither a path nor an http URL"),
    REFUSED("GET a.example:80 HTTP/1.1\r\n" HOST "\r\n", "target is neither a path nor an http URL"),
    REFUSED("GET ?q HTTP/1.1\r\n" HOST "\r\n", "target is neither a path nor an http URL"),
    REFUSED("GET ftp://a.example/ HTTP/1.1\r\n" HOST "\r\n", "target is neither a path nor an http URL"),
    REFUSED("GET http:/a.example/ HTTP/1.1\r\n" HOST "\r\n", "target is neither a path nor an http URL"),
    REFUSED("GET http:/// HTTP/1.1\r\n" HOST "\r\n", "target's host is not a host"),
    REFUSED("GET http:// HTTP/1.1\r\n" HOST "\r\n", "target's host is not a host"),
    REFUSED("GET http://a.example\\b/ HTTP/1.1\r\n" HOST "\r\n", "target's host is not a host"),
    REFUSED("GET http://u@a.example/ HTTP/1.1\r\n" HOST "\r\n", "user info in the target"),
    REFUSED("GET http://u:p@a.example/ HTTP/1.1\r\n" HOST "\r\n", "user info in the target"),
    REFUSED("GET http://a.example@b.example/ HTTP/1.1\r\n" HOST "\r\n", "user info in the target"),
    REFUSED("GET http://a.example?q HTTP/1.1\r\n" HOST "\r\n", "URL as target without a path"),
};

static const struct refusal options[] = {
    REFUSED(POST "Expect: 100-continue\r\nExpect: 100-continue\r\n\r\n", "more than one Expect"),
    REFUSED(POST "Expect: 200-ok\r\n\r\n", "Expect other than 100-continue"),
    REFUSED(POST "Expect:\r\n\r\n", "Expect other than 100-continue"),
};

static void check_refusals(const struct refusal *cases, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct verdict v = feed_every_way(cases[i].input, NULL);
        if (!v.error || strcmp(v.error, cases[i].error) != 0)
            fail_msg("%.*s\n  expected: %s\n  got: %s (%zd)", (int)cases[i].input.len, cases[i].input.data,
                     cases[i].error, v.error ? v.error : "no refusal", v.result);
        assert_int_equal(v.result, KV_EINVAL);
        bool unknown_coding = strstr(v.error, "not known") != NULL;
        assert_int_equal(v.reason, unknown_coding ? REASON_NOT_IMPLEMENTED : REASON_BAD_REQUEST);
        assert_true(is_documented(v.error));
        buffer_free(&v.text);
    }
}

#define CHECK(table) check_refusals(table, sizeof(table) / sizeof(table[0]))

static void refuses_first_lines(void **state)
{
    (void)state;
    CHECK(first_lines);
}

static void refuses_field_lines(void **state)
{
    (void)state;
    CHECK(field_lines);
}

static void refuses_framings(void **state)
{
    (void)state;
    CHECK(framings);
}

static void refuses_hosts(void **state)
{
    (void)state;
    CHECK(hosts);
}

static void refuses_targets(void **state)
{
    (void)state;
    CHECK(targets);
}

static void refuses_options(void **state)
{
    (void)state;
    CHECK(options);
}

/* Each control byte, in each kind of place, whatever its neighbours in a machine word are. */
static void refuses_every_control_byte(void **state)
{
    (void)state;
    for (int c = 0; c < 256; c++) {
        bool control = (c < 0x20 && c != '\t') || c == 0x7f;
        for (size_t at = 0; at < 24; at++) {
            char input[] = "GET / HTTP/1.1\r\nHost: a\r\nX: 0123456789abcdefghijklmnopqrst\r\n\r\n";
            char *place = strchr(input, '0') + at;
            *place = (char)c;
            struct verdict v = feed((struct slice){input, sizeof(input) - 1}, NULL, sizeof(input) - 1, 1);
            if (control)
                assert_true(v.result == KV_EINVAL);
            else
                assert_int_equal(v.result, sizeof(input) - 1);
            buffer_free(&v.text);
        }
    }
}

/* ---- what is accepted ------------------------------------------------------------------------------------------ */

struct acceptance {
    struct slice input;
    size_t rest; /* bytes behind the head */
    const char *text;
};

#define ACCEPTED(text, rest, description)                                                                              \
    {                                                                                                                  \
        {(text), sizeof(text) - 1}, (rest), (description)                                                              \
    }

/* method|target|authority|protocol|status|framing <enum> <length>|http10 keep_alive expect_continue upgrade */
static const struct acceptance acceptances[] = {
    ACCEPTED("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 0, "GET|/|a||0|framing 0 0|0100\nHost: a\n"),
    ACCEPTED("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nGET", 3, "GET|/|a||0|framing 0 0|0100\nHost: a\n"),
    ACCEPTED("GET /a//b/../%2e?x=\"<>|{}^`\\ HTTP/1.1\r\nhOST:a:8080\r\n\r\n", 0,
             "GET|/a//b/../%2e?x=\"<>|{}^`\\|a:8080||0|framing 0 0|0100\nhOST: a:8080\n"),
    ACCEPTED("GET //b.example/ HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", 0,
             "GET|//b.example/|[::1]:80||0|framing 0 0|0100\nHost: [::1]:80\n"),
    ACCEPTED("M-SEARCH! / HTTP/1.1\r\nHost: a\r\n\r\n", 0, "M-SEARCH!|/|a||0|framing 0 0|0100\nHost: a\n"),
    ACCEPTED("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEF / HTTP/1.1\r\nHost: a\r\n\r\n", 0,
             "ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEF|/|a||0|framing 0 0|0100\nHost: a\n"),
    ACCEPTED("GET / HTTP/1.1\r\nHost: \t a \t\r\nX:\r\nY: \t\r\nZ: a\tb \xc3\xa9\xff\r\n\r\n", 0,
             "GET|/|a||0|framing 0 0|0100\nHost: a\nX: \nY: \nZ: a\tb \xc3\xa9\xff\n"),
    ACCEPTED("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 0, "OPTIONS|*|a||0|framing 0 0|0100\nHost: a\n"),
    ACCEPTED("GET http://A.example/x?y HTTP/1.1\r\nHost: a.EXAMPLE\r\n\r\n", 0,
             "GET|/x?y|A.example||0|framing 0 0|0100\nHost: A.example\n"),
    ACCEPTED("GET HTTPS://a HTTP/1.1\r\nHost: a\r\n\r\n", 0, "GET|/|a||0|framing 0 0|0100\nHost: a\n"),
    ACCEPTED("OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n", 0, "OPTIONS|*|a||0|framing 0 0|0100\nHost: a\n"),
    ACCEPTED("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", 3,
             "POST|/|a||0|framing 1 3|0100\nHost: a\nContent-Length: 3\n"),
    ACCEPTED("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 0,
             "POST|/|a||0|framing 1 0|0100\nHost: a\nContent-Length: 0\n"),
    ACCEPTED("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775807\r\n\r\n", 0,
             "POST|/|a||0|framing 1 9223372036854775807|0100\nHost: a\nContent-Length: 9223372036854775807\n"),
    ACCEPTED("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:  Chunked\r\n\r\n0\r\n\r\n", 5,
             "POST|/|a||0|framing 2 0|0100\nHost: a\nTransfer-Encoding: Chunked\n"),
    ACCEPTED("GET / HTTP/1.0\r\nHost: a\r\n\r\n", 0, "GET|/|a||0|framing 0 0|1000\nHost: a\n"),
    ACCEPTED("GET / HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n", 0,
             "GET|/|a||0|framing 0 0|1100\nHost: a\nConnection: Keep-Alive\n"),
    ACCEPTED("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, CLOSE\r\nConnection: keep-alive\r\n\r\n", 0,
             "GET|/|a||0|framing 0 0|0000\nHost: a\nConnection: x, CLOSE\nConnection: keep-alive\n"),
    ACCEPTED("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-Continue\r\n\r\n", 0,
             "PUT|/|a||0|framing 1 1|0110\nHost: a\nContent-Length: 1\nExpect: 100-Continue\n"),
    ACCEPTED("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n", 0,
             "PUT|/|a||0|framing 0 0|0100\nHost: a\nExpect: 100-continue\n"),
    ACCEPTED("PUT / HTTP/1.0\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n", 0,
             "PUT|/|a||0|framing 1 1|1000\nHost: a\nContent-Length: 1\nExpect: 100-continue\n"),
    ACCEPTED("GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n", 0,
             "GET|/|a|websocket|0|framing 0 0|0101\nHost: a\nConnection: keep-alive, Upgrade\nUpgrade: websocket\n"),
    ACCEPTED("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x/1\r\nContent-Length: 0\r\n\r\n", 0,
             "GET|/|a|x/1|0|framing 1 0|0101\nHost: a\nConnection: upgrade\nUpgrade: x/1\nContent-Length: 0\n"),
    ACCEPTED("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x, y\r\nContent-Length: 0\r\n\r\n", 0,
             "GET|/|a||0|framing 1 0|0100\nHost: a\nConnection: upgrade\nUpgrade: x, y\nContent-Length: 0\n"),
    ACCEPTED("POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: tcp\r\nContent-Length: 2\r\n\r\n", 0,
             "POST|/|a|tcp|0|framing 1 2|0101\nHost: a\nConnection: upgrade\nUpgrade: tcp\nContent-Length: 2\n"),
    ACCEPTED("POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\nTransfer-Encoding: chunked\r\n\r\n", 0,
             "POST|/|a||0|framing 2 0|0100\nHost: a\nConnection: upgrade\nUpgrade: x\nTransfer-Encoding: chunked\n"),
    ACCEPTED("GET http://b.example:80/x?y HTTP/1.1\r\nHost: a\r\n\r\n", 0,
             "GET|/x?y|b.example:80||0|framing 0 0|0100\nHost: b.example:80\n"),
    ACCEPTED("GET / HTTP/1.1\r\nHost: a:\r\n\r\n", 0, "GET|/|a:||0|framing 0 0|0100\nHost: a:\n"),
    ACCEPTED("GET / HTTP/1.9\r\nHost: a\r\n\r\n", 0, "GET|/|a||0|framing 0 0|0100\nHost: a\n"),
    ACCEPTED("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\nUpgrade: y\r\n\r\n", 0,
             "GET|/|a||0|framing 0 0|0100\nHost: a\nConnection: upgrade\nUpgrade: x\nUpgrade: y\n"),
    ACCEPTED("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: a b\r\n\r\n", 0,
             "GET|/|a||0|framing 0 0|0100\nHost: a\nConnection: upgrade\nUpgrade: a b\n"),
    ACCEPTED("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n", 0,
             "GET|/|a||0|framing 0 0|0100\nHost: a\nUpgrade: websocket\n"),
    ACCEPTED("GET / HTTP/1.0\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", 0,
             "GET|/|a||0|framing 0 0|1000\nHost: a\nConnection: upgrade\nUpgrade: websocket\n"),
    ACCEPTED("POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nContent-Length: "
             "1\r\n\r\n",
             0,
             "POST|/|a||0|framing 1 1|0100\nHost: a\nConnection: Upgrade, HTTP2-Settings\nUpgrade: h2c\n"
             "Content-Length: 1\n"),
};

static void accepts_and_reports(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(acceptances) / sizeof(acceptances[0]); i++) {
        const struct acceptance *a = &acceptances[i];
        struct verdict v = feed_every_way(a->input, NULL);
        if (v.result < 0)
            fail_msg("%.*s\n  refused: %s", (int)a->input.len, a->input.data, v.error);
        assert_int_equal(v.result, a->input.len - a->rest);
        assert_int_equal(v.reason, REASON_NONE);
        assert_int_equal(v.text.len, strlen(a->text));
        assert_memory_equal(v.text.data, a->text, v.text.len);
        buffer_free(&v.text);
    }
}

static void waits_for_more(void **state)
{
    (void)state;
    static const char *const partial[] = {"",
                                          "\r",
                                          "\r\n",
                                          "G",
                                          "GET",
                                          "GET\r",
                                          "GET /",
                                          "GET / HTTP/1.1\r",
                                          "GET / HTTP/1.1\r\n",
                                          "GET / HTTP/1.1\r\nHost",
                                          "GET / HTTP/1.1\r\nHost: a\r\n",
                                          "GET / HTTP/1.1\r\nHost: a\r\n\r"};
    for (size_t i = 0; i < sizeof(partial) / sizeof(partial[0]); i++) {
        struct verdict v = feed_every_way(slice_of(partial[i]), NULL);
        assert_int_equal(v.result, 0);
        assert_null(v.error);
        buffer_free(&v.text);
    }
}

/* ---- caps, each at its edge ------------------------------------------------------------------------------------ */

static struct slice repeat(struct buffer *b, const char *before, char c, size_t times, const char *after)
{
    b->len = 0;
    assert_int_equal(buffer_append_string(b, before), 0);
    assert_int_equal(buffer_reserve(b, times), 0);
    memset(b->data + b->len, c, times);
    b->len += times;
    assert_int_equal(buffer_append_string(b, after), 0);
    return buffer_slice(b);
}

static void expect_size(struct slice input, const char *error)
{
    static const size_t steps[] = {61, 1009, 4096, SIZE_MAX / 2};
    for (size_t i = 0; i < 4; i++) {
        struct verdict v = feed(input, NULL, steps[i], steps[i]);
        if (error) {
            assert_int_equal(v.result, KV_ELIMIT);
            assert_string_equal(v.error, error);
            bool first_line = strstr(error, "target") || strstr(error, "first line");
            assert_int_equal(v.reason, first_line ? REASON_TARGET_TOO_LONG : REASON_HEAD_TOO_LARGE);
            assert_true(is_documented(v.error));
        } else {
            assert_int_equal(v.result, input.len);
        }
        buffer_free(&v.text);
    }
}

static void holds_the_caps(void **state)
{
    (void)state;
    struct buffer b = BUFFER_INIT(1 << 20);
    const char *before = "GET /", *after = " HTTP/1.1\r\nHost: a\r\n\r\n";
    expect_size(repeat(&b, before, 'x', LIMIT_TARGET_BYTES - 1, after), NULL);
    expect_size(repeat(&b, before, 'x', LIMIT_TARGET_BYTES, after), "target is too long");
    expect_size(repeat(&b, before, 'x', LIMIT_TARGET_BYTES + 26, after), "target is too long");
    expect_size(repeat(&b, before, 'x', LIMIT_TARGET_BYTES + 100, after), "first line is too long");
    expect_size(repeat(&b, before, 'x', LIMIT_TARGET_BYTES + 100, ""), "first line is too long");

    before = "ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEF /"; /* the longest first line that can be right */
    expect_size(repeat(&b, before, 'x', LIMIT_TARGET_BYTES - 1, after), NULL);
    expect_size(repeat(&b, before, 'x', LIMIT_TARGET_BYTES, after), "first line is too long");

    before = "GET / HTTP/1.1\r\nHost: a\r\nX: ";
    size_t fixed = strlen(before) + 4;
    expect_size(repeat(&b, before, 'x', LIMIT_HEAD_BYTES - fixed, "\r\n\r\n"), NULL);
    expect_size(repeat(&b, before, 'x', LIMIT_HEAD_BYTES - fixed + 1, "\r\n\r\n"), "head is too large");
    expect_size(repeat(&b, before, 'x', LIMIT_HEAD_BYTES * 2, ""), "head is too large");
    expect_size(repeat(&b, before, 'x', LIMIT_HEAD_BYTES - strlen(before), ""), "head is too large");
    /* What stands behind the cap is not looked at. */
    expect_size(repeat(&b, before, 'x', LIMIT_HEAD_BYTES, "\n\n"), "head is too large");

    for (size_t fields = HTTP1_FIELDS_MAX - 1; fields <= HTTP1_FIELDS_MAX + 1; fields++) {
        b.len = 0;
        buffer_append_string(&b, "GET / HTTP/1.1\r\nHost: a\r\n");
        for (size_t i = 1; i < fields; i++)
            buffer_append_string(&b, "X: y\r\n");
        buffer_append_string(&b, "\r\n");
        expect_size(buffer_slice(&b), fields > HTTP1_FIELDS_MAX ? "too many fields" : NULL);
    }
    buffer_free(&b);
}

/* The first rule that is broken is the one that is named, also when a cap is broken behind it. */
static void judges_in_order(void **state)
{
    (void)state;
    struct buffer b = BUFFER_INIT(1 << 20);
    struct slice input = repeat(&b, "GET / HTTP/1.1\r\nHost : a\r\nX: ", 'x', LIMIT_HEAD_BYTES, "");
    for (size_t step = 10; step < 100000; step *= 10) {
        struct verdict v = feed(input, NULL, step, step);
        assert_string_equal(v.error, "white space in or behind a field name");
        buffer_free(&v.text);
    }
    b.len = 0;
    buffer_append_string(&b, "GET / HTTP/1.1\r\nHost: a\r\n");
    for (size_t i = 0; i < LIMIT_HEAD_FIELDS; i++)
        buffer_append_string(&b, "X: y\r\n");
    buffer_append_string(&b, "bad line\r\n\r\n");
    for (size_t step = 1; step < 10000; step *= 10) {
        struct verdict v = feed(buffer_slice(&b), NULL, step, step);
        assert_string_equal(v.error, "white space in or behind a field name");
        buffer_free(&v.text);
    }
    buffer_free(&b);
}

/* A slow head costs linear time: what was looked at is not looked at again while the head is incomplete. Shown by
 * spoiling it behind the parser's back. */
static void looks_at_bytes_once(void **state)
{
    (void)state;
    char input[] = "GET / HTTP/1.1\r\nHost: a\r\nX: 0123456789";
    size_t len = sizeof(input) - 1, scanned = 0;
    struct http1_message m;
    assert_int_equal(http1_parse_request((struct slice){input, len - 1}, &scanned, &m), 0);
    memset(strstr(input, "Host"), '\0', len - 1 - (size_t)(strstr(input, "Host") - input));
    assert_int_equal(http1_parse_request((struct slice){input, len}, &scanned, &m), 0);
    scanned = 0;
    assert_int_equal(http1_parse_request((struct slice){input, len}, &scanned, &m), KV_EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_first_lines),
        cmocka_unit_test(refuses_field_lines),
        cmocka_unit_test(refuses_framings),
        cmocka_unit_test(refuses_hosts),
        cmocka_unit_test(refuses_targets),
        cmocka_unit_test(refuses_options),
        cmocka_unit_test(refuses_every_control_byte),
        cmocka_unit_test(accepts_and_reports),
        cmocka_unit_test(waits_for_more),
        cmocka_unit_test(holds_the_caps),
        cmocka_unit_test(judges_in_order),
        cmocka_unit_test(looks_at_bytes_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
