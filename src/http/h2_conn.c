/*
 * The driver between a connection and its HTTP/2 session. Input goes straight in; output is pulled at the end of the
 * turn, as much as LIMIT_OUTPUT_BYTES allows to be unsent; above LIMIT_OUTPUT_STOP_READING reading stops, because what
 * a peer sends (PING, SETTINGS) makes output grow.
 *
 * It can be ended from inside an event of its own session, so the session is only muted at once and freed at the end of
 * the turn.
 */
#include "http/h2_conn.h"

#include <stdlib.h>

#include "base/error.h"
#include "base/limits.h"
#include "io/conn.h"
#include "io/worker.h"

struct h2_conn {
    struct conn *conn; /* NULL once it is closed */
    struct h2_session *session;
    const struct h2_conn_events *events;
    void *owner;
    struct free_node free;
    uint64_t heard; /* worker_now() of the last bytes */
    bool paused;
    bool parting; /* with `closing`: the peer closes first */
    int error;    /* set when the connection has failed, with its text */
    const char *text;
    bool closing; /* muted; the next fill puts the rest out and closes */
};

static void free_later(struct free_node *node)
{
    struct h2_conn *hc = (struct h2_conn *)((char *)node - offsetof(struct h2_conn, free));
    h2_free(hc->session);
    free(hc);
}

static void dispose(struct h2_conn *hc)
{
    struct worker *worker = conn_worker(hc->conn);
    hc->conn = NULL;
    h2_mute(hc->session);
    hc->free.free = free_later;
    worker_free_later(worker, &hc->free);
}

/* ---- output ---------------------------------------------------------------------------------------------------- */

static int pull(struct h2_conn *hc, size_t limit)
{
    struct chain out = {0};
    size_t unsent = conn_unsent(hc->conn);
    int error = h2_output(hc->session, &out, unsent < limit ? limit - unsent : 0);
    if (!hc->conn) { /* an event ended us */
        chain_free(&out);
        return KV_OK;
    }
    conn_write_chain(hc->conn, &out);
    return error;
}

static void fail(struct h2_conn *hc, int error, const char *text)
{
    const struct h2_conn_events *events = hc->events;
    void *owner = hc->owner;
    struct conn *conn = hc->conn;
    hc->error = error;
    hc->text = text;
    h2_close_streams(hc->session, H2_CANCEL);
    if (!hc->conn || hc->closing) /* a stream's `closed` ended us */
        return;
    dispose(hc);
    conn_close(conn);
    events->ended(owner, error, text);
}

static void adjust_reading(struct h2_conn *hc)
{
    bool pause = conn_unsent(hc->conn) > LIMIT_OUTPUT_STOP_READING;
    if (pause == hc->paused)
        return;
    hc->paused = pause;
    if (pause)
        conn_pause(hc->conn);
    else
        conn_resume(hc->conn);
}

static void finish_closing(struct h2_conn *hc)
{
    struct conn *conn = hc->conn;
    pull(hc, SIZE_MAX); /* bounded by the peer's windows */
    bool parting = hc->parting;
    dispose(hc);
    if (parting)
        conn_part(conn);
    else
        conn_close(conn);
}

static void on_fill(void *owner)
{
    struct h2_conn *hc = owner;
    if (hc->closing) {
        finish_closing(hc);
        return;
    }
    int error = pull(hc, LIMIT_OUTPUT_BYTES);
    if (!hc->conn || hc->closing) /* an event ended us; the next flush closes */
        return;
    if (error)
        fail(hc, error, error == KV_ELIMIT ? "the peer floods us" : "the HTTP/2 session failed");
    else if (h2_finished(hc->session))
        fail(hc, KV_EPROTO, "the HTTP/2 session was ended");
    else
        adjust_reading(hc);
}

static void on_sent(void *owner)
{
    struct h2_conn *hc = owner;
    adjust_reading(hc);
    conn_flush_later(hc->conn);
}

/* ---- input ----------------------------------------------------------------------------------------------------- */

static void on_data(void *owner, struct slice bytes)
{
    struct h2_conn *hc = owner;
    hc->heard = worker_now(conn_worker(hc->conn));
    int error = h2_input(hc->session, bytes);
    if (!hc->conn || hc->closing || !error)
        return;
    pull(hc, SIZE_MAX); /* the GOAWAY that says why */
    if (hc->conn && !hc->closing)
        fail(hc, error, error == KV_ELIMIT ? "the peer floods us" : "the peer broke HTTP/2");
}

static void on_eof(void *owner)
{
    struct h2_conn *hc = owner;
    if (!hc->closing)
        fail(hc, KV_ECLOSED, "the peer closed the connection");
}

static void on_closed(void *owner, int error)
{
    struct h2_conn *hc = owner;
    const struct h2_conn_events *events = hc->events;
    void *user = hc->owner;
    struct conn *conn = hc->conn;
    hc->error = error;
    hc->text = conn_error_text(conn);
    if (!hc->closing)
        h2_close_streams(hc->session, H2_CANCEL);
    if (!hc->conn)
        return;
    dispose(hc);
    if (!hc->closing)
        events->ended(user, error, conn_error_text(conn));
}

static void on_wake(void *arg)
{
    struct h2_conn *hc = arg;
    if (hc->conn)
        conn_flush_later(hc->conn);
}

/* ---- what the session asks --------------------------------------------------------------------------------------- */

static void on_signs(void *arg, struct h2_signs *out)
{
    const struct h2_conn *hc = arg;
    struct conn_progress progress;
    if (!hc->conn)
        return;
    conn_progress(hc->conn, &progress);
    *out = (struct h2_signs){
        .heard = hc->heard,
        .acknowledged = progress.acknowledged,
        .sending = progress.sending,
        .window_shut = progress.window_shut,
    };
}

static void on_user_timeout(void *arg, unsigned ms)
{
    const struct h2_conn *hc = arg;
    if (hc->conn)
        conn_set_user_timeout(hc->conn, ms);
}

/* ---- start and end --------------------------------------------------------------------------------------------- */

static const struct conn_events conn_events = {
    .data = on_data,
    .eof = on_eof,
    .fill = on_fill,
    .sent = on_sent,
    .closed = on_closed,
};

int h2_conn_new(struct conn *conn, const struct h2_options *options, const struct h2_conn_events *events, void *owner,
                struct slice first, struct h2_conn **out)
{
    struct h2_conn *hc = calloc(1, sizeof(*hc));
    if (!hc)
        return KV_ENOMEM;
    *hc = (struct h2_conn){.conn = conn, .events = events, .owner = owner, .heard = worker_now(conn_worker(conn))};
    struct h2_options with_wake = *options;
    with_wake.wake = on_wake;
    with_wake.signs = on_signs;
    with_wake.user_timeout = on_user_timeout;
    with_wake.wake_arg = hc;
    hc->session = h2_new(&with_wake, &events->h2, owner);
    if (!hc->session) {
        free(hc);
        return KV_ENOMEM;
    }
    *out = hc;
    conn_set_owner(conn, &conn_events, hc);
    conn_flush_later(conn);
    if (first.len > 0)
        on_data(hc, first);
    return KV_OK;
}

struct h2_session *h2_conn_session(struct h2_conn *hc)
{
    return hc->session;
}

struct conn *h2_conn_conn(struct h2_conn *hc)
{
    return hc->conn;
}

int h2_conn_error(const struct h2_conn *hc, const char **text)
{
    *text = hc->text;
    return hc->error;
}

void h2_conn_close(struct h2_conn *hc, uint32_t error_code)
{
    if (!hc || !hc->conn || hc->closing)
        return;
    h2_goaway(hc->session, error_code);
    h2_mute(hc->session);
    hc->closing = true;
    conn_flush_later(hc->conn);
}

void h2_conn_part(struct h2_conn *hc)
{
    if (!hc)
        return;
    hc->parting = true;
    h2_conn_close(hc, H2_NO_ERROR);
}

void h2_conn_abort(struct h2_conn *hc)
{
    if (!hc || !hc->conn)
        return;
    struct conn *conn = hc->conn;
    dispose(hc);
    conn_abort(conn, false);
}
