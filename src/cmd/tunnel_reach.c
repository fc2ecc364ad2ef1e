/* The check is a session on a worker of its own; the main thread waits for its first word. */
#include "cmd/tunnel_reach.h"

#include <semaphore.h>
#include <stdbool.h>
#include <stdio.h>

#include "base/error.h"
#include "base/limits.h"
#include "base/random.h"
#include "client/session.h"
#include "client/settings.h"
#include "cmd/cli.h"
#include "io/tls.h"
#include "io/worker.h"
#include "tunnel/wire.h"

#define PATIENCE_MS (LIMIT_LINGER_MS + 1000) /* for the connection to say goodbye */

/* ---- TLS ------------------------------------------------------------------------------------------------------- */

int tunnel_reach_make(const struct settings *settings, struct tunnel_reach *out)
{
    static const char *const h2[] = {"h2", NULL}, *const h1[] = {"http/1.1", NULL};
    char error[TLS_ERROR_LEN];
    *out = (struct tunnel_reach){0};
    if (settings->endpoint.tls) {
        out->endpoint = tls_client_context(settings->ca_cert, true, h2, error);
        if (!out->endpoint)
            return cli_usage_error("TLS to the server cannot be set up: %s", error);
    }
    if (settings->proxy.kind != PROXY_NONE && settings->proxy.url.tls) {
        out->proxy = tls_client_context(settings->ca_cert, true, h1, error);
        if (!out->proxy) {
            tunnel_reach_free(out);
            return cli_usage_error("TLS to the proxy cannot be set up: %s", error);
        }
    }
    return CLI_EXIT_OK;
}

void tunnel_reach_free(struct tunnel_reach *reach)
{
    tls_context_free(reach->endpoint);
    tls_context_free(reach->proxy);
    *reach = (struct tunnel_reach){0};
}

/* ---- one try --------------------------------------------------------------------------------------------------- */

struct check {
    struct session_options options;
    struct worker *worker;
    struct task start;
    sem_t done;
    bool welcomed;
    enum session_result result;
    char text[SESSION_TEXT_LEN];
};

static void on_welcomed(void *owner, struct session *session, struct slice public_url, struct slice id)
{
    struct check *check = owner;
    (void)public_url;
    (void)id;
    check->welcomed = true;
    session_close(session);
    sem_post(&check->done);
}

static void on_draining(void *owner, struct session *session, uint32_t grace_ms)
{
    (void)owner; /* it is left at once anyway */
    (void)session;
    (void)grace_ms;
}

static void on_ended(void *owner, struct session *session, const struct session_end *end)
{
    struct check *check = owner;
    (void)session;
    check->result = end->result;
    snprintf(check->text, sizeof(check->text), "%s", end->text);
    sem_post(&check->done);
}

static const struct session_events events = {.welcomed = on_welcomed, .draining = on_draining, .ended = on_ended};

static void run_start(struct task *task)
{
    struct check *check = (struct check *)((char *)task - offsetof(struct check, start));
    if (session_start(check->worker, &check->options, &events, check))
        return;
    snprintf(check->text, sizeof(check->text), "%s", kv_strerror(KV_ENOMEM));
    sem_post(&check->done);
}

static int tell(const struct check *check)
{
    const char *endpoint = check->options.endpoint->text;
    if (check->welcomed) {
        fprintf(stderr, "%s accepts the token\n", endpoint);
        return CLI_EXIT_OK;
    }
    if (check->result == SESSION_BAD_TOKEN)
        return cli_failure("%s does not accept the token: %s", endpoint, check->text);
    return cli_failure("%s cannot be used: %s", endpoint, check->text);
}

int tunnel_reach_check(const struct settings *settings)
{
    struct tunnel_reach reach;
    struct worker_group *group;
    uint8_t instance[WIRE_INSTANCE_LEN];
    int status = tunnel_reach_make(settings, &reach);
    if (status != CLI_EXIT_OK)
        return status;
    random_bytes(instance, sizeof(instance));
    struct check check = {
        .options = {.endpoint = &settings->endpoint,
                    .tls = reach.endpoint,
                    .proxy = &settings->proxy,
                    .proxy_tls = reach.proxy,
                    .token = settings->token,
                    .instance = instance,
                    .no_subdomains = true},
        .start.run = run_start,
    };
    if (sem_init(&check.done, 0, 0) != 0 || worker_group_start(1, &group) != KV_OK) {
        status = cli_failure("the worker thread cannot be started");
    } else {
        check.worker = worker_at(group, 0);
        worker_run(check.worker, &check.start);
        while (sem_wait(&check.done) != 0)
            continue; /* a signal that somebody handles */
        worker_group_stop(group, PATIENCE_MS);
        status = tell(&check);
    }
    tunnel_reach_free(&reach);
    return status;
}
