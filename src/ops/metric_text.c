/* The text format is lines; what would end a line or a quoted value early is escaped. */
#include "ops/metric_text.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>

#include "base/error.h"

#define PIECE_MAX 256 /* a name, a type and a number; texts of any length go through write_escaped */

__attribute__((format(printf, 2, 3))) static void put(struct metric_text *m, const char *format, ...)
{
    char piece[PIECE_MAX];
    va_list arguments;
    if (m->error)
        return;
    va_start(arguments, format);
    int len = vsnprintf(piece, sizeof(piece), format, arguments);
    va_end(arguments);
    m->error = len < 0 || (size_t)len >= sizeof(piece) ? KV_ELIMIT : buffer_append(m->out, piece, (size_t)len);
}

/* Backslashes and line feeds, and in label values quotes too, which HELP texts take as they are. */
static void write_escaped(struct metric_text *m, const char *text, bool quoted)
{
    for (; *text; text++) {
        if (*text == '\n')
            put(m, "\\n");
        else if (*text == '\\' || (*text == '"' && quoted))
            put(m, "\\%c", *text);
        else
            put(m, "%c", *text);
    }
}

void metric_family(struct metric_text *m, const char *name, enum metric_type type, const char *help)
{
    m->name = name;
    put(m, "# HELP %s ", name);
    write_escaped(m, help, false);
    put(m, "\n# TYPE %s %s\n", name, type == METRIC_COUNTER ? "counter" : "gauge");
}

void metric_value(struct metric_text *m, uint64_t value)
{
    put(m, "%s %" PRIu64 "\n", m->name, value);
}

void metric_seconds(struct metric_text *m, double value)
{
    put(m, "%s %.3f\n", m->name, value);
}

void metric_labelled(struct metric_text *m, const char *label, const char *text, uint64_t value)
{
    put(m, "%s{%s=\"", m->name, label);
    write_escaped(m, text, true);
    put(m, "\"} %" PRIu64 "\n", value);
}
