/*
 * The live tunnels as JSON. The registry's lock is held for copying alone; sorting and writing work on the copies.
 * Texts in a session come from clients and the store: what is no UTF-8 in them is shown as '?', because JSON knows
 * nothing else.
 */
#include <jansson.h>
#include <stdlib.h>

#include "base/error.h"
#include "ops/ops_impl.h"
#include "store/store_time.h"
#include "tunnel/registry.h"

struct copies {
    struct registry_session *rows;
    size_t count, room;
    bool failed;
};

static void copy_session(void *arg, const struct registry_session *session)
{
    struct copies *copies = arg;
    if (copies->count == copies->room && !copies->failed) {
        size_t room = copies->room ? 2 * copies->room : 64;
        struct registry_session *rows = reallocarray(copies->rows, room, sizeof(*rows));
        copies->failed = !rows;
        copies->rows = rows ? rows : copies->rows;
        copies->room = rows ? room : copies->room;
    }
    if (!copies->failed)
        copies->rows[copies->count++] = *session;
}

int ops_tunnels(const struct ops *ops, struct buffer *out)
{
    struct copies copies = {0};
    registry_list(ops->settings.registry, copy_session, &copies);
    int error =
        copies.failed ? KV_ENOMEM : ops_tunnels_write(&ops->settings, copies.rows, copies.count, store_now(), out);
    free(copies.rows);
    return error;
}

static int by_subdomain(const void *a, const void *b)
{
    return strcmp(((const struct registry_session *)a)->subdomain, ((const struct registry_session *)b)->subdomain);
}

/* NULL without memory. */
static json_t *text_of(const char *text)
{
    json_t *json = json_string(text);
    char *plain = json ? NULL : strdup(text);
    if (json || !plain)
        return json;
    for (char *p = plain; *p; p++)
        if ((unsigned char)*p >= 0x80)
            *p = '?';
    json = json_string(plain);
    free(plain);
    return json;
}

/* As the client was told in its Welcome. */
static json_t *public_url(const struct ops_settings *settings, const char *subdomain)
{
    if (!settings->public_port)
        return json_sprintf("%s://%s.%s/", settings->public_scheme, subdomain, settings->base_host);
    return json_sprintf("%s://%s.%s:%u/", settings->public_scheme, subdomain, settings->base_host,
                        settings->public_port);
}

static json_t *row_of(const struct ops_settings *settings, const struct registry_session *s, int64_t now)
{
    char connected[STORE_TIME_LEN + 1];
    store_time_format(s->connected_at, connected);
    /* A wall clock that was set back must not make a tunnel younger than new. */
    json_int_t age = now > s->connected_at ? now - s->connected_at : 0;
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:s, s:I, s:b}", "subdomain", text_of(s->subdomain), "public_url",
                     public_url(settings, s->subdomain), "user_email", text_of(s->email), "client_version",
                     text_of(s->client_version), "peer_addr", text_of(s->peer), "session_id", text_of(s->session),
                     "connected_at", connected, "age_seconds", age, "named", (int)s->named);
}

static int append_json(const char *bytes, size_t len, void *out)
{
    return buffer_append(out, bytes, len);
}

int ops_tunnels_write(const struct ops_settings *settings, struct registry_session *sessions, size_t count, int64_t now,
                      struct buffer *out)
{
    int error = KV_ENOMEM;
    json_t *rows = json_array();
    if (!rows)
        goto done;
    if (count > 0)
        qsort(sessions, count, sizeof(*sessions), by_subdomain);
    for (size_t i = 0; i < count; i++) {
        if (json_array_append_new(rows, row_of(settings, &sessions[i], now)) != 0)
            goto done;
    }
    if (json_dump_callback(rows, append_json, out, JSON_COMPACT) != 0 || buffer_append_string(out, "\n") != KV_OK)
        error = KV_ELIMIT;
    else
        error = KV_OK;

done:
    json_decref(rows);
    return error;
}
