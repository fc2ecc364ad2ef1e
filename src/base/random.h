/* Random bytes from the operating system's generator (getrandom(2)), and numbers made of them. Any thread. */
#ifndef KV_BASE_RANDOM_H
#define KV_BASE_RANDOM_H

#include <stddef.h>
#include <stdint.h>

/* Fills out[0..len). Never fails: without a generator no secret can be made, so the process ends with a sentence. */
void random_bytes(void *out, size_t len);

/* Uniform in [0, bound), bound > 0, without modulo bias. */
uint32_t random_below(uint32_t bound);

/* 2*len lower-case hex digits of len random bytes and a NUL into out. */
void random_hex(char *out, size_t len);

#endif
