/* URLs and hosts as the visitor has them, and as the service has them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "base/error.h"
#include "client/rewrite.h"

/* A tunnel at https://pub.test, a service on 127.0.0.1:3000 that is sent this Host. */
static struct rewrite sent(const char *host)
{
    return (struct rewrite){
        .public_scheme = SLICE("https"),
        .public_authority = SLICE("pub.test"),
        .service_scheme = SLICE("http"),
        .service_authority = slice_of(host),
        .dialled = SLICE("127.0.0.1:3000"),
    };
}

static struct head *make(const char *method, const char *name, const char *value)
{
    struct head *h = head_new(4, 1024);
    assert_non_null(h);
    h->method = head_intern(h, slice_of(method));
    h->authority = head_intern(h, SLICE("pub.test"));
    assert_int_equal(head_add(h, SLICE("x-before"), SLICE("1")), KV_OK);
    assert_int_equal(head_add(h, slice_of(name), slice_of(value)), KV_OK);
    return h;
}

static void expect(struct head *h, const char *name, const char *wanted)
{
    struct slice got = head_value(h, slice_of(name));
    if (!slice_equals(got, slice_of(wanted)))
        fail_msg("%s: \"%.*s\" instead of \"%s\"", name, (int)got.len, got.data, wanted);
    assert_true(slice_equals(head_value(h, SLICE("x-before")), SLICE("1")));
    assert_true(slice_equals(h->authority, SLICE("pub.test")));
    head_free(h);
}

static void up(const struct rewrite *rewrite, const char *method, const char *value, const char *wanted)
{
    struct head *h = make(method, "destination", value);
    assert_int_equal(rewrite_request(rewrite, &h), KV_OK);
    expect(h, "destination", wanted);
}

static void destinations(void **state)
{
    (void)state;
    const struct rewrite same = sent("pub.test"), other = sent("app.local:8000");
    up(&same, "MOVE", "https://pub.test/a%20b?c#d", "http://pub.test/a%20b?c#d");
    up(&same, "COPY", "https://PUB.test:443/a", "http://pub.test/a");
    up(&same, "COPY", "https://pub.test", "http://pub.test");
    up(&same, "COPY", "http://pub.test/a", "http://pub.test/a");
    up(&other, "MOVE", "https://pub.test/a", "http://app.local:8000/a");
    up(&other, "MOVE", "http://pub.test:80/a", "http://app.local:8000/a");
    up(&other, "MOVE", "//pub.test/a", "//app.local:8000/a");
    /* Somewhere else, or no URL. */
    static const char *const others[] = {"https://pub.test:8443/a",
                                         "https://pub.test.evil/a",
                                         "https://x.pub.test/a",
                                         "https://u@pub.test/a",
                                         "ftp://pub.test/a",
                                         "/a",
                                         "a",
                                         "",
                                         "https:/pub.test/a",
                                         "https://",
                                         "//",
                                         "https://pub.test@evil/a"};
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        up(&other, "MOVE", others[i], others[i]);
    up(&same, "PUT", "https://pub.test/a", "https://pub.test/a");
}

static void ports_of_its_own(void **state)
{
    (void)state;
    struct rewrite local = sent("pub.test:8443");
    local.public_authority = SLICE("pub.test:8443");
    up(&local, "MOVE", "https://pub.test:8443/a", "http://pub.test:8443/a");
    up(&local, "MOVE", "https://pub.test/a", "https://pub.test/a");
}

static void down(const char *host, const char *name, const char *value, const char *wanted)
{
    const struct rewrite rewrite = sent(host);
    struct head *h = make("GET", name, value);
    assert_int_equal(rewrite_answer(&rewrite, &h), KV_OK);
    expect(h, name, wanted);
}

static void places_of_answers(void **state)
{
    (void)state;
    down("app.local", "location", "http://app.local/login?next=%2F", "https://pub.test/login?next=%2F");
    down("app.local", "location", "https://APP.local/", "https://pub.test/");
    down("app.local", "location", "http://app.local:80/", "https://pub.test/");
    down("app.local", "location", "http://app.local:3000/", "https://pub.test/"); /* the port that it listens on */
    down("app.local", "location", "http://127.0.0.1:3000/", "https://pub.test/");
    down("app.local", "location", "//app.local/x", "//pub.test/x");
    down("app.local", "content-location", "http://app.local/x", "https://pub.test/x");
    down("app.local", "refresh", "5; url=http://app.local/x", "5; url=https://pub.test/x");
    down("app.local", "refresh", "0;URL='http://app.local/x'", "0;URL='https://pub.test/x'");
    static const char *const others[] = {"/x",
                                         "",
                                         "http://app.local.evil/",
                                         "http://sso.local/?u=http://app.local/",
                                         "http://app.local:9/",
                                         "mailto:a@app.local",
                                         "http://[::1/"};
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        down("app.local", "location", others[i], others[i]);
    down("app.local", "refresh", "5", "5");
    down("app.local", "refresh", "5; url=", "5; url=");
    down("app.local", "x-location", "http://app.local/", "http://app.local/");
}

static void domains_of_cookies(void **state)
{
    (void)state;
    down("app.local:8000", "set-cookie", "a=b; Domain=app.local; Path=/", "a=b; Domain=pub.test; Path=/");
    down("app.local", "set-cookie", "a=b;domain=.local", "a=b;domain=pub.test");
    down("app.local", "set-cookie", "a=b; DOMAIN= App.Local ;Secure", "a=b; DOMAIN=pub.test;Secure");
    static const char *const others[] = {"a=b",
                                         "a=b; Path=/",
                                         "a=b; Domain=else.local",
                                         "a=b; Domain=p.local",
                                         "domain=app.local",
                                         "a=domain=app.local",
                                         "a=b; Domain",
                                         "a=b; Domain=",
                                         "a=b; x=Domain=app.local",
                                         ";",
                                         ""};
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        down("app.local", "set-cookie", others[i], others[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(destinations),
        cmocka_unit_test(ports_of_its_own),
        cmocka_unit_test(places_of_answers),
        cmocka_unit_test(domains_of_cookies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
