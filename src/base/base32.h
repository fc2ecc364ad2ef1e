/* Base32 (RFC 4648, section 6), lower case, without padding: how token bytes are shown to people. */
#ifndef KV_BASE_BASE32_H
#define KV_BASE_BASE32_H

#include <stddef.h>

/* Characters that n bytes take, without the NUL. */
#define BASE32_LEN(n) (((n)*8 + 4) / 5)

/* Writes BASE32_LEN(len) characters and a NUL to out. */
void base32_encode(const void *data, size_t len, char *out);

#endif
