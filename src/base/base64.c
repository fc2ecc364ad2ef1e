/* Three bytes become four characters; what is missing in the last three is counted by '='. */
#include "base/base64.h"

#include <stdint.h>

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void base64_encode(struct slice bytes, char *out)
{
    for (size_t i = 0; i < bytes.len; i += 3) {
        size_t have = bytes.len - i < 3 ? bytes.len - i : 3;
        uint32_t bits = 0;
        for (size_t j = 0; j < 3; j++)
            bits = bits << 8 | (j < have ? (unsigned char)bytes.data[i + j] : 0);
        for (unsigned j = 0; j < 4; j++)
            *out++ = j <= have ? alphabet[bits >> (18 - 6 * j) & 63] : '=';
    }
}
