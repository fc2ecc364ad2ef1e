/* Which cookies stay with their own host. */
#include "http/cookie.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static void check(const char *base, const char *given, const char *wanted)
{
    size_t len = strlen(given);
    char *value = malloc(len ? len : 1); /* of exactly its size */
    assert_non_null(value);
    memcpy(value, given, len);
    size_t left = cookie_confine(value, len, slice_of(base));
    if (left != strlen(wanted) || memcmp(value, wanted, left) != 0)
        fail_msg("'%s' became '%.*s', not '%s'", given, (int)left, value, wanted);
    free(value);
}

static void test_domains(void **state)
{
    (void)state;
    static const char base[] = "tnl.example.com";
    static const struct {
        const char *given, *wanted;
    } cases[] = {
        {"a=1; Domain=tnl.example.com", "a=1"},
        {"a=1;domain=TNL.Example.com;Path=/", "a=1;Path=/"},
        {"a=1; Path=/; DOMAIN = .tnl.example.com ; Secure", "a=1; Path=/; Secure"},
        {"a=1; Domain=example.com", "a=1"},
        {"a=1; Domain=com", "a=1"},
        {"a=1; Domain=tnl.example.com.", "a=1"},
        {"a=1; Domain=..tnl.example.com", "a=1"},
        {"a=1; Domain=a.tnl.example.com; Domain=tnl.example.com", "a=1; Domain=a.tnl.example.com"},
        {"a=1; Domain=tnl.example.com; Domain=tnl.example.com; HttpOnly", "a=1; HttpOnly"},
        {"a=1; Domain=tnl%2eexample.com", "a=1"},
        {"a=1; Domain=\"tnl.example.com\"", "a=1"},
        {"a=1; Domain=tnl\xe3\x80\x82"
         "example.com",
         "a=1"},
        {"a=1; Domain=tnl.example.com:80", "a=1"},
        {";Domain=tnl.example.com", ""},
        {"; Domain=tnl.example.com;", ";"},

        {"", ""},
        {"a=1", "a=1"},
        {"Domain=tnl.example.com", "Domain=tnl.example.com"}, /* a cookie of that name */
        {"a=Domain=tnl.example.com; Path=/", "a=Domain=tnl.example.com; Path=/"},
        {"a=1; Domain=x.tnl.example.com", "a=1; Domain=x.tnl.example.com"},
        {"a=1; Domain=nl.example.com", "a=1; Domain=nl.example.com"},
        {"a=1; Domain=other.test", "a=1; Domain=other.test"},
        {"a=1; Domain=", "a=1; Domain="},
        {"a=1; Domain", "a=1; Domain"},
        {"a=1; XDomain=example.com", "a=1; XDomain=example.com"},
        {"a=1; Path=/;;", "a=1; Path=/;;"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        check(base, cases[i].given, cases[i].wanted);
    check("localhost", "a=1; Domain=localhost; Path=/", "a=1; Path=/");
    check("localhost", "a=1; Domain=x.localhost", "a=1; Domain=x.localhost");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_domains)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
