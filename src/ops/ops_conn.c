/*
 * One connection of the admin listener: HTTP/1, one request after the other.
 *
 *     WAIT ── head ── answer queued, reading paused ── all of it sent ── WAIT …
 *
 * The next request is not looked at before the last answer has left, so a peer that asks and never reads holds one
 * answer and no more. Every state has a deadline: a head, the idle time between two, the progress of an answer.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <utlist.h>

#include "base/error.h"
#include "base/limits.h"
#include "base/log.h"
#include "http/date.h"
#include "http/http1.h"
#include "io/conn.h"
#include "io/descriptors.h"
#include "io/listener.h"
#include "ops/ops_impl.h"

#define INPUT_MAX       (LIMIT_HEAD_BYTES + LIMIT_READ_BYTES) /* an unfinished head and one read behind it */
#define ANSWER_HEAD_MAX 1024                                  /* a handful of fields of ours */

struct ops_conn {
    struct ops *ops;
    struct conn *conn;
    struct buffer input; /* bytes that are no complete request yet, or whose turn has not come */
    size_t scanned;
    bool closing;
    struct deadline reading; /* a head, or the idle time */
    struct deadline writing; /* a peer that takes nothing */
    struct ops_conn *prev, *next;
    struct free_node free;
    char peer[SOCKADDR_TEXT_LEN];
};

static struct worker *worker_of(const struct ops_conn *c)
{
    return conn_worker(c->conn);
}

/* ---- the end --------------------------------------------------------------------------------------------------- */

static void free_conn(struct free_node *node)
{
    struct ops_conn *c = (struct ops_conn *)((char *)node - offsetof(struct ops_conn, free));
    buffer_free(&c->input);
    free(c);
}

/* Forgets the connection, which is closed or left to its own lingering. */
static void dispose(struct ops_conn *c)
{
    c->closing = true;
    deadline_cancel(&c->reading);
    deadline_cancel(&c->writing);
    DL_DELETE(ops_local(c->ops)->conns, c);
    atomic_fetch_sub_explicit(&c->ops->alive, 1, memory_order_relaxed);
    c->free.free = free_conn;
    worker_free_later(worker_of(c), &c->free);
}

/* Sends what is queued and closes. */
static void close_conn(struct ops_conn *c)
{
    dispose(c);
    conn_close(c->conn);
}

/* Closes at once; a half-sent answer ends in a reset and looks like no complete one. */
static void cut(struct ops_conn *c, const char *why)
{
    log_debug("admin connection cut", log_str("peer", c->peer), log_str("why", why));
    dispose(c);
    conn_abort(c->conn, conn_unsent(c->conn) > 0);
}

void ops_conns_stop(struct ops *ops)
{
    struct ops_conn *c, *next;
    DL_FOREACH_SAFE (ops_local(ops)->conns, c, next)
        close_conn(c);
}

static void on_reading_expired(struct deadline *deadline)
{
    struct ops_conn *c = (struct ops_conn *)((char *)deadline - offsetof(struct ops_conn, reading));
    close_conn(c);
}

static void on_writing_expired(struct deadline *deadline)
{
    struct ops_conn *c = (struct ops_conn *)((char *)deadline - offsetof(struct ops_conn, writing));
    cut(c, "the answer is not taken");
}

/* ---- answers --------------------------------------------------------------------------------------------------- */

/* Writes the answer's head, and its body unless it is an answer to HEAD. 0 or KV_ENOMEM. */
static int write_reply(struct ops_conn *c, const struct ops_reply *reply, const struct http1_message *m,
                       bool keep_alive)
{
    struct field fields[6];
    struct head head;
    char length[24], date[HTTP_DATE_LEN];
    bool is_head = slice_equals(m->head.method, SLICE("HEAD"));
    snprintf(length, sizeof(length), "%zu", reply->body.len);
    head_borrow(&head, fields, 6);
    head.status = reply->status;
    head_add(&head, SLICE("date"), http_date(time(NULL), date));
    head_add(&head, SLICE("content-type"), slice_of(reply->type));
    head_add(&head, SLICE("cache-control"), SLICE("no-store"));
    head_add(&head, SLICE("x-content-type-options"), SLICE("nosniff"));
    if (reply->allow)
        head_add(&head, SLICE("allow"), slice_of(reply->allow));
    if (is_head)
        head_add(&head, SLICE("content-length"), slice_of(length));

    struct buffer out = BUFFER_INIT(ANSWER_HEAD_MAX);
    int error = http1_write_response(&out, &head, is_head ? HTTP1_NO_BODY : HTTP1_LENGTH, reply->body.len, keep_alive,
                                     m->http10);
    if (error == KV_OK)
        error = conn_write_copy(c->conn, out.data, out.len);
    if (error == KV_OK && !is_head && reply->body.len > 0)
        error = conn_write_copy(c->conn, reply->body.data, reply->body.len);
    buffer_free(&out);
    return error;
}

/* Sends a reply, and closes behind it unless the connection goes on. */
static void send_reply(struct ops_conn *c, const struct ops_reply *reply, const struct http1_message *m,
                       bool keep_alive)
{
    deadline_cancel(&c->reading);
    deadline_arm(worker_of(c), &c->writing, LIMIT_PROGRESS_MS);
    if (write_reply(c, reply, m, keep_alive) != KV_OK)
        cut(c, "no memory for the answer");
    else if (!keep_alive)
        close_conn(c);
}

/* ---- requests -------------------------------------------------------------------------------------------------- */

static void refuse(struct ops_conn *c, const struct http1_message *m)
{
    struct ops_reply reply = {
        .status = reason_text(m->reason)->status,
        .type = "text/plain; charset=utf-8",
        .body = BUFFER_INIT(ANSWER_HEAD_MAX),
    };
    log_debug("admin request refused", log_str("peer", c->peer), log_str("why", m->error));
    buffer_printf(&reply.body, "%s: %s\n", reason_text(m->reason)->sentence, m->error);
    send_reply(c, &reply, m, false);
    buffer_free(&reply.body);
}

static void answer(struct ops_conn *c, const struct http1_message *m)
{
    struct ops_reply reply = {.body = BUFFER_INIT(OPS_ANSWER_BYTES)};
    /* A body is refused unread, and what follows it on this connection with it. */
    bool has_body = m->framing == HTTP1_CHUNKED || (m->framing == HTTP1_LENGTH && m->length > 0);
    ops_answer(c->ops, &m->head, has_body, c->peer, &reply);
    log_debug("admin request", log_str("peer", c->peer), log_slice("method", m->head.method),
              log_slice("target", m->head.target), log_uint("status", reply.status));
    send_reply(c, &reply, m, m->keep_alive && !has_body);
    buffer_free(&reply.body);
}

/* Answers the request at the start of the input. False when it is not complete, or was the last. */
static bool take_request(struct ops_conn *c)
{
    struct http1_message m;
    ssize_t n = http1_parse_request(buffer_slice(&c->input), &c->scanned, &m);
    if (n == 0)
        return false;
    c->scanned = 0;
    if (n < 0) {
        refuse(c, &m);
        return false;
    }
    answer(c, &m);
    if (c->closing)
        return false;
    buffer_consume(&c->input, (size_t)n);
    return true;
}

/* Takes requests until one is incomplete or an answer has to be waited for. */
static void process(struct ops_conn *c)
{
    while (!c->closing && conn_unsent(c->conn) == 0 && c->input.len > 0 && take_request(c))
        continue;
    if (c->closing)
        return;
    if (conn_unsent(c->conn) > 0)
        conn_pause(c->conn);
    else
        conn_resume(c->conn);
}

static void on_data(void *owner, struct slice bytes)
{
    struct ops_conn *c = owner;
    if (c->input.len == 0) /* the first bytes of a head: its time begins */
        deadline_arm(worker_of(c), &c->reading, LIMIT_HEAD_MS);
    if (buffer_append_slice(&c->input, bytes) != KV_OK) {
        cut(c, "no memory for input");
        return;
    }
    process(c);
}

/* Reading is paused while an answer is on its way, so there is none to wait for. */
static void on_eof(void *owner)
{
    close_conn(owner);
}

static void on_sent(void *owner)
{
    struct ops_conn *c = owner;
    if (conn_unsent(c->conn) > 0) {
        deadline_arm(worker_of(c), &c->writing, LIMIT_PROGRESS_MS);
        return;
    }
    deadline_cancel(&c->writing);
    deadline_arm(worker_of(c), &c->reading, c->input.len > 0 ? LIMIT_HEAD_MS : LIMIT_IDLE_MS);
    process(c);
}

static void on_closed(void *owner, int error)
{
    struct ops_conn *c = owner;
    log_debug("admin connection lost", log_str("peer", c->peer), log_str("error", kv_strerror(error)));
    dispose(c);
}

/* ---- start ----------------------------------------------------------------------------------------------------- */

static const struct conn_events conn_events = {
    .data = on_data,
    .eof = on_eof,
    .sent = on_sent,
    .closed = on_closed,
};

void ops_accept(struct ops *ops, int fd)
{
    struct ops_local *local = ops_local(ops);
    size_t before = atomic_fetch_add_explicit(&ops->alive, 1, memory_order_relaxed);
    struct ops_conn *c = NULL;
    if (before >= OPS_CONNS_MAX || local->stopping) {
        if (!local->stopping)
            log_warn("an admin connection was turned away: too many are open", log_uint("open", before));
        descriptors_close(fd);
        goto forget;
    }
    c = calloc(1, sizeof(*c));
    if (!c) {
        descriptors_close(fd);
        goto forget;
    }
    if (conn_accept(worker_current(), fd, NULL, &conn_events, c, &c->conn) != KV_OK)
        goto forget;
    c->ops = ops;
    c->input.limit = INPUT_MAX;
    c->reading.expired = on_reading_expired;
    c->writing.expired = on_writing_expired;
    sockaddr_format(conn_peer(c->conn), c->peer);
    DL_APPEND(local->conns, c);
    deadline_arm(worker_of(c), &c->reading, LIMIT_HEAD_MS);
    return;

forget:
    free(c);
    atomic_fetch_sub_explicit(&ops->alive, 1, memory_order_relaxed);
}
