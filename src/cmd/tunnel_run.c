/*
 * The client lives on one worker; the main thread waits for signals and passes them on.
 *
 *     flags ── settings file ── TLS contexts ── worker, client ── signal or refusal ── client gone ── worker joined
 *
 * SIGINT, SIGTERM and SIGHUP (unless it was ignored, as nohup does) stop the client: requests in flight get STOP_MS,
 * and none when a second signal comes. SIGUSR1 is how the worker wakes the main thread when the client has ended; one
 * from outside finds nothing ended and has no effect.
 */
#include "cmd/tunnel_run.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/chunk.h"
#include "base/error.h"
#include "base/limits.h"
#include "client/client.h"
#include "client/session.h"
#include "client/settings.h"
#include "cmd/tunnel_reach.h"
#include "io/process.h"
#include "io/resolve.h"
#include "io/ring.h"
#include "io/socket.h"
#include "io/tls.h"
#include "io/worker.h"
#include "tunnel/budget.h"

#define STOP_MS     2000                     /* requests in flight after the first signal */
#define PATIENCE_MS (LIMIT_LINGER_MS + 1000) /* for connections that say goodbye */

/* The main thread's and the worker's common ground. Everything but `ended` is written by the one before the other is
 * told: through the tasks, and through SIGUSR1. */
struct process {
    struct client_options options;
    struct worker *worker;
    struct client *client; /* the worker's alone */
    pthread_t main_thread;
    struct task start_task;
    struct stop_task {
        struct task task;
        struct process *process;
        unsigned patience_ms;
    } stop_tasks[2];
    atomic_bool ended;
    bool failed;
    char sentence[2 * SESSION_TEXT_LEN];
};

/* ---- on the worker --------------------------------------------------------------------------------------------- */

static void on_finished(void *arg, const char *sentence)
{
    struct process *p = arg;
    p->client = NULL;
    p->failed = sentence != NULL;
    snprintf(p->sentence, sizeof(p->sentence), "%s", sentence ? sentence : "");
    atomic_store(&p->ended, true);
    pthread_kill(p->main_thread, SIGUSR1);
}

static void run_start(struct task *task)
{
    struct process *p = (struct process *)((char *)task - offsetof(struct process, start_task));
    p->client = client_start(p->worker, &p->options);
    if (!p->client)
        on_finished(p, kv_strerror(KV_ENOMEM));
}

static void run_stop(struct task *task)
{
    struct stop_task *stop = (struct stop_task *)task;
    if (stop->process->client)
        client_stop(stop->process->client, stop->patience_ms);
}

/* ---- on the main thread ---------------------------------------------------------------------------------------- */

static void block_signals(sigset_t *signals)
{
    struct sigaction hangup;
    sigemptyset(signals);
    sigaddset(signals, SIGINT);
    sigaddset(signals, SIGTERM);
    sigaddset(signals, SIGUSR1);
    if (sigaction(SIGHUP, NULL, &hangup) == 0 && hangup.sa_handler != SIG_IGN)
        sigaddset(signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, signals, NULL); /* before any thread: all of them inherit it */
}

static void stop(struct process *p, struct stop_task *task, unsigned patience_ms)
{
    *task = (struct stop_task){.task.run = run_stop, .process = p, .patience_ms = patience_ms};
    worker_run(p->worker, &task->task);
}

/* Returns when the client has ended; a signal after the second changes nothing. */
static void wait_for_end(struct process *p, const sigset_t *signals)
{
    unsigned stops = 0;
    while (!atomic_load(&p->ended)) {
        int number = 0;
        if (sigwait(signals, &number) != 0 || number == SIGUSR1 || stops == 2)
            continue;
        stop(p, &p->stop_tasks[stops], stops == 0 ? STOP_MS : 0);
        stops++;
    }
}

static int run_client(struct process *p)
{
    struct worker_group *group;
    sigset_t signals;
    block_signals(&signals);
    if (worker_group_start(1, &group) != KV_OK)
        return cli_failure("the worker thread cannot be started");
    p->worker = worker_at(group, 0);
    p->main_thread = pthread_self();
    p->start_task.run = run_start;
    worker_run(p->worker, &p->start_task);
    wait_for_end(p, &signals);
    worker_group_stop(group, PATIENCE_MS);
    log_debug("left over", log_uint("chunks", chunk_live_count()), log_uint("credit", budget_used()));
    return p->failed ? cli_failure("%s", p->sentence) : CLI_EXIT_OK;
}

/* ---- settings -------------------------------------------------------------------------------------------------- */

static int resolve_settings(const struct tunnel_run *run, struct settings *out)
{
    char path[4096], error[SETTINGS_ERROR_LEN];
    const struct settings_given given = {
        .endpoint = run->endpoint, .token = run->token, .ca_cert = run->ca_cert, .proxy = run->proxy};
    bool has_path = settings_path(path, sizeof(path)) == KV_OK;
    if (settings_resolve(has_path ? path : NULL, &given, out, error) != KV_OK)
        return cli_usage_error("%s", error);
    if (error[0])
        log_warn(error);
    if (out->token)
        return CLI_EXIT_OK;
    settings_free(out);
    return cli_usage_error("there is no token; store one with 'kavilo-tunnel login', or put it into KAVILO_TOKEN");
}

/* Whether every address of the host is this machine's own. */
static bool is_loopback(struct slice host)
{
    struct resolve_answer answer;
    return resolve_at_once(host, 1, &answer) == KV_OK && resolve_is_loopback(&answer);
}

/* A service on this machine usually has a certificate that nobody can verify, made by a development server for itself,
 * and nobody sits between us and it: whoever could answer on its loopback port could read its key as well. So only
 * --origin-ca asks for proof there. */
static int make_origin_tls(const struct tunnel_run *run, const char *const *alpn, struct tls_context **out)
{
    char error[TLS_ERROR_LEN];
    if (!run->url.tls)
        return CLI_EXIT_OK;
    bool verify = !run->origin_insecure && (run->origin_ca || !is_loopback(slice_of(run->url.host)));
    *out = tls_client_context(run->origin_ca, verify, alpn, error);
    return *out ? CLI_EXIT_OK : cli_usage_error("TLS to the local service cannot be set up: %s", error);
}

/* A service on this machine can be looked for without a connection that it would have to make sense of. */
static void look_for_service(const struct url *url)
{
    if (is_loopback(slice_of(url->host)) && !socket_port_is_listened(url->port))
        log_warn("nothing listens there yet; visitors get 502 until the service runs", log_str("service", url->text));
}

/* The environment variable of the deployed client: "debug", or "kavilo_tunnel=debug,h2=warn", of which what is for us
 * counts. False if there is nothing in it that is. */
static bool read_rust_log(struct slice list, enum log_level *out)
{
    struct slice directive;
    bool found = false;
    while (slice_next_element(&list, &directive)) {
        const char *equals = memchr(directive.data, '=', directive.len);
        size_t behind = equals ? (size_t)(equals - directive.data) + 1 : 0;
        char level[16] = "";
        if ((equals && !slice_starts_with(directive, SLICE("kavilo"))) || directive.len - behind >= sizeof(level))
            continue;
        slice_lower((struct slice){directive.data + behind, directive.len - behind}, level);
        bool all = strcmp(level, "trace") == 0; /* there is nothing below debug here */
        found |= log_level_parse(all ? "debug" : level, out);
    }
    return found;
}

static void configure_log(const struct tunnel_run *run)
{
    const char *variable = getenv("RUST_LOG");
    enum log_level level = run->has_log_level ? run->log_level : LOG_LEVEL_INFO;
    bool given = !run->has_log_level && variable && variable[0];
    bool known = given && read_rust_log(slice_of(variable), &level);
    log_configure(level, run->log_format);
    if (given && !known)
        log_warn("RUST_LOG says no level that is known here; use --log-level", log_str("value", variable));
}

/* ---- the command ----------------------------------------------------------------------------------------------- */

int tunnel_run(void *settings)
{
    struct tunnel_run *run = settings;
    struct settings resolved;
    static const char *const either[] = {"h2", "http/1.1", NULL};
    struct tls_context *origin_tls = NULL, *origin_tls_h1 = NULL;
    struct tunnel_reach reach;
    configure_log(run);
    int status = cli_settle_pings(&run->ping_ms, &run->dead_ms);
    if (status == CLI_EXIT_OK)
        status = resolve_settings(run, &resolved);
    if (status != CLI_EXIT_OK)
        return status;
    status = tunnel_reach_make(&resolved, &reach);
    if (status != CLI_EXIT_OK)
        goto free_settings;
    status = make_origin_tls(run, either, &origin_tls);
    if (status != CLI_EXIT_OK)
        goto free_reach;
    status = make_origin_tls(run, either + 1, &origin_tls_h1);
    if (status != CLI_EXIT_OK)
        goto free_origin_tls;

    look_for_service(&run->url);
    process_harden();
    socket_raise_limit();
    struct process process = {
        .options =
            {
                .endpoint = resolved.endpoint,
                .tls = reach.endpoint,
                .proxy = &resolved.proxy,
                .proxy_tls = reach.proxy,
                .token = resolved.token,
                .name = run->name,
                .takeover = run->takeover,
                .no_subdomains = run->no_subdomains,
                .forward =
                    {
                        .target = {.url = run->url,
                                   .tls = origin_tls,
                                   .tls_h1 = origin_tls_h1,
                                   .connect_ms = run->has_connect ? (unsigned)run->connect_ms : LIMIT_CONNECT_MS},
                        .host_header = run->host_header,
                        .no_rewrite = run->no_rewrite,
                        .response_ms = run->has_response ? (unsigned)run->response_ms : LIMIT_FIRST_BYTE_MS,
                    },
                .ping_ms = (unsigned)run->ping_ms,
                .dead_ms = (unsigned)run->dead_ms,
                .finished = on_finished,
            },
    };
    process.options.arg = &process;
    if (run->io_uring_off)
        ring_forbid();
    status = run_client(&process);

    tls_context_free(origin_tls_h1);
free_origin_tls:
    tls_context_free(origin_tls);
free_reach:
    tunnel_reach_free(&reach);
free_settings:
    settings_free(&resolved);
    return status;
}
