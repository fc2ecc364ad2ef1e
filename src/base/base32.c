/* Base32: eight characters carry five bytes; a shorter last group is as long as its bits need, without '='. */
#include "base/base32.h"

#include <stdint.h>

void base32_encode(const void *data, size_t len, char *out)
{
    static const char alphabet[] = "abcdefghijklmnopqrstuvwxyz234567";
    const uint8_t *bytes = data;
    uint32_t window = 0; /* the low `bits` bits wait for their character */
    unsigned bits = 0;

    for (size_t i = 0; i < len; i++) {
        window = window << 8 | bytes[i];
        for (bits += 8; bits >= 5; bits -= 5)
            *out++ = alphabet[window >> (bits - 5) & 31];
    }
    if (bits > 0)
        *out++ = alphabet[window << (5 - bits) & 31];
    *out = '\0';
}
