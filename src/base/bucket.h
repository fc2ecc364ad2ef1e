/*
 * A token bucket: what may be done often over a moment and seldom over a long time. It fills by itself, `rate` tokens a
 * second up to `burst`, and time is looked at only through the caller's clock, in milliseconds of any monotonic kind.
 * No lock: a bucket belongs to one thread, or to who holds its lock. Threads that share one may each have read the
 * clock at another moment: a time before the last one fills nothing.
 */
#ifndef KV_BASE_BUCKET_H
#define KV_BASE_BUCKET_H

#include <stdbool.h>
#include <stdint.h>

struct bucket {
    uint32_t milli; /* thousandths of a token, so that slow rates fill too: at most 4 million tokens */
    uint64_t at;    /* the latest time it was filled for; as wide as the clock, so that it never wraps */
};

static inline void bucket_start(struct bucket *b, uint32_t burst, uint64_t now_ms)
{
    *b = (struct bucket){.milli = burst * 1000, .at = now_ms};
}

/* Fills it for the time since the latest call. A token a second is a thousandth a millisecond. */
static inline void bucket_fill(struct bucket *b, uint32_t rate, uint32_t burst, uint64_t now_ms)
{
    if (now_ms <= b->at)
        return;
    uint64_t milli = b->milli + (now_ms - b->at) * rate;
    b->milli = milli > (uint64_t)burst * 1000 ? burst * 1000 : (uint32_t)milli;
    b->at = now_ms;
}

/* Takes tokens; false when there are not so many, and then it is as before. */
static inline bool bucket_take(struct bucket *b, uint32_t tokens)
{
    if (b->milli < (uint64_t)tokens * 1000)
        return false;
    b->milli -= tokens * 1000;
    return true;
}

/* Puts tokens in beside the rate, as far as there is room. */
static inline void bucket_give(struct bucket *b, uint32_t tokens, uint32_t burst)
{
    uint64_t milli = b->milli + (uint64_t)tokens * 1000;
    b->milli = milli > (uint64_t)burst * 1000 ? burst * 1000 : (uint32_t)milli;
}

/* Milliseconds until there are so many tokens at this rate (not 0); 0 when there are. */
static inline uint64_t bucket_wait(const struct bucket *b, uint32_t tokens, uint32_t rate)
{
    uint64_t wanted = (uint64_t)tokens * 1000;
    return b->milli >= wanted ? 0 : (wanted - b->milli + rate - 1) / rate;
}

#endif
