/*
 * Random numbers, always straight from getrandom(2): a process that forks, or wakes up in a second virtual machine,
 * never repeats itself, and there is no state to protect from other threads.
 */
#include "base/random.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

void random_bytes(void *out, size_t len)
{
    char *next = out;

    while (len > 0) {
        ssize_t got = getrandom(next, len, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            fprintf(stderr, "fatal: the operating system gives no random numbers: %s\n", strerror(errno));
            abort();
        }
        next += got;
        len -= (size_t)got;
    }
}

uint32_t random_below(uint32_t bound)
{
    /* The lowest 2^32 mod bound values are drawn again; what is left divides evenly among the residues. */
    uint32_t reject = (uint32_t)-bound % bound;
    uint32_t value;

    do {
        random_bytes(&value, sizeof(value));
    } while (value < reject);
    return value % bound;
}

void random_hex(char *out, size_t len)
{
    static const char digits[] = "0123456789abcdef";
    uint8_t bytes[64];

    while (len > 0) {
        size_t part = len < sizeof(bytes) ? len : sizeof(bytes);
        random_bytes(bytes, part);
        for (size_t i = 0; i < part; i++) {
            *out++ = digits[bytes[i] >> 4];
            *out++ = digits[bytes[i] & 15];
        }
        len -= part;
    }
    *out = '\0';
}
