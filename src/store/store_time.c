/*
 * RFC 3339 times. PostgreSQL prints its timestamptz nearly so (a space for the T, a fraction, "+00" for the zone), and
 * whoever writes into a table by hand writes something of the kind: one parser takes them all, and everything that we
 * write or print ourselves is in one form.
 */
#include "store/store_time.h"

#include <stdio.h>
#include <time.h>

int64_t store_now(void)
{
    return (int64_t)time(NULL);
}

uint64_t store_ticks(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void store_time_format(int64_t seconds, char out[STORE_TIME_LEN + 1])
{
    time_t at = (time_t)seconds;
    struct tm parts;
    if (!gmtime_r(&at, &parts) || parts.tm_year + 1900 > 9999 || parts.tm_year + 1900 < 0) {
        snprintf(out, STORE_TIME_LEN + 1, "9999-12-31T23:59:59Z");
        return;
    }
    strftime(out, STORE_TIME_LEN + 1, "%Y-%m-%dT%H:%M:%SZ", &parts);
}

/* Takes `digits` digits off the front. */
static bool take_number(struct slice *s, size_t digits, int min, int max, int *out)
{
    int value = 0;
    if (s->len < digits)
        return false;
    for (size_t i = 0; i < digits; i++) {
        if (s->data[i] < '0' || s->data[i] > '9')
            return false;
        value = value * 10 + (s->data[i] - '0');
    }
    if (value < min || value > max)
        return false;
    *out = value;
    *s = (struct slice){s->data + digits, s->len - digits};
    return true;
}

static bool take_char(struct slice *s, char c)
{
    if (s->len == 0 || s->data[0] != c)
        return false;
    *s = (struct slice){s->data + 1, s->len - 1};
    return true;
}

/* Seconds east of UTC. */
static bool take_zone(struct slice *s, int *offset)
{
    int hours = 0, minutes = 0, sign = 1;
    *offset = 0;
    if (s->len == 0 || take_char(s, 'Z') || take_char(s, 'z'))
        return s->len == 0;
    if (take_char(s, '-'))
        sign = -1;
    else if (!take_char(s, '+'))
        return false;
    if (!take_number(s, 2, 0, 23, &hours))
        return false;
    if (s->len > 0) {
        take_char(s, ':');
        if (!take_number(s, 2, 0, 59, &minutes))
            return false;
    }
    *offset = sign * (hours * 3600 + minutes * 60);
    return s->len == 0;
}

bool store_time_parse(struct slice text, int64_t *seconds)
{
    struct tm parts = {0};
    int year, offset = 0;
    if (!take_number(&text, 4, 1, 9999, &year) || !take_char(&text, '-') ||
        !take_number(&text, 2, 1, 12, &parts.tm_mon) || !take_char(&text, '-') ||
        !take_number(&text, 2, 1, 31, &parts.tm_mday))
        return false;
    parts.tm_year = year - 1900;
    parts.tm_mon--;

    if (text.len > 0) {
        if (!take_char(&text, 'T') && !take_char(&text, 't') && !take_char(&text, ' '))
            return false;
        if (!take_number(&text, 2, 0, 23, &parts.tm_hour) || !take_char(&text, ':') ||
            !take_number(&text, 2, 0, 59, &parts.tm_min))
            return false;
        if (take_char(&text, ':') && !take_number(&text, 2, 0, 59, &parts.tm_sec))
            return false;
        if (take_char(&text, '.')) {
            int digit;
            if (!take_number(&text, 1, 0, 9, &digit))
                return false;
            while (take_number(&text, 1, 0, 9, &digit))
                ;
        }
        if (!take_zone(&text, &offset))
            return false;
    }

    /* timegm() turns 31 February into March: a date that comes back changed was none. */
    struct tm given = parts;
    time_t at = timegm(&parts);
    if (parts.tm_mon != given.tm_mon || parts.tm_mday != given.tm_mday)
        return false;
    *seconds = (int64_t)at - offset;
    return true;
}
