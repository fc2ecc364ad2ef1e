/*
 * BLAKE3 in its plain hash mode with 32-byte output (the portable compression function of the BLAKE3 paper, section
 * 2.2). The stores keep blake3(token text), never the token.
 */
#ifndef KV_BASE_BLAKE3_H
#define KV_BASE_BLAKE3_H

#include <stddef.h>
#include <stdint.h>

#define BLAKE3_LEN 32

/* Any length. Any thread. */
void blake3(const void *data, size_t len, uint8_t out[BLAKE3_LEN]);

/* True when a and b hold the same len bytes; the time taken depends on len alone. */
int secret_equals(const void *a, const void *b, size_t len);

/* Overwrites what calls that have returned left on the stack, some 128 KiB below the caller: what copied or read a
 * secret need not be known one by one. */
void secret_wipe_stack(void);

/* Overwrites a secret before its memory goes back; not optimised away. */
void secret_wipe(void *data, size_t len);

#endif
