/* CONNECT: the request to the byte; answers cut at every byte, followed by the server's bytes; what each refusal says.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "base/error.h"
#include "base/limits.h"
#include "client/connect.h"

static struct proxy with_user, without;

static int set_up(void **state)
{
    (void)state;
    char error[URL_ERROR_LEN];
    assert_int_equal(proxy_parse(SLICE("http://joe:s3cret@p:1"), &with_user, error), 0);
    assert_int_equal(proxy_parse(SLICE("http://p:1"), &without, error), 0);
    return 0;
}

static void expect_request(const struct proxy *proxy, const char *host, const char *wanted)
{
    struct buffer out;
    assert_int_equal(connect_write(proxy, host, 7777, &out), 0);
    assert_int_equal(out.len, strlen(wanted));
    assert_memory_equal(out.data, wanted, out.len);
    buffer_free(&out);
}

static void test_requests(void **state)
{
    (void)state;
    expect_request(&without, "tnl.test",
                   "CONNECT tnl.test:7777 HTTP/1.1\r\nHost: tnl.test:7777\r\nUser-Agent: kavilo-tunnel/" KV_VERSION
                   "\r\n\r\n");
    expect_request(&with_user, "2001:db8::1",
                   "CONNECT [2001:db8::1]:7777 HTTP/1.1\r\nHost: [2001:db8::1]:7777\r\nUser-Agent: "
                   "kavilo-tunnel/" KV_VERSION "\r\nProxy-Authorization: Basic am9lOnMzY3JldA==\r\n\r\n");
}

static ssize_t read_answer(const struct proxy *proxy, struct slice in, struct connect_answer *answer)
{
    size_t scanned = 0;
    return connect_read(proxy, in, &scanned, answer);
}

static void test_success_cut_anywhere(void **state)
{
    (void)state;
    static const char head[] = "HTTP/1.0 200 Connection established\r\nContent-Length: 5\r\nVia: x\r\n\r\n";
    static const char bytes[] =
        "HTTP/1.0 200 Connection established\r\nContent-Length: 5\r\nVia: x\r\n\r\n\0\0\x12\x04";
    struct connect_answer answer;
    size_t scanned = 0;
    for (size_t cut = 0; cut < sizeof(head) - 1; cut++)
        assert_int_equal(connect_read(&without, (struct slice){bytes, cut}, &scanned, &answer), 0);
    /* Whatever its fields say, the connection begins behind the head. */
    assert_int_equal(connect_read(&without, (struct slice){bytes, sizeof(bytes) - 1}, &scanned, &answer),
                     sizeof(head) - 1);
    assert_int_equal(answer.status, 200);
    assert_string_equal(answer.text, "");
}

static void test_interim(void **state)
{
    (void)state;
    struct connect_answer answer;
    assert_int_equal(read_answer(&without, SLICE("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200"), &answer), 28);
    assert_int_equal(answer.status, 103);
    assert_string_equal(answer.text, "");
}

static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *answer, *text;
        bool with_user, credentials;
    } cases[] = {
        {"HTTP/1.1 403 Forbidden\r\n\r\n", "refused to connect to the server: 403 Forbidden", true, false},
        {"HTTP/1.1 502 x\r\nContent-Length: 9\r\n\r\n", "refused to connect to the server: 502 Bad Gateway", true,
         false},
        {"HTTP/1.1 302 x\r\nLocation: http://login/\r\n\r\n", "refused to connect to the server: 302 Found", true,
         false},
        {"HTTP/1.1 407 x\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\n",
         "does not accept its user name and password (407)", true, true},
        {"HTTP/1.1 407 x\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\n",
         "wants a user name and a password (407); give them in its URL: http://USER:PASSWORD@HOST:PORT", false, true},
        {"HTTP/1.1 407 x\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM\r\n\r\n",
         "wants 'Negotiate' authentication (407), and only Basic is spoken here", true, true},
        {"HTTP/1.1 407 x\r\nProxy-Authenticate: NTLM\r\nProxy-Authenticate: Basic realm=x\r\n\r\n",
         "does not accept its user name and password (407)", true, true},
        {"HTTP/1.0 401 x\r\nWWW-Authenticate: Basic realm=x\r\n\r\n",
         "does not accept its user name and password (401)", true, true},
        {"HTTP/1.1 407 x\r\n\r\n", "does not accept its user name and password (407)", true, true},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct connect_answer answer;
        const struct proxy *proxy = cases[i].with_user ? &with_user : &without;
        assert_int_equal(read_answer(proxy, slice_of(cases[i].answer), &answer), strlen(cases[i].answer));
        assert_string_equal(answer.text, cases[i].text);
        assert_int_equal(answer.refused_credentials, cases[i].credentials);
        assert_null(strstr(answer.text, "s3cret"));
    }
}

static void test_what_is_no_answer(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "SSH-2.0-OpenSSH\r\n\r\n",           "\x16\x03\x01", "HTTP/2.0 200 OK\r\n\r\n", "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA b: c\r\n\r\n",
    };
    struct connect_answer answer;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(read_answer(&without, slice_of(bad[i]), &answer), KV_EPROTO);
        assert_memory_equal(answer.text, "does not answer as an HTTP proxy does (", 39);
    }
    char *endless = malloc(LIMIT_ANSWER_HEAD_BYTES + 100);
    assert_non_null(endless);
    memset(endless, 'a', LIMIT_ANSWER_HEAD_BYTES + 100);
    memcpy(endless, "HTTP/1.1 200 OK\r\na: ", 20);
    assert_int_equal(read_answer(&without, (struct slice){endless, LIMIT_ANSWER_HEAD_BYTES + 100}, &answer), KV_EPROTO);
    free(endless);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests), cmocka_unit_test(test_success_cut_anywhere), cmocka_unit_test(test_interim),
        cmocka_unit_test(test_refusals), cmocka_unit_test(test_what_is_no_answer),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
