/*
 * One Open stream:
 *
 *     GREETING ── Hello ── ASKING (store) ── CLAIMING (registry, all workers) ── Welcome ── OPEN ── DONE
 *
 * Every way out before OPEN is a trailers-only answer with a status; after it, trailers. Both end the connection. The
 * registry entry goes with the session, whichever way it ends, and only if it is still this session's.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <utlist.h>

#include "base/blake3.h"
#include "base/error.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/random.h"
#include "control/control_impl.h"
#include "store/store_thread.h"
#include "tunnel/link.h"
#include "tunnel/names.h"
#include "tunnel/registry.h"

#define RANDOM_NAME_TRIES 8

enum session_state {
    SESSION_GREETING,
    SESSION_ASKING,
    SESSION_CLAIMING,
    SESSION_OPEN,
    SESSION_DONE
};

/* What opening a tunnel takes and keeping it does not; freed as soon as it is open. */
struct greeting {
    char token[LIMIT_TOKEN_BYTES + 1]; /* wiped as soon as it was checked */
    char name[LIMIT_LABEL_BYTES + 1];
    bool named, takeover, no_subdomains;
    char client_version[REGISTRY_TEXT_LEN];
    char peer[REGISTRY_TEXT_LEN];
    uint8_t instance[WIRE_INSTANCE_LEN];
    bool has_instance;
    struct store_account account;
    unsigned tries; /* for a random name */
};

struct control_session {
    struct receiver receiver; /* evictions */
    struct control *control;
    struct control_carrier carrier;
    struct worker *worker;
    struct h2_stream *stream; /* NULL when it is gone */
    struct link *link;
    enum session_state state;
    struct deadline deadline;

    struct greeting *greeting; /* NULL once the tunnel is open */
    char session[WIRE_SESSION_LEN + 1];
    char subdomain[LIMIT_LABEL_BYTES + 1];
    char email[LIMIT_EMAIL_BYTES + 1];
    uint32_t features, peer_credit, response_timeout_ms;

    struct store_job *job;
    struct store_watch *watch;
    bool half_closed; /* by the client, while the store is asked */
    bool claimed;
    bool waits_for_publication;          /* the registry will call back: the memory has to stay */
    struct control_session *prev, *next; /* of this worker */
    struct free_node free;
};

/* ---- answers --------------------------------------------------------------------------------------------------- */

static void add_status(struct head *head, char number[4], char text[1024], enum grpc_status status,
                       const char *sentence)
{
    snprintf(number, 4, "%d", (int)status);
    grpc_encode_message(sentence, text, 1024);
    head_add(head, SLICE("grpc-status"), slice_of(number));
    head_add(head, SLICE("grpc-message"), slice_of(text));
}

/* Answers a stream with grpc-status alone (trailers-only); `reason_code` adds kavilo-reason when it is not NULL. */
static void refuse(struct h2_stream *stream, enum grpc_status status, const char *sentence, const char *reason_code)
{
    struct field fields[4];
    struct head head;
    char number[4], text[1024];
    head_borrow(&head, fields, 4);
    head.status = 200;
    head_add(&head, SLICE("content-type"), SLICE("application/grpc"));
    add_status(&head, number, text, status, sentence);
    if (reason_code)
        head_add(&head, SLICE("kavilo-reason"), slice_of(reason_code));
    h2_respond(stream, &head, true);
}

static void end_with_trailers(struct h2_stream *stream, enum grpc_status status, const char *sentence)
{
    struct field fields[2];
    struct head head;
    char number[4], text[1024];
    head_borrow(&head, fields, 2);
    add_status(&head, number, text, status, sentence);
    h2_end(stream, &head);
}

/* ---- the end --------------------------------------------------------------------------------------------------- */

static void end_greeting(struct control_session *s)
{
    if (s->greeting)
        secret_wipe(s->greeting->token, sizeof(s->greeting->token));
    free(s->greeting);
    s->greeting = NULL;
}

static void free_session(struct free_node *node)
{
    struct control_session *s = (struct control_session *)((char *)node - offsetof(struct control_session, free));
    end_greeting(s);
    free(s);
}

/* Gives back all that the session holds. Nothing is sent. */
static void dispose(struct control_session *s, enum close_reason reason, const char *text)
{
    s->state = SESSION_DONE;
    DL_DELETE(control_local(s->control)->sessions, s);
    atomic_fetch_sub_explicit(&s->control->sessions, 1, memory_order_relaxed);
    deadline_cancel(&s->deadline);
    if (s->job)
        store_cancel(s->job);
    s->job = NULL;
    store_watch_stop(s->watch);
    s->watch = NULL;
    if (s->claimed)
        registry_release(s->control->settings.registry, s->subdomain, s->session);
    s->claimed = false;
    receiver_detach(&s->receiver);
    link_free(s->link, reason == REASON_DRAINING ? REASON_DRAINING : REASON_CLIENT_GONE, text);
    s->link = NULL;
    if (!s->waits_for_publication) {
        s->free.free = free_session;
        worker_free_later(s->worker, &s->free);
    }
}

static void finish(struct control_session *s, enum grpc_status status, const char *sentence, enum close_reason reason)
{
    if (s->state == SESSION_DONE)
        return;
    if (s->state == SESSION_OPEN)
        log_info("tunnel closed", log_str("session", s->session), log_str("subdomain", s->subdomain),
                 log_str("user", s->email), log_str("status", grpc_status_name((int)status)), log_str("why", sentence));
    else
        log_info("tunnel refused", log_str("peer", s->greeting->peer), log_str("user", s->email),
                 log_str("name", s->greeting->name), log_str("status", grpc_status_name((int)status)),
                 log_str("why", sentence));
    if (s->stream && s->state == SESSION_OPEN)
        end_with_trailers(s->stream, status, sentence);
    else if (s->stream)
        refuse(s->stream, status, sentence,
               status == GRPC_ALREADY_EXISTS && reason == REASON_BAD_REQUEST ? "name_taken" : NULL);
    if (s->stream)
        h2_set_stream_user(s->stream, NULL);
    s->stream = NULL;
    dispose(s, reason, sentence); /* frees at the turn's end */
    s->carrier.finished(s->carrier.arg);
}

void control_session_drop(void *session)
{
    struct control_session *s = session;
    if (s->stream)
        h2_set_stream_user(s->stream, NULL);
    s->stream = NULL;
    dispose(s, REASON_CLIENT_GONE, "turned away");
}

static void on_stream_closed(void *user, uint32_t error_code)
{
    struct control_session *s = user;
    (void)error_code;
    s->stream = NULL;
    if (s->state == SESSION_DONE)
        return;
    if (s->state == SESSION_OPEN)
        log_info("tunnel gone: its client closed the connection", log_str("session", s->session),
                 log_str("subdomain", s->subdomain), log_str("user", s->email));
    dispose(s, REASON_CLIENT_GONE, "the tunnel client has gone");
    s->carrier.finished(s->carrier.arg);
}

static void on_half_closed(void *user)
{
    struct control_session *s = user;
    if (s->state == SESSION_GREETING)
        finish(s, GRPC_INVALID_ARGUMENT, "the stream ended before Hello", REASON_CLIENT_GONE);
    else if (s->state == SESSION_ASKING)
        s->half_closed = true; /* if its Hello is to be refused, it is still told why */
    else
        finish(s, GRPC_OK, "closed by the client", REASON_CLIENT_GONE);
}

/* ---- draining and evictions ------------------------------------------------------------------------------------ */

static void end_for_shutdown(struct control_session *s)
{
    finish(s, GRPC_UNAVAILABLE, "the server is shutting down", REASON_DRAINING);
}

/* Sends the client elsewhere. Visitors' connections that are still here go on asking this link. */
static void announce_drain(struct control_session *s)
{
    if (s->state != SESSION_OPEN)
        end_for_shutdown(s);
    else if (s->features & FEATURE_DRAIN)
        link_send(s->link, &(struct wire_message){.kind = WIRE_DRAIN, .drain_grace_ms = s->control->settings.grace_ms});
}

/* No visitor's connection asks for anything new. A client that knows no Drain comes over only when its session ends,
 * and when there is a successor, its visitors wait there: what is in flight gets a moment, not the whole grace period.
 */
static void drain(struct control_session *s)
{
    bool deaf = !(s->features & FEATURE_DRAIN);
    link_drain(s->link);
    if (link_exchanges(s->link) == 0)
        end_for_shutdown(s);
    else if (deaf && control_local(s->control)->succeeded)
        deadline_arm(s->worker, &s->deadline, LIMIT_DEAF_DRAIN_MS);
}

/* As far as the worker's drain has come. */
static void apply_drain(struct control_session *s)
{
    switch (control_local(s->control)->drain) {
    case CONTROL_SERVING:
        break;
    case CONTROL_ANNOUNCED:
        announce_drain(s);
        break;
    case CONTROL_DRAINING:
        if (s->state == SESSION_OPEN)
            drain(s);
        else
            end_for_shutdown(s);
        break;
    case CONTROL_STOPPING:
        end_for_shutdown(s);
        break;
    }
}

static void on_link_idle(void *owner)
{
    end_for_shutdown(owner);
}

static void on_evicted(struct receiver *receiver, struct message *message)
{
    struct control_session *s =
        (struct control_session *)((char *)receiver - offsetof(struct control_session, receiver));
    enum close_reason reason = ((struct registry_eviction *)message)->reason;
    free(message);
    if (reason == REASON_TAKEN_OVER && s->state == SESSION_OPEN)
        link_send(s->link, &(struct wire_message){.kind = WIRE_CANCEL, .cancel_reason = 1});
    finish(s, GRPC_ABORTED, reason_text(reason)->sentence, reason);
}

static void on_account_closed(void *arg, const char *sentence)
{
    finish(arg, GRPC_ABORTED, sentence, REASON_REVOKED);
}

/* ---- Welcome --------------------------------------------------------------------------------------------------- */

static void make_public_url(const struct control_session *s, char *out, size_t size)
{
    const struct control_settings *settings = &s->control->settings;
    if (settings->public_port)
        snprintf(out, size, "%s://%s.%s:%u/", settings->public_scheme, s->subdomain, settings->base_host,
                 settings->public_port);
    else
        snprintf(out, size, "%s://%s.%s/", settings->public_scheme, s->subdomain, settings->base_host);
}

/* Puts Welcome at the front of the stream's output, where it waits for the response's head: visitors may find the
 * tunnel a moment before we hear that all workers know it, and their requests come behind Welcome. */
static void put_welcome(struct control_session *s)
{
    char url[LIMIT_HOST_BYTES + 32];
    make_public_url(s, url, sizeof(url));
    struct wire_message m = {.kind = WIRE_WELCOME};
    m.welcome.subdomain = slice_of(s->subdomain);
    m.welcome.public_url = slice_of(url);
    m.welcome.max_concurrent = s->control->settings.max_concurrent;
    if (s->features) {
        m.welcome.features = s->features;
        m.welcome.initial_credit = LIMIT_WINDOW_BYTES;
        m.welcome.session_id = slice_of(s->session);
        m.welcome.server_name = slice_of(s->control->settings.base_host);
    }
    link_send(s->link, &m);
}

/* The response's head, and Welcome with it. */
static void open_stream(struct control_session *s)
{
    char url[LIMIT_HOST_BYTES + 32];
    struct field fields[1];
    struct head head;
    make_public_url(s, url, sizeof(url));
    head_borrow(&head, fields, 1);
    head.status = 200;
    head_add(&head, SLICE("content-type"), SLICE("application/grpc"));
    h2_respond(s->stream, &head, false);
    atomic_fetch_add_explicit(&s->control->welcomed, 1, memory_order_relaxed);
    log_info("tunnel up", log_str("session", s->session), log_str("url", url), log_str("user", s->email),
             log_str("peer", s->greeting->peer), log_str("version", s->greeting->client_version));
}

/* Every worker routes to us now, or one of them has no memory for that. */
static void on_published(void *arg, int error)
{
    struct control_session *s = arg;
    s->waits_for_publication = false;
    secret_wipe(s->greeting->token, sizeof(s->greeting->token));
    if (s->state == SESSION_DONE) {
        s->free.free = free_session;
        worker_free_later(s->worker, &s->free);
        return;
    }
    if (error) {
        finish(s, GRPC_UNAVAILABLE, "the server has no memory left", REASON_INTERNAL);
        return;
    }
    s->watch = store_watch_start(s->control->settings.store, s->worker, &s->greeting->account, slice_of(s->subdomain),
                                 s->greeting->named, on_account_closed, s);
    if (!s->watch) {
        finish(s, GRPC_UNAVAILABLE, "the server has no memory left", REASON_INTERNAL);
        return;
    }
    s->state = SESSION_OPEN;
    open_stream(s);
    end_greeting(s);
    apply_drain(s);
}

/* ---- claiming -------------------------------------------------------------------------------------------------- */

static void ask_store(struct control_session *s);

static int start_link(struct control_session *s)
{
    if (address_is_set(link_address(s->link)))
        return KV_OK; /* a further try for a random name */
    const struct link_terms terms = {
        .features = s->features,
        .peer_credit = s->peer_credit,
        .max_concurrent = s->control->settings.max_concurrent,
        .max_still = s->control->settings.max_still,
        .clock = link_clock(s->features, s->response_timeout_ms, s->control->settings.answer_cap_ms,
                            s->control->settings.answer_default_ms),
        .session = slice_of(s->session),
        .ping_ms = s->control->settings.ping_ms,
        .dead_ms = s->control->settings.dead_ms,
    };
    int error = receiver_attach(s->worker, &s->receiver);
    if (!error)
        error = link_start(s->link, &terms);
    return error;
}

static void copy(char *out, size_t size, const char *text)
{
    snprintf(out, size, "%s", text);
}

/* The session as the registry wants to know it. */
static void describe(const struct control_session *s, struct registry_session *out)
{
    const struct greeting *g = s->greeting;
    *out = (struct registry_session){
        .has_instance = g->has_instance,
        .named = g->named,
        .no_subdomains = g->no_subdomains,
        .connected_at = (int64_t)time(NULL),
        .link = link_address(s->link),
        .owner = s->receiver.address,
    };
    copy(out->subdomain, sizeof(out->subdomain), s->subdomain);
    copy(out->session, sizeof(out->session), s->session);
    copy(out->user_id, sizeof(out->user_id), g->account.user_id);
    copy(out->email, sizeof(out->email), s->email);
    copy(out->client_version, sizeof(out->client_version), g->client_version);
    copy(out->peer, sizeof(out->peer), g->peer);
    memcpy(out->instance, g->instance, WIRE_INSTANCE_LEN);
}

static void refuse_taken(struct control_session *s)
{
    char sentence[LIMIT_LABEL_BYTES + 64];
    snprintf(sentence, sizeof(sentence), "tunnel '%s' is already connected from another client", s->greeting->name);
    finish(s, GRPC_ALREADY_EXISTS, sentence, REASON_TAKEN_OVER);
}

static void claim(struct control_session *s)
{
    enum registry_verdict verdict;
    struct registry_session entry;
    s->state = SESSION_CLAIMING;
    int error = start_link(s);
    describe(s, &entry);
    if (!error)
        error = registry_claim(s->control->settings.registry, &entry, s->greeting->takeover, &verdict, on_published, s);
    if (error) {
        finish(s, GRPC_UNAVAILABLE, "the server has no memory left", REASON_INTERNAL);
    } else if (verdict == REGISTRY_CLAIMED) {
        s->claimed = true;
        s->waits_for_publication = true;
        put_welcome(s);
    } else if (s->greeting->named) {
        refuse_taken(s);
    } else if (++s->greeting->tries < RANDOM_NAME_TRIES) {
        ask_store(s);
    } else {
        finish(s, GRPC_UNAVAILABLE, "no free random name was found", REASON_INTERNAL);
    }
}

/* ---- the store's answer ---------------------------------------------------------------------------------------- */

static void refuse_answer(struct control_session *s, const struct store_answer *answer)
{
    const char *why = answer->sentence && answer->sentence[0] ? answer->sentence : kv_strerror(answer->error);
    copy(s->email, sizeof(s->email), answer->account.email);
    switch (answer->error) {
    case KV_EREFUSED:
        finish(s, GRPC_PERMISSION_DENIED, "invalid token", REASON_REVOKED);
        break;
    case KV_EINVAL:
        finish(s, GRPC_INVALID_ARGUMENT, why, REASON_BAD_REQUEST);
        break;
    case KV_EEXIST:
        finish(s, GRPC_ALREADY_EXISTS, why, REASON_BAD_REQUEST);
        break;
    default:
        log_warn("the store cannot be asked; the client will try again", log_str("peer", s->greeting->peer),
                 log_str("why", why));
        finish(s, GRPC_UNAVAILABLE, "accounts cannot be checked at the moment", REASON_INTERNAL);
        break;
    }
}

static void on_answer(void *arg, const struct store_answer *answer)
{
    struct control_session *s = arg;
    s->job = NULL;
    if (answer->error) {
        refuse_answer(s, answer);
        return;
    }
    if (s->half_closed) {
        finish(s, GRPC_OK, "closed by the client", REASON_CLIENT_GONE);
        return;
    }
    struct registry_session entry;
    s->greeting->account = answer->account;
    if (s->carrier.known)
        s->carrier.known(s->carrier.arg);
    copy(s->email, sizeof(s->email), answer->account.email);
    describe(s, &entry);
    if (s->greeting->named || s->greeting->tries > 0 ||
        !registry_expected_name(s->control->settings.registry, &entry, s->subdomain))
        copy(s->subdomain, sizeof(s->subdomain), answer->subdomain);
    claim(s);
}

static void ask_store(struct control_session *s)
{
    const struct greeting *g = s->greeting;
    s->state = SESSION_ASKING;
    s->job = store_connect(s->control->settings.store, s->worker, slice_of(g->token),
                           g->named ? slice_of(g->name) : (struct slice){0}, names_random, on_answer, s);
    if (!s->job)
        finish(s, GRPC_UNAVAILABLE, "the server has no memory left", REASON_INTERNAL);
}

/* ---- Hello ----------------------------------------------------------------------------------------------------- */

static bool take_text(char *out, size_t size, struct slice text)
{
    if (text.len >= size || memchr(text.data ? text.data : "", '\0', text.len))
        return false;
    if (text.len > 0)
        memcpy(out, text.data, text.len);
    out[text.len] = '\0';
    return true;
}

static void on_hello(struct control_session *s, const struct wire_message *m)
{
    struct greeting *g = s->greeting;
    deadline_cancel(&s->deadline);
    g->named = m->hello.has_name;
    g->takeover = m->hello.takeover;
    g->no_subdomains = m->hello.no_subdomains;
    s->features = m->hello.features & WIRE_FEATURES;
    s->peer_credit = m->hello.initial_credit;
    s->response_timeout_ms = m->hello.response_timeout_ms;
    g->has_instance = m->hello.instance_id.len == WIRE_INSTANCE_LEN;
    if (g->has_instance)
        memcpy(g->instance, m->hello.instance_id.data, WIRE_INSTANCE_LEN);
    if (!take_text(g->client_version, sizeof(g->client_version), m->hello.client_version))
        copy(g->client_version, sizeof(g->client_version), "?");
    if (m->hello.token.len == 0 || !take_text(g->token, sizeof(g->token), m->hello.token)) {
        finish(s, GRPC_PERMISSION_DENIED, "invalid token", REASON_REVOKED);
        return;
    }
    if (g->named && (m->hello.name.len == 0 || !take_text(g->name, sizeof(g->name), m->hello.name))) {
        finish(s, GRPC_INVALID_ARGUMENT,
               m->hello.name.len == 0 ? "a tunnel's name cannot be empty"
                                      : "a tunnel's name with the account's slug has to fit into 63 characters",
               REASON_BAD_REQUEST);
        return;
    }
    ask_store(s);
}

/* The worker's read buffer and its stack, where TLS is decrypted, once the turn has done with them. */
static void wipe_reads(struct flush_node *node)
{
    (void)node;
    worker_wipe_buffers(worker_current());
    secret_wipe_stack();
}

static void wipe_reads_later(struct control_session *s)
{
    struct control_local *local = control_local(s->control);
    local->wipe.flush = wipe_reads;
    worker_flush_later(s->worker, &local->wipe);
}

static void on_message(void *owner, const struct wire_message *m)
{
    struct control_session *s = owner;
    if (s->state == SESSION_GREETING)
        wipe_reads_later(s);
    if (m->kind == WIRE_HELLO && s->state == SESSION_GREETING)
        on_hello(s, m);
    else if (s->state == SESSION_GREETING)
        finish(s, GRPC_INVALID_ARGUMENT, "the first message has to be Hello", REASON_PROTOCOL);
}

static void on_link_ended(void *owner, enum close_reason reason, const char *text)
{
    finish(owner, reason == REASON_PROTOCOL ? GRPC_INVALID_ARGUMENT : GRPC_UNAVAILABLE, text, reason);
}

static void on_expired(struct deadline *deadline)
{
    struct control_session *s =
        (struct control_session *)((char *)deadline - offsetof(struct control_session, deadline));
    if (s->state == SESSION_OPEN)
        end_for_shutdown(s);
    else
        finish(s, GRPC_DEADLINE_EXCEEDED, "no Hello within 10 seconds", REASON_CLIENT_TIMEOUT);
}

static const struct link_events link_events = {
    .message = on_message,
    .ended = on_link_ended,
    .idle = on_link_idle,
};

/* ---- start ----------------------------------------------------------------------------------------------------- */

bool control_wants(const struct head *head)
{
    return slice_starts_with(head_value(head, SLICE("content-type")), SLICE("application/grpc")) &&
           slice_starts_with(head->target, SLICE("/kavilo.tunnel.v1."));
}

/* A status for a request that is for us and still cannot become a session. */
static bool is_refused(struct control *control, struct h2_stream *stream, const struct head *head)
{
    if (!slice_equals(head->method, SLICE("POST")) ||
        !slice_equals(head->target, SLICE("/kavilo.tunnel.v1.Tunnel/Open")))
        refuse(stream, GRPC_UNIMPLEMENTED, "this server knows /kavilo.tunnel.v1.Tunnel/Open only", NULL);
    else if (control_local(control)->drain != CONTROL_SERVING)
        refuse(stream, GRPC_UNAVAILABLE, "the server is shutting down", NULL);
    else
        return false;
    return true;
}

void *control_session_open(struct control *control, struct h2_stream *stream, const struct head *head, const char *peer,
                           const struct control_carrier *carrier)
{
    if (is_refused(control, stream, head))
        return NULL;
    struct control_session *s = calloc(1, sizeof(*s));
    if (!s)
        goto reset;
    s->greeting = calloc(1, sizeof(*s->greeting));
    if (!s->greeting)
        goto free_session;
    s->link = link_new(worker_current(), stream, WIRE_FROM_SERVER, &link_events, s);
    if (!s->link)
        goto free_greeting;
    s->worker = worker_current();
    s->control = control;
    s->carrier = *carrier;
    s->stream = stream;
    s->receiver.receive = on_evicted;
    s->deadline.expired = on_expired;
    random_hex(s->session, WIRE_SESSION_LEN / 2);
    copy(s->greeting->peer, sizeof(s->greeting->peer), peer);
    h2_widen(stream, LINK_WINDOW_BYTES);
    DL_APPEND(control_local(control)->sessions, s);
    atomic_fetch_add_explicit(&control->sessions, 1, memory_order_relaxed);
    deadline_arm(s->worker, &s->deadline, carrier->hello_ms);
    return s;

free_greeting:
    free(s->greeting);
free_session:
    free(s);
reset:
    h2_reset(stream, H2_INTERNAL_ERROR);
    return NULL;
}

void *control_open(void *control, struct h2_stream *stream, const struct head *head, const char *peer,
                   void (*finished)(void *arg), void *arg)
{
    const struct control_carrier carrier = {.finished = finished, .arg = arg, .hello_ms = LIMIT_HELLO_MS};
    return control_session_open(control, stream, head, peer, &carrier);
}

/* ---- the stream's events ---------------------------------------------------------------------------------------- */

static void on_data(void *user, struct slice bytes)
{
    struct control_session *s = user;
    if (s->state != SESSION_DONE)
        link_data(s->link, bytes);
}

static void on_fill(void *user)
{
    struct control_session *s = user;
    if (s->state != SESSION_DONE)
        link_top_up(s->link);
}

static void on_trailers(void *user, const struct head *trailers)
{
    (void)user;
    (void)trailers; /* a client's trailers say nothing in gRPC */
}

const struct h2_events control_stream_events = {
    .data = on_data,
    .trailers = on_trailers,
    .end = on_half_closed,
    .closed = on_stream_closed,
    .fill = on_fill,
};

void control_pong(void *user, uint64_t opaque)
{
    struct control_session *s = user;
    if (s->state != SESSION_DONE)
        link_pong(s->link, opaque);
}

void control_sessions_apply(struct control *control)
{
    struct control_local *local = control_local(control);
    struct control_session *s, *next;
    DL_FOREACH_SAFE (local->sessions, s, next)
        apply_drain(s);
}
