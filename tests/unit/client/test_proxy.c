/* Proxy URLs, good and bad; the hosts that NO_PROXY exempts; the environment. No sentence shows a password. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "client/proxy.h"

static const struct {
    const char *text, *shown, *host;
    enum proxy_kind kind;
    uint16_t port;
    bool tls, remote_dns;
    const char *user, *password;
} good[] = {
    {"http://p.corp:3128", "http://p.corp:3128", "p.corp", PROXY_CONNECT, 3128, false, false, NULL, ""},
    {"p.corp:3128", "http://p.corp:3128", "p.corp", PROXY_CONNECT, 3128, false, false, NULL, ""},
    {"http://p.corp/", "http://p.corp", "p.corp", PROXY_CONNECT, 80, false, false, NULL, ""},
    {"HTTPS://P.corp", "https://p.corp", "p.corp", PROXY_CONNECT, 443, true, false, NULL, ""},
    {"http://[::1]:8080", "http://[::1]:8080", "::1", PROXY_CONNECT, 8080, false, false, NULL, ""},
    {"socks5://10.0.0.1", "socks5://10.0.0.1:1080", "10.0.0.1", PROXY_SOCKS5, 1080, false, false, NULL, ""},
    {"socks5h://s.corp:9", "socks5h://s.corp:9", "s.corp", PROXY_SOCKS5, 9, false, true, NULL, ""},
    {"http://joe:s3cret@p:1", "http://p:1", "p", PROXY_CONNECT, 1, false, false, "joe", "s3cret"},
    {"http://joe@p:1", "http://p:1", "p", PROXY_CONNECT, 1, false, false, "joe", ""},
    {"http://joe:@p:1", "http://p:1", "p", PROXY_CONNECT, 1, false, false, "joe", ""},
    {"http://jo%40e:s%3A%2f%25@p:1", "http://p:1", "p", PROXY_CONNECT, 1, false, false, "jo@e", "s:/%"},
    {"http://joe:s3c:ret@p:1", "http://p:1", "p", PROXY_CONNECT, 1, false, false, "joe", "s3c:ret"},
    {"http://joe:s3c@ret@p:1", "http://p:1", "p", PROXY_CONNECT, 1, false, false, "joe", "s3c@ret"},
    {"socks5://joe:s3cret@p", "socks5://p:1080", "p", PROXY_SOCKS5, 1080, false, false, "joe", "s3cret"},
};

static void test_good_urls(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        struct proxy p;
        char error[URL_ERROR_LEN] = "";
        if (proxy_parse(slice_of(good[i].text), &p, error) != 0)
            fail_msg("%s: %s", good[i].text, error);
        assert_string_equal(p.text, good[i].shown);
        assert_string_equal(p.url.host, good[i].host);
        assert_int_equal(p.kind, good[i].kind);
        assert_int_equal(p.url.port, good[i].port);
        assert_int_equal(p.url.tls, good[i].tls);
        assert_int_equal(p.remote_dns, good[i].remote_dns);
        assert_int_equal(p.has_user, good[i].user != NULL);
        assert_string_equal(p.user, good[i].user ? good[i].user : "");
        assert_string_equal(p.password, good[i].password);
    }
}

static void test_none(void **state)
{
    (void)state;
    struct proxy p;
    char error[URL_ERROR_LEN];
    assert_int_equal(proxy_parse(SLICE("none"), &p, error), 0);
    assert_int_equal(p.kind, PROXY_NONE);
}

static void test_bad_urls(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "http://",
        "ftp://p:1",
        "socks4://p:1",
        "http://p:0",
        "http://p:65536",
        "http://p:s3cret",
        "http://p:1/s3cret",
        "http://p:1?s3cret",
        "http://joe:s3cret#1@p:1/x",
        "http://joe:s3/cret",
        "http://joe:s3cret@p:99999",
        "http://:s3cret@p:1",
        "http://@p:1",
        "http://j%3Ae:s3cret@p:1",
        "http://joe:s3cret%@p:1",
        "http://joe:s3cret%4@p:1",
        "http://joe:s3cret%zz@p:1",
        "http://joe:s3cret%0a@p:1",
        "http://joe:s3cret%00@p:1",
        "http://joe:s3 cret@p:1",
        "http://joe:s3cret\r@p:1",
        "socks5://joe@p:1",
        "http://::1:80",
        "http://p corp",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct proxy p;
        char error[URL_ERROR_LEN] = "";
        if (proxy_parse(slice_of(bad[i]), &p, error) != KV_EINVAL)
            fail_msg("%s was taken", bad[i]);
        assert_string_not_equal(error, "");
        assert_null(strstr(strchr(bad[i], '@') ? error : "", "s3"));
    }
    char longest[700] = "http://";
    memset(longest + 7, 'u', 256);
    memcpy(longest + 7 + 256, "@p:1", 5);
    struct proxy p;
    char error[URL_ERROR_LEN];
    assert_int_equal(proxy_parse(slice_of(longest), &p, error), KV_EINVAL);
}

/* ---- NO_PROXY ---------------------------------------------------------------------------------------------------- */

static const struct {
    const char *list, *host;
    uint16_t port;
    bool exempt;
} rules[] = {
    {"", "a.test", 443, false},
    {"*", "a.test", 443, true},
    {"x.test,*", "a.test", 443, true},
    {"a.test", "a.test", 443, true},
    {"A.Test", "a.test", 443, true},
    {"a.test.", "a.test", 443, true},
    {"a.test", "b.a.test", 443, true},
    {"a.test", "ba.test", 443, false},
    {"a.test", "test", 443, false},
    {".a.test", "b.a.test", 443, true},
    {".a.test", "a.test", 443, true},
    {"*.a.test", "b.a.test", 443, true},
    {"x.test, a.test", "a.test", 443, true},
    {"x.test a.test", "a.test", 443, true},
    {",, ,a.test,", "a.test", 443, true},
    {"a.test:443", "a.test", 443, true},
    {"a.test:443", "a.test", 7777, false},
    {"a.test:", "a.test", 443, false},
    {":443", "a.test", 443, false},
    {".", "a.test", 443, false},
    {"10.1.2.3", "10.1.2.3", 443, true},
    {"10.1.2.3:443", "10.1.2.3", 443, true},
    {"10.1.2.3:80", "10.1.2.3", 443, false},
    {"1.2.3", "10.1.2.3", 443, false},
    {"2.3", "10.1.2.3", 443, false},
    {"10.0.0.0/8", "10.1.2.3", 443, true},
    {"10.0.0.0/8", "11.1.2.3", 443, false},
    {"10.1.2.2/31", "10.1.2.3", 443, true},
    {"10.1.2.0/31", "10.1.2.3", 443, false},
    {"0.0.0.0/0", "10.1.2.3", 443, true},
    {"10.0.0.0/33", "10.1.2.3", 443, false},
    {"10.0.0.0/", "10.1.2.3", 443, false},
    {"10.0.0.0/8", "ten.test", 443, false},
    {"::/0", "10.1.2.3", 443, false},
    {"fd00::/8", "fd12::1", 443, true},
    {"fd00::/8", "fe80::1", 443, false},
    {"2001:db8::1", "2001:db8::1", 443, true},
    {"2001:DB8:0::1", "2001:db8::1", 443, true},
    {"[2001:db8::1]", "2001:db8::1", 443, true},
    {"[2001:db8::1]:443", "2001:db8::1", 443, true},
    {"[2001:db8::1]:80", "2001:db8::1", 443, false},
};

static void test_exemptions(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++)
        if (proxy_is_exempt(rules[i].list, rules[i].host, rules[i].port) != rules[i].exempt)
            fail_msg("NO_PROXY='%s' and %s:%u: %sexempt", rules[i].list, rules[i].host, rules[i].port,
                     rules[i].exempt ? "not " : "");
    char list[1024];
    memset(list, 'a', sizeof(list)); /* longer than any name, and then one that counts */
    memcpy(list + sizeof(list) - 8, ",a.test", 8);
    assert_true(proxy_is_exempt(list, "a.test", 1));
}

/* ---- the environment --------------------------------------------------------------------------------------------- */

static const char *const variables[] = {"https_proxy", "HTTPS_PROXY", "all_proxy",  "ALL_PROXY",
                                        "no_proxy",    "NO_PROXY",    "HTTP_PROXY", "http_proxy"};

static int clear(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(variables) / sizeof(variables[0]); i++)
        unsetenv(variables[i]);
    return 0;
}

static const char *chosen(const char *endpoint)
{
    struct url url;
    char error[URL_ERROR_LEN];
    const char *variable = "";
    assert_int_equal(url_parse_endpoint(slice_of(endpoint), &url, error), 0);
    const char *value = proxy_from_environment(&url, &variable);
    return value ? variable : NULL;
}

static void test_environment(void **state)
{
    (void)state;
    assert_null(chosen("https://a.test"));
    setenv("HTTP_PROXY", "http://p", 1);
    setenv("http_proxy", "http://p", 1);
    assert_null(chosen("http://a.test"));
    setenv("ALL_PROXY", "http://p", 1);
    assert_string_equal(chosen("https://a.test"), "ALL_PROXY");
    setenv("all_proxy", "http://p", 1);
    assert_string_equal(chosen("https://a.test"), "all_proxy");
    setenv("HTTPS_PROXY", "http://p", 1);
    assert_string_equal(chosen("http://a.test"), "HTTPS_PROXY");
    setenv("https_proxy", "", 1); /* empty is unset */
    assert_string_equal(chosen("https://a.test"), "HTTPS_PROXY");
    setenv("https_proxy", "http://p", 1);
    assert_string_equal(chosen("https://a.test"), "https_proxy");
    setenv("NO_PROXY", "a.test:7777", 1);
    assert_string_equal(chosen("https://a.test"), "https_proxy");
    assert_null(chosen("https://a.test:7777"));
    setenv("no_proxy", "b.test", 1);
    assert_string_equal(chosen("https://a.test:7777"), "https_proxy");
}

static void test_this_machine_is_exempt(void **state)
{
    (void)state;
    setenv("ALL_PROXY", "http://p", 1);
    assert_null(chosen("http://localhost:7777"));
    assert_null(chosen("http://app.localhost:7777"));
    assert_null(chosen("http://127.0.0.1:7777"));
    assert_null(chosen("http://[::1]:7777"));
    assert_string_equal(chosen("http://10.0.0.1:7777"), "ALL_PROXY");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_urls),
        cmocka_unit_test(test_none),
        cmocka_unit_test(test_bad_urls),
        cmocka_unit_test(test_exemptions),
        cmocka_unit_test_setup(test_environment, clear),
        cmocka_unit_test_setup(test_this_machine_is_exempt, clear),
    };
    return cmocka_run_group_tests(tests, NULL, clear);
}
