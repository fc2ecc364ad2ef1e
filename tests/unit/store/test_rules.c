/* Addresses, slugs, names and times: the pure rules. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "store/rules.h"
#include "store/store_time.h"

static void test_addresses(void **state)
{
    (void)state;
    static const struct {
        const char *email, *lowered; /* lowered NULL: refused */
    } cases[] = {
        {"alice@example.com", "alice@example.com"},
        {"Alice.B+tag@Example.COM", "alice.b+tag@example.com"},
        {"+@x", "+@x"},
        {"j\xc3\xb6rg@example.de", "j\xc3\xb6rg@example.de"},
        {"a@b\xc3\xbc.de", "a@b\xc3\xbc.de"},
        {"o'brien@x.y", "o'brien@x.y"},
        {"", NULL},
        {"alice", NULL},
        {"@example.com", NULL},
        {"alice@", NULL},
        {"a@b@c", NULL},
        {"a b@c", NULL},
        {"a@b c", NULL},
        {"a\n@b", NULL},
        {"a@.b", NULL},
        {"a@b.", NULL},
        {"a@b..c", NULL},
        {"a@-b", NULL},
        {"a@b-", NULL},
        {"a@b-.c", NULL},
        {"a@b_c", NULL},
        {"<a@b>", NULL},
        {"\"a\"@b", NULL},
        {"a,b@c", NULL},
        {"deleted:1@x", NULL},
        {"\xff@b", NULL},
        {"\xc0\xaf@b", NULL},
        {"\xed\xa0\x80@b", NULL},
        {"a@\xe2\x82", NULL},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char out[LIMIT_EMAIL_BYTES + 1] = "";
        const char *why = rules_email(slice_of(cases[i].email), out);
        if (!cases[i].lowered != (why != NULL))
            fail_msg("'%s': %s", cases[i].email, why ? why : "accepted");
        if (!why)
            assert_string_equal(out, cases[i].lowered);
    }
}

static void test_address_lengths(void **state)
{
    (void)state;
    char email[LIMIT_EMAIL_BYTES + 8], out[LIMIT_EMAIL_BYTES + 1];
    memset(email, 'a', sizeof(email));
    memcpy(email + 64, "@", 1);
    for (size_t i = 65 + 60; i < sizeof(email); i += 61)
        email[i] = '.';
    assert_null(rules_email((struct slice){email, LIMIT_EMAIL_BYTES}, out));
    assert_int_equal(strlen(out), LIMIT_EMAIL_BYTES);
    assert_non_null(rules_email((struct slice){email, LIMIT_EMAIL_BYTES + 1}, out));
    memcpy(email + 64, "a@", 2);
    assert_non_null(rules_email((struct slice){email, 80}, out));
    assert_non_null(rules_email((struct slice){"a\0b@c", 5}, out));
}

static void test_slug_bases(void **state)
{
    (void)state;
    static const struct {
        const char *email, *base;
    } cases[] = {
        {"alice@example.com", "alice"},
        {"Alice.B_c+tag@x", "alicebctag"},
        {"a-b@x", "a-b"},
        {"--a--@x", "a"},
        {"+@x", "user"},
        {"---@x", "user"},
        {"j\xc3\xb6rg@x", "jrg"},
        {"\xe6\x97\xa5\xe6\x9c\xac@x", "user"},
        {"abcdefghijklmnopqrstuvwxyz0123@x", "abcdefghijklmnopqrstuvwxyz"},
        {"abcdefghijklmnopqrstuvwxy-z@x", "abcdefghijklmnopqrstuvwxy"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char base[RULES_SLUG_BASE_BYTES + 1];
        rules_slug_base(cases[i].email, base);
        assert_string_equal(base, cases[i].base);
    }
}

static void test_subdomains(void **state)
{
    (void)state;
    static const struct {
        const char *name, *slug;
        const char *subdomain; /* NULL: refused, and then the sentence has `word` in it */
        const char *word;
    } cases[] = {
        {"laptop", "alice-7f0c", "laptop-alice-7f0c", NULL},
        {"a", "b", "a-b", NULL},
        {"a-", "b", "a--b", NULL},
        {"0", "b", "0-b", NULL},
        {"", "b", NULL, "empty"},
        {"-a", "b", NULL, "hyphen"},
        {"xn--a", "b", NULL, "third and fourth"},
        {"ab--", "b", NULL, "third and fourth"},
        {"abc--d", "b", "abc--d-b", NULL},
        {"a--b", "b", "a--b-b", NULL},
        {"ab-", "b", NULL, "third and fourth"},
        {"Laptop", "b", NULL, "lower case"},
        {"a.b", "b", NULL, "'.'"},
        {"a b", "b", NULL, "a-z"},
        {"a_b", "b", NULL, "'_'"},
        {"\xc3\xbc", "b", NULL, "a-z"},
        {"a\n", "b", NULL, "a-z"},
        {"a", "b-", NULL, "operator"},
        {"a", "B", NULL, "operator"},
        {"a", "", NULL, "operator"},
        {"a", "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb", NULL, "no room"},
    };
    char out[LIMIT_LABEL_BYTES + 1], why[256];
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        bool made = rules_subdomain(slice_of(cases[i].name), cases[i].slug, out, why, sizeof(why));
        if (made != (cases[i].subdomain != NULL))
            fail_msg("'%s' + '%s': %s", cases[i].name, cases[i].slug, made ? out : why);
        if (made)
            assert_string_equal(out, cases[i].subdomain);
        else if (!strstr(why, cases[i].word))
            fail_msg("'%s' is not in '%s'", cases[i].word, why);
    }
}

static void test_longest_name(void **state)
{
    (void)state;
    char name[LIMIT_LABEL_BYTES + 1], out[LIMIT_LABEL_BYTES + 1], why[256];
    memset(name, 'n', sizeof(name));
    assert_true(rules_subdomain((struct slice){name, 31}, "abcdefghijklmnopqrstuvwxyz-0123", out, why, sizeof(why)));
    assert_int_equal(strlen(out), LIMIT_LABEL_BYTES);
    assert_false(rules_subdomain((struct slice){name, 32}, "abcdefghijklmnopqrstuvwxyz-0123", out, why, sizeof(why)));
    assert_non_null(strstr(why, "31 characters fit and it has 32"));
}

static void test_slugs(void **state)
{
    (void)state;
    assert_null(rules_slug(SLICE("alice")));
    assert_null(rules_slug(SLICE("a")));
    assert_non_null(rules_slug(SLICE("")));
    assert_non_null(rules_slug(SLICE("Alice")));
    assert_non_null(rules_slug(SLICE("a.b")));
    assert_non_null(rules_slug(SLICE("-a")));
    assert_non_null(rules_slug(SLICE("a-")));
    assert_non_null(rules_slug(SLICE("bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb")));
}

static void test_uuids(void **state)
{
    (void)state;
    assert_true(rules_is_uuid(SLICE("71d01dc0-9f04-413b-99ec-040fa200f43a")));
    assert_true(rules_is_uuid(SLICE("71D01DC0-9F04-413B-99EC-040FA200F43A")));
    assert_false(rules_is_uuid(SLICE("71d01dc0-9f04-413b-99ec-040fa200f43")));
    assert_false(rules_is_uuid(SLICE("71d01dc0-9f04-413b-99ec-040fa200f43g")));
    assert_false(rules_is_uuid(SLICE("71d01dc009f04-413b-99ec-040fa200f43a")));
    assert_false(rules_is_uuid(SLICE("71d01dc-09f04-413b-99ec-040fa200f43a")));
}

static void test_token_names(void **state)
{
    (void)state;
    char longest[RULES_TOKEN_NAME_BYTES + 1];
    memset(longest, 'x', sizeof(longest));
    assert_null(rules_token_name(SLICE("my laptop")));
    assert_null(rules_token_name(SLICE("b\xc3\xbcro")));
    assert_null(rules_token_name((struct slice){longest, RULES_TOKEN_NAME_BYTES}));
    assert_non_null(rules_token_name((struct slice){longest, RULES_TOKEN_NAME_BYTES + 1}));
    assert_non_null(rules_token_name(SLICE("")));
    assert_non_null(rules_token_name(SLICE("a\x1b[2J")));
    assert_non_null(rules_token_name(SLICE("\xff")));
}

static void test_times(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t seconds; /* -1: refused */
    } cases[] = {
        {"1970-01-01T00:00:00Z", 0},
        {"2026-11-22T18:17:05Z", 1795371425},
        {"2026-11-22 18:17:05+00", 1795371425},
        {"2026-11-22 18:17:05.123456+00", 1795371425},
        {"2026-11-22T20:17:05+02:00", 1795371425},
        {"2026-11-22T13:47:05-0430", 1795371425},
        {"2026-11-22t18:17:05z", 1795371425},
        {"2026-11-22T18:17", 1795371420},
        {"2026-11-22", 1795305600},
        {"2024-02-29", 1709164800},
        {"2023-02-29", -1},
        {"2026-13-01", -1},
        {"2026-00-01", -1},
        {"2026-01-32", -1},
        {"2026-01-01T24:00:00Z", -1},
        {"2026-01-01T00:60:00Z", -1},
        {"2026-01-01T00:00:00.Z", -1},
        {"2026-01-01T00:00:00X", -1},
        {"2026-01-01T00:00:00Zx", -1},
        {"2026-01-01T00:00:00+1", -1},
        {"infinity", -1},
        {"tomorrow", -1},
        {"", -1},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int64_t seconds = -1;
        if (!store_time_parse(slice_of(cases[i].text), &seconds))
            seconds = -1;
        if (seconds != cases[i].seconds)
            fail_msg("'%s' is %lld", cases[i].text, (long long)seconds);
    }
    char out[STORE_TIME_LEN + 1];
    store_time_format(1795371425, out);
    assert_string_equal(out, "2026-11-22T18:17:05Z");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_addresses),  cmocka_unit_test(test_address_lengths), cmocka_unit_test(test_slug_bases),
        cmocka_unit_test(test_subdomains), cmocka_unit_test(test_longest_name),    cmocka_unit_test(test_slugs),
        cmocka_unit_test(test_uuids),      cmocka_unit_test(test_token_names),     cmocka_unit_test(test_times),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
