/* Random names: their form, that every word of both lists comes up as often as the others, and the numbers' range. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/slice.h"
#include "tunnel/names.h"

#define WORDS 24
#define DRAWS 240000

struct tally {
    char words[WORDS][9];
    unsigned counts[WORDS];
    size_t used;
};

/* Counts a word; fails at the 25th different one. */
static void tally_add(struct tally *tally, const char *word, size_t len)
{
    size_t i = 0;
    while (i < tally->used && (strlen(tally->words[i]) != len || memcmp(tally->words[i], word, len) != 0))
        i++;
    if (i == tally->used) {
        assert_true(tally->used < WORDS);
        memcpy(tally->words[tally->used++], word, len);
    }
    tally->counts[i]++;
}

/* All 24 seen, each within ten standard deviations (100 of 10000) of its share. */
static void tally_check(const struct tally *tally)
{
    assert_int_equal(tally->used, WORDS);
    for (size_t i = 0; i < WORDS; i++)
        assert_in_range(tally->counts[i], DRAWS / WORDS - 1000, DRAWS / WORDS + 1000);
}

static bool tally_has(const struct tally *tally, const char *word)
{
    for (size_t i = 0; i < tally->used; i++) {
        if (strcmp(tally->words[i], word) == 0)
            return true;
    }
    return false;
}

/* Length of the run of lower-case letters at p. */
static size_t word_length(const char *p)
{
    return strspn(p, "abcdefghijklmnopqrstuvwxyz");
}

static void test_random(void **state)
{
    (void)state;
    static struct tally adjectives, animals;
    static unsigned numbers[10000];
    for (int i = 0; i < DRAWS; i++) {
        char name[LIMIT_LABEL_BYTES + 1];
        names_random(name);
        const char *adjective = name;
        size_t adjective_len = word_length(adjective);
        assert_in_range(adjective_len, 3, 8);
        assert_int_equal(adjective[adjective_len], '-');
        const char *animal = adjective + adjective_len + 1;
        size_t animal_len = word_length(animal);
        assert_in_range(animal_len, 3, 8);
        assert_int_equal(animal[animal_len], '-');
        const char *number = animal + animal_len + 1;
        uint64_t value;
        assert_int_equal(strlen(number), 4);
        assert_true(slice_to_u64(slice_of(number), &value));
        assert_in_range(value, 1000, 9999);
        tally_add(&adjectives, adjective, adjective_len);
        tally_add(&animals, animal, animal_len);
        numbers[value]++;
    }
    tally_check(&adjectives);
    tally_check(&animals);
    assert_true(tally_has(&adjectives, "quick"));
    assert_true(tally_has(&animals, "fox"));
    /* 26 or 27 draws a number on average: none is missing (odds of 1 in 10^7) and none is a favourite. */
    for (int i = 1000; i < 10000; i++)
        assert_in_range(numbers[i], 1, 80);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
