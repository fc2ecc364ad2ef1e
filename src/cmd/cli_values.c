/* The common kinds of values: text, listen addresses, numbers, durations, sizes. Each says what it wanted instead. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/limits.h"
#include "base/slice.h"
#include "cmd/cli.h"
#include "io/listener.h"

/* Milliseconds are unsigned ints further in, and some are added to. */
#define LONGEST_MS (UINT64_C(1000) * 3600 * 1000)
_Static_assert(LONGEST_MS < UINT_MAX / 10 * 9, "a duration has to fit, with a margin");

struct unit {
    const char *name;
    uint64_t factor;
};

int cli_set_string(char *into, size_t size, const char *value, char *error)
{
    size_t len = strlen(value);
    if (len == 0) {
        snprintf(error, CLI_ERROR_LEN, "must not be empty");
        return KV_EINVAL;
    }
    if (len >= size) {
        snprintf(error, CLI_ERROR_LEN, "is longer than %zu bytes", size - 1);
        return KV_EINVAL;
    }
    memcpy(into, value, len + 1);
    return 0;
}

int cli_set_port_or_address(char *into, size_t size, const char *value, char *error)
{
    struct sockaddr_storage address;
    if (sockaddr_parse(slice_of(value), &address) != 0) {
        snprintf(error, CLI_ERROR_LEN,
                 "is no address to listen on; give HOST:PORT with a literal address or localhost, :PORT for every "
                 "address, or a PORT");
        return KV_EINVAL;
    }
    return cli_set_string(into, size, value, error);
}

/* Digits and one of the units; the first unit is that of a bare number. False for anything else or an overflow. */
static bool number_with_unit(const char *value, const struct unit *units, uint64_t *out)
{
    size_t digits = strspn(value, "0123456789");
    uint64_t number;
    if (!slice_to_u64((struct slice){value, digits}, &number))
        return false;
    for (const struct unit *u = units; u->name; u++) {
        if (strcmp(value + digits, u->name) == 0)
            return !__builtin_mul_overflow(number, u->factor, out);
    }
    return false;
}

int cli_set_unsigned(unsigned long *into, unsigned long min, unsigned long max, const char *value, char *error)
{
    uint64_t number;
    if (!slice_to_u64(slice_of(value), &number) || number < min || number > max) {
        snprintf(error, CLI_ERROR_LEN, "must be a whole number from %lu to %lu", min, max);
        return KV_EINVAL;
    }
    *into = (unsigned long)number;
    return 0;
}

static bool is_duration(const char *value, unsigned long *out_ms)
{
    static const struct unit units[] = {{"", 1000}, {"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {NULL, 0}};
    uint64_t ms;
    if (!number_with_unit(value, units, &ms) || ms > LONGEST_MS)
        return false;
    *out_ms = (unsigned long)ms;
    return true;
}

int cli_set_duration(unsigned long *into_ms, const char *value, char *error)
{
    if (is_duration(value, into_ms) && *into_ms > 0)
        return KV_OK;
    snprintf(error, CLI_ERROR_LEN, "must be a time from 1ms to 1000h, such as 30s, 1500ms, 5m or 1h");
    return KV_EINVAL;
}

int cli_set_wait(unsigned long *into_ms, const char *value, char *error)
{
    if (is_duration(value, into_ms))
        return KV_OK;
    snprintf(error, CLI_ERROR_LEN, "must be a time up to 1000h, such as 30s, 1500ms, 5m or 1h, or 0 to switch it off");
    return KV_EINVAL;
}

int cli_set_ping(unsigned long *into_ms, const char *value, char *error)
{
    int result = cli_set_duration(into_ms, value, error);
    if (result != KV_OK || (*into_ms >= LIMIT_PING_MIN_MS && *into_ms <= LIMIT_PING_MAX_MS))
        return result;
    snprintf(error, CLI_ERROR_LEN, "must be from %dms to %dm", LIMIT_PING_MIN_MS, LIMIT_PING_MAX_MS / 60000);
    return KV_EINVAL;
}

int cli_settle_pings(unsigned long *interval_ms, unsigned long *timeout_ms)
{
    const unsigned long pings = LIMIT_DEAD_MS / LIMIT_PING_MS; /* that may be lost before the verdict */
    if (*timeout_ms == 0)
        *timeout_ms = LIMIT_DEAD_MS;
    if (*interval_ms == 0)
        *interval_ms = *timeout_ms < LIMIT_DEAD_MS ? *timeout_ms / pings : LIMIT_PING_MS;
    if (*interval_ms < *timeout_ms)
        return CLI_EXIT_OK;
    return cli_usage_error("--ping-timeout (%lums) has to be longer than --ping-interval (%lums)", *timeout_ms,
                           *interval_ms);
}

int cli_set_io_uring(bool *into_off, const char *value, char *error)
{
    *into_off = strcmp(value, "off") == 0;
    if (*into_off || strcmp(value, "auto") == 0)
        return KV_OK;
    snprintf(error, CLI_ERROR_LEN, "must be auto or off");
    return KV_EINVAL;
}

int cli_set_bytes(unsigned long long *into, const char *value, char *error)
{
    static const struct unit units[] = {{"", 1},
                                        {"k", UINT64_C(1) << 10},
                                        {"K", UINT64_C(1) << 10},
                                        {"M", UINT64_C(1) << 20},
                                        {"G", UINT64_C(1) << 30},
                                        {NULL, 0}};
    uint64_t bytes;
    if (!number_with_unit(value, units, &bytes) || bytes > INT64_MAX) {
        snprintf(error, CLI_ERROR_LEN, "must be a number of bytes, such as 1048576, 64k, 10M or 1G");
        return KV_EINVAL;
    }
    *into = bytes;
    return 0;
}
