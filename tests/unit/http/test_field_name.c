/* Names told apart: case, disguises, beginnings, and the names that we write ourselves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "http/field_name.h"

static const struct {
    const char *name;
    enum field_id id;
} rows[] = {
    {"host", FIELD_HOST},
    {"Host", FIELD_HOST},
    {"CONTENT-LENGTH", FIELD_CONTENT_LENGTH},
    {"content_length", FIELD_DISGUISED},
    {"Content_Length", FIELD_DISGUISED},
    {"content-lengths", FIELD_PLAIN},
    {"content-lengt", FIELD_PLAIN},
    {"te", FIELD_TE},
    {"t", FIELD_PLAIN},
    {"tea", FIELD_PLAIN},
    {"Transfer-Encoding", FIELD_TRANSFER_ENCODING},
    {"transfer_encoding", FIELD_DISGUISED},
    {"x-forwarded-for", FIELD_X_FORWARDED_FOR},
    {"X-Forwarded-Port", FIELD_X_FORWARDED_OTHER},
    {"x_forwarded_for", FIELD_DISGUISED},
    {"x-forwarded_anything", FIELD_DISGUISED},
    {"x-forwarded", FIELD_PLAIN},
    {"Forwarded", FIELD_FORWARDED},
    {"kavilo-reason", FIELD_KAVILO},
    {"Kavilo_Reason", FIELD_DISGUISED},
    {"kavilo", FIELD_PLAIN},
    {"If-Modified-Since", FIELD_MODIFIER},
    {"if_match", FIELD_PLAIN},
    {"content-type", FIELD_MODIFIER},
    {"content_type", FIELD_PLAIN},
    {"proxy-authorization", FIELD_PROXY_AUTHORIZATION},
    {"proxy-authorization2", FIELD_PLAIN},
    {"sec-websocket-extensions", FIELD_PLAIN},
    {"Accept", FIELD_ACCEPT},
    {"accept-encoding", FIELD_PLAIN},
    {"", FIELD_PLAIN},
};

static void tells_names_apart(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (field_id_of(slice_of(rows[i].name)) != rows[i].id)
            fail_msg("'%s' is %d", rows[i].name, (int)field_id_of(slice_of(rows[i].name)));
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char lower[64];
        size_t len = strlen(rows[i].name);
        slice_lower(slice_of(rows[i].name), lower);
        assert_int_equal(field_id_of_lower((struct slice){lower, len}), rows[i].id);
    }
}

static void knows_its_own_names(void **state)
{
    (void)state;
    unsigned named = 0;
    for (int id = FIELD_PLAIN + 1; id < FIELD_ID_COUNT; id++) {
        struct slice name = field_name((enum field_id)id);
        if (name.len == 0)
            continue;
        assert_int_equal(field_id_of(name), id);
        named++;
    }
    assert_true(named > 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tells_names_apart),
        cmocka_unit_test(knows_its_own_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
