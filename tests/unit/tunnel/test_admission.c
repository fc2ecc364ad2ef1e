/* Who may have a request in flight. */
#include "tunnel/admission.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define CAP 256

static struct admission_place places[2 * CAP];
static unsigned used;

static int start(void **state)
{
    static struct admission a;
    a = (struct admission){.caps = {CAP, CAP}};
    used = 0;
    *state = &a;
    return 0;
}

/* Enters until it is refused; how often that went well. */
static unsigned crowd(struct admission *a, uint64_t site, enum close_reason refused)
{
    unsigned before = used;
    enum close_reason reason;
    while ((reason = admission_enter(a, &places[used], site)) == REASON_NONE)
        used++;
    assert_int_equal(reason, refused);
    return used - before;
}

static int leave(void **state)
{
    struct admission *a = *state;
    while (used > 0)
        admission_leave(a, &places[--used]);
    assert_int_equal(a->held[ADMISSION_WORKING], 0);
    assert_int_equal(a->held[ADMISSION_STILL], 0);
    assert_null(a->visitors);
    return 0;
}

static void one_gets_three_quarters(void **state)
{
    struct admission *a = *state;
    assert_int_equal(crowd(a, 1, REASON_VISITOR_BUSY), CAP * 3 / 4);
    assert_int_equal(crowd(a, 2, REASON_VISITOR_BUSY), CAP * 3 / 16);
    assert_int_equal(crowd(a, 3, REASON_VISITOR_BUSY), CAP * 3 / 64);
    assert_int_equal(crowd(a, 4, REASON_VISITOR_BUSY), CAP * 3 / 256);
    assert_int_equal(crowd(a, 5, REASON_TUNNEL_BUSY), 1); /* the last one */
}

static void proxies_get_all(void **state)
{
    struct admission *a = *state;
    assert_int_equal(crowd(a, 0, REASON_TUNNEL_BUSY), CAP);
}

static void what_ends_makes_room(void **state)
{
    struct admission *a = *state;
    crowd(a, 1, REASON_VISITOR_BUSY);
    admission_leave(a, &places[--used]);
    assert_int_equal(crowd(a, 1, REASON_VISITOR_BUSY), 1);
}

static void the_still_have_places_of_their_own(void **state)
{
    struct admission *a = *state;
    unsigned working = crowd(a, 1, REASON_VISITOR_BUSY);
    for (unsigned i = 0; i < working; i++)
        assert_true(admission_rest(a, &places[i]));
    assert_false(admission_rest(a, &places[0])); /* it is there already */
    assert_int_equal(crowd(a, 1, REASON_VISITOR_BUSY), CAP * 3 / 4);
    assert_false(admission_rest(a, &places[working])); /* its share of those is taken too */
    assert_int_equal(crowd(a, 2, REASON_VISITOR_BUSY), CAP * 3 / 16);
    assert_true(admission_rest(a, &places[2 * working]));

    /* Who carries something again works again, whatever the cap. */
    for (unsigned i = 0; i < working; i++)
        admission_wake(a, &places[i]);
    assert_int_equal(a->held[ADMISSION_STILL], 1);
    assert_true(a->held[ADMISSION_WORKING] > CAP);
    assert_int_equal(crowd(a, 3, REASON_TUNNEL_BUSY), 0);
}

static void without_still_places_nothing_rests(void **state)
{
    struct admission *a = *state;
    a->caps[ADMISSION_STILL] = 0;
    crowd(a, 1, REASON_VISITOR_BUSY);
    assert_false(admission_rest(a, &places[0]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(one_gets_three_quarters, start, leave),
        cmocka_unit_test_setup_teardown(proxies_get_all, start, leave),
        cmocka_unit_test_setup_teardown(what_ends_makes_room, start, leave),
        cmocka_unit_test_setup_teardown(the_still_have_places_of_their_own, start, leave),
        cmocka_unit_test_setup_teardown(without_still_places_nothing_rests, start, leave),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
