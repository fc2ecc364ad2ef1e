/*
 * One conversation with a proxy:
 *
 *     [look the server's name up, socks5 alone] ── dial ──┬── CONNECT ── head ───────────────────────┬── ready
 *                                                         └── greeting ── [credentials] ── request ──┘
 *
 * A socks5 proxy is given addresses one by one: when it cannot reach one, it is dialled again for the next. Everything
 * that it says is collected in `heard`, which no answer outgrows.
 */
#include "client/proxy_dial.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/blake3.h"
#include "base/buffer.h"
#include "base/chunk.h"
#include "base/error.h"
#include "base/limits.h"
#include "client/connect.h"
#include "client/proxy.h"
#include "client/socks5.h"
#include "io/conn.h"
#include "io/file.h"
#include "io/resolve.h"
#include "io/worker.h"

enum step {
    STEP_RESOLVE,
    STEP_DIAL,
    STEP_CONNECT, /* the CONNECT request is out */
    STEP_METHOD,  /* the SOCKS5 greeting is */
    STEP_VERDICT, /* the credentials are */
    STEP_REPLY,   /* the SOCKS5 request is */
};

struct proxy_dial {
    struct worker *worker;
    const struct proxy *proxy;
    struct tls_context *tls;
    const struct url *server;
    const struct proxy_dial_events *events;
    void *owner;
    enum step step;
    struct resolve *resolve;
    struct resolve_answer answer;
    unsigned next; /* address to ask the proxy for */
    struct conn *conn;
    struct buffer heard;
    size_t scanned;
    struct deadline deadline; /* of the proxy's answers */
    struct free_node free;
};

static const struct conn_events conn_events;

/* ---- the end --------------------------------------------------------------------------------------------------- */

static void free_dial(struct free_node *node)
{
    struct proxy_dial *d = (struct proxy_dial *)((char *)node - offsetof(struct proxy_dial, free));
    buffer_free(&d->heard);
    free(d);
}

static void dispose(struct proxy_dial *d)
{
    resolve_cancel(d->resolve);
    deadline_cancel(&d->deadline);
    conn_abort(d->conn, false);
    d->conn = NULL;
    d->free.free = free_dial;
    worker_free_later(d->worker, &d->free);
}

void proxy_dial_cancel(struct proxy_dial *dial)
{
    if (dial)
        dispose(dial);
}

/* "proxy http://p:3128 " and the reason. */
static void fail(struct proxy_dial *d, int error, const char *joint, const char *reason)
{
    char text[PROXY_DIAL_TEXT_LEN];
    snprintf(text, sizeof(text), "proxy %s%s%s", d->proxy->text, joint, reason);
    dispose(d);
    d->events->failed(d->owner, error, text);
}

static void on_expired(struct deadline *deadline)
{
    struct proxy_dial *d = (struct proxy_dial *)((char *)deadline - offsetof(struct proxy_dial, deadline));
    fail(d, KV_ETIMEDOUT, " ",
         d->step == STEP_RESOLVE ? "was not asked: the server's name could not be looked up in time"
                                 : "did not answer in time");
}

/* ---- the server's address, for a proxy that is to be given one ----------------------------------------------------
 */

static int dial(struct proxy_dial *d);

static void on_resolved(void *arg, int error, const char *text, const struct resolve_answer *answer)
{
    struct proxy_dial *d = arg;
    d->resolve = NULL;
    if (error) {
        char reason[256];
        snprintf(reason, sizeof(reason),
                 "the server's name cannot be looked up here: %s; socks5h:// leaves it to the proxy", text);
        fail(d, error, " was not asked: ", reason);
        return;
    }
    d->answer = *answer;
    if (dial(d) != KV_OK)
        fail(d, KV_ENOMEM, ": ", "no memory");
}

static bool needs_address(const struct proxy *proxy)
{
    return proxy->kind == PROXY_SOCKS5 && !proxy->remote_dns;
}

/* ---- the conversation -------------------------------------------------------------------------------------------- */

/* Credentials may be in it: it has a chunk of its own, which is overwritten when it has left or is dropped. */
static void say(struct proxy_dial *d, const void *bytes, size_t len, enum step step)
{
    struct chunk *chunk = chunk_copy(bytes, len);
    if (!chunk) {
        fail(d, KV_ENOMEM, ": ", "no memory");
        return;
    }
    chunk->secret = true;
    d->step = step;
    conn_write(d->conn, chunk);
}

static void say_connect(struct proxy_dial *d)
{
    struct buffer request;
    int error = connect_write(d->proxy, d->server->host, d->server->port, &request);
    if (error)
        fail(d, error, ": ", kv_strerror(error));
    else
        say(d, request.data, request.len, STEP_CONNECT);
    file_wipe(&request);
}

static void say_socks_request(struct proxy_dial *d)
{
    uint8_t request[SOCKS5_REQUEST_MAX];
    struct resolve_answer literal;
    const union resolve_address *address = NULL;
    if (needs_address(d->proxy))
        address = &d->answer.addresses[d->next++];
    else if (resolve_at_once(slice_of(d->server->host), d->server->port, &literal) == 0 && literal.count == 1)
        address = &literal.addresses[0]; /* it is one already */
    size_t len = address ? socks5_connect_address(address, request)
                         : socks5_connect_name(slice_of(d->server->host), d->server->port, request);
    say(d, request, len, STEP_REPLY);
}

static void on_ready(void *owner)
{
    struct proxy_dial *d = owner;
    uint8_t greeting[SOCKS5_REQUEST_MAX];
    deadline_arm(d->worker, &d->deadline, LIMIT_PROXY_MS);
    if (d->proxy->kind == PROXY_CONNECT)
        say_connect(d);
    else
        say(d, greeting, socks5_greeting(d->proxy->has_user, greeting), STEP_METHOD);
}

/* What was heard behind the proxy's last word is the server's. */
static void finish(struct proxy_dial *d)
{
    struct conn *conn = d->conn;
    d->conn = NULL;
    dispose(d); /* the bytes live until the turn's end */
    d->events->ready(d->owner, conn, buffer_slice(&d->heard));
}

static ssize_t hear_connect(struct proxy_dial *d)
{
    struct connect_answer answer;
    ssize_t len = connect_read(d->proxy, buffer_slice(&d->heard), &d->scanned, &answer);
    if (len < 0) {
        fail(d, KV_EPROTO, " ", answer.text);
    } else if (len > 0 && answer.text[0]) {
        fail(d, answer.refused_credentials ? KV_EREFUSED : KV_EUNAVAIL, " ", answer.text);
        return -1;
    } else if (len > 0) {
        buffer_consume(&d->heard, (size_t)len);
        d->scanned = 0;
        if (answer.status < 200)
            return len;
        finish(d);
        return -1;
    }
    return len;
}

static void take_method(struct proxy_dial *d, enum socks5_method method)
{
    uint8_t credentials[SOCKS5_REQUEST_MAX];
    if (method == SOCKS5_NO_METHOD || (method == SOCKS5_CREDENTIALS && !d->proxy->has_user))
        fail(d, KV_EREFUSED, " ",
             d->proxy->has_user
                 ? "takes neither a user name and password nor none"
                 : "wants a user name and a password; give them in its URL: socks5://USER:PASSWORD@HOST:PORT");
    else if (method == SOCKS5_NO_CREDENTIALS)
        say_socks_request(d);
    else
        say(d, credentials, socks5_credentials(slice_of(d->proxy->user), slice_of(d->proxy->password), credentials),
            STEP_VERDICT);
    secret_wipe(credentials, sizeof(credentials));
}

/* Codes that say of this address alone that it cannot be reached (RFC 1928, 6). */
static bool may_reach_another(uint8_t code)
{
    return code == 3 || code == 4 || code == 5 || code == 6;
}

static void take_reply(struct proxy_dial *d, uint8_t code)
{
    char reason[128];
    if (code == 0) {
        finish(d);
    } else if (needs_address(d->proxy) && d->next < d->answer.count && may_reach_another(code)) {
        conn_abort(d->conn, false);
        buffer_free(&d->heard);
        if (dial(d) != KV_OK)
            fail(d, KV_ENOMEM, ": ", "no memory");
    } else {
        snprintf(reason, sizeof(reason), "cannot connect to the server: %s (reply %u)", socks5_reply_text(code), code);
        fail(d, KV_EUNAVAIL, " ", reason);
    }
}

static ssize_t hear_socks(struct proxy_dial *d)
{
    struct slice in = buffer_slice(&d->heard);
    enum socks5_method method = SOCKS5_NO_METHOD;
    enum step step = d->step;
    bool accepted = false;
    uint8_t code = 0;
    ssize_t len = step == STEP_METHOD    ? socks5_read_method(in, &method)
                  : step == STEP_VERDICT ? socks5_read_verdict(in, &accepted)
                                         : socks5_read_reply(in, &code);
    if (len < 0)
        fail(d, KV_EPROTO, " ", "does not answer as a SOCKS5 proxy does");
    if (len <= 0)
        return len;
    buffer_consume(&d->heard, (size_t)len);
    if (step == STEP_METHOD)
        take_method(d, method);
    else if (step == STEP_REPLY)
        take_reply(d, code);
    else if (accepted)
        say_socks_request(d);
    else
        fail(d, KV_EREFUSED, " ", "does not accept its user name and password");
    return -1; /* no proxy says two things in a row, but for what is the server's */
}

static void on_data(void *owner, struct slice bytes)
{
    struct proxy_dial *d = owner;
    if (buffer_append_slice(&d->heard, bytes) != KV_OK) {
        fail(d, KV_ELIMIT, " ", "says more than an answer can have");
        return;
    }
    while ((d->proxy->kind == PROXY_CONNECT ? hear_connect(d) : hear_socks(d)) > 0)
        continue;
}

static void on_eof(void *owner)
{
    fail(owner, KV_ECLOSED, " ", "closed the connection before it answered");
}

static void on_closed(void *owner, int error)
{
    struct proxy_dial *d = owner;
    struct conn *conn = d->conn;
    d->conn = NULL;
    /* A refused connection is no refusal of credentials. */
    if (d->step != STEP_DIAL)
        fail(d, KV_ECLOSED, " closed the connection before it answered: ", conn_error_text(conn));
    else
        fail(d, KV_EUNAVAIL, ": ", error == KV_ETIMEDOUT ? "no connection in time" : conn_error_text(conn));
}

static const struct conn_events conn_events = {.ready = on_ready, .data = on_data, .eof = on_eof, .closed = on_closed};

/* ---- the beginning --------------------------------------------------------------------------------------------- */

/* 0 or KV_ENOMEM. */
static int dial(struct proxy_dial *d)
{
    const struct dial_options options = {
        .host = url_dial_host(&d->proxy->url),
        .port = d->proxy->url.port,
        .tls = d->tls,
        .timeout_ms = LIMIT_CONNECT_MS,
    };
    deadline_cancel(&d->deadline);
    d->step = STEP_DIAL;
    d->conn = conn_dial(d->worker, &options, &conn_events, d);
    return d->conn ? KV_OK : KV_ENOMEM;
}

static int start(struct proxy_dial *d)
{
    if (!needs_address(d->proxy))
        return dial(d);
    d->step = STEP_RESOLVE;
    d->resolve = resolve_start(d->worker, slice_of(d->server->host), d->server->port, on_resolved, d);
    if (!d->resolve)
        return KV_ENOMEM;
    deadline_arm(d->worker, &d->deadline, LIMIT_CONNECT_MS);
    return KV_OK;
}

struct proxy_dial *proxy_dial_start(struct worker *worker, const struct proxy *proxy, struct tls_context *tls,
                                    const struct url *server, const struct proxy_dial_events *events, void *owner)
{
    struct proxy_dial *d = calloc(1, sizeof(*d));
    if (!d)
        return NULL;
    d->worker = worker;
    d->proxy = proxy;
    d->tls = tls;
    d->server = server;
    d->events = events;
    d->owner = owner;
    d->heard.limit =
        LIMIT_ANSWER_HEAD_BYTES + LIMIT_READ_BYTES; /* a head, and a read of the server's bytes behind it */
    d->deadline.expired = on_expired;
    if (start(d) == KV_OK)
        return d;
    free(d);
    return NULL;
}
