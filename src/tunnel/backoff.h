/*
 * How long to wait before the next try: 1, 2, 4 ... 60 s with jitter, so that clients that lost one server do not come
 * back as one wave.
 */
#ifndef KV_TUNNEL_BACKOFF_H
#define KV_TUNNEL_BACKOFF_H

#include <stdint.h>

struct backoff {
    unsigned failures; /* in a row */
};

/* Milliseconds to wait now: LIMIT_BACKOFF_FIRST_MS doubled for every failure before, capped at LIMIT_BACKOFF_MAX_MS,
 * then a uniform random value between 75 % and 100 % of that. Counts one failure more. */
uint32_t backoff_next(struct backoff *backoff);

/* After a session that worked: the next failure waits one second again. */
void backoff_reset(struct backoff *backoff);

#endif
