/* Which requests have come round. */
#include "http/loop.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "http/head.h"

static void test_passes(void **state)
{
    (void)state;
    static const struct {
        const char *name, *value;
        bool passed;
    } cases[] = {
        {"via", "1.1 a.tnl.test", true},
        {"Via", "1.0 fred, 2 A.Tnl.Test:443 (kavilo), 1.1 x", true},
        {"via", "HTTP/1.1 a.tnl.test.", true},
        {"via", "1.1\ta.tnl.test", true},
        {"cdn-loop", "a.tnl.test", true},
        {"CDN-Loop", "x; a=b, a.tnl.test:80; c=d", true},
        {"cdn-loop", "a.tnl.test;v=1", true},

        {"via", "1.1 b.tnl.test", false},
        {"via", "a.tnl.test", false},
        {"via", "1.1 xa.tnl.test", false},
        {"via", "1.1 a.tnl.test.evil", false},
        {"via", "1.1 (a.tnl.test)", false},
        {"via", "", false},
        {"cdn-loop", "tnl.test, b.tnl.test", false},
        {"cdn-loop", "x; a.tnl.test", false},
        {"x-via", "1.1 a.tnl.test", false},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct field fields[2];
        struct head head;
        head_borrow(&head, fields, 2);
        head_add(&head, SLICE("via"), SLICE("1.1 nobody"));
        head_add(&head, slice_of(cases[i].name), slice_of(cases[i].value));
        if (loop_has_passed(&head, SLICE("a.tnl.test")) != cases[i].passed)
            fail_msg("%s: %s", cases[i].name, cases[i].value);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_passes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
