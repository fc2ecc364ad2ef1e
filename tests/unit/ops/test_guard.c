/* Which requests a stranger's web page could have made. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "ops/ops_impl.h"

static const char *ask(const char *method, const char *host, const char *origin)
{
    struct field fields[2];
    struct head head;
    head_borrow(&head, fields, 2);
    head.method = slice_of(method);
    head.authority = slice_of(host);
    head_add(&head, SLICE("Host"), slice_of(host));
    if (origin)
        head_add(&head, SLICE("Origin"), slice_of(origin));
    return ops_guard(&head);
}

static void test_hosts_that_no_page_can_have(void **state)
{
    (void)state;
    static const char *const hosts[] = {
        "localhost",   "localhost:9090", "LocalHost", "localhost.", "a.localhost",       "127.0.0.1",
        "127.0.0.1:1", "127.0.0.1:",     "10.0.0.7",  "[::1]",      "[2001:db8::1]:9090"};
    for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++) {
        assert_null(ask("GET", hosts[i], NULL));
        assert_null(ask("POST", hosts[i], NULL));
    }
}

static void test_hosts_that_a_page_can_have(void **state)
{
    (void)state;
    static const char *const hosts[] = {"",           "example.com", "localhost.example.com",
                                        "xlocalhost", ".localhost",  "127.0.0.1.x",
                                        "127.1",      "0x7f.1",      "1.2.3.4.5",
                                        "2130706433", "a b",         "[]",
                                        "[x]",        ":9090"};
    for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++) {
        assert_non_null(ask("GET", hosts[i], NULL));
        assert_non_null(ask("HEAD", hosts[i], NULL));
        assert_non_null(ask("POST", hosts[i], NULL));
    }
}

static void test_origin_decides_about_changes_alone(void **state)
{
    (void)state;
    static const char *const others[] = {"",
                                         "null",
                                         "http://example.com",
                                         "https://127.0.0.1:9090",
                                         "http://127.0.0.1",
                                         "http://127.0.0.1:9091",
                                         "http://127.0.0.1:9090/",
                                         "http://127.0.0.1:90900",
                                         "127.0.0.1:9090",
                                         "http://"};
    assert_null(ask("POST", "127.0.0.1:9090", "http://127.0.0.1:9090"));
    assert_null(ask("POST", "LOCALHOST:9090", "http://localhost:9090"));
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        assert_non_null(ask("POST", "127.0.0.1:9090", others[i]));
        assert_non_null(ask("DELETE", "127.0.0.1:9090", others[i]));
        assert_null(ask("GET", "127.0.0.1:9090", others[i]));
        assert_null(ask("HEAD", "127.0.0.1:9090", others[i]));
    }
}

static void test_every_origin_has_to_be_right(void **state)
{
    (void)state;
    struct field fields[2];
    struct head head;
    head_borrow(&head, fields, 2);
    head.method = SLICE("POST");
    head.authority = SLICE("localhost");
    head_add(&head, SLICE("origin"), SLICE("http://localhost"));
    assert_null(ops_guard(&head));
    head_add(&head, SLICE("ORIGIN"), SLICE("http://example.com"));
    assert_non_null(ops_guard(&head));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hosts_that_no_page_can_have),
        cmocka_unit_test(test_hosts_that_a_page_can_have),
        cmocka_unit_test(test_origin_decides_about_changes_alone),
        cmocka_unit_test(test_every_origin_has_to_be_right),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
