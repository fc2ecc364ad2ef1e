/* What a visitor is given for what his Accept says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "http/accept.h"
#include "http/head.h"

static const struct slice offers[] = {{"text/plain", 10}, {"application/json", 16}, {"text/html", 9}};

enum {
    TEXT,
    JSON,
    HTML
};

static void check(const char *one, const char *two, size_t expected)
{
    struct field storage[4];
    struct head head;
    head_borrow(&head, storage, 4);
    if (one)
        head_add(&head, SLICE("Accept"), slice_of(one));
    head_add(&head, SLICE("Accept-Language"), SLICE("text/html"));
    if (two)
        head_add(&head, SLICE("accept"), slice_of(two));
    size_t got = accept_choose(&head, offers, 3);
    if (got != expected)
        fail_msg("%s | %s: offer %zu", one ? one : "", two ? two : "", got);
}

static void chooses(void **state)
{
    (void)state;
    static const struct {
        const char *accept;
        size_t expected;
    } cases[] = {
        {"", TEXT},
        {"*/*", TEXT},
        {"text/plain", TEXT},
        {"text/html", HTML},
        {"application/json", JSON},
        {"TEXT/HTML", HTML},
        {"image/png", TEXT},
        {"image/avif,image/webp,*/*;q=0.8", TEXT},
        /* browsers, and the likes of axios */
        {"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8", HTML},
        {"application/json, text/plain, */*", JSON},
        {"application/json;q=0.1, text/html", HTML},
        {"text/html;q=0.1, application/json", JSON},
        {"text/html;q=0,application/json", JSON},
        {"text/html;q=0.500, application/json;q=0.501", JSON},
        {"application/json;q=1.000, text/html;q=0.999", JSON},
        {"text/html ; q=0.5 , application/json ; Q=0.4", HTML},
        /* the more specific range counts, whatever stands first */
        {"text/*;q=0.9, text/plain;q=0.1, */*;q=0.5", HTML},
        {"*/*, text/plain;q=0", JSON},
        {"*/*;q=0.9, text/html", HTML},
        {"text/*", TEXT},
        {"application/*", JSON},
        {"*/*;q=0.5, application/*;q=0.5", JSON},
        {"text/html, application/json", HTML},
        {"application/json, text/html", JSON},
        /* all of them refused: text, which is no answer's worse */
        {"*/*;q=0", TEXT},
        {"text/html;q=0, application/json;q=0.0, text/plain;q=0.000", TEXT},
        /* other parameters are let be, a malformed weight makes a range none */
        {"text/html;level=1", HTML},
        {"text/html;charset=utf-8;q=0.1, application/json;q=0.2", JSON},
        {"text/html;q=2", TEXT},
        {"text/html;q=1.001", TEXT},
        {"text/html;q=0.1234", TEXT},
        {"text/html;q=", TEXT},
        {"text/html;q=.5", TEXT},
        {"text/html;q=0,5", TEXT},
        {"text/html;q=-1", TEXT},
        {"text/html;q=1x", TEXT},
        {"garbage;;;,q=", TEXT},
        {"text", TEXT},
        {"text/", TEXT},
        {"/", TEXT},
        {"*", TEXT},
        {"*/html", TEXT},
        {";q=1", TEXT},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        check(cases[i].accept, NULL, cases[i].expected);
    check(NULL, NULL, TEXT);
}

static void reads_all_lines(void **state)
{
    (void)state;
    check("text/plain;q=0.5", "text/html", HTML);
    check("text/html", "application/json", HTML);
    check("*/*", "application/json", JSON);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(chooses), cmocka_unit_test(reads_all_lines)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
