/* The time of a message (RFC 9110, 5.6.7 and 6.6.1). Any thread. */
#ifndef KV_HTTP_DATE_H
#define KV_HTTP_DATE_H

#include <time.h>

#include "base/slice.h"

/* "Sun, 06 Nov 1994 08:49:37 GMT", and a NUL */
#define HTTP_DATE_LEN 30

/* Writes an IMF-fixdate; the result is `out`. A time that no date has, as one before the year 0, gives the epoch. */
struct slice http_date(time_t time, char out[HTTP_DATE_LEN]);

#endif
