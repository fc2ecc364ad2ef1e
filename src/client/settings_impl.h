/* What the files of the settings share; nobody else includes this. */
#ifndef KV_CLIENT_SETTINGS_IMPL_H
#define KV_CLIENT_SETTINGS_IMPL_H

#include "base/buffer.h"
#include "client/settings.h"

#define SETTINGS_FILE_BYTES (64 * 1024) /* three values and some comments; more is some other file */

/* settings_yaml.c: 0; KV_EINVAL with line (0 when unknown) and reason; KV_ENOMEM. */
struct settings_fault {
    unsigned line;
    char reason[SETTINGS_REASON_LEN];
};
int settings_parse(struct slice yaml, struct settings_file *out, struct settings_fault *fault);

/* The text of `old` with the values of `changes` in it and everything else kept, or, where that cannot be done line by
 * line, the known values alone. `out` is overwritten. 0, KV_EINVAL for values that YAML cannot hold, KV_ENOMEM. */
int settings_edit(struct slice old, const struct settings_given *changes, struct buffer *out);

#endif
