/* The reason table: codes and statuses are an interface, so they are written out here once more. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <ctype.h>
#include <string.h>

#include "base/reason.h"

static void test_statuses_and_codes(void **state)
{
    static const struct {
        enum close_reason reason;
        const char *code;
        unsigned status;
        enum reason_side side;
    } rows[] = {
        {REASON_NONE, "none", 0, SIDE_NOBODY},
        {REASON_INTERNAL, "internal", 500, SIDE_SERVER},
        {REASON_VISITOR_GONE, "visitor_gone", 0, SIDE_VISITOR},
        {REASON_VISITOR_SLOW, "visitor_slow", 408, SIDE_VISITOR},
        {REASON_BAD_REQUEST, "bad_request", 400, SIDE_VISITOR},
        {REASON_NOT_IMPLEMENTED, "not_implemented", 501, SIDE_VISITOR},
        {REASON_HEAD_TOO_LARGE, "head_too_large", 431, SIDE_VISITOR},
        {REASON_TARGET_TOO_LONG, "target_too_long", 414, SIDE_VISITOR},
        {REASON_RATE_LIMITED, "rate_limited", 429, SIDE_VISITOR},
        {REASON_BODY_TOO_LARGE, "body_too_large", 413, SIDE_VISITOR},
        {REASON_VISITOR_BUSY, "visitor_busy", 429, SIDE_VISITOR},
        {REASON_NO_TUNNEL, "no_tunnel", 502, SIDE_TUNNEL},
        {REASON_LOOP, "loop", 508, SIDE_TUNNEL},
        {REASON_TUNNEL_BUSY, "tunnel_busy", 503, SIDE_TUNNEL},
        {REASON_SERVER_BUSY, "server_busy", 503, SIDE_SERVER},
        {REASON_DRAINING, "draining", 503, SIDE_SERVER},
        {REASON_CLIENT_GONE, "client_gone", 502, SIDE_TUNNEL},
        {REASON_CLIENT_TIMEOUT, "client_timeout", 504, SIDE_TUNNEL},
        {REASON_SERVER_TIMEOUT, "server_timeout", 504, SIDE_SERVER},
        {REASON_ORIGIN_REFUSED, "origin_refused", 502, SIDE_SERVICE},
        {REASON_ORIGIN_UNREACHABLE, "origin_unreachable", 502, SIDE_SERVICE},
        {REASON_ORIGIN_CONNECT_TIMEOUT, "origin_connect_timeout", 504, SIDE_SERVICE},
        {REASON_ORIGIN_TIMEOUT, "origin_timeout", 504, SIDE_SERVICE},
        {REASON_ORIGIN_CLOSED, "origin_closed", 502, SIDE_SERVICE},
        {REASON_ORIGIN_BAD_RESPONSE, "origin_bad_response", 502, SIDE_SERVICE},
        {REASON_ORIGIN_HEAD_TOO_LARGE, "origin_head_too_large", 502, SIDE_SERVICE},
        {REASON_ORIGIN_TLS, "origin_tls", 502, SIDE_SERVICE},
        {REASON_ORIGIN_OTHER, "origin_other", 502, SIDE_SERVICE},
        {REASON_PROTOCOL, "protocol", 502, SIDE_TUNNEL},
        {REASON_TAKEN_OVER, "taken_over", 502, SIDE_TUNNEL},
        {REASON_REPLACED, "replaced", 502, SIDE_TUNNEL},
        {REASON_REVOKED, "revoked", 502, SIDE_TUNNEL},
        {REASON_KICKED, "kicked", 502, SIDE_SERVER},
        {REASON_IDLE, "idle", 0, SIDE_NOBODY},
    };
    _Static_assert(sizeof(rows) / sizeof(rows[0]) == REASON_COUNT, "a row for every reason");

    (void)state;
    for (size_t i = 0; i < REASON_COUNT; i++) {
        const struct reason_text *text = reason_text(rows[i].reason);
        assert_string_equal(text->code, rows[i].code);
        assert_int_equal(text->status, rows[i].status);
        assert_int_equal(text->side, rows[i].side);
    }
}

static void test_sentences_of_the_specification(void **state)
{
    (void)state;
    assert_string_equal(reason_text(REASON_NO_TUNNEL)->sentence, "no active tunnel for this hostname");
    assert_string_equal(reason_text(REASON_TUNNEL_BUSY)->sentence, "tunnel is at its concurrent-request capacity");
}

static void test_rows_are_complete_and_distinct(void **state)
{
    (void)state;
    for (int i = 0; i < REASON_COUNT; i++) {
        const struct reason_text *text = reason_text((enum close_reason)i);
        assert_true(strlen(text->sentence) > 10);
        for (const char *c = text->code; *c; c++)
            assert_true(islower((unsigned char)*c) || *c == '_');
        for (int j = 0; j < i; j++) {
            assert_string_not_equal(text->code, reason_text((enum close_reason)j)->code);
            assert_string_not_equal(text->sentence, reason_text((enum close_reason)j)->sentence);
        }
    }
}

static void test_out_of_range(void **state)
{
    (void)state;
    assert_ptr_equal(reason_text(REASON_COUNT), reason_text(REASON_INTERNAL));
    assert_ptr_equal(reason_text((enum close_reason) - 1), reason_text(REASON_INTERNAL));
    assert_ptr_equal(reason_text((enum close_reason)0x7fffffff), reason_text(REASON_INTERNAL));
}

static void test_side_names(void **state)
{
    (void)state;
    assert_string_equal(reason_side_name(SIDE_NOBODY), "nobody");
    assert_string_equal(reason_side_name(SIDE_VISITOR), "visitor");
    assert_string_equal(reason_side_name(SIDE_SERVER), "server");
    assert_string_equal(reason_side_name(SIDE_TUNNEL), "tunnel");
    assert_string_equal(reason_side_name(SIDE_SERVICE), "local service");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_statuses_and_codes),
        cmocka_unit_test(test_sentences_of_the_specification),
        cmocka_unit_test(test_rows_are_complete_and_distinct),
        cmocka_unit_test(test_out_of_range),
        cmocka_unit_test(test_side_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
