/*
 * The way from http to https: a port in the clear that answers one request a connection with the same URL's https form
 * (308, which keeps method and body) and closes. Heads are read as strictly as anywhere else, and only hosts that the
 * edge serves are sent on: a redirect to wherever a Host field says would be anybody's to use.
 *
 *     accepted ── head ── 308, or an error answer ── closed
 */
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/error.h"
#include "base/limits.h"
#include "base/log.h"
#include "edge/edge_impl.h"
#include "http/date.h"
#include "http/http1.h"
#include "http/syntax.h"
#include "io/conn.h"
#include "io/descriptors.h"

#define ANSWER_MAX (2 * LIMIT_HEAD_BYTES) /* a Location as long as the longest target, and more */

struct redirect {
    struct edge *edge;
    struct conn *conn;
    struct buffer input; /* of the head, as far as it has come */
    size_t scanned;
    struct deadline deadline; /* to the head's end */
    struct address_hold hold;
    bool proxied; /* its visitor is known with the first bytes */
    struct redirect *prev, *next;
    struct free_node free;
};

static void free_redirect(struct free_node *node)
{
    struct redirect *r = (struct redirect *)((char *)node - offsetof(struct redirect, free));
    buffer_free(&r->input);
    free(r);
}

static void leave(struct redirect *r)
{
    deadline_cancel(&r->deadline);
    address_hold_drop(r->edge->limit, &r->hold);
    DL_DELETE(edge_local(r->edge)->redirects, r);
    r->free.free = free_redirect;
    worker_free_later(conn_worker(r->conn), &r->free);
}

/* Sends a whole answer, counted, and closes behind it. */
static void answer(struct redirect *r, const struct head *head, struct slice body, bool is_head, bool http10)
{
    struct buffer out = BUFFER_INIT(ANSWER_MAX);
    if (http1_write_response(&out, head, HTTP1_LENGTH, body.len, false, http10) == KV_OK &&
        conn_write_copy(r->conn, out.data, out.len) == KV_OK &&
        (is_head || body.len == 0 || conn_write_copy(r->conn, body.data, body.len) == KV_OK))
        edge_count_response(edge_local(r->edge), head->status);
    buffer_free(&out);
    leave(r);
    conn_close(r->conn);
}

/* `m` is NULL when there is no request that could be read. */
static void refuse(struct redirect *r, enum close_reason reason, const struct http1_message *m)
{
    struct head *head = NULL;
    struct buffer body = {0};
    char id[EXCHANGE_ID_LEN];
    edge_request_id(r->edge, id);
    if (edge_error_make(reason, m ? edge_wanted_type(&m->head) : EDGE_TEXT, id, &head, &body) != KV_OK) {
        leave(r);
        conn_abort(r->conn, false);
        return;
    }
    answer(r, head, buffer_slice(&body), m && slice_equals(m->head.method, SLICE("HEAD")), m && m->http10);
    head_free(head);
    buffer_free(&body);
}

/* The https form of what was asked for. 0, KV_ENOTFOUND for a host that is none of ours, or KV_ENOMEM. */
static int write_location(const struct edge *edge, const struct head *request, struct buffer *out)
{
    char host[LIMIT_HOST_BYTES + 1];
    struct slice name = {host, http_host_of(request->authority, host)};
    struct slice base = slice_of(edge->settings.base_host);
    if (!slice_equals(name, base) && edge_subdomain(name, base).len == 0)
        return KV_ENOTFOUND;
    int error = buffer_printf(out, "https://%.*s", (int)name.len, name.data);
    if (!error && edge->settings.https_port)
        error = buffer_printf(out, ":%u", edge->settings.https_port);
    if (!error && !slice_equals(request->target, SLICE("*"))) /* the server itself, which has no path (RFC 9110, 7.1) */
        error = buffer_append_slice(out, request->target);
    return error;
}

static void redirect(struct redirect *r, const struct http1_message *m)
{
    struct buffer location = BUFFER_INIT(LIMIT_TARGET_BYTES + LIMIT_HOST_BYTES + 16);
    char date[HTTP_DATE_LEN];
    struct field fields[2];
    struct head head;
    int error = write_location(r->edge, &m->head, &location);
    if (error) {
        refuse(r, error == KV_ENOTFOUND ? REASON_NO_TUNNEL : REASON_INTERNAL, m);
    } else {
        head_borrow(&head, fields, 2);
        head.status = 308;
        head_add(&head, SLICE("date"), http_date(time(NULL), date));
        head_add(&head, SLICE("location"), buffer_slice(&location));
        answer(r, &head, (struct slice){0}, false, m->http10);
    }
    buffer_free(&location);
}

static void take_request(struct redirect *r, const struct http1_message *m)
{
    struct edge_peer peer;
    edge_peer_of(r->edge, r->conn, &peer);
    enum close_reason reason = edge_admit(r->edge, &m->head, r->conn, &peer);
    if (reason == REASON_NONE)
        redirect(r, m);
    else
        refuse(r, reason, m);
}

static void turn_away(struct redirect *r)
{
    leave(r);
    conn_abort(r->conn, true);
}

static void on_data(void *owner, struct slice bytes)
{
    struct redirect *r = owner;
    struct http1_message m;
    if (r->proxied && !edge_hold_take(r->edge, r->conn, &r->hold)) {
        turn_away(r);
        return;
    }
    r->proxied = false;
    if (buffer_append_slice(&r->input, bytes) != KV_OK) {
        leave(r);
        conn_abort(r->conn, false);
        return;
    }
    ssize_t n = http1_parse_request(buffer_slice(&r->input), &r->scanned, &m);
    if (n == 0)
        return;
    if (n > 0) {
        take_request(r, &m);
        return;
    }
    edge_counter_add(&edge_local(r->edge)->requests, 1);
    refuse(r, m.reason, NULL);
}

static void on_expired(struct deadline *deadline)
{
    struct redirect *r = (struct redirect *)((char *)deadline - offsetof(struct redirect, deadline));
    if (r->input.len > 0) {
        refuse(r, REASON_VISITOR_SLOW, NULL);
        return;
    }
    leave(r);
    conn_close(r->conn);
}

static void on_eof(void *owner)
{
    struct redirect *r = owner;
    leave(r);
    conn_abort(r->conn, false);
}

static void on_closed(void *owner, int error)
{
    (void)error;
    leave(owner);
}

static const struct conn_events events = {.data = on_data, .eof = on_eof, .closed = on_closed};

void edge_accept_redirect(struct edge *edge, int fd)
{
    struct redirect *r = calloc(1, sizeof(*r));
    if (!r)
        descriptors_close(fd);
    if (!r || conn_accept(worker_current(), fd, NULL, &events, r, &r->conn) != KV_OK) {
        log_warn("a visitor was turned away: no memory or no descriptor");
        free(r);
        return;
    }
    r->edge = edge;
    r->input.limit = LIMIT_HEAD_BYTES + LIMIT_READ_BYTES;
    DL_APPEND(edge_local(edge)->redirects, r);
    r->deadline.expired = on_expired;
    deadline_arm(worker_current(), &r->deadline, LIMIT_HEAD_MS);
    r->proxied = edge_expect_proxy_header(edge, r->conn);
    if (!r->proxied && !edge_hold_take(edge, r->conn, &r->hold))
        turn_away(r);
}

void edge_redirects_close(struct edge *edge)
{
    struct redirect *r, *next;
    DL_FOREACH_SAFE (edge_local(edge)->redirects, r, next) {
        leave(r);
        conn_abort(r->conn, false);
    }
}
