/* Times as the store keeps them: RFC 3339, UTC, whole seconds. */
#ifndef KV_STORE_STORE_TIME_H
#define KV_STORE_STORE_TIME_H

#include <stdbool.h>
#include <stdint.h>

#include "base/slice.h"

#define STORE_TIME_LEN 20 /* 2026-01-31T23:59:59Z */

/* Seconds since 1970, of the wall clock. */
int64_t store_now(void);

/* Milliseconds that only go forward, for deadlines. */
uint64_t store_ticks(void);

void store_time_format(int64_t seconds, char out[STORE_TIME_LEN + 1]);

/* Reads what the databases give and what people write: a date alone, or a date, 'T' or a space, a time, and optionally
 * a fraction (dropped) and a zone (Z, +hh, +hhmm or +hh:mm; UTC without one). False for anything else. */
bool store_time_parse(struct slice text, int64_t *seconds);

#endif
