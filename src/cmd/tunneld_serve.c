/*
 * The server from start to end:
 *
 *     settings ── ports bound ── rights dropped (--user) ── certificates ── store open, migrated ── workers ──
 * listening ── signals SIGTERM ── stop accepting ── drain (--grace) ── stop ── admin listener closed ── everything
 * freed in reverse SIGUSR2 ── a successor starts, says that it is ready ── as SIGTERM, with its ports in the
 * successor's hands
 *
 * A drain has two steps. First everybody is told: clients to open a session elsewhere, visitors that their connection's
 * next answer is its last. A moment later (LIMIT_LAST_CALL_MS) idle connections close, and what is in flight finishes.
 *
 * Whatever can fail because of a setting is done before the first thread starts and the first visitor is answered:
 * nothing is half-started.
 */
#include "cmd/tunneld_serve.h"

#include <errno.h>
#include <limits.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/chunk.h"
#include "base/error.h"
#include "cmd/tunneld_ports.h"
#include "cmd/tunneld_process.h"
#include "cmd/tunneld_upgrade.h"
#include "control/control.h"
#include "edge/edge.h"
#include "io/activation.h"
#include "io/descriptors.h"
#include "io/listener.h"
#include "io/process.h"
#include "io/ring.h"
#include "io/socket.h"
#include "io/tls.h"
#include "io/worker.h"
#include "ops/ops.h"
#include "store/store_thread.h"
#include "tunnel/budget.h"
#include "tunnel/registry.h"

#define POLL_MS           20 /* how often a draining server looks whether it is done, and another whether its successor is */
#define STOP_MS           3000 /* for connections to send their last words */

#define DESCRIPTORS_SPARE 32 /* for the store, names, certificates and a successor */

enum {
    PORT_EDGE,
    PORT_CONTROL,
    PORT_REDIRECT, /* if it was asked for */
    PORT_ADMIN,    /* last: it stays up while the others drain */
    PORTS
};

struct server {
    struct serve_settings *settings;
    struct store *store;
    struct tls_server *tls; /* this and the next: NULL without TLS */
    struct tls_context *edge_tls, *control_tls;
    struct tls_watch *tls_watch;
    struct port ports[PORTS];
    struct worker_group *group;
    struct store_thread *store_thread;
    struct registry *registry;
    struct edge *edge;
    struct control *control;
    struct ops *ops;
    struct upgrade upgrade;
    bool upgrade_wanted; /* and not begun */
    int succession;      /* the channel to a predecessor until it has been succeeded; -1: there is none */
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

static void prepare_listeners(struct server *server, unsigned worker)
{
    for (int i = 0; i < PORTS; i++)
        port_prepare(&server->ports[i], worker, (unsigned)server->settings->workers);
}

static bool listeners_are_prepared(const struct server *server)
{
    for (int i = 0; i < PORTS; i++)
        if (!port_is_prepared(&server->ports[i], (unsigned)server->settings->workers))
            return false;
    return true;
}

static void start_listeners(struct server *server, unsigned worker)
{
    for (int i = 0; i < PORTS; i++)
        port_listen(&server->ports[i], worker, (unsigned)server->settings->workers);
}

static void stop_port(struct server *server, int port, unsigned worker)
{
    port_stop(&server->ports[port], worker, (unsigned)server->settings->workers);
}

static void stop_taking_work(struct server *server, unsigned worker)
{
    stop_port(server, PORT_EDGE, worker);
    stop_port(server, PORT_CONTROL, worker);
    stop_port(server, PORT_REDIRECT, worker);
}

static void stop_admin(struct server *server, unsigned worker)
{
    stop_port(server, PORT_ADMIN, worker);
}

/* What was handed over and is neither a port's nor a predecessor's has a name that nobody here knows. */
static int refuse_unknown(const struct activation *given)
{
    for (unsigned i = 0; i < given->count; i++)
        if (given->given[i].fd >= 0)
            return cli_usage_error("a socket named '%s' was handed over (FileDescriptorName= in a socket unit); the "
                                   "names are edge, control, redirect and admin",
                                   given->given[i].name);
    return CLI_EXIT_OK;
}

static int open_ports(struct server *server)
{
    const struct serve_settings *s = server->settings;
    const struct port ports[PORTS] = {
        [PORT_EDGE] = {.name = "edge", .text = s->edge, .accepted = on_visitor, .arg = server},
        [PORT_CONTROL] = {.name = "control", .text = s->control, .accepted = on_client, .arg = server},
        [PORT_REDIRECT] = {.name = "redirect", .text = s->redirect, .accepted = on_insecure_visitor, .arg = server},
        [PORT_ADMIN] = {.name = "admin", .text = s->admin, .accepted = on_operator, .arg = server},
    };
    struct activation given;
    char error[ACTIVATION_ERROR_LEN];
    memcpy(server->ports, ports, sizeof(ports));
    if (activation_take(&given, error) != KV_OK) {
        activation_close(&given);
        return cli_usage_error("%s", error);
    }
    int status = CLI_EXIT_OK;
    server->succession = succession_take(&given);
    for (unsigned i = 0; status == CLI_EXIT_OK && i < PORTS; i++) {
        server->ports[i].share = i;
        status = port_open(&server->ports[i], (unsigned)s->workers, &given);
    }
    if (status == CLI_EXIT_OK)
        status = refuse_unknown(&given);
    activation_close(&given);
    return status;
}

static void log_listening(const struct server *server)
{
    char texts[PORTS][SOCKADDR_TEXT_LEN] = {[PORT_REDIRECT] = "none"};
    for (int i = 0; i < PORTS; i++)
        if (server->ports[i].count > 0)
            sockaddr_format((const struct sockaddr *)&server->ports[i].address, texts[i]);
    log_info("listening", log_str("edge", texts[PORT_EDGE]), log_str("control", texts[PORT_CONTROL]),
             log_str("redirect", texts[PORT_REDIRECT]), log_str("admin", texts[PORT_ADMIN]),
             log_uint("pid", (uint64_t)getpid()), log_str("base_host", server->settings->base_host),
             log_str("tls", server->settings->tls_mode), log_uint("workers", server->settings->workers),
             log_str("version", KV_VERSION));
    if (strcmp(server->settings->public_scheme, "https") == 0)
        log_info("all tunnels share one site for cookies unless the base host is on the Public Suffix List",
                 log_str("base_host", server->settings->base_host));
}

/* ---- start ----------------------------------------------------------------------------------------------------- */

/* For whoever types http:// and the number of a port that speaks https. */
#define NO_TLS_TEXT "this port speaks HTTPS: ask for it with https://\n"
static const char no_tls_answer[] = "HTTP/1.1 400 Bad Request\r\n"
                                    "Content-Type: text/plain; charset=utf-8\r\n"
                                    "Content-Length: 49\r\n"
                                    "Connection: close\r\n"
                                    "kavilo-error: bad_request\r\n"
                                    "kavilo-error-side: visitor\r\n"
                                    "\r\n" NO_TLS_TEXT;
_Static_assert(sizeof(NO_TLS_TEXT) - 1 == 49, "the answer has its length");

static void warn_unless_covered(const struct server *server, const char *host, const char *shown, const char *whose)
{
    char names[1024];
    if (tls_server_covers(server->tls, slice_of(host)))
        return;
    tls_server_names(server->tls, names, sizeof(names));
    log_warn(whose, log_str("host", shown), log_str("certificates_for", names));
}

/* What visitors, and clients, would find out one by one. */
static void check_names(const struct server *server)
{
    const char *base = server->settings->base_host;
    char host[LIMIT_HOST_BYTES + 16], shown[LIMIT_HOST_BYTES + 16];
    snprintf(host, sizeof(host), "tunnel.%s", base);
    snprintf(shown, sizeof(shown), "*.%s", base);
    warn_unless_covered(server, host, shown, "no certificate is for the hosts of tunnels: browsers will warn of them");
    warn_unless_covered(server, base, base, "no certificate is for the base host: clients that dial it will refuse it");
}

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
    if (!server->control_tls)
        return cli_failure("%s", error);
    tls_context_set_plain_answer(server->edge_tls, slice_of(no_tls_answer));
    tls_context_set_plain_answer(server->control_tls, slice_of(no_tls_answer));
    check_names(server);
    return CLI_EXIT_OK;
}

/* The port that visitors type: what was said, or our own where nothing stands in front of us. */
static uint16_t public_port(const struct server *server)
{
    const struct serve_settings *s = server->settings;
    bool https = strcmp(s->public_scheme, "https") == 0;
    unsigned long port = s->public_port;
    if (!port && (strcmp(s->tls_mode, "files") == 0 || !https))
        port = sockaddr_port((const struct sockaddr *)&server->ports[PORT_EDGE].address);
    return port == (https ? 443 : 80) ? 0 : (uint16_t)port;
}

/* Where the ports were open before us, visitors may be first: they wait for their clients, whose names a predecessor
 * tells us, or nobody. */
static void await_clients(struct server *server)
{
    if (server->succession >= 0)
        succession_take_over(server->succession, server->registry);
    else if (server->ports[PORT_EDGE].inherited)
        registry_expect_until(server->registry, LIMIT_ARRIVAL_MS, true);
    server->succession = -1;
}

/* Half of what the control port can have: the clients that are known need theirs. */
static size_t max_strangers(void)
{
    size_t half = descriptors_most() / 2;
    return half < LIMIT_STRANGERS ? half : LIMIT_STRANGERS;
}

static int start(struct server *server)
{
    const struct serve_settings *s = server->settings;
    if (s->io_uring_off)
        ring_forbid();
    if (worker_group_start((unsigned)s->workers, &server->group) != KV_OK)
        return cli_failure("the worker threads cannot be started");
    if (descriptors_divide(PORTS, DESCRIPTORS_SPARE + 2UL * PORTS * s->workers) != KV_OK)
        return cli_failure("no memory");
    server->store_thread = store_thread_start(server->store);
    server->store = NULL;
    server->registry = registry_new(server->group);
    const struct address_rates rates = {
        .connections = (uint32_t)s->address_connections,
        .connections_per_second = (uint32_t)s->address_connects,
        .requests_per_second = (uint32_t)s->address_requests,
    };
    const struct control_settings control = {
        .group = server->group,
        .registry = server->registry,
        .store = server->store_thread,
        .tls = server->control_tls,
        .base_host = s->base_host,
        .public_scheme = s->public_scheme,
        .public_port = public_port(server),
        .max_concurrent = (uint32_t)s->max_concurrent,
        .max_still = (uint32_t)s->max_still,
        .ping_ms = (unsigned)s->ping_ms,
        .dead_ms = (unsigned)s->dead_ms,
        .answer_cap_ms = (unsigned)s->answer_timeout_ms,
        .answer_default_ms = s->has_answer_timeout ? (unsigned)s->answer_timeout_ms : LIMIT_UNTOLD_ANSWER_MS,
        .rates = rates,
        .trusted_proxies = s->trusted_proxies.count > 0 ? &s->trusted_proxies : NULL,
        .max_strangers = max_strangers(),
        .grace_ms = s->grace_ms < UINT32_MAX ? (uint32_t)s->grace_ms : UINT32_MAX,
    };
    server->control = control_new(&control);
    const struct edge_settings edge = {
        .group = server->group,
        .registry = server->registry,
        .tls = server->edge_tls,
        .base_host = s->base_host,
        .max_request_body = s->max_request_body,
        .rates = rates,
        .head_timeout_ms = (unsigned)s->head_timeout_ms,
        .idle_timeout_ms = (unsigned)s->idle_timeout_ms,
        .stall_timeout_ms = (unsigned)s->stall_timeout_ms,
        .upgrade_idle_ms = (unsigned)s->upgrade_idle_ms,
        .hsts = s->hsts[0] ? s->hsts : NULL,
        .https_port = control.public_port,
        .trusted_proxies = s->trusted_proxies.count > 0 ? &s->trusted_proxies : NULL,
        .forwarded = s->forwarded,
        .upgrades = s->has_upgrades ? s->upgrades : NULL,
        .shared_cookies = s->shared_cookies,
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
    on_every_worker(server, prepare_listeners);
    if (!listeners_are_prepared(server))
        return cli_failure("a worker cannot listen");
    /* The last that can fail: a predecessor that has been told of us does not come back. */
    int status = pid_file_write(s->pid_file);
    if (status != CLI_EXIT_OK)
        return status;
    await_clients(server);
    on_every_worker(server, start_listeners);
    ops_set_state(server->ops, OPS_SERVING);
    return CLI_EXIT_OK;
}

/* ---- the end --------------------------------------------------------------------------------------------------- */

static size_t visitors(const struct server *server)
{
    return edge_alive(server->edge);
}

static size_t alive(const struct server *server)
{
    return edge_alive(server->edge) + control_alive(server->control);
}

enum wait_result {
    WAIT_GONE,
    WAIT_OVER,
    WAIT_SIGNAL /* somebody does not want to wait any longer */
};

/* Waits until nothing is left, at most this long or until a signal that ends programs. */
static enum wait_result wait_until_gone(const struct server *server, size_t (*left)(const struct server *server),
                                        unsigned long patience_ms)
{
    const struct timespec step = {.tv_nsec = POLL_MS * 1000000L};
    sigset_t ending;
    sigemptyset(&ending);
    sigaddset(&ending, SIGINT);
    sigaddset(&ending, SIGTERM);
    for (unsigned long waited = 0; waited < patience_ms; waited += POLL_MS) {
        if (left(server) == 0)
            return WAIT_GONE;
        if (sigtimedwait(&ending, NULL, &step) > 0)
            return WAIT_SIGNAL;
    }
    return left(server) == 0 ? WAIT_GONE : WAIT_OVER;
}

static enum wait_result wait_for_work(struct server *server, bool succeeded)
{
    control_announce_drain(server->control, succeeded);
    edge_announce_drain(server->edge);
    enum wait_result result = wait_until_gone(server, visitors, LIMIT_LAST_CALL_MS);
    if (result == WAIT_SIGNAL)
        return result;
    control_drain(server->control);
    edge_drain(server->edge);
    return wait_until_gone(server, alive, server->settings->grace_ms);
}

/* With a successor, which is let go as soon as nobody accepts here; otherwise the admin listener stays to be asked. */
static void drain(struct server *server)
{
    bool succeeded = server->upgrade.child != 0;
    ops_set_state(server->ops, OPS_DRAINING);
    on_every_worker(server, stop_taking_work);
    if (succeeded)
        on_every_worker(server, stop_admin);
    for (int i = 0; i < PORTS; i++)
        if (i != PORT_ADMIN || succeeded)
            port_close(&server->ports[i]);
    log_info("draining: no new requests, those in flight may finish", log_uint("grace_ms", server->settings->grace_ms),
             log_uint("connections", alive(server)));
    if (succeeded)
        upgrade_hand_over(&server->upgrade, server->registry);
    bool gone = wait_for_work(server, succeeded) == WAIT_GONE;
    if (!gone)
        log_warn("ending with work in flight", log_uint("connections", alive(server)));
    edge_stop(server->edge); /* those too that only have to acknowledge what they were sent */
    if (gone)
        return;
    control_stop(server->control);
    wait_until_gone(server, alive, STOP_MS);
}

/* The last to go: it can be asked about the drain. Nothing of it runs when this returns, so the store may end. */
static void end_admin(struct server *server)
{
    ops_stop(server->ops);
    on_every_worker(server, stop_admin);
}

/* ---- serving --------------------------------------------------------------------------------------------------- */

/* The next signal; 0 when none came for a moment, which is how often an upgrade that is under way is looked after. */
static int next_signal(const struct server *server, const sigset_t *signals)
{
    const struct timespec step = {.tv_nsec = POLL_MS * 1000000L};
    int number = 0;
    if (server->upgrade_wanted || server->upgrade.child)
        number = sigtimedwait(signals, NULL, &step);
    else
        sigwait(signals, &number);
    return number > 0 ? number : 0;
}

static void want_upgrade(struct server *server)
{
    if (server->upgrade_wanted || server->upgrade.child) {
        log_warn("an upgrade is under way already");
        return;
    }
    activation_notify("RELOADING=1");
    server->upgrade_wanted = true;
}

/* True when a successor is ready. Visitors who wait here for a client of our own predecessor cannot be handed on, so an
 * upgrade begins when these have come or are given up. */
static bool go_on_with_upgrade(struct server *server, const sigset_t *mask)
{
    enum upgrade_state state = UPGRADE_STARTING;
    if (server->upgrade.child) {
        state = upgrade_poll(&server->upgrade);
    } else if (server->upgrade_wanted && !registry_awaits_sessions(server->registry)) {
        server->upgrade_wanted = false;
        upgrade_start(&server->upgrade, server->ports, PORTS, mask);
        state = server->upgrade.child ? UPGRADE_STARTING : UPGRADE_NONE;
    }
    if (state == UPGRADE_NONE)
        activation_notify("READY=1");
    return state == UPGRADE_READY;
}

/* Until a signal ends it or a successor is ready; `mask` is what signals were before, for the successor. */
static void serve(struct server *server, const sigset_t *signals, const sigset_t *mask)
{
    do {
        int number = next_signal(server, signals);
        if (number == SIGTERM || number == SIGINT) {
            upgrade_cancel(&server->upgrade);
            activation_notify("STOPPING=1");
            log_info("stopping", log_str("signal", strsignal(number)));
            return;
        }
        if (number == SIGHUP)
            tls_watch_reload(server->tls_watch);
        if (number == SIGUSR2)
            want_upgrade(server);
    } while (!go_on_with_upgrade(server, mask));
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
    for (int i = 0; i < PORTS; i++)
        port_close(&server->ports[i]);
    if (server->succession >= 0)
        close(server->succession); /* the predecessor serves on */
    tls_context_free(server->edge_tls);
    tls_context_free(server->control_tls);
    tls_server_free(server->tls);
}

static void block_signals(sigset_t *signals, sigset_t *before)
{
    static const int ours[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR2};
    sigemptyset(signals);
    for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++)
        sigaddset(signals, ours[i]);
    pthread_sigmask(SIG_BLOCK, signals, before); /* before any thread: all of them inherit it */
}

int serve_run(void *settings)
{
    struct server server = {.settings = settings, .succession = -1};
    sigset_t signals, before;
    int status = serve_settle(settings);
    if (status != CLI_EXIT_OK)
        return status;
    log_configure(server.settings->log_level, server.settings->log_format);
    socket_raise_limit();
    budget_set((size_t)server.settings->memory_budget);
    block_signals(&signals, &before);

    process_harden();
    status = open_ports(&server);
    if (status == CLI_EXIT_OK) /* before anything is read or made that this user could not read again */
        status = server_become(server.settings->user, server.settings->store.database);
    if (status == CLI_EXIT_OK)
        status = load_certificates(&server);
    if (status == CLI_EXIT_OK)
        status = admin_open(&server.settings->store, &server.store);
    if (status == CLI_EXIT_OK)
        status = start(&server);
    if (status == CLI_EXIT_OK) {
        log_listening(&server);
        activation_notify("READY=1");
        serve(&server, &signals, &before);
        drain(&server);
        end_admin(&server);
        pid_file_remove(server.settings->pid_file);
        log_info("stopped");
    }
    tear_down(&server);
    log_debug("left over", log_uint("chunks", chunk_live_count()), log_uint("credit", budget_used()));
    return status;
}
