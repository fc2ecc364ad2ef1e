/*
 * Connections stand in a list, the oldest first, and seats are granted from its front, so that a burst's surplus
 * empties and goes. One connection is made at a time: it decides for everybody who waits. What a connection is doing is
 * its state:
 *
 *     dialling ── (ALPN) ── greeting ── SETTINGS ── open ── GOAWAY, or ids spent ── leaving ── last stream ── gone
 */
#include "client/origin_mux.h"

#include <stdlib.h>
#include <utlist.h>

#include "base/error.h"
#include "base/limits.h"
#include "base/log.h"
#include "client/origin_pool.h"
#include "http/h2_conn.h"
#include "io/conn.h"
#include "io/worker.h"

#define STREAM_WINDOW   LIMIT_WINDOW_BYTES
#define CONN_WINDOW     (1024 * 1024)
#define MAX_FRAME_BYTES (16 * 1024)

enum state {
    DIALLING,
    GREETING,
    OPEN,
    LEAVING
};

struct origin_mux {
    struct origin_muxes *muxes;
    enum state state;
    struct conn *conn;  /* while dialling */
    struct h2_conn *h2; /* from then on */
    size_t seats;
    bool served;              /* somebody has sat here */
    struct deadline deadline; /* for the greeting, or of an idle connection */
    struct origin_mux *prev, *next;
    struct free_node free;
};

struct origin_muxes {
    struct origin_pool *pool;
    struct origin_mux *list;
    struct origin_seat *waiting;
    bool plain; /* the service chose HTTP/1.1 */
};

static void dispose(struct origin_mux *mux);
static int dial_if_needed(struct origin_muxes *muxes);

static struct worker *worker_of(const struct origin_mux *mux)
{
    return origin_pool_worker(mux->muxes->pool);
}

/* ---- seats ----------------------------------------------------------------------------------------------------- */

static bool has_room(const struct origin_mux *mux)
{
    const char *text;
    return mux->state == OPEN && h2_conn_error(mux->h2, &text) == 0 &&
           mux->seats < h2_peer_max_streams(h2_conn_session(mux->h2));
}

static struct origin_mux *with_room(const struct origin_muxes *muxes)
{
    struct origin_mux *mux;
    DL_FOREACH (muxes->list, mux)
        if (has_room(mux))
            return mux;
    return NULL;
}

static void sit(struct origin_seat *seat, struct origin_mux *mux)
{
    seat->mux = mux;
    mux->seats++;
    mux->served = true;
    deadline_cancel(&mux->deadline);
}

/* Who waits gets what has become free. A granted seat may be left, and others asked for, inside its event. */
static void grant_waiting(struct origin_muxes *muxes)
{
    struct origin_mux *mux;
    while (muxes->waiting && (mux = with_room(muxes))) {
        struct origin_seat *seat = muxes->waiting;
        DL_DELETE(muxes->waiting, seat);
        sit(seat, mux);
        seat->events->granted(seat);
    }
}

static struct origin_seat *take_waiting(struct origin_muxes *muxes)
{
    struct origin_seat *seat = muxes->waiting;
    DL_DELETE(muxes->waiting, seat);
    seat->muxes = NULL;
    return seat;
}

static void rest_if_idle(struct origin_mux *mux)
{
    const char *text;
    if (mux->seats > 0 || h2_conn_error(mux->h2, &text) != 0)
        return;
    if (mux->state == LEAVING) {
        h2_conn_close(mux->h2, H2_NO_ERROR);
        dispose(mux);
    } else {
        deadline_arm(worker_of(mux), &mux->deadline, LIMIT_ORIGIN_IDLE_MS);
    }
}

void origin_mux_leave(struct origin_seat *seat)
{
    struct origin_muxes *muxes = seat->muxes;
    struct origin_mux *mux = seat->mux;
    if (!muxes)
        return;
    seat->muxes = NULL;
    seat->mux = NULL;
    if (!mux) {
        DL_DELETE(muxes->waiting, seat);
        return;
    }
    mux->seats--;
    rest_if_idle(mux);
    grant_waiting(muxes);
    dial_if_needed(muxes);
}

/* ---- making a connection --------------------------------------------------------------------------------------- */

static const struct conn_events dial_events;
static void on_deadline(struct deadline *deadline);

/* One more, if one is needed, allowed and not on its way. Those that are leaving take nobody and do not count. 0 or
 * KV_ENOMEM. */
static int dial_if_needed(struct origin_muxes *muxes)
{
    struct origin_mux *mux;
    size_t count = 0;
    DL_FOREACH (muxes->list, mux) {
        if (mux->state == DIALLING || mux->state == GREETING)
            return KV_OK;
        count += mux->state == OPEN;
    }
    if (!muxes->waiting || count >= LIMIT_ORIGIN_MUX_MAX)
        return KV_OK;
    mux = calloc(1, sizeof(*mux));
    if (!mux)
        return KV_ENOMEM;
    mux->muxes = muxes;
    mux->deadline.expired = on_deadline;
    mux->conn = origin_pool_dial(muxes->pool, true, &dial_events, mux);
    if (!mux->conn) {
        free(mux);
        return KV_ENOMEM;
    }
    DL_APPEND(muxes->list, mux);
    return KV_OK;
}

int origin_mux_take(struct origin_muxes *muxes, struct origin_seat *seat)
{
    struct origin_mux *mux = muxes->waiting ? NULL : with_room(muxes);
    seat->muxes = muxes;
    seat->mux = NULL;
    if (mux) {
        sit(seat, mux);
        return KV_OK;
    }
    DL_APPEND(muxes->waiting, seat);
    int error = dial_if_needed(muxes);
    if (error)
        origin_mux_leave(seat);
    return error;
}

static void free_mux(struct free_node *node)
{
    free((char *)node - offsetof(struct origin_mux, free));
}

static void dispose(struct origin_mux *mux)
{
    deadline_cancel(&mux->deadline);
    DL_DELETE(mux->muxes->list, mux);
    mux->free.free = free_mux;
    worker_free_later(worker_of(mux), &mux->free);
}

static void fail_all(struct origin_muxes *muxes, enum close_reason reason, const char *text)
{
    while (muxes->waiting) {
        struct origin_seat *seat = take_waiting(muxes);
        seat->events->failed(seat, reason, text);
    }
}

/* A connection could not be made. Those who wait hear why, unless there are others that they can wait for. */
static void fail_waiting(struct origin_muxes *muxes, enum close_reason reason, const char *text)
{
    struct origin_mux *mux;
    DL_FOREACH (muxes->list, mux)
        if (mux->state == OPEN)
            return;
    fail_all(muxes, reason, text);
}

/* An open connection takes nobody any more. One that never took anybody is not followed by another: a service that ends
 * each before it has served would be dialled in a circle. Who waits hears so, unless there is one that does serve. */
static void replace(struct origin_muxes *muxes, bool served)
{
    struct origin_mux *mux;
    if (served) {
        dial_if_needed(muxes);
        return;
    }
    DL_FOREACH (muxes->list, mux)
        if (mux->state == OPEN && mux->served)
            return;
    fail_all(muxes, REASON_ORIGIN_CLOSED, "the local service ended its connection before it took a request");
}

/* ---- dialling -------------------------------------------------------------------------------------------------- */

static void on_dial_closed(void *owner, int error)
{
    struct origin_mux *mux = owner;
    struct origin_muxes *muxes = mux->muxes;
    const char *text = conn_error_text(mux->conn);
    dispose(mux);
    fail_waiting(muxes, origin_pool_reason(error), text);
}

/* The pool has one connection for HTTP/1.1 now, and each who waits makes its own if another is faster. */
static void become_plain(struct origin_mux *mux)
{
    struct origin_muxes *muxes = mux->muxes;
    struct conn *conn = mux->conn;
    muxes->plain = true;
    dispose(mux);
    origin_pool_put(muxes->pool, conn, 0, LIMIT_ORIGIN_IDLE_MS);
    while (muxes->waiting) {
        struct origin_seat *seat = take_waiting(muxes);
        seat->events->plain(seat);
    }
}

static const struct h2_conn_events h2_events;

static void on_dial_ready(void *owner)
{
    static const struct h2_options options = {
        .stream_window = STREAM_WINDOW,
        .connection_window = CONN_WINDOW,
        .max_frame_size = MAX_FRAME_BYTES,
    };
    struct origin_mux *mux = owner;
    struct origin_muxes *muxes = mux->muxes;
    struct conn *conn = mux->conn;
    if (conn_is_tls(conn) && !slice_equals(conn_alpn(conn), SLICE("h2"))) {
        become_plain(mux);
        return;
    }
    mux->conn = NULL;
    mux->state = GREETING;
    deadline_arm(worker_of(mux), &mux->deadline, origin_pool_connect_ms(muxes->pool));
    if (h2_conn_new(conn, &options, &h2_events, mux, (struct slice){0}, &mux->h2) == KV_OK)
        return;
    conn_abort(conn, false);
    dispose(mux);
    fail_waiting(muxes, REASON_INTERNAL, kv_strerror(KV_ENOMEM));
}

static void on_dial_data(void *owner, struct slice bytes)
{
    (void)owner; /* bytes come after `ready`, and then the connection has another owner */
    (void)bytes;
}

static void on_dial_eof(void *owner)
{
    (void)owner;
}

static const struct conn_events dial_events = {
    .ready = on_dial_ready,
    .data = on_dial_data,
    .eof = on_dial_eof,
    .closed = on_dial_closed,
};

/* ---- a connection ---------------------------------------------------------------------------------------------- */

static void on_settings(void *owner)
{
    struct origin_mux *mux = owner;
    if (mux->state == GREETING) {
        mux->state = OPEN;
        rest_if_idle(mux);
    }
    grant_waiting(mux->muxes);
    dial_if_needed(mux->muxes);
}

static void on_goaway(void *owner, uint32_t error_code)
{
    struct origin_mux *mux = owner;
    struct origin_muxes *muxes = mux->muxes;
    bool served = mux->served;
    log_debug("the local service ends an HTTP/2 connection", log_str("error", h2_error_name(error_code)));
    origin_mux_spend(mux);
    replace(muxes, served);
}

static void on_ended(void *owner, int error, const char *text)
{
    struct origin_mux *mux = owner;
    struct origin_muxes *muxes = mux->muxes;
    bool greeted = mux->state != GREETING, served = mux->served;
    dispose(mux);
    if (greeted)
        replace(muxes, served);
    else if (error == KV_EPROTO)
        fail_waiting(muxes, REASON_ORIGIN_BAD_RESPONSE, "the local service does not speak HTTP/2");
    else
        fail_waiting(muxes, REASON_ORIGIN_CLOSED, text);
}

/* Too late a greeting, or idle for too long. */
static void on_deadline(struct deadline *deadline)
{
    struct origin_mux *mux = (struct origin_mux *)((char *)deadline - offsetof(struct origin_mux, deadline));
    struct origin_muxes *muxes = mux->muxes;
    bool greeted = mux->state != GREETING;
    h2_conn_close(mux->h2, H2_NO_ERROR);
    dispose(mux);
    if (greeted)
        dial_if_needed(muxes); /* for those who waited here for a service that allows no streams */
    else
        fail_waiting(muxes, REASON_ORIGIN_CONNECT_TIMEOUT, "the local service accepted and said nothing in HTTP/2");
}

static const struct h2_conn_events h2_events = {
    .h2 = {.settings = on_settings, .goaway = on_goaway},
    .ended = on_ended,
};

struct h2_session *origin_mux_session(const struct origin_mux *mux)
{
    return h2_conn_session(mux->h2);
}

void origin_mux_spend(struct origin_mux *mux)
{
    mux->state = LEAVING;
    rest_if_idle(mux);
}

enum close_reason origin_mux_error(const struct origin_mux *mux, const char **text)
{
    int error = h2_conn_error(mux->h2, text);
    return error == 0           ? REASON_NONE
           : error == KV_ENOMEM ? REASON_INTERNAL
           : error == KV_EPROTO ? REASON_ORIGIN_BAD_RESPONSE
           : error == KV_ELIMIT ? REASON_ORIGIN_BAD_RESPONSE /* a flood of frames */
                                : REASON_ORIGIN_CLOSED;
}

/* ---- all of them ----------------------------------------------------------------------------------------------- */

struct origin_muxes *origin_muxes_new(struct origin_pool *pool)
{
    struct origin_muxes *muxes = calloc(1, sizeof(*muxes));
    if (muxes)
        muxes->pool = pool;
    return muxes;
}

void origin_muxes_free(struct origin_muxes *muxes)
{
    if (!muxes)
        return;
    while (muxes->list) {
        struct origin_mux *mux = muxes->list;
        conn_abort(mux->conn, false);
        h2_conn_abort(mux->h2);
        dispose(mux);
    }
    free(muxes);
}

bool origin_muxes_apply(const struct origin_muxes *muxes, bool upgrade)
{
    struct origin_mux *mux;
    if (muxes->plain)
        return false;
    if (!upgrade || !origin_pool_is_tls(muxes->pool))
        return true;
    DL_FOREACH (muxes->list, mux)
        if (mux->state == OPEN)
            return h2_peer_takes_connect(h2_conn_session(mux->h2));
    return true;
}

void origin_muxes_forget(struct origin_muxes *muxes)
{
    if (muxes)
        muxes->plain = false;
}
