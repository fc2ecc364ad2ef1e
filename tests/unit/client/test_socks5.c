/* SOCKS5 messages against the drawings of RFC 1928 and RFC 1929; answers cut at every byte; answers that are none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <string.h>

#include "base/error.h"
#include "client/socks5.h"
#include "io/resolve.h"

static uint8_t out[SOCKS5_REQUEST_MAX];

static void expect(size_t len, const char *bytes, size_t wanted)
{
    assert_int_equal(len, wanted);
    assert_memory_equal(out, bytes, wanted);
}

#define EXPECT(len, literal) expect((len), (literal), sizeof(literal) - 1)

static void test_greetings(void **state)
{
    (void)state;
    EXPECT(socks5_greeting(false, out), "\x05\x01\x00");
    EXPECT(socks5_greeting(true, out), "\x05\x02\x00\x02");
}

static void test_credentials(void **state)
{
    (void)state;
    EXPECT(socks5_credentials(SLICE("joe"), SLICE("secret"), out), "\x01\x03joe\x06secret");
    char longest[SOCKS5_TEXT_MAX];
    memset(longest, 'x', sizeof(longest));
    struct slice text = {longest, sizeof(longest)};
    assert_int_equal(socks5_credentials(text, text, out), SOCKS5_REQUEST_MAX);
}

static void test_connect(void **state)
{
    (void)state;
    EXPECT(socks5_connect_name(SLICE("tnl.test"), 7777, out), "\x05\x01\x00\x03\x08tnl.test\x1e\x61");
    struct resolve_answer answer;
    assert_int_equal(resolve_at_once(SLICE("10.1.2.3"), 443, &answer), 0);
    EXPECT(socks5_connect_address(&answer.addresses[0], out), "\x05\x01\x00\x01\x0a\x01\x02\x03\x01\xbb");
    assert_int_equal(resolve_at_once(SLICE("2001:db8::1"), 443, &answer), 0);
    EXPECT(socks5_connect_address(&answer.addresses[0], out),
           "\x05\x01\x00\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x01\xbb");
}

static void test_method(void **state)
{
    (void)state;
    enum socks5_method method;
    assert_int_equal(socks5_read_method(SLICE(""), &method), 0);
    assert_int_equal(socks5_read_method(SLICE("\x05"), &method), 0);
    assert_int_equal(socks5_read_method(SLICE("\x05\x00more"), &method), 2);
    assert_int_equal(method, SOCKS5_NO_CREDENTIALS);
    assert_int_equal(socks5_read_method(SLICE("\x05\x02"), &method), 2);
    assert_int_equal(method, SOCKS5_CREDENTIALS);
    assert_int_equal(socks5_read_method(SLICE("\x05\xff"), &method), 2);
    assert_int_equal(method, SOCKS5_NO_METHOD);
    assert_int_equal(socks5_read_method(SLICE("\x05\x01"), &method), KV_EPROTO);
    assert_int_equal(socks5_read_method(SLICE("\x04"), &method), KV_EPROTO);
    assert_int_equal(socks5_read_method(SLICE("HTTP/1.1 400"), &method), KV_EPROTO);
}

static void test_verdict(void **state)
{
    (void)state;
    bool accepted = false;
    assert_int_equal(socks5_read_verdict(SLICE("\x01"), &accepted), 0);
    assert_int_equal(socks5_read_verdict(SLICE("\x01\x00"), &accepted), 2);
    assert_true(accepted);
    assert_int_equal(socks5_read_verdict(SLICE("\x05\x00"), &accepted), 2);
    assert_true(accepted);
    assert_int_equal(socks5_read_verdict(SLICE("\x01\x01"), &accepted), 2);
    assert_false(accepted);
    assert_int_equal(socks5_read_verdict(SLICE("\x02\x00"), &accepted), KV_EPROTO);
}

static void test_replies_cut_anywhere(void **state)
{
    (void)state;
    static const struct slice replies[] = {
        {"\x05\x00\x00\x01\x7f\x00\x00\x01\x1f\x90", 10},
        {"\x05\x00\x00\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x1f\x90", 22},
        {"\x05\x00\x00\x03\x03"
         "abc\x1f\x90",
         10},
        {"\x05\x00\x00\x03\x00\x1f\x90", 7},
    };
    for (size_t i = 0; i < sizeof(replies) / sizeof(replies[0]); i++) {
        uint8_t code = 9;
        for (size_t cut = 0; cut < replies[i].len; cut++)
            assert_int_equal(socks5_read_reply((struct slice){replies[i].data, cut}, &code), 0);
        assert_int_equal(socks5_read_reply(replies[i], &code), replies[i].len);
        assert_int_equal(code, 0);
    }
}

static void test_refusals(void **state)
{
    (void)state;
    uint8_t code;
    assert_int_equal(socks5_read_reply(SLICE("\x05\x05"), &code), 2);
    assert_string_equal(socks5_reply_text(code), "connection refused");
    assert_int_equal(socks5_read_reply(SLICE("\x05\x02\x00\x01\0\0\0\0\0\0"), &code), 2);
    assert_string_equal(socks5_reply_text(code), "not allowed by its rules");
    assert_string_equal(socks5_reply_text(8), "address type not supported");
    assert_string_equal(socks5_reply_text(9), "unknown error");
    assert_string_equal(socks5_reply_text(255), "unknown error");
    assert_int_equal(socks5_read_reply(SLICE("\x05\x00\x00\x02\x00"), &code), KV_EPROTO);
    assert_int_equal(socks5_read_reply(SLICE("\x00\x5a"), &code), KV_EPROTO); /* SOCKS4 */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greetings), cmocka_unit_test(test_credentials),
        cmocka_unit_test(test_connect),   cmocka_unit_test(test_method),
        cmocka_unit_test(test_verdict),   cmocka_unit_test(test_replies_cut_anywhere),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
