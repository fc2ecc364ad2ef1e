/*
 * When to dial:
 *
 *     the session never worked              back-off 1, 2, 4 ... 60 s
 *     it worked for STABLE_MS, or drained   at once, after a small random wait
 *     it worked and fell soon after         back-off of its own, so that a session that falls at once is no hot loop;
 *                                           to 8 s, because a server that welcomes is there
 *     the machine slept                     at once: the old connection is dead, whatever it looks like
 *
 * A session that drains goes on with its requests beside the new one; sessions in that state are `retiring`.
 */
#include "client/client.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/random.h"
#include "client/session.h"
#include "tunnel/backoff.h"

#define STABLE_MS        5000 /* a session that lived so long worked */
#define FALL_MAX_MS      8000 /* the longest wait after one that did not: a line that falters is no server that refuses */
#define SOON_MS          250  /* "at once", spread over the clients of a server that went away */
#define CLOCK_MS         1000 /* how often the clocks are compared: what "at once" is after a sleep */
#define RETIRING_MAX     4    /* sessions that finish their requests; more means a server that drains in a loop */
#define RETIRE_MARGIN_MS 5000 /* beyond the grace that the server announced */

struct client {
    struct worker *worker;
    const struct client_options *options;
    struct session_options session_options;
    uint8_t instance[WIRE_INSTANCE_LEN];
    struct forwarder *forwarder;
    struct session *current; /* NULL: waiting */
    struct session *retiring[RETIRING_MAX];
    struct backoff refusals; /* tries without Welcome, in a row */
    struct backoff falls;    /* sessions that fell soon, in a row */
    struct deadline redial;
    struct deadline clock;
    int64_t clock_gap; /* ms that the machine has slept since its start */
    bool worked;       /* there was a Welcome */
    bool stopping;
};

static const struct session_events session_events;

/* ---- the end --------------------------------------------------------------------------------------------------- */

static void close_sessions(struct client *c)
{
    session_close(c->current);
    c->current = NULL;
    for (size_t i = 0; i < RETIRING_MAX; i++) {
        session_close(c->retiring[i]);
        c->retiring[i] = NULL;
    }
}

static void finish(struct client *c, const char *sentence)
{
    const struct client_options *options = c->options;
    deadline_cancel(&c->redial);
    deadline_cancel(&c->clock);
    close_sessions(c);
    forwarder_free(c->forwarder);
    free(c);
    options->finished(options->arg, sentence);
}

static bool has_session(const struct client *c)
{
    for (size_t i = 0; i < RETIRING_MAX; i++)
        if (c->retiring[i])
            return true;
    return c->current != NULL;
}

void client_stop(struct client *c, unsigned patience_ms)
{
    log_info("stopping", log_uint("requests_in_flight", forwarder_active(c->forwarder)),
             log_uint("patience_ms", patience_ms));
    c->stopping = true;
    deadline_cancel(&c->redial);
    forwarder_stop(c->forwarder);
    if (patience_ms == 0)
        close_sessions(c);
    if (c->current && !session_finish(c->current, patience_ms))
        c->current = NULL;
    for (size_t i = 0; i < RETIRING_MAX; i++)
        if (c->retiring[i] && !session_finish(c->retiring[i], patience_ms))
            c->retiring[i] = NULL;
    if (!has_session(c))
        finish(c, NULL);
}

/* ---- dialling -------------------------------------------------------------------------------------------------- */

static void dial_after(struct client *c, uint64_t ms)
{
    deadline_arm(c->worker, &c->redial, ms);
}

static void on_redial(struct deadline *deadline)
{
    struct client *c = (struct client *)((char *)deadline - offsetof(struct client, redial));
    log_debug("connecting", log_str("endpoint", c->options->endpoint.text));
    c->current = session_start(c->worker, &c->session_options, &session_events, c);
    if (!c->current)
        dial_after(c, backoff_next(&c->refusals));
}

static uint64_t soon(void)
{
    return random_below(SOON_MS) + 1;
}

/* ---- the machine's sleep --------------------------------------------------------------------------------------- */

/* The boot-time clock counts sleep, the monotonic one does not: what it gained is what the machine slept. */
static int64_t clock_gap(void)
{
#ifdef CLOCK_BOOTTIME
    struct timespec boot, monotonic;
    clock_gettime(CLOCK_MONOTONIC, &monotonic);
    clock_gettime(CLOCK_BOOTTIME, &boot);
    return (boot.tv_sec - monotonic.tv_sec) * 1000 + (boot.tv_nsec - monotonic.tv_nsec) / 1000000;
#else
    return 0;
#endif
}

static void on_clock(struct deadline *deadline)
{
    struct client *c = (struct client *)((char *)deadline - offsetof(struct client, clock));
    int64_t gap = clock_gap(), slept = gap - c->clock_gap;
    c->clock_gap = gap;
    deadline_arm(c->worker, &c->clock, CLOCK_MS);
    if (slept < (int64_t)c->options->dead_ms || c->stopping) /* after less the server still has the session */
        return;
    log_info("the machine slept; connecting anew", log_int("slept_ms", slept));
    close_sessions(c);
    backoff_reset(&c->refusals);
    dial_after(c, soon());
}

/* ---- sessions -------------------------------------------------------------------------------------------------- */

static bool write_whole(int fd, const char *bytes, size_t len)
{
    ssize_t written;
    do
        written = write(fd, bytes, len);
    while (written < 0 && errno == EINTR);
    return written == (ssize_t)len;
}

/* The three lines. Whoever started us may have stopped reading: what a pipe has no room for is not worth a stalled
 * tunnel (POLLOUT on a pipe means room for PIPE_BUF bytes, which is more than this). */
static void announce(const struct client *c, struct slice public_url)
{
    char lines[1024];
    struct pollfd out = {.fd = STDOUT_FILENO, .events = POLLOUT};
    int len = snprintf(lines, sizeof(lines), "  kavilo-tunnel ready\n  public URL: %.*s\n  forwarding to: %s\n",
                       (int)public_url.len, public_url.data, c->options->forward.target.url.text);
    if (len < 0 || (size_t)len >= sizeof(lines) || poll(&out, 1, 0) != 1 || !(out.revents & POLLOUT) ||
        !write_whole(STDOUT_FILENO, lines, (size_t)len))
        log_warn("the public URL could not be written to standard output", log_slice("url", public_url));
}

static void on_welcomed(void *owner, struct session *session, struct slice public_url, struct slice id)
{
    struct client *c = owner;
    (void)session;
    c->session_options.takeover = false;
    c->worked = true;
    backoff_reset(&c->refusals);
    log_info("tunnel up", log_slice("session", id), log_slice("url", public_url),
             log_str("service", c->options->forward.target.url.text), log_str("endpoint", c->options->endpoint.text));
    announce(c, public_url);
}

/* Room among the retiring; the first makes room when there is none. */
static struct session **place_to_retire(struct client *c)
{
    for (size_t i = 0; i < RETIRING_MAX; i++)
        if (!c->retiring[i])
            return &c->retiring[i];
    session_close(c->retiring[0]);
    memmove(c->retiring, c->retiring + 1, sizeof(c->retiring) - sizeof(c->retiring[0]));
    return &c->retiring[RETIRING_MAX - 1];
}

static void on_draining(void *owner, struct session *session, uint32_t grace_ms)
{
    struct client *c = owner;
    if (session != c->current || c->stopping)
        return;
    log_info("the server is going away; connecting anew, requests in flight finish",
             log_str("session", session_id(session)), log_uint("grace_ms", grace_ms));
    c->current = NULL;
    *place_to_retire(c) = session;
    session_retire(session, (uint64_t)grace_ms + RETIRE_MARGIN_MS);
    dial_after(c, soon());
}

/* True if it was one of the retiring. */
static bool has_retired(struct client *c, const struct session *session, const struct session_end *end)
{
    for (size_t i = 0; i < RETIRING_MAX; i++) {
        if (c->retiring[i] != session)
            continue;
        c->retiring[i] = NULL;
        log_debug("old session closed", log_str("session", session_id(session)), log_str("why", end->text));
        return true;
    }
    return false;
}

/* A sentence for the errors that no waiting heals; false for the others. */
static bool is_final(const struct client *c, const struct session_end *end, char sentence[2 * SESSION_TEXT_LEN])
{
    const size_t size = 2 * SESSION_TEXT_LEN;
    const char *name = c->options->name ? c->options->name : "";
    switch (end->result) {
    case SESSION_BAD_TOKEN:
        snprintf(sentence, size, "%s does not accept the token: %s; ask for a new one and store it with 'login'",
                 c->options->endpoint.text, end->text);
        return true;
    case SESSION_BAD_NAME:
        snprintf(sentence, size, "--name '%s' cannot be used: %s", name, end->text);
        return true;
    case SESSION_NAME_TAKEN:
        snprintf(sentence, size, "--name '%s' cannot be had: %s", name, end->text);
        return true;
    case SESSION_BAD_PROXY:
        snprintf(sentence, size, "%s", end->text);
        return !c->worked; /* credentials that were accepted before are right; and a try a minute locks no account */
    case SESSION_LOST:
    case SESSION_CONFLICT:
    case SESSION_TAKEN_OVER:
        break;
    }
    return false;
}

static uint64_t wait_after(struct client *c, const struct session_end *end)
{
    if (!end->welcomed)
        return backoff_next(&c->refusals);
    if (end->lived_ms < STABLE_MS || end->result == SESSION_TAKEN_OVER) {
        uint64_t wait = backoff_next(&c->falls);
        if (end->result != SESSION_TAKEN_OVER && wait > FALL_MAX_MS)
            return FALL_MAX_MS - random_below(FALL_MAX_MS / 4);
        return wait < LIMIT_BACKOFF_FIRST_MS ? LIMIT_BACKOFF_FIRST_MS : wait;
    }
    backoff_reset(&c->falls);
    return soon();
}

static void on_ended(void *owner, struct session *session, const struct session_end *end)
{
    struct client *c = owner;
    char sentence[2 * SESSION_TEXT_LEN];
    bool retired = has_retired(c, session, end);
    if (!retired)
        c->current = NULL;
    if (c->stopping) {
        if (!has_session(c))
            finish(c, NULL);
        return;
    }
    if (retired)
        return;
    if (is_final(c, end, sentence)) {
        log_error("the server refused the tunnel for good", log_str("status", end->status),
                  log_str("error", end->text));
        finish(c, sentence);
        return;
    }
    uint64_t wait = wait_after(c, end);
    if (end->welcomed)
        log_warn("tunnel lost, connecting again", log_str("session", session_id(session)), log_str("error", end->text),
                 log_str("status", end->status), log_uint("in_ms", wait));
    else if (end->result == SESSION_CONFLICT)
        log_warn("no tunnel yet, trying again", log_str("endpoint", c->options->endpoint.text),
                 log_str("error", end->text), log_str("status", end->status), log_uint("in_ms", wait),
                 log_str("hint", "--takeover takes the name from the other client"));
    else
        log_warn("no tunnel yet, trying again", log_str("endpoint", c->options->endpoint.text),
                 log_str("error", end->text), log_str("status", end->status), log_uint("in_ms", wait));
    dial_after(c, wait);
}

static const struct session_events session_events = {
    .welcomed = on_welcomed,
    .draining = on_draining,
    .ended = on_ended,
};

/* ---- the beginning --------------------------------------------------------------------------------------------- */

struct client *client_start(struct worker *worker, const struct client_options *options)
{
    struct client *c = calloc(1, sizeof(*c));
    if (!c)
        return NULL;
    c->worker = worker;
    c->options = options;
    c->forwarder = forwarder_new(worker, &options->forward);
    if (!c->forwarder) {
        free(c);
        return NULL;
    }
    random_bytes(c->instance, sizeof(c->instance));
    c->session_options = (struct session_options){
        .endpoint = &options->endpoint,
        .tls = options->tls,
        .proxy = options->proxy,
        .proxy_tls = options->proxy_tls,
        .token = options->token,
        .name = options->name,
        .takeover = options->takeover,
        .no_subdomains = options->no_subdomains,
        .instance = c->instance,
        .requests = forwarder_address(c->forwarder),
        .ping_ms = options->ping_ms,
        .dead_ms = options->dead_ms,
        .response_ms = options->forward.response_ms,
    };
    c->redial.expired = on_redial;
    c->clock.expired = on_clock;
    c->clock_gap = clock_gap();
    deadline_arm(worker, &c->clock, CLOCK_MS);
    on_redial(&c->redial);
    return c;
}
