/* The inside of the admin listener, shared by its files; nobody else includes it. */
#ifndef KV_OPS_OPS_IMPL_H
#define KV_OPS_OPS_IMPL_H

#include <stdatomic.h>
#include <stdbool.h>

#include "base/buffer.h"
#include "http/head.h"
#include "io/worker.h"
#include "ops/ops.h"

struct ops_conn;
struct registry_session;

/* Answers are made whole: a tunnel takes some 500 bytes of JSON, so this is for more tunnels than one process can hold
 * connections. */
#define OPS_ANSWER_BYTES (64UL * 1024 * 1024)
/* Scrapers, probes and a few people. A script that forgets to close must not use up the visitors' descriptors. */
#define OPS_CONNS_MAX    128

/* What one worker has; touched by that worker alone. */
struct ops_local {
    struct ops_conn *conns;
    bool stopping;
    struct ops_stop {
        struct task task;
        struct ops *ops;
    } stop; /* here, so that stopping needs no memory */
};

struct ops {
    struct ops_settings settings;
    int64_t started_at; /* seconds since 1970 */
    atomic_int state;   /* enum ops_state */
    atomic_bool stopped;
    atomic_size_t alive;
    struct ops_local *locals;
};

static inline struct ops_local *ops_local(struct ops *ops)
{
    return &ops->locals[worker_index(worker_current())];
}

/* ---- ops_conn.c ------------------------------------------------------------------------------------------------ */

/* Closes the calling worker's connections. */
void ops_conns_stop(struct ops *ops);

/* ---- ops_route.c ----------------------------------------------------------------------------------------------- */

/* An answer in the making. Zeroed but for body.limit before it is filled; the body is freed by whoever made it. */
struct ops_reply {
    uint16_t status;
    const char *type;  /* media type of the body; static text */
    const char *allow; /* with 405; static text */
    struct buffer body;
};

/* Answers a request whose head this is. `has_body` says that a body follows it, which is refused: nothing here takes
 * one. `peer` is for the log. */
void ops_answer(struct ops *ops, const struct head *request, bool has_body, const char *peer, struct ops_reply *reply);

/* ---- ops_guard.c ----------------------------------------------------------------------------------------------- */

/* Whether a web page in the operator's browser, rather than the operator, could have made this request: then the
 * sentence that refuses it, otherwise NULL. */
const char *ops_guard(const struct head *request);

/* ---- ops_metrics.c --------------------------------------------------------------------------------------------- */

/* Appends all series. 0, KV_ELIMIT or KV_ENOMEM, and then what is there is to be thrown away. */
int ops_metrics(const struct ops *ops, struct buffer *out);

/* ---- ops_tunnels.c --------------------------------------------------------------------------------------------- */

/* Appends the live tunnels as JSON, sorted by subdomain. Errors as above. */
int ops_tunnels(const struct ops *ops, struct buffer *out);

/* The same from copies of the sessions, which it sorts, at the time `now` (seconds since 1970). */
int ops_tunnels_write(const struct ops_settings *settings, struct registry_session *sessions, size_t count, int64_t now,
                      struct buffer *out);

#endif
