/* What --url and --endpoint take, how it is shown, and the words for what they refuse. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/error.h"
#include "client/url.h"

struct good {
    const char *text;
    const char *shown, *host;
    uint16_t port;
    bool tls, local;
};

static const struct good services[] = {
    {"http://127.0.0.1:3000", "http://127.0.0.1:3000", "127.0.0.1", 3000, false, false},
    {"http://127.0.0.1:3000/", "http://127.0.0.1:3000", "127.0.0.1", 3000, false, false},
    {"https://app.internal", "https://app.internal", "app.internal", 443, true, false},
    {"https://app.internal:443", "https://app.internal", "app.internal", 443, true, false},
    {"https://app.internal:80", "https://app.internal:80", "app.internal", 80, true, false},
    {"http://app.internal", "http://app.internal", "app.internal", 80, false, false},
    {"http://app.internal:443", "http://app.internal:443", "app.internal", 443, false, false},
    {"HTTP://App.Internal.:80/", "http://app.internal", "app.internal", 80, false, false},
    {"h2c://127.0.0.1:50051", "h2c://127.0.0.1:50051", "127.0.0.1", 50051, false, false},
    {"H2C://app.internal", "h2c://app.internal", "app.internal", 80, false, false},
    {"localhost:3000", "http://localhost:3000", "localhost", 3000, false, false},
    {"my_container:8080", "http://my_container:8080", "my_container", 8080, false, false},
    {"10.0.0.7:80", "http://10.0.0.7", "10.0.0.7", 80, false, false},
    {"[::1]:3000", "http://[::1]:3000", "::1", 3000, false, false},
    {"https://[2001:DB8::1]", "https://[2001:db8::1]", "2001:db8::1", 443, true, false},
    {"0.0.0.0:3000/", "http://0.0.0.0:3000", "0.0.0.0", 3000, false, false},
    {"3000", "http://127.0.0.1:3000", "127.0.0.1", 3000, false, true},
    {"80", "http://127.0.0.1", "127.0.0.1", 80, false, true},
    {"65535", "http://127.0.0.1:65535", "127.0.0.1", 65535, false, true},
};

static const struct {
    const char *text, *why; /* part of the reason */
} bad_services[] = {
    {"", "must not be empty"},
    {"0", "is no port"},
    {"65536", "is no port"},
    {"99999999999999999999999", "is no port"},
    {"localhost", "has no port; give http://HOST, HOST:PORT or a port"},
    {"ftp://a:21", "'ftp' is no scheme for this; give http://, h2c:// or https://"},
    {"tcp://127.0.0.1:22", "'tcp' is no scheme"},
    {"://a:1", "'' is no scheme"},
    {"http://", "has no host"},
    {"http:///", "has no host"},
    {"http://:80", "has no host"},
    {":3000", "has no host"},
    {"http://a/app", "has '/app' behind the host"},
    {"http://a:3000/app/", "has '/app/' behind the host"},
    {"http://a?x=1", "has '?x=1' behind the host"},
    {"http://a/#top", "has '/#top' behind the host"},
    {"localhost:3000/x", "has '/x' behind the host"},
    {"http:\\\\a", "behind the host"},
    {"http://user:secret@a:80", "holds a user name or password"},
    {"user@a:80", "holds a user name or password"},
    {"http://a:0", "'0' is no number from 1 to 65535"},
    {"http://a:65536", "'65536' is no number from 1 to 65535"},
    {"http://a:", "'' is no number from 1 to 65535"},
    {"http://a:http", "'http' is no number from 1 to 65535"},
    {"http://a:+80", "'+80' is no number"},
    {"http://a:80:90", "more than one colon; an IPv6 address stands in brackets"},
    {"::1:3000", "more than one colon; an IPv6 address stands in brackets"},
    {"http://[::1", "has no valid host"},
    {"http://[::1]x:80", "has no valid host"},
    {"http://[]:80", "has no valid host"},
    {"http://[127.0.0.1]:80", "has no valid host"},
    {"http://a..b:80", "has no valid host"},
    {"http://b\xc3\xbc"
     "cher.example",
     "has no valid host"},
    {"http://a!b:80", "has no valid host"},
    {"http://[fe80::1%25eth0]:80", "has a '%' in its host"},
    {"http://1.2.3.256:80", "'1.2.3.256' is no address"},
    {"http://3000", "'3000' is no address"},
    {"http://1.2.3:80", "'1.2.3' is no address"},
    {"http://a b:80", "holds a space or a control character"},
    {" 3000", "holds a space or a control character"},
    {"3000\n", "holds a space or a control character"},
};

static void check_good(int (*parse)(struct slice, struct url *, char *), const struct good *row)
{
    struct url url;
    char error[URL_ERROR_LEN] = "";
    if (parse(slice_of(row->text), &url, error) != 0)
        fail_msg("'%s' %s", row->text, error);
    assert_string_equal(url.text, row->shown);
    assert_string_equal(url.host, row->host);
    assert_int_equal(url.port, row->port);
    assert_int_equal(url.tls, row->tls);
    assert_int_equal(url.local, row->local);
    struct slice dial = url_dial_host(&url);
    assert_true(slice_equals(dial, row->local ? SLICE("localhost") : slice_of(row->host)));
}

static void check_bad(int (*parse)(struct slice, struct url *, char *), const char *text, const char *why)
{
    struct url url, before;
    char error[URL_ERROR_LEN] = "";
    memset(&url, 0x5a, sizeof(url));
    before = url;
    if (parse(slice_of(text), &url, error) != KV_EINVAL)
        fail_msg("'%s' was taken", text);
    if (!strstr(error, why))
        fail_msg("'%s' %s: should say '%s'", text, error, why);
    assert_memory_equal(&url, &before, sizeof(url));
}

static void takes_services(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(services) / sizeof(services[0]); i++)
        check_good(url_parse_service, &services[i]);
}

static void refuses_services(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(bad_services) / sizeof(bad_services[0]); i++)
        check_bad(url_parse_service, bad_services[i].text, bad_services[i].why);
    struct url url;
    char error[URL_ERROR_LEN];
    assert_int_equal(url_parse_service((struct slice){"a\0b:80", 6}, &url, error), KV_EINVAL);
    assert_non_null(strstr(error, "control character"));
}

static void takes_endpoints(void **state)
{
    (void)state;
    static const struct good endpoints[] = {
        {"http://localhost:7777", "http://localhost:7777", "localhost", 7777, false, false},
        {"https://tnl.example.com", "https://tnl.example.com", "tnl.example.com", 443, true, false},
        {"https://tnl.example.com:7777/", "https://tnl.example.com:7777", "tnl.example.com", 7777, true, false},
        {"http://tnl.example.com", "http://tnl.example.com", "tnl.example.com", 80, false, false},
        {"https://[::1]:7777", "https://[::1]:7777", "::1", 7777, true, false},
    };
    for (size_t i = 0; i < sizeof(endpoints) / sizeof(endpoints[0]); i++)
        check_good(url_parse_endpoint, &endpoints[i]);
}

static void refuses_endpoints(void **state)
{
    (void)state;
    static const struct {
        const char *text, *why;
    } rows[] = {
        {"", "must not be empty"},
        {"7777", "has no scheme; give http://HOST:PORT or https://HOST"},
        {"tnl.example.com", "has no scheme"},
        {"tnl.example.com:7777", "has no scheme"},
        {"grpc://tnl.example.com", "'grpc' is no scheme"},
        {"h2c://tnl.example.com", "'h2c' is no scheme for this; give http:// or https://"},
        {"https://tnl.example.com/control", "has '/control' behind the host"},
        {"https://", "has no host"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        check_bad(url_parse_endpoint, rows[i].text, rows[i].why);
}

/* The longest host fits with everything that is shown around it; one byte more is refused. */
static void takes_the_longest_host(void **state)
{
    (void)state;
    char text[400];
    for (size_t extra = 0; extra < 2; extra++) {
        struct slice scheme = SLICE("https://");
        memcpy(text, scheme.data, scheme.len);
        for (size_t i = 0; i < LIMIT_HOST_BYTES + extra; i++)
            text[scheme.len + i] = i % 64 == 63 ? '.' : 'a';
        size_t len = scheme.len + LIMIT_HOST_BYTES + extra;
        memcpy(text + len, ":65535", 6);
        struct url url;
        char error[URL_ERROR_LEN];
        int result = url_parse_service((struct slice){text, len + 6}, &url, error);
        assert_int_equal(result, extra == 0 ? 0 : KV_EINVAL);
        if (extra == 0) {
            assert_int_equal(strlen(url.text), len + 6);
            assert_memory_equal(url.text, text, len + 6);
        }
    }
}

/* However long the value, the reason fits its buffer. */
static void bounds_its_words(void **state)
{
    (void)state;
    char text[4096], error[URL_ERROR_LEN];
    struct url url;
    memset(text, 'x', sizeof(text));
    memcpy(text, "http://a/", 9);
    assert_int_equal(url_parse_service((struct slice){text, sizeof(text)}, &url, error), KV_EINVAL);
    assert_int_equal(strlen(error), URL_ERROR_LEN - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_services),         cmocka_unit_test(refuses_services),
        cmocka_unit_test(takes_endpoints),        cmocka_unit_test(refuses_endpoints),
        cmocka_unit_test(takes_the_longest_host), cmocka_unit_test(bounds_its_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
