/*
 * Writing the Prometheus text format, version 0.0.4: a family's HELP and TYPE, then its samples. No I/O, no state but
 * the buffer; any thread.
 *
 *     metric_family(&m, "kavilo_tunnels_active", METRIC_GAUGE, "Live tunnels.");
 *     metric_value(&m, 3);
 */
#ifndef KV_OPS_METRIC_TEXT_H
#define KV_OPS_METRIC_TEXT_H

#include <stdint.h>

#include "base/buffer.h"

enum metric_type {
    METRIC_COUNTER, /* only goes up; its name ends in _total */
    METRIC_GAUGE,
};

struct metric_text {
    struct buffer *out;
    const char *name; /* of the family at hand */
    int error;        /* the first one, KV_ELIMIT or KV_ENOMEM; nothing is written after it */
};

/* Starts a family. `name` is kept until the next one starts; `help` is one sentence. */
void metric_family(struct metric_text *m, const char *name, enum metric_type type, const char *help);

/* A sample without labels: a count, or a number with a fraction. */
void metric_value(struct metric_text *m, uint64_t value);
void metric_seconds(struct metric_text *m, double value);

/* A sample with one label, whose value may be any text without NUL. */
void metric_labelled(struct metric_text *m, const char *label, const char *text, uint64_t value);

#endif
