/*
 * The row 1, 2, 4 ... 60 s is a person's expectation and a promise of the manual; the jitter takes up to a quarter off
 * each wait, never adds to it, so that the cap stays a cap.
 */
#include "tunnel/backoff.h"

#include "base/limits.h"
#include "base/random.h"

uint32_t backoff_next(struct backoff *backoff)
{
    uint32_t wait = LIMIT_BACKOFF_FIRST_MS;
    for (unsigned i = 0; i < backoff->failures && wait < LIMIT_BACKOFF_MAX_MS; i++)
        wait *= 2;
    if (wait > LIMIT_BACKOFF_MAX_MS)
        wait = LIMIT_BACKOFF_MAX_MS;
    if (backoff->failures < UINT32_MAX)
        backoff->failures++;
    return wait - random_below(wait / 4 + 1);
}

void backoff_reset(struct backoff *backoff)
{
    backoff->failures = 0;
}
