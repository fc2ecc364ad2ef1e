/*
 * What can end a session before Welcome: the proxy, the dial, the TLS handshake, a peer that is no HTTP/2 server, an
 * HTTP answer that is no gRPC, a grpc-status, silence (GREETING_MS). After it: the stream's or connection's end, a
 * grpc-status, the link's own verdict (silence, broken messages), a Cancel of the whole tunnel. Each becomes one
 * session_end.
 *
 * A connection's end is told twice, by the stream and then by the connection, which knows more; so a stream that closes
 * is left to the link, which tells at the end of the turn, unless the connection has told before.
 */
#include "client/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/random.h"
#include "client/proxy.h"
#include "client/proxy_dial.h"
#include "grpc/grpc.h"
#include "http/h2_conn.h"
#include "io/conn.h"
#include "tunnel/link.h"

#define GREETING_MS    15000 /* from the connection to Welcome; the server's store may need a moment */

/* Windows towards the server. Credit bounds what each exchange may send, these only what is on its way at once: enough
 * for a fast and distant line. */
#define SESSION_WINDOW (16U * 1024 * 1024)
#define SESSION_FRAME  (1024U * 1024)

enum session_state {
    SESSION_DIALLING,
    SESSION_GREETING,
    SESSION_OPEN,
    SESSION_RETIRING,  /* the server goes away; a new session has our place */
    SESSION_FINISHING, /* we go away */
    SESSION_DONE,
};

struct session {
    struct worker *worker;
    const struct session_options *options;
    const struct session_events *events;
    void *owner;
    enum session_state state;
    struct proxy_dial *proxy_dial; /* while a proxy is spoken to */
    struct conn *conn;             /* while dialling, and behind the proxy */
    struct h2_conn *h2;            /* after that */
    struct h2_stream *stream;      /* NULL when it is gone */
    struct link *link;
    struct deadline deadline; /* of the greeting; of the last exchanges */
    uint64_t welcomed_at;
    char id[WIRE_SESSION_LEN + 1];
    struct free_node free;
};

static const struct h2_conn_events h2_conn_events;
static const struct link_events link_events;

/* ---- the end --------------------------------------------------------------------------------------------------- */

static void free_session(struct free_node *node)
{
    free((char *)node - offsetof(struct session, free));
}

/* Takes everything apart; an open stream is ended in order, so that the server frees the name at once. */
static void dispose(struct session *s, const char *text)
{
    s->state = SESSION_DONE;
    deadline_cancel(&s->deadline);
    proxy_dial_cancel(s->proxy_dial);
    conn_abort(s->conn, false);
    link_free(s->link, REASON_VISITOR_GONE, text);
    if (s->stream)
        h2_end(s->stream, NULL);
    h2_conn_close(s->h2, H2_NO_ERROR);
    s->free.free = free_session;
    worker_free_later(s->worker, &s->free);
}

static void end_with_status(struct session *s, enum session_result result, const char *status, const char *text)
{
    char copy[SESSION_TEXT_LEN]; /* the text may lie in what is taken apart */
    if (s->state == SESSION_DONE)
        return;
    snprintf(copy, sizeof(copy), "%s", text);
    struct session_end told = {.result = result, .text = copy, .status = status};
    told.welcomed = s->welcomed_at != 0;
    told.lived_ms = told.welcomed ? worker_now(s->worker) - s->welcomed_at : 0;
    dispose(s, copy);
    s->events->ended(s->owner, s, &told);
}

static void end(struct session *s, enum session_result result, const char *text)
{
    end_with_status(s, result, "", text);
}

void session_close(struct session *s)
{
    if (s && s->state != SESSION_DONE)
        dispose(s, "the tunnel client ended the session");
}

static void on_deadline(struct deadline *deadline)
{
    struct session *s = (struct session *)((char *)deadline - offsetof(struct session, deadline));
    end(s, SESSION_LOST,
        s->state == SESSION_GREETING ? "the server did not answer in time" : "requests in flight were given up");
}

bool session_finish(struct session *s, uint64_t patience_ms)
{
    if (s->state < SESSION_OPEN || link_exchanges(s->link) == 0) {
        session_close(s);
        return false;
    }
    s->state = SESSION_FINISHING;
    link_drain(s->link);
    deadline_arm(s->worker, &s->deadline, patience_ms);
    return true;
}

void session_retire(struct session *s, uint64_t patience_ms)
{
    s->state = SESSION_RETIRING;
    deadline_arm(s->worker, &s->deadline, patience_ms);
}

const char *session_id(const struct session *s)
{
    return s->id;
}

/* ---- Welcome and the messages after it ------------------------------------------------------------------------- */

static bool is_printable(struct slice text)
{
    for (size_t i = 0; i < text.len; i++)
        if (text.data[i] <= 0x20 || text.data[i] >= 0x7f)
            return false;
    return text.len > 0;
}

/* A server that names no session gets a name from us, so that our log at least can tell sessions apart. */
static void set_id(struct session *s, struct slice given)
{
    if (given.len <= WIRE_SESSION_LEN && is_printable(given))
        snprintf(s->id, sizeof(s->id), "%.*s", (int)given.len, given.data);
    else
        random_hex(s->id, 4);
}

static void on_welcome(struct session *s, const struct wire_message *m)
{
    if (s->state != SESSION_GREETING || !is_printable(m->welcome.public_url)) {
        end(s, SESSION_LOST, "the server's greeting makes no sense");
        return;
    }
    set_id(s, m->welcome.session_id);
    const uint32_t credit = m->welcome.initial_credit;
    const struct link_terms terms = {
        .features = m->welcome.features & WIRE_FEATURES,
        .peer_credit = credit < LIMIT_WINDOW_MAX_BYTES ? credit : LIMIT_WINDOW_MAX_BYTES,
        .max_concurrent = m->welcome.max_concurrent,
        .session = slice_of(s->id),
        .requests = s->options->requests,
        .ping_ms = s->options->ping_ms,
        .dead_ms = s->options->dead_ms,
    };
    int error = link_start(s->link, &terms);
    if (error) {
        end(s, SESSION_LOST, kv_strerror(error));
        return;
    }
    s->state = SESSION_OPEN;
    deadline_cancel(&s->deadline);
    s->welcomed_at = worker_now(s->worker);
    s->events->welcomed(s->owner, s, m->welcome.public_url, slice_of(s->id));
}

static void on_link_message(void *owner, const struct wire_message *m)
{
    struct session *s = owner;
    switch (m->kind) {
    case WIRE_WELCOME:
        on_welcome(s, m);
        break;
    case WIRE_CANCEL:
        end(s, SESSION_TAKEN_OVER, "another client took this tunnel's name");
        break;
    case WIRE_DRAIN:
        if (s->state == SESSION_OPEN)
            s->events->draining(s->owner, s, m->drain_grace_ms);
        break;
    default:
        break; /* what concerns no exchange and is not known here has no effect */
    }
}

static void on_link_ended(void *owner, enum close_reason reason, const char *text)
{
    (void)reason;
    end(owner, SESSION_LOST, text);
}

static void on_link_idle(void *owner)
{
    struct session *s = owner;
    if (s->state == SESSION_FINISHING)
        end(s, SESSION_LOST, "requests in flight are done");
}

static const struct link_events link_events = {
    .message = on_link_message,
    .ended = on_link_ended,
    .idle = on_link_idle,
};

/* ---- the stream ------------------------------------------------------------------------------------------------ */

static enum session_result result_of(int status, const struct head *head)
{
    switch (status) {
    case GRPC_PERMISSION_DENIED:
        return SESSION_BAD_TOKEN;
    case GRPC_INVALID_ARGUMENT:
        return SESSION_BAD_NAME;
    case GRPC_ALREADY_EXISTS:
        return slice_equals(head_value(head, SLICE("kavilo-reason")), SLICE("name_taken")) ? SESSION_NAME_TAKEN
                                                                                           : SESSION_CONFLICT;
    default:
        return SESSION_LOST;
    }
}

/* True if the head carries a grpc-status, which ends the session. */
static bool ended_by_status(struct session *s, const struct head *head)
{
    char text[SESSION_TEXT_LEN];
    int status = grpc_status_of(head, text, sizeof(text));
    if (status < 0)
        return false;
    end_with_status(s, result_of(status, head), grpc_status_name(status),
                    text[0] ? text : "the server ended the session");
    return true;
}

static void on_response(void *user, const struct head *head, bool end_of_stream)
{
    struct session *s = user;
    char text[SESSION_TEXT_LEN];
    (void)end_of_stream;
    if (head->status < 200)
        return;
    bool grpc = slice_starts_with(head_value(head, SLICE("content-type")), SLICE("application/grpc"));
    if (ended_by_status(s, head) || (head->status == 200 && grpc))
        return;
    snprintf(text, sizeof(text), "%s answered with HTTP status %u and no tunnel: no kavilo-tunneld is behind it",
             s->options->endpoint->text, head->status);
    end(s, SESSION_LOST, text);
}

static void on_trailers(void *user, const struct head *trailers)
{
    struct session *s = user;
    if (!ended_by_status(s, trailers))
        end(s, SESSION_LOST, "the server ended the session without a status");
}

static void on_data(void *user, struct slice bytes)
{
    struct session *s = user;
    link_data(s->link, bytes);
}

static void on_end(void *user)
{
    end(user, SESSION_LOST, "the server ended the session without a status");
}

static void on_closed(void *user, uint32_t error_code)
{
    struct session *s = user;
    char text[64];
    s->stream = NULL;
    if (s->state == SESSION_DONE)
        return;
    snprintf(text, sizeof(text), "the server closed the stream (HTTP/2 error %u)", error_code);
    link_stream_ended(s->link, text);
}

static void on_fill(void *user)
{
    struct session *s = user;
    link_top_up(s->link);
}

static void on_pong(void *owner, uint64_t opaque)
{
    struct session *s = owner;
    if (s->link)
        link_pong(s->link, opaque);
}

/* ---- the connection -------------------------------------------------------------------------------------------- */

static void on_h2_ended(void *owner, int error, const char *text)
{
    struct session *s = owner;
    char sentence[SESSION_TEXT_LEN];
    s->h2 = NULL;
    s->stream = NULL;
    if (error == KV_EPROTO && !s->welcomed_at) {
        snprintf(sentence, sizeof(sentence), "%s does not speak HTTP/2: no kavilo-tunneld is behind it",
                 s->options->endpoint->text);
        text = sentence;
    }
    end(s, SESSION_LOST, text);
}

static const struct h2_conn_events h2_conn_events = {
    .h2 =
        {
            .response = on_response,
            .trailers = on_trailers,
            .data = on_data,
            .end = on_end,
            .closed = on_closed,
            .fill = on_fill,
            .pong = on_pong,
        },
    .ended = on_h2_ended,
};

static int open_stream(struct session *s)
{
    struct field fields[3];
    struct head head;
    const struct url *endpoint = s->options->endpoint;
    head_borrow(&head, fields, 3);
    head.method = SLICE("POST");
    head.target = SLICE("/kavilo.tunnel.v1.Tunnel/Open");
    head.scheme = endpoint->tls ? SLICE("https") : SLICE("http");
    head.authority = slice_of(strstr(endpoint->text, "://") + 3);
    head_add(&head, SLICE("te"), SLICE("trailers"));
    head_add(&head, SLICE("content-type"), SLICE("application/grpc"));
    head_add(&head, SLICE("user-agent"), SLICE("kavilo-tunnel/" KV_VERSION));
    s->stream = h2_request(h2_conn_session(s->h2), &head, false, s);
    if (!s->stream)
        return KV_ENOMEM;
    s->link = link_new(s->worker, s->stream, WIRE_FROM_CLIENT, &link_events, s);
    return s->link ? KV_OK : KV_ENOMEM;
}

static int send_hello(struct session *s)
{
    const struct session_options *o = s->options;
    struct wire_message m = {.kind = WIRE_HELLO};
    m.hello.token = slice_of(o->token);
    m.hello.has_name = o->name != NULL;
    m.hello.name = slice_of(o->name);
    m.hello.client_version = SLICE(KV_VERSION);
    m.hello.takeover = o->takeover;
    m.hello.no_subdomains = o->no_subdomains;
    m.hello.features = WIRE_FEATURES;
    m.hello.initial_credit = LIMIT_WINDOW_BYTES;
    m.hello.instance_id = (struct slice){(const char *)o->instance, WIRE_INSTANCE_LEN};
    m.hello.response_timeout_ms = o->response_ms;
    return link_send(s->link, &m);
}

/* The connection leads to the server; `first` came on it already. */
static void begin(struct session *s, struct slice first)
{
    struct conn *conn = s->conn;
    const struct h2_options options = {
        .stream_window = SESSION_WINDOW,
        .connection_window = SESSION_WINDOW,
        .max_frame_size = SESSION_FRAME,
    };
    s->conn = NULL; /* the h2_conn's from here on */
    s->state = SESSION_GREETING;
    deadline_arm(s->worker, &s->deadline, GREETING_MS);
    int error = h2_conn_new(conn, &options, &h2_conn_events, s, first, &s->h2);
    if (s->state == SESSION_DONE) /* what came first was no HTTP/2 */
        return;
    if (error)
        s->conn = conn;
    else
        error = open_stream(s);
    if (!error)
        error = send_hello(s);
    if (error)
        end(s, SESSION_LOST, kv_strerror(error));
}

static void on_ready(void *owner)
{
    struct session *s = owner;
    if (s->options->tls && !slice_equals(conn_alpn(s->conn), SLICE("h2")))
        end(s, SESSION_LOST, "the server's TLS does not offer HTTP/2 (ALPN h2)");
    else
        begin(s, (struct slice){0});
}

static bool has_proxy(const struct session_options *o)
{
    return o->proxy && o->proxy->kind != PROXY_NONE;
}

/* A plain connection may have been spoken to before it was ours: nothing is expected then. */
static void on_early_data(void *owner, struct slice bytes)
{
    (void)bytes;
    end(owner, SESSION_LOST, "the server spoke first: no kavilo-tunneld is behind it");
}

static void on_early_eof(void *owner)
{
    end(owner, SESSION_LOST, "the server closed the connection");
}

static void on_dial_failed(void *owner, int error)
{
    struct session *s = owner;
    char text[SESSION_TEXT_LEN];
    bool proxied = has_proxy(s->options);
    snprintf(text, sizeof(text), "%s%s%s%s: %s", s->options->endpoint->text, proxied ? " (through proxy " : "",
             proxied ? s->options->proxy->text : "", proxied ? ")" : "",
             error == KV_ETIMEDOUT ? "no connection in time" : conn_error_text(s->conn));
    s->conn = NULL;
    end(s, SESSION_LOST, text);
}

static const struct conn_events dial_events = {
    .ready = on_ready,
    .data = on_early_data,
    .eof = on_early_eof,
    .closed = on_dial_failed,
};

/* ---- by way of a proxy ----------------------------------------------------------------------------------------- */

static void on_way(void *owner, struct conn *conn, struct slice first)
{
    struct session *s = owner;
    s->proxy_dial = NULL;
    s->conn = conn;
    conn_set_owner(conn, &dial_events, s);
    if (!s->options->tls) {
        begin(s, first);
        return;
    }
    int error = conn_start_tls(conn, s->options->tls, slice_of(s->options->endpoint->host), first);
    if (error)
        end(s, SESSION_LOST, kv_strerror(error));
}

static void on_no_way(void *owner, int error, const char *text)
{
    struct session *s = owner;
    s->proxy_dial = NULL;
    end(s, error == KV_EREFUSED ? SESSION_BAD_PROXY : SESSION_LOST, text);
}

static const struct proxy_dial_events proxy_events = {.ready = on_way, .failed = on_no_way};

/* ---- the beginning --------------------------------------------------------------------------------------------- */

static int dial(struct session *s)
{
    const struct session_options *o = s->options;
    if (has_proxy(o)) {
        s->proxy_dial = proxy_dial_start(s->worker, o->proxy, o->proxy_tls, o->endpoint, &proxy_events, s);
        return s->proxy_dial ? KV_OK : KV_ENOMEM;
    }
    const struct dial_options options = {
        .host = url_dial_host(o->endpoint),
        .port = o->endpoint->port,
        .tls = o->tls,
        .tls_name = slice_of(o->endpoint->host),
        .timeout_ms = LIMIT_CONNECT_MS,
    };
    s->conn = conn_dial(s->worker, &options, &dial_events, s);
    return s->conn ? KV_OK : KV_ENOMEM;
}

struct session *session_start(struct worker *worker, const struct session_options *options,
                              const struct session_events *events, void *owner)
{
    struct session *s = calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    s->worker = worker;
    s->options = options;
    s->events = events;
    s->owner = owner;
    s->deadline.expired = on_deadline;
    if (dial(s) == KV_OK)
        return s;
    free(s);
    return NULL;
}
