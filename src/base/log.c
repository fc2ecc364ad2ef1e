/*
 * The log. A line is built on the caller's stack, capped, and handed to the kernel with one writev(2), so lines of
 * several threads never mix and nothing is allocated, locked or buffered.
 *
 *     2026-11-22T10:00:00.123Z info  tunnel up  session=abc name="x y"
 *     {"time":"2026-11-22T10:00:00.123Z","level":"info","message":"tunnel up","session":"abc","name":"x y"}
 *
 * Standard error may be a pipe whose reader has stopped. The descriptor is shared with whoever started us, so it is not
 * made non-blocking; instead poll(2) is asked before each write. On a pipe, POLLOUT means room for PIPE_BUF bytes,
 * which is why LINE_MAX_BYTES is no larger. A line that finds no room is counted, and the count is a line of its own as
 * soon as there is room again. (Two threads may both see the room for one line; the second then waits for the reader.
 * On Linux POLLOUT on a pipe means a whole free page, so that takes a pipe at the very end of its capacity.)
 *
 * A long value is cut between two characters and ends in "...". A line too long even so loses whole fields from its
 * end, never a JSON quote, and ends with a field `truncated`.
 */
#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum {
    LINE_MAX_BYTES = 4095,  /* and a line feed before it, behind a line that was cut */
    VALUE_MAX_BYTES = 1024, /* a longer value, the target of a request most likely, ends in "..." */
    TAIL_BYTES = 32,        /* kept free for a line's end: ,"truncated":"true"} and a line feed */
};
_Static_assert(LINE_MAX_BYTES < PIPE_BUF, "a line is written whole or not at all");

static const char *const level_names[] = {"error", "warn", "info", "debug"};
static const char *const format_names[] = {"text", "json"};

static enum log_level configured_level = LOG_LEVEL_INFO;
static enum log_format configured_format = LOG_FORMAT_TEXT;
static atomic_uint_fast64_t untold_lines; /* lost, and not said so yet */
static atomic_uint_fast64_t dropped_lines;
static atomic_bool cut_line; /* a full disk took a line in part: the next one begins with a line feed */

/* A line under construction. Once something did not fit, `full` stays set and nothing more is added. */
struct line {
    enum log_format format;
    bool full;
    size_t len;
    size_t cap;
    char data[LINE_MAX_BYTES];
};

void log_configure(enum log_level level, enum log_format format)
{
    configured_level = level;
    configured_format = format;
}

bool log_level_parse(const char *name, enum log_level *out)
{
    for (size_t i = 0; i < sizeof(level_names) / sizeof(level_names[0]); i++) {
        if (strcmp(name, level_names[i]) == 0) {
            *out = (enum log_level)i;
            return true;
        }
    }
    return false;
}

bool log_format_parse(const char *name, enum log_format *out)
{
    for (size_t i = 0; i < sizeof(format_names) / sizeof(format_names[0]); i++) {
        if (strcmp(name, format_names[i]) == 0) {
            *out = (enum log_format)i;
            return true;
        }
    }
    return false;
}

bool log_enabled(enum log_level level)
{
    return level <= configured_level;
}

static void put(struct line *l, const char *data, size_t len)
{
    if (l->full || len > l->cap - l->len) {
        l->full = true;
        return;
    }
    memcpy(l->data + l->len, data, len);
    l->len += len;
}

static void put_string(struct line *l, const char *string)
{
    put(l, string, strlen(string));
}

/* Length of the valid UTF-8 sequence at p (RFC 3629, 4), or 0. */
static size_t utf8_length(const unsigned char *p, size_t len)
{
    size_t need = 0;
    if (p[0] < 0x80)
        need = 1;
    else if (p[0] >= 0xc2 && p[0] <= 0xdf)
        need = 2;
    else if (p[0] >= 0xe0 && p[0] <= 0xef)
        need = 3;
    else if (p[0] >= 0xf0 && p[0] <= 0xf4)
        need = 4;
    if (need == 0 || need > len)
        return 0;
    for (size_t i = 1; i < need; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    bool overlong = (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xf0 && p[1] < 0x90);
    bool surrogate = p[0] == 0xed && p[1] > 0x9f;
    bool beyond = p[0] == 0xf4 && p[1] > 0x8f;
    return overlong || surrogate || beyond ? 0 : need;
}

/* A character that may move a terminal's cursor or forge a line: C0, DEL, and C1 (U+0080 to U+009F). */
static bool is_control(const unsigned char *p, size_t len)
{
    return (len == 1 && (p[0] < 0x20 || p[0] == 0x7f)) || (len == 2 && p[0] == 0xc2 && p[1] < 0xa0);
}

/* The inside of a quoted string. Text and JSON share the escapes of RFC 8259, 7. */
static void put_escaped(struct line *l, struct slice s)
{
    const unsigned char *p = (const unsigned char *)s.data;
    const unsigned char *end = p + s.len;
    char escape[8];

    while (p < end && !l->full) {
        size_t len = utf8_length(p, (size_t)(end - p));
        if (len == 0) {
            put_string(l, "\\ufffd");
            p++;
        } else if (*p == '"' || *p == '\\') {
            put(l, (char[]){'\\', (char)*p}, 2);
            p++;
        } else if (*p == '\n') {
            put_string(l, "\\n");
            p++;
        } else if (*p == '\r') {
            put_string(l, "\\r");
            p++;
        } else if (*p == '\t') {
            put_string(l, "\\t");
            p++;
        } else if (is_control(p, len)) {
            snprintf(escape, sizeof(escape), "\\u%04x", (unsigned)(len == 1 ? p[0] : p[1]));
            put_string(l, escape);
            p += len;
        } else {
            put(l, (const char *)p, len);
            p += len;
        }
    }
}

static void put_quoted(struct line *l, struct slice s)
{
    put(l, "\"", 1);
    put_escaped(l, s);
    put(l, "\"", 1);
}

/* Text values stand bare where a reader (and a shell) sees where they end. */
static bool needs_quotes(struct slice s)
{
    if (s.len == 0)
        return true;
    for (size_t i = 0; i < s.len; i++) {
        unsigned char c = (unsigned char)s.data[i];
        if (c <= ' ' || c >= 0x7f || c == '"' || c == '=' || c == '\\')
            return true;
    }
    return false;
}

/* The longest prefix within VALUE_MAX_BYTES that does not end inside a UTF-8 sequence. */
static struct slice shorten(struct slice s)
{
    if (s.len <= VALUE_MAX_BYTES)
        return s;
    s.len = VALUE_MAX_BYTES;
    for (int i = 0; i < 3 && ((unsigned char)s.data[s.len] & 0xc0) == 0x80; i++)
        s.len--;
    return s;
}

static void put_text(struct line *l, struct slice whole)
{
    struct slice s = shorten(whole);
    bool quoted = l->format == LOG_FORMAT_JSON || needs_quotes(s);

    if (quoted) {
        put(l, "\"", 1);
        put_escaped(l, s);
    } else {
        put(l, s.data, s.len);
    }
    if (s.len < whole.len)
        put_string(l, "...");
    if (quoted)
        put(l, "\"", 1);
}

static void put_value(struct line *l, const struct log_field *field)
{
    char number[24];

    switch (field->type) {
    case LOG_FIELD_STRING:
        put_text(l, field->string);
        break;
    case LOG_FIELD_UINT:
        snprintf(number, sizeof(number), "%" PRIu64, field->number);
        put_string(l, number);
        break;
    case LOG_FIELD_INT:
        snprintf(number, sizeof(number), "%" PRId64, (int64_t)field->number);
        put_string(l, number);
        break;
    case LOG_FIELD_END:
        break;
    }
}

static void put_field(struct line *l, const struct log_field *field, bool first)
{
    if (l->format == LOG_FORMAT_JSON) {
        put(l, ",", 1);
        put_quoted(l, slice_of(field->key));
        put(l, ":", 1);
    } else {
        put_string(l, first ? "  " : " ");
        put_string(l, field->key);
        put(l, "=", 1);
    }
    put_value(l, field);
}

static void put_timestamp(struct line *l)
{
    struct timespec now;
    struct tm utc;
    char text[64];

    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    size_t len = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(text + len, sizeof(text) - len, ".%03dZ", (int)(now.tv_nsec / 1000000));
    put_string(l, text);
}

static void put_head(struct line *l, enum log_level level, const char *message)
{
    char padded[8];

    if (l->format == LOG_FORMAT_JSON) {
        put_string(l, "{\"time\":\"");
        put_timestamp(l);
        put_string(l, "\",\"level\":\"");
        put_string(l, level_names[level]);
        put_string(l, "\",\"message\":");
        put_quoted(l, slice_of(message));
    } else {
        put_timestamp(l);
        snprintf(padded, sizeof(padded), " %-5s ", level_names[level]);
        put_string(l, padded);
        put_escaped(l, slice_of(message));
    }
}

static void line_build(struct line *l, enum log_level level, const char *message, const struct log_field *fields)
{
    static const struct log_field truncated = {"truncated", LOG_FIELD_STRING, {"true", 4}, 0};
    bool first = true;

    l->format = configured_format;
    l->full = false;
    l->len = 0;
    l->cap = sizeof(l->data) - TAIL_BYTES;

    put_head(l, level, message);
    if (l->full) {
        /* Messages are literals of ours, so this takes a literal of kilobytes: say at least that there was one. */
        l->full = false;
        l->len = 0;
        put_head(l, level, "message too long");
        l->full = true;
    }
    for (; fields->type != LOG_FIELD_END && !l->full; fields++) {
        size_t before = l->len;
        put_field(l, fields, first);
        if (l->full)
            l->len = before;
        else
            first = false;
    }

    bool cut = l->full;
    l->full = false;
    l->cap = sizeof(l->data);
    if (cut)
        put_field(l, &truncated, first);
    put_string(l, l->format == LOG_FORMAT_JSON ? "}\n" : "\n");
}

/* False when the line could not be written whole. */
static bool line_emit(const struct line *l)
{
    struct pollfd err = {.fd = STDERR_FILENO, .events = POLLOUT};
    bool after_cut = atomic_exchange_explicit(&cut_line, false, memory_order_relaxed);
    char line_feed = '\n';
    const struct iovec both[2] = {{&line_feed, after_cut ? 1 : 0}, {(char *)l->data, l->len}};
    ssize_t written = 0;
    bool has_room = poll(&err, 1, 0) > 0 && (err.revents & POLLOUT);
    while (has_room && (written = writev(STDERR_FILENO, both, 2)) < 0 && errno == EINTR)
        continue;
    if (written == (ssize_t)(both[0].iov_len + l->len))
        return true;
    if (written > 0 || after_cut)
        atomic_store_explicit(&cut_line, true, memory_order_relaxed);
    return false;
}

/* Tells how many lines were lost before this one. True when there is nothing (more) to tell. */
static bool report_dropped(void)
{
    struct line l;
    uint_fast64_t lost = atomic_exchange_explicit(&untold_lines, 0, memory_order_relaxed);

    if (lost == 0)
        return true;
    line_build(&l, LOG_LEVEL_WARN, "log lines were lost: standard error took no more",
               (const struct log_field[]){log_uint("lines", lost), {.key = 0}});
    if (line_emit(&l))
        return true;
    atomic_fetch_add_explicit(&untold_lines, lost, memory_order_relaxed);
    return false;
}

void log_write(enum log_level level, const char *message, const struct log_field *fields)
{
    int saved = errno;
    struct line l;

    line_build(&l, level, message, fields);
    if (!report_dropped() || !line_emit(&l)) {
        atomic_fetch_add_explicit(&untold_lines, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&dropped_lines, 1, memory_order_relaxed);
    }
    errno = saved;
}

uint64_t log_dropped(void)
{
    return atomic_load_explicit(&dropped_lines, memory_order_relaxed);
}
