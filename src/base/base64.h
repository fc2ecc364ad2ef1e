/* Base64 with padding (RFC 4648, 4), as HTTP credentials are written (RFC 7617). */
#ifndef KV_BASE_BASE64_H
#define KV_BASE_BASE64_H

#include <stddef.h>

#include "base/slice.h"

/* Characters of n encoded bytes, without a NUL. */
#define BASE64_LEN(n) (((n) + 2) / 3 * 4)

/* Writes BASE64_LEN(bytes.len) characters, no NUL. Any thread. */
void base64_encode(struct slice bytes, char *out);

#endif
