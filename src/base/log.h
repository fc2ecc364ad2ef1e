/*
 * The log: one line an event, as text for people or JSON for machines, on standard error. Lines are written whole with
 * one writev(2); a blocked or full log never blocks the caller: what cannot be written is counted and said later.
 *
 * Every line says what happened, for whom, and what happens next. Fields carry what machines search for:
 *
 *     log_warn("tunnel lost, redialling", log_str("session", id), log_uint("in_ms", delay));
 *
 * Tokens, cookies and bodies never go into a field.
 */
#ifndef KV_BASE_LOG_H
#define KV_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/slice.h"

enum log_level {
    LOG_LEVEL_ERROR,
    LOG_LEVEL_WARN,
    LOG_LEVEL_INFO,
    LOG_LEVEL_DEBUG
};
enum log_format {
    LOG_FORMAT_TEXT,
    LOG_FORMAT_JSON
};

struct log_field {
    const char *key;
    enum {
        LOG_FIELD_END,
        LOG_FIELD_STRING,
        LOG_FIELD_UINT,
        LOG_FIELD_INT
    } type;
    struct slice string;
    uint64_t number;
};

static inline struct log_field log_str(const char *key, const char *value)
{
    return (struct log_field){key, LOG_FIELD_STRING, slice_of(value ? value : ""), 0};
}

static inline struct log_field log_slice(const char *key, struct slice value)
{
    return (struct log_field){key, LOG_FIELD_STRING, value, 0};
}

static inline struct log_field log_uint(const char *key, uint64_t value)
{
    return (struct log_field){key, LOG_FIELD_UINT, {0}, value};
}

static inline struct log_field log_int(const char *key, int64_t value)
{
    return (struct log_field){key, LOG_FIELD_INT, {0}, (uint64_t)value};
}

/* Call once, before other threads start. Until then: INFO as text. */
void log_configure(enum log_level level, enum log_format format);

/* False for a name that is no level ("error", "warn", "info", "debug") or format ("text", "json"). */
bool log_level_parse(const char *name, enum log_level *out);
bool log_format_parse(const char *name, enum log_format *out);

bool log_enabled(enum log_level level);

/* `fields` ends with a LOG_FIELD_END; the macros below add it. Control bytes in values are escaped. Any thread. */
void log_write(enum log_level level, const char *message, const struct log_field *fields);

/* Lines lost because standard error took none (a blocked pipe, a full disk), since the start. Any thread. */
uint64_t log_dropped(void);

#define log_at(level, message, ...)                                                                                    \
    do {                                                                                                               \
        if (log_enabled(level))                                                                                        \
            log_write(level, message, (const struct log_field[]){__VA_ARGS__ __VA_OPT__(, ){.key = 0}});               \
    } while (0)
#define log_error(...) log_at(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...)  log_at(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...)  log_at(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_at(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
