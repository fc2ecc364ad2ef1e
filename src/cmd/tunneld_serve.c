/*
 * The server from start to end:
 *
 *     settings ── store open, migrated ── certificates ── ports bound ── workers ── listening ── signals
 *     SIGTERM ── stop accepting ── drain (--grace) ── stop ── admin listener closed ── everything freed in reverse
 *
 * Whatever can fail because of a setting is done before the first thread starts and the first visitor is answered:
 * nothing is half-started.
 */
#include "cmd/tunneld_serve.h"

#include <errno.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/chunk.h"
#include "base/error.h"
#include "control/control.h"
#include "edge/edge.h"
#include "io/listener.h"
#include "io/socket.h"
#include "io/tls.h"
#include "io/worker.h"
#include "ops/ops.h"
#include "store/store_thread.h"
#include "tunnel/budget.h"
#include "tunnel/registry.h"

#define POLL_MS        20   /* how often a draining server looks whether it is done */
#define STOP_MS        3000 /* for connections to send their last words */
#define LISTENER_KINDS 4

enum listener_kind {
    LISTEN_EDGE,
    LISTEN_CONTROL,
    LISTEN_REDIRECT, /* if it was asked for */
    LISTEN_ADMIN     /* last: it stays up while the others drain */
};

struct server {
    struct serve_settings *settings;
    struct store *store;
    struct tls_server *tls; /* this and the next: NULL without TLS */
    struct tls_context *edge_tls, *control_tls;
    struct tls_watch *tls_watch;
    struct sockaddr_storage addresses[LISTENER_KINDS];
    int *fds[LISTENER_KINDS]; /* one a worker; -1 once a listener owns it */
    struct worker_group *group;
    struct store_thread *store_thread;
    struct registry *registry;
    struct edge *edge;
    struct control *control;
    struct ops *ops;
    struct listener **listeners[LISTENER_KINDS];
};

/* ---- work on every worker -------------------------------------------------------------------------------------- */

struct everywhere {
    struct task task;
    void (*run)(struct server *server, unsigned worker);
    struct server *server;
    sem_t *done;
};

static void run_everywhere(struct task *task)
{
    struct everywhere *e = (struct everywhere *)task;
    e->run(e->server, worker_index(worker_current()));
    sem_post(e->done);
}

/* Runs a function on each worker and waits for all of them. */
static void on_every_worker(struct server *server, void (*run)(struct server *server, unsigned worker))
{
    unsigned count = worker_count(server->group);
    struct everywhere tasks[64];
    sem_t done;
    sem_init(&done, 0, 0);
    for (unsigned i = 0; i < count; i++) {
        tasks[i] = (struct everywhere){.task.run = run_everywhere, .run = run, .server = server, .done = &done};
        worker_run(worker_at(server->group, i), &tasks[i].task);
    }
    for (unsigned i = 0; i < count; i++)
        while (sem_wait(&done) != 0 && errno == EINTR)
            continue;
    sem_destroy(&done);
}

/* ---- listening ------------------------------------------------------------------------------------------------- */

static void on_visitor(void *arg, int fd)
{
    struct server *server = arg;
    edge_accept(server->edge, fd);
}

static void on_client(void *arg, int fd)
{
    struct server *server = arg;
    control_accept(server->control, fd);
}

static void on_insecure_visitor(void *arg, int fd)
{
    struct server *server = arg;
    edge_accept_redirect(server->edge, fd);
}

static void on_operator(void *arg, int fd)
{
    struct server *server = arg;
    ops_accept(server->ops, fd);
}

static void start_listeners(struct server *server, unsigned worker)
{
    static void (*const accepted[LISTENER_KINDS])(void *, int) = {
        [LISTEN_EDGE] = on_visitor,
        [LISTEN_CONTROL] = on_client,
        [LISTEN_REDIRECT] = on_insecure_visitor,
        [LISTEN_ADMIN] = on_operator,
    };
    for (int kind = 0; kind < LISTENER_KINDS; kind++) {
        if (!server->fds[kind])
            continue;
        int fd = server->fds[kind][worker];
        server->fds[kind][worker] = -1;
        server->listeners[kind][worker] = listener_start(worker_current(), fd, accepted[kind], server);
        if (!server->listeners[kind][worker])
            log_error("a worker cannot listen: no memory", log_uint("worker", worker));
    }
}

static void stop_listener(struct server *server, enum listener_kind kind, unsigned worker)
{
    if (!server->listeners[kind])
        return;
    listener_stop(server->listeners[kind][worker]);
    server->listeners[kind][worker] = NULL;
}

static void stop_taking_work(struct server *server, unsigned worker)
{
    stop_listener(server, LISTEN_EDGE, worker);
    stop_listener(server, LISTEN_CONTROL, worker);
    stop_listener(server, LISTEN_REDIRECT, worker);
}

static void stop_admin(struct server *server, unsigned worker)
{
    stop_listener(server, LISTEN_ADMIN, worker);
}

static int bind_one(struct server *server, enum listener_kind kind, const char *flag, const char *text)
{
    unsigned count = (unsigned)server->settings->workers;
    server->listeners[kind] = calloc(count, sizeof(struct listener *));
    server->fds[kind] = malloc(count * sizeof(int));
    if (!server->listeners[kind] || !server->fds[kind])
        return cli_failure("no memory");
    for (unsigned i = 0; i < count; i++)
        server->fds[kind][i] = -1;
    if (sockaddr_parse(slice_of(text), &server->addresses[kind]) != KV_OK)
        return cli_usage_error("--%s '%s' is no address", flag, text);
    if (listener_bind(&server->addresses[kind], server->fds[kind], count) != KV_OK)
        return cli_usage_error("--%s %s: %s", flag, text, strerror(errno));
    return CLI_EXIT_OK;
}

static int bind_all(struct server *server)
{
    int status = bind_one(server, LISTEN_EDGE, "edge-listen", server->settings->edge);
    if (status == CLI_EXIT_OK)
        status = bind_one(server, LISTEN_CONTROL, "control-listen", server->settings->control);
    if (status == CLI_EXIT_OK && server->settings->redirect[0])
        status = bind_one(server, LISTEN_REDIRECT, "redirect-listen", server->settings->redirect);
    if (status == CLI_EXIT_OK)
        status = bind_one(server, LISTEN_ADMIN, "admin-listen", server->settings->admin);
    return status;
}

static void log_listening(const struct server *server)
{
    char texts[LISTENER_KINDS][SOCKADDR_TEXT_LEN] = {[LISTEN_REDIRECT] = "none"};
    for (int kind = 0; kind < LISTENER_KINDS; kind++)
        if (server->fds[kind])
            sockaddr_format((const struct sockaddr *)&server->addresses[kind], texts[kind]);
    log_info("listening", log_str("edge", texts[LISTEN_EDGE]), log_str("control", texts[LISTEN_CONTROL]),
             log_str("redirect", texts[LISTEN_REDIRECT]), log_str("admin", texts[LISTEN_ADMIN]),
             log_str("base_host", server->settings->base_host), log_str("tls", server->settings->tls_mode),
             log_uint("workers", server->settings->workers), log_str("version", KV_VERSION));
    if (strcmp(server->settings->public_scheme, "https") == 0)
        log_info("all tunnels share one site for cookies unless the base host is on the Public Suffix List",
                 log_str("base_host", server->settings->base_host));
}

/* ---- start ----------------------------------------------------------------------------------------------------- */

static int load_certificates(struct server *server)
{
    static const char *const http[] = {"h2", "http/1.1", NULL};
    static const char *const h2[] = {"h2", NULL};
    const struct serve_settings *s = server->settings;
    char error[TLS_ERROR_LEN];
    if (strcmp(s->tls_mode, "files") != 0)
        return CLI_EXIT_OK;
    server->tls = tls_server_new(s->tls, s->tls_certs, error);
    if (!server->tls)
        return cli_usage_error("%s", error);
    server->edge_tls = tls_server_context(server->tls, http, error);
    if (server->edge_tls)
        server->control_tls = tls_server_context(server->tls, h2, error);
    return server->control_tls ? CLI_EXIT_OK : cli_failure("%s", error);
}

/* The port that visitors type: what was said, or our own where nothing stands in front of us. */
static uint16_t public_port(const struct server *server)
{
    const struct serve_settings *s = server->settings;
    bool https = strcmp(s->public_scheme, "https") == 0;
    unsigned long port = s->public_port;
    if (!port && (strcmp(s->tls_mode, "files") == 0 || !https))
        port = sockaddr_port((const struct sockaddr *)&server->addresses[LISTEN_EDGE]);
    return port == (https ? 443 : 80) ? 0 : (uint16_t)port;
}

static int start(struct server *server)
{
    const struct serve_settings *s = server->settings;
    if (worker_group_start((unsigned)s->workers, &server->group) != KV_OK)
        return cli_failure("the worker threads cannot be started");
    server->store_thread = store_thread_start(server->store);
    server->store = NULL;
    server->registry = registry_new(server->group);
    const struct control_settings control = {
        .group = server->group,
        .registry = server->registry,
        .store = server->store_thread,
        .tls = server->control_tls,
        .base_host = s->base_host,
        .public_scheme = s->public_scheme,
        .public_port = public_port(server),
        .max_concurrent = (uint32_t)s->max_concurrent,
        .ping_ms = (unsigned)s->ping_ms,
        .dead_ms = (unsigned)s->dead_ms,
    };
    server->control = control_new(&control);
    const struct edge_settings edge = {
        .group = server->group,
        .registry = server->registry,
        .tls = server->edge_tls,
        .base_host = s->base_host,
        .max_request_body = s->max_request_body,
        .answer_timeout_ms = (unsigned)s->answer_timeout_ms,
        .hsts = s->hsts[0] ? s->hsts : NULL,
        .https_port = control.public_port,
        .trusted_proxies = s->trusted_proxies.count > 0 ? &s->trusted_proxies : NULL,
        .forwarded = s->forwarded,
        .proxy_senders = s->proxy_senders.count > 0 ? &s->proxy_senders : NULL,
        .guest =
            {
                .wants = control_wants,
                .open = control_open,
                .pong = control_pong,
                .events = &control_stream_events,
                .arg = server->control,
            },
    };
    server->edge = edge_new(&edge);
    const struct ops_settings ops = {
        .group = server->group,
        .registry = server->registry,
        .edge = server->edge,
        .control = server->control,
        .store = server->store_thread,
        .public_scheme = s->public_scheme,
        .public_port = control.public_port,
        .base_host = s->base_host,
        .tls = server->tls,
    };
    server->ops = ops_new(&ops);
    if (server->tls)
        server->tls_watch = tls_watch_start(server->tls);
    if (!server->store_thread || !server->registry || !server->edge || !server->control || !server->ops ||
        (server->tls && !server->tls_watch))
        return cli_failure("no memory");
    on_every_worker(server, start_listeners);
    ops_set_state(server->ops, OPS_SERVING);
    return CLI_EXIT_OK;
}

/* ---- the end --------------------------------------------------------------------------------------------------- */

static size_t alive(const struct server *server)
{
    return edge_alive(server->edge) + control_alive(server->control);
}

/* Waits until nothing is alive, at most this long. False when a signal came first or time ran out. */
static bool wait_until_gone(const struct server *server, const sigset_t *signals, unsigned long patience_ms)
{
    const struct timespec step = {.tv_nsec = POLL_MS * 1000000L};
    for (unsigned long waited = 0; waited < patience_ms; waited += POLL_MS) {
        if (alive(server) == 0)
            return true;
        if (sigtimedwait(signals, NULL, &step) > 0)
            return false;
    }
    return alive(server) == 0;
}

static void drain(struct server *server, const sigset_t *signals)
{
    ops_set_state(server->ops, OPS_DRAINING);
    on_every_worker(server, stop_taking_work);
    log_info("draining: no new requests, those in flight may finish", log_uint("grace_ms", server->settings->grace_ms),
             log_uint("connections", alive(server)));
    control_drain(server->control);
    edge_drain(server->edge);
    if (wait_until_gone(server, signals, server->settings->grace_ms))
        return;
    log_warn("ending with work in flight", log_uint("connections", alive(server)));
    edge_stop(server->edge);
    control_stop(server->control);
    wait_until_gone(server, signals, STOP_MS);
}

/* The last to go: it can be asked about the drain. Nothing of it runs when this returns, so the store may end. */
static void end_admin(struct server *server)
{
    ops_stop(server->ops);
    on_every_worker(server, stop_admin);
}

static void serve_until_signal(struct server *server, const sigset_t *signals)
{
    int signal_number = 0;
    while (sigwait(signals, &signal_number) != 0 || signal_number == SIGHUP)
        tls_watch_reload(server->tls_watch);
    log_info("stopping", log_str("signal", strsignal(signal_number)));
    drain(server, signals);
    end_admin(server);
}

/* In the reverse order of the start; legal at any stage of it. */
static void tear_down(struct server *server)
{
    tls_watch_stop(server->tls_watch);
    store_thread_stop(server->store_thread);
    worker_group_stop(server->group, STOP_MS);
    ops_free(server->ops);
    control_free(server->control);
    edge_free(server->edge);
    if (server->group)
        registry_free(server->registry);
    store_close(server->store);
    for (int kind = 0; kind < LISTENER_KINDS; kind++) {
        for (unsigned i = 0; server->fds[kind] && i < server->settings->workers; i++)
            if (server->fds[kind][i] >= 0)
                close(server->fds[kind][i]);
        free(server->fds[kind]);
        free(server->listeners[kind]);
    }
    tls_context_free(server->edge_tls);
    tls_context_free(server->control_tls);
    tls_server_free(server->tls);
}

int serve_run(void *settings)
{
    struct server server = {.settings = settings};
    sigset_t signals;
    int status = serve_settle(settings);
    if (status != CLI_EXIT_OK)
        return status;
    log_configure(server.settings->log_level, server.settings->log_format);
    socket_raise_limit();
    budget_set((size_t)server.settings->memory_budget);
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &signals, NULL); /* before any thread: all of them inherit it */

    status = load_certificates(&server);
    if (status == CLI_EXIT_OK)
        status = bind_all(&server);
    if (status == CLI_EXIT_OK)
        status = admin_open(&server.settings->store, &server.store);
    if (status == CLI_EXIT_OK)
        status = start(&server);
    if (status == CLI_EXIT_OK) {
        log_listening(&server);
        serve_until_signal(&server, &signals);
        log_info("stopped");
    }
    tear_down(&server);
    log_debug("left over", log_uint("chunks", chunk_live_count()), log_uint("credit", budget_used()));
    return status;
}
