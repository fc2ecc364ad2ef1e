/* Heads that own and heads that borrow: copying, room to the byte, look-ups without case, order after removal. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/error.h"
#include "http/head.h"

static void assert_text(struct slice s, const char *text)
{
    assert_int_equal(s.len, strlen(text));
    assert_memory_equal(s.data, text, s.len);
}

static void owns_in_one_block(void **state)
{
    (void)state;
    char name[] = "X-Name", value[] = "Value";
    struct head *h = head_new(2, sizeof(name) - 1 + sizeof(value) - 1 + 1);
    assert_non_null(h);
    assert_int_equal(head_add(h, slice_of(name), slice_of(value)), 0);
    memset(name, '?', sizeof(name) - 1);
    memset(value, '?', sizeof(value) - 1);
    assert_string_equal(h->fields[0].name.data, "x-name"); /* lower case, and a NUL behind it */
    assert_string_equal(h->fields[0].value.data, "Value");
    assert_int_equal(head_add(h, SLICE("Y"), SLICE("")), 0);
    assert_non_null(h->fields[1].value.data);
    assert_int_equal(head_add(h, SLICE("z"), SLICE("")), KV_ELIMIT);
    assert_int_equal(h->count, 2);
    head_free(h);
    head_free(NULL);
}

/* head_new promises exactly: the text asked for, a NUL a piece, and the five texts that are no fields. */
static void keeps_to_its_room(void **state)
{
    (void)state;
    struct head *h = head_new(1, 5 + 2 + 3);
    struct slice texts[] = {SLICE("a"), SLICE("b"), SLICE("c"), SLICE("d"), SLICE("e")};
    for (size_t i = 0; i < 5; i++)
        assert_string_equal(head_intern(h, texts[i]).data, texts[i].data);
    size_t used = h->used;
    assert_int_equal(head_add(h, SLICE("na"), SLICE("long")), KV_ELIMIT);
    assert_int_equal(head_add(h, SLICE("a name with no room"), SLICE("")), KV_ELIMIT);
    assert_int_equal(h->count, 0);
    assert_int_equal(h->used, used);
    assert_int_equal(head_add(h, SLICE("na"), SLICE("val")), 0);
    assert_int_equal(h->used, h->room);
    assert_null(head_intern(h, SLICE("")).data);
    head_free(h);
    assert_null(head_new(UINT16_MAX + 1, 0));
    assert_null(head_new(1, SIZE_MAX - 2));
}

static void copies_everything(void **state)
{
    (void)state;
    struct field storage[3];
    struct head h;
    head_borrow(&h, storage, 3);
    h.method = SLICE("GET");
    h.target = SLICE("/x");
    h.scheme = SLICE("https");
    h.authority = SLICE("a.example");
    h.host_len = 9;
    h.protocol = SLICE("websocket");
    h.status = 101;
    assert_int_equal(head_add(&h, SLICE("One"), SLICE("1")), 0);
    assert_int_equal(head_add(&h, SLICE("Empty"), SLICE("")), 0);
    assert_text(h.fields[0].name, "One"); /* borrowed: as it came */
    assert_int_equal(head_text_size(&h), 3 + 2 + 5 + 9 + 9 + 3 + 1 + 5);

    struct head *copy = head_copy(&h, 1, 4);
    assert_non_null(copy);
    memset(storage, 0, sizeof(storage));
    assert_string_equal(copy->method.data, "GET");
    assert_string_equal(copy->target.data, "/x");
    assert_string_equal(copy->scheme.data, "https");
    assert_string_equal(copy->authority.data, "a.example");
    assert_text(head_host(copy), "a.example");
    assert_string_equal(copy->protocol.data, "websocket");
    assert_int_equal(copy->status, 101);
    assert_int_equal(copy->count, 2);
    assert_string_equal(copy->fields[0].name.data, "one");
    assert_string_equal(copy->fields[1].value.data, "");
    assert_int_equal(head_add(copy, SLICE("mo"), SLICE("re")), 0);
    assert_int_equal(head_add(copy, SLICE("a"), SLICE("b")), KV_ELIMIT);

    struct head *second = head_copy(copy, 0, 0);
    head_free(copy);
    assert_string_equal(second->fields[2].value.data, "re");
    head_free(second);
}

static void finds_without_case(void **state)
{
    (void)state;
    struct field storage[4];
    struct head h;
    head_borrow(&h, storage, 4);
    head_add(&h, SLICE("Accept"), SLICE("a, b ,,\tC"));
    head_add(&h, SLICE("X-Y"), SLICE("first"));
    head_add(&h, SLICE("x-y"), SLICE("second"));
    head_add(&h, SLICE("ACCEPT"), SLICE("last"));
    assert_text(head_value(&h, SLICE("x-y")), "first");
    assert_ptr_equal(head_find(&h, SLICE("accept")), &storage[0]);
    assert_null(head_find(&h, SLICE("x-")));
    assert_null(head_value(&h, SLICE("nothing")).data);
    assert_true(head_has_token(&h, SLICE("accept"), SLICE("c")));
    assert_true(head_has_token(&h, SLICE("accept"), SLICE("LAST")));
    assert_false(head_has_token(&h, SLICE("accept"), SLICE("first")));
    assert_false(head_has_token(&h, SLICE("accept"), SLICE("")));

    head_remove(&h, SLICE("accept"));
    assert_int_equal(h.count, 2);
    assert_text(h.fields[0].value, "first");
    assert_text(h.fields[1].value, "second");
    head_remove(&h, SLICE("X-Y"));
    assert_int_equal(h.count, 0);
}

static void joins_in_place(void **state)
{
    (void)state;
    struct field storage[3];
    struct head from;
    head_borrow(&from, storage, 3);
    head_add(&from, SLICE("cookie"), SLICE("1"));
    head_add(&from, SLICE("g"), SLICE("no"));
    head_add(&from, SLICE("Cookie"), SLICE("2"));
    struct head *h = head_new(1, 9 + 1);
    struct slice joined = head_intern_joined(h, &from, FIELD_COOKIE, SLICE(", "), SLICE("end"));
    assert_string_equal(joined.data, "1, 2, end");
    assert_int_equal(head_add(h, SLICE("f"), joined), 0);
    assert_ptr_equal(h->fields[0].value.data, joined.data); /* not copied again */
    assert_string_equal(head_intern_joined(h, &from, FIELD_EXPECT, SLICE(", "), SLICE("")).data, "");
    assert_null(head_intern_joined(h, &from, FIELD_COOKIE, SLICE(", "), SLICE("more than there is")).data);
    head_free(h);
}

/* A head that lies in one input, and a text that does not; the input is gone before the copy is read. */
static void derives_in_one_piece(void **state)
{
    (void)state;
    char input[] = "GET /x HTTP/1.1\r\nHost: a.example\r\nX-Empty:\r\nCookie: a=b \r\n\r\n";
    const struct slice block = {input, sizeof(input) - 1};
    struct field storage[4];
    struct head h;
    head_borrow(&h, storage, 4);
    h.block = block;
    h.method = (struct slice){strstr(input, "GET"), 3};
    h.target = (struct slice){strstr(input, "/x"), 2};
    h.scheme = SLICE("https"); /* a constant */
    h.authority = (struct slice){strstr(input, "a.example"), 9};
    head_add(&h, (struct slice){strstr(input, "Host"), 4}, h.authority);
    head_add(&h, (struct slice){strstr(input, "X-Empty"), 7}, (struct slice){strstr(input, "Empty:") + 6, 0});
    head_add(&h, (struct slice){strstr(input, "Cookie"), 6}, (struct slice){strstr(input, "a=b"), 3});
    head_add(&h, SLICE("Constant"), SLICE("value"));
    h.judged = true;

    struct head *copy = head_copy(&h, 1, 1);
    memset(input, '!', sizeof(input));
    memset(storage, 0, sizeof(storage));
    assert_true(copy->judged);
    assert_string_equal(copy->method.data, "GET");
    assert_string_equal(copy->target.data, "/x");
    assert_string_equal(copy->scheme.data, "https");
    assert_string_equal(copy->authority.data, "a.example");
    static const char *const texts[] = {"host", "a.example", "x-empty", "", "cookie", "a=b", "constant", "value"};
    for (size_t i = 0; i < 4; i++) {
        assert_string_equal(copy->fields[i].name.data, texts[2 * i]);
        assert_string_equal(copy->fields[i].value.data, texts[2 * i + 1]);
        assert_int_equal(copy->fields[i].value.len, strlen(texts[2 * i + 1]));
    }
    assert_int_equal(field_id(&copy->fields[2]), FIELD_COOKIE);
    assert_int_equal(head_add_id(copy, FIELD_TE, SLICE("t")), 0);
    assert_false(copy->judged); /* nobody looked at what was added */
    assert_string_equal(head_find_id(copy, FIELD_TE)->name.data, "te");
    assert_int_equal(head_add_id(copy, FIELD_TE, SLICE("t")), KV_ELIMIT);
    head_free(copy);
}

static bool finds(const struct head *h, enum field_id id)
{
    return head_find_id(h, id) != NULL;
}

/* What a head is known to lack is right after each way to change it. */
static void knows_what_it_lacks(void **state)
{
    (void)state;
    struct field storage[3];
    struct head h;
    head_borrow(&h, storage, 3);
    assert_false(finds(&h, FIELD_COOKIE));
    head_add(&h, SLICE("Cookie"), SLICE("a"));
    head_add(&h, SLICE("x"), SLICE("b"));
    head_push(&h, SLICE("te"), SLICE("c"), FIELD_TE);
    assert_true(finds(&h, FIELD_COOKIE) && finds(&h, FIELD_PLAIN) && finds(&h, FIELD_TE));
    assert_false(finds(&h, FIELD_HOST));

    struct head *copy = head_copy(&h, 1, 8);
    assert_true(finds(copy, FIELD_COOKIE) && finds(copy, FIELD_PLAIN) && finds(copy, FIELD_TE));
    assert_false(finds(copy, FIELD_HOST));
    head_remove_id(copy, FIELD_COOKIE);
    head_remove_id(copy, FIELD_HOST);
    assert_false(finds(copy, FIELD_COOKIE) || finds(copy, FIELD_HOST));
    head_remove(copy, SLICE("TE"));
    assert_false(finds(copy, FIELD_TE));
    assert_int_equal(copy->count, 1);
    assert_int_equal(head_add_id(copy, FIELD_COOKIE, SLICE("d")), 0);
    assert_true(finds(copy, FIELD_COOKIE));

    struct head *derived = head_derive(copy, 0, 0);
    assert_false(finds(derived, FIELD_COOKIE) || finds(derived, FIELD_PLAIN));
    head_carry_field(derived, head_find_id(copy, FIELD_COOKIE));
    assert_true(finds(derived, FIELD_COOKIE));
    assert_false(finds(derived, FIELD_PLAIN));
    head_free(derived);
    head_free(copy);

    struct field by_hand = {.name = SLICE("Host"), .value = SLICE("h")};
    const struct head unread = {.fields = &by_hand, .count = 1};
    assert_ptr_equal(head_find_id(&unread, FIELD_HOST), &by_hand); /* nothing is known, so it is looked for */
    assert_false(finds(&unread, FIELD_TE));
}

/* Room is booked for text that lies elsewhere, whoever brought it into an owning head. */
static void copies_what_lies_elsewhere(void **state)
{
    (void)state;
    struct head *h = head_new(3, 64);
    assert_int_equal(head_add_id(h, FIELD_X_FORWARDED_PROTO, SLICE("https")), 0);
    assert_int_equal(head_add(h, SLICE("TE"), SLICE("gzip")), 0);
    assert_int_equal(head_add(h, SLICE("Some"), SLICE("thing")), 0);
    head_set_value(h, 1, SLICE("trailers, and more than there was"));
    h->scheme = SLICE("https");
    struct head *copy = head_copy(h, 0, 0);
    head_free(h);
    assert_string_equal(copy->fields[0].name.data, "x-forwarded-proto");
    assert_string_equal(copy->fields[0].value.data, "https");
    assert_string_equal(copy->fields[1].value.data, "trailers, and more than there was");
    assert_string_equal(copy->fields[2].name.data, "some");
    assert_string_equal(copy->fields[2].value.data, "thing");
    assert_string_equal(copy->scheme.data, "https");
    head_free(copy);
}

/* The same from the wire, whose names are lower-cased and whose text is all in one piece. */
static void copies_from_one_block(void **state)
{
    (void)state;
    char input[] = "\x04host\x09"
                   "a.example\x01x\x00.";
    struct field storage[2];
    struct head h;
    head_borrow(&h, storage, 2);
    h.block = (struct slice){input, sizeof(input) - 1};
    h.lower = true;
    h.authority = (struct slice){input + 6, 9};
    head_push(&h, (struct slice){input + 1, 4}, h.authority, FIELD_HOST);
    head_push(&h, (struct slice){input + 16, 1}, (struct slice){input + 17, 0}, FIELD_PLAIN);
    struct head *copy = head_copy(&h, 0, 0);
    memset(input, '!', sizeof(input));
    assert_string_equal(copy->authority.data, "a.example");
    assert_string_equal(copy->fields[0].name.data, "host");
    assert_string_equal(copy->fields[0].value.data, "a.example");
    assert_string_equal(copy->fields[1].name.data, "x");
    assert_string_equal(copy->fields[1].value.data, "");
    assert_ptr_equal(head_find_id(copy, FIELD_HOST), &copy->fields[0]);
    assert_null(head_find_id(copy, FIELD_TE));
    head_free(copy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(owns_in_one_block),     cmocka_unit_test(keeps_to_its_room),
        cmocka_unit_test(copies_everything),     cmocka_unit_test(finds_without_case),
        cmocka_unit_test(joins_in_place),        cmocka_unit_test(derives_in_one_piece),
        cmocka_unit_test(knows_what_it_lacks),   cmocka_unit_test(copies_what_lies_elsewhere),
        cmocka_unit_test(copies_from_one_block),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
