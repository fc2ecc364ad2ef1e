/* Names of days and months are written by hand, because strftime's depend on the locale. */
#include "http/date.h"

#include <stdio.h>

#define YEAR_MAX 9999

struct slice http_date(time_t time, char out[HTTP_DATE_LEN])
{
    static const char days[7][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                       "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    struct tm tm = {.tm_mday = 1, .tm_year = 70, .tm_wday = 4};
    struct tm read;
    if (gmtime_r(&time, &read) && read.tm_year >= -1900 && read.tm_year <= YEAR_MAX - 1900)
        tm = read;
    char text[64];
    int len = snprintf(text, sizeof(text), "%s, %02d %s %04d %02d:%02d:%02d GMT", days[tm.tm_wday], tm.tm_mday,
                       months[tm.tm_mon], 1900 + tm.tm_year, tm.tm_hour, tm.tm_min, tm.tm_sec);
    memcpy(out, text, HTTP_DATE_LEN);
    return (struct slice){out, (size_t)len};
}
