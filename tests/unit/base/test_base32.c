/* Base32 against the vectors of RFC 4648, 10, lower-cased and without padding. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "base/base32.h"

static void test_vectors(void **state)
{
    static const char *const vectors[][2] = {
        {"", ""},
        {"f", "my"},
        {"fo", "mzxq"},
        {"foo", "mzxw6"},
        {"foob", "mzxw6yq"},
        {"fooba", "mzxw6ytb"},
        {"foobar", "mzxw6ytboi"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
        char out[32];
        size_t len = strlen(vectors[i][0]);
        memset(out, '#', sizeof(out));
        base32_encode(vectors[i][0], len, out);
        assert_string_equal(out, vectors[i][1]);
        assert_int_equal(BASE32_LEN(len), strlen(out));
        assert_int_equal(out[strlen(out) + 1], '#');
    }
}

static void test_every_digit(void **state)
{
    static const unsigned char bytes[20] = {0x00, 0x44, 0x32, 0x14, 0xc7, 0x42, 0x54, 0xb6, 0x35, 0xcf,
                                            0x84, 0x65, 0x3a, 0x56, 0xd7, 0xc6, 0x75, 0xbe, 0x77, 0xdf};
    char out[BASE32_LEN(sizeof(bytes)) + 1];

    (void)state;
    base32_encode(bytes, sizeof(bytes), out);
    assert_string_equal(out, "abcdefghijklmnopqrstuvwxyz234567");
}

static void test_token_length(void **state)
{
    unsigned char ones[32];
    char out[BASE32_LEN(32) + 1];

    (void)state;
    memset(ones, 0xff, sizeof(ones));
    base32_encode(ones, sizeof(ones), out);
    assert_int_equal(BASE32_LEN(32), 52);
    assert_string_equal(out, "777777777777777777777777777777777777777777777777777q");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_every_digit),
        cmocka_unit_test(test_token_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
