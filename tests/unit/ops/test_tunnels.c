/* The list of live tunnels: order, URLs, times, and texts that clients chose. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "ops/ops_impl.h"
#include "tunnel/registry.h"

static const struct ops_settings https = {.public_scheme = "https", .base_host = "tnl.example.com"};

static struct registry_session session(const char *subdomain)
{
    struct registry_session s = {.connected_at = 1700000000};
    snprintf(s.subdomain, sizeof(s.subdomain), "%s", subdomain);
    snprintf(s.email, sizeof(s.email), "a@example.com");
    snprintf(s.client_version, sizeof(s.client_version), "0.1.5");
    snprintf(s.peer, sizeof(s.peer), "203.0.113.7:4567");
    snprintf(s.session, sizeof(s.session), "0123456789abcdef");
    return s;
}

/* The rows, to be given back with json_decref. */
static json_t *list(const struct ops_settings *settings, struct registry_session *sessions, size_t count, int64_t now)
{
    struct buffer out = BUFFER_INIT(1 << 24);
    assert_int_equal(ops_tunnels_write(settings, sessions, count, now, &out), KV_OK);
    assert_int_equal(out.data[out.len - 1], '\n');
    json_t *rows = json_loadb(out.data, out.len, JSON_REJECT_DUPLICATES, NULL);
    assert_true(json_is_array(rows));
    buffer_free(&out);
    return rows;
}

static const char *text(const json_t *rows, size_t i, const char *name)
{
    const char *value = json_string_value(json_object_get(json_array_get(rows, i), name));
    assert_non_null(value);
    return value;
}

static void test_one(void **state)
{
    (void)state;
    struct registry_session s = session("quick-fox-3947");
    json_t *rows = list(&https, &s, 1, 1700000061);
    assert_int_equal(json_array_size(rows), 1);
    assert_int_equal(json_object_size(json_array_get(rows, 0)), 9);
    assert_string_equal(text(rows, 0, "subdomain"), "quick-fox-3947");
    assert_string_equal(text(rows, 0, "public_url"), "https://quick-fox-3947.tnl.example.com/");
    assert_string_equal(text(rows, 0, "user_email"), "a@example.com");
    assert_string_equal(text(rows, 0, "client_version"), "0.1.5");
    assert_string_equal(text(rows, 0, "peer_addr"), "203.0.113.7:4567");
    assert_string_equal(text(rows, 0, "session_id"), "0123456789abcdef");
    assert_string_equal(text(rows, 0, "connected_at"), "2023-11-14T22:13:20Z");
    assert_int_equal(json_integer_value(json_object_get(json_array_get(rows, 0), "age_seconds")), 61);
    assert_true(json_is_false(json_object_get(json_array_get(rows, 0), "named")));
    json_decref(rows);
}

static void test_url_with_a_port(void **state)
{
    (void)state;
    const struct ops_settings settings = {.public_scheme = "http", .public_port = 8080, .base_host = "localhost"};
    struct registry_session s = session("x");
    s.named = true;
    json_t *rows = list(&settings, &s, 1, 1700000000);
    assert_string_equal(text(rows, 0, "public_url"), "http://x.localhost:8080/");
    assert_true(json_is_true(json_object_get(json_array_get(rows, 0), "named")));
    json_decref(rows);
}

static void test_none(void **state)
{
    (void)state;
    json_t *rows = list(&https, NULL, 0, 0);
    assert_true(json_is_array(rows));
    assert_int_equal(json_array_size(rows), 0);
    json_decref(rows);
}

static void test_many_are_sorted(void **state)
{
    (void)state;
    const size_t count = 5000;
    struct registry_session *sessions = calloc(count, sizeof(*sessions));
    assert_non_null(sessions);
    for (size_t i = 0; i < count; i++) {
        char name[32];
        snprintf(name, sizeof(name), "t-%zu", i * 7919 % count);
        sessions[i] = session(name);
    }
    json_t *rows = list(&https, sessions, count, 1700000000);
    assert_int_equal(json_array_size(rows), count);
    for (size_t i = 1; i < count; i++)
        assert_true(strcmp(text(rows, i - 1, "subdomain"), text(rows, i, "subdomain")) < 0);
    json_decref(rows);
    free(sessions);
}

/* Whatever a client calls itself, the answer is JSON, and the other rows are in it. */
static void test_texts_of_strangers(void **state)
{
    (void)state;
    struct registry_session s[3] = {session("a"), session("b"), session("c")};
    snprintf(s[0].client_version, sizeof(s[0].client_version), "%s", "\"\\\n\x01</script>\xc3\xa9");
    snprintf(s[1].client_version, sizeof(s[1].client_version), "%s", "v\xff\xc3(\xed\xa0\x80");
    snprintf(s[1].email, sizeof(s[1].email), "%s", "cut\xc3");
    json_t *rows = list(&https, s, 3, 1700000000);
    assert_string_equal(text(rows, 0, "client_version"), "\"\\\n\x01</script>\xc3\xa9");
    assert_string_equal(text(rows, 1, "client_version"), "v?\?(???");
    assert_string_equal(text(rows, 1, "user_email"), "cut?");
    assert_string_equal(text(rows, 2, "client_version"), "0.1.5");
    json_decref(rows);
}

static void test_clock_set_back(void **state)
{
    (void)state;
    struct registry_session s = session("x");
    json_t *rows = list(&https, &s, 1, 1600000000);
    assert_int_equal(json_integer_value(json_object_get(json_array_get(rows, 0), "age_seconds")), 0);
    json_decref(rows);
}

static void test_too_long_is_told(void **state)
{
    (void)state;
    struct registry_session s = session("x");
    struct buffer out = BUFFER_INIT(100);
    assert_int_equal(ops_tunnels_write(&https, &s, 1, 1700000000, &out), KV_ELIMIT);
    buffer_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one),
        cmocka_unit_test(test_url_with_a_port),
        cmocka_unit_test(test_none),
        cmocka_unit_test(test_many_are_sorted),
        cmocka_unit_test(test_texts_of_strangers),
        cmocka_unit_test(test_clock_set_back),
        cmocka_unit_test(test_too_long_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
