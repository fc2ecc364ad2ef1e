/* The options of `serve`: what each takes, what it is without them, and which of them have to go together. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>

#include "base/error.h"
#include "cmd/tunneld_serve.h"
#include "http/syntax.h"
#include "http/upgrade.h"
#include "io/address_limit.h"
#include "io/listener.h"

#define WORKERS_MAX 64
#define HSTS_MAX_S  (100U * 366 * 24 * 3600) /* a hundred years: more is a slip */

static int set_database(void *into, const char *value, char *error)
{
    struct serve_settings *s = into;
    return admin_set_database(&s->store, value, error);
}

/* A host name whose labels are DNS labels (RFC 1035, 2.3.1, with the digits of RFC 1123), and no address: names go in
 * front of it. */
static bool is_base_host(struct slice host)
{
    char copy[LIMIT_HOST_BYTES + 1];
    size_t label = 0;
    struct sockaddr_storage address;
    if (!http_is_authority(host) || http_host_of(host, copy) == 0)
        return false;
    for (size_t i = 0; i <= host.len; i++) {
        char c = i < host.len ? host.data[i] : '.';
        bool hyphen_at_end = c == '-' && (label == 0 || i + 1 == host.len || host.data[i + 1] == '.');
        if (c == '_' || c == ':' || c == '[' || hyphen_at_end || label > LIMIT_LABEL_BYTES)
            return false;
        label = c == '.' ? 0 : label + 1;
    }
    char with_port[LIMIT_HOST_BYTES + 8];
    int len = snprintf(with_port, sizeof(with_port), "%s:1", copy);
    return sockaddr_parse((struct slice){with_port, (size_t)len}, &address) != KV_OK ||
           slice_equals(slice_of(copy), SLICE("localhost"));
}

static int set_base_host(void *into, const char *value, char *error)
{
    struct serve_settings *s = into;
    struct slice host = slice_of(value);
    if (host.len > LIMIT_HOST_BYTES - LIMIT_LABEL_BYTES - 1 || !is_base_host(host)) {
        snprintf(error, CLI_ERROR_LEN, "it has to be a host name such as tnl.example.com, without a port");
        return KV_EINVAL;
    }
    size_t len = http_host_of(host, s->base_host);
    s->base_host[len] = '\0';
    return KV_OK;
}

static int set_edge(void *into, const char *value, char *error)
{
    struct serve_settings *s = into;
    return cli_set_port_or_address(s->edge, sizeof(s->edge), value, error);
}

static int set_control(void *into, const char *value, char *error)
{
    struct serve_settings *s = into;
    return cli_set_port_or_address(s->control, sizeof(s->control), value, error);
}

static int set_admin(void *into, const char *value, char *error)
{
    struct serve_settings *s = into;
    return cli_set_port_or_address(s->admin, sizeof(s->admin), value, error);
}

static int set_user(void *into, const char *value, char *error)
{
    struct serve_settings *s = into;
    return cli_set_string(s->user, sizeof(s->user), value, error);
}

static int set_pid_file(void *into, const char *value, char *error)
{
    struct serve_settings *s = into;
    return cli_set_string(s->pid_file, sizeof(s->pid_file), value, error);
}

static int set_tls_mode(void *into, const char *value, char *error)
{
    struct serve_settings *s = into;
    if (strcmp(value, "off") != 0 && strcmp(value, "files") != 0) {
        snprintf(error, CLI_ERROR_LEN, "it has to be off or files");
        return KV_EINVAL;
    }
    s->has_tls_mode = true;
    return cli_set_string(s->tls_mode, sizeof(s->tls_mode), value, error);
}

/* One more file of its kind. */
static int take_file(const char **into, const char *value, char *error)
{
    if (value[0]) {
        *into = value;
        return KV_OK;
    }
    snprintf(error, CLI_ERROR_LEN, "it has to be a file");
    return KV_EINVAL;
}

static int too_many_pairs(char *error)
{
    snprintf(error, CLI_ERROR_LEN, "%d are the most that one server takes", LIMIT_TLS_PAIRS);
    return KV_ELIMIT;
}

static int set_tls_cert(void *into, const char *value, char *error)
{
    struct serve_settings *s = into;
    return s->tls_certs == LIMIT_TLS_PAIRS ? too_many_pairs(error)
                                           : take_file(&s->tls[s->tls_certs++].cert, value, error);
}

static int set_tls_key(void *into, const char *value, char *error)
{
    struct serve_settings *s = into;
    return s->tls_keys == LIMIT_TLS_PAIRS ? too_many_pairs(error) : take_file(&s->tls[s->tls_keys++].key, value, error);
}

static int set_tls_ocsp(void *into, const char *value, char *error)
{
    struct serve_settings *s = into;
    struct tls_files *pair = s->tls_certs > 0 ? &s->tls[s->tls_certs - 1] : NULL;
    if (pair && !pair->ocsp)
        return take_file(&pair->ocsp, value, error);
    snprintf(error, CLI_ERROR_LEN, "it goes behind the --tls-cert that it is for, once");
    return KV_EINVAL;
}

static int set_redirect(void *into, const char *value, char *error)
{
    struct serve_settings *s = into;
    return cli_set_port_or_address(s->redirect, sizeof(s->redirect), value, error);
}

/* "31536000" or "31536000,includeSubDomains", as a field value (RFC 6797, 6.1). */
static int set_hsts(void *into, const char *value, char *error)
{
    struct serve_settings *s = into;
    const char *comma = strchrnul(value, ',');
    struct slice seconds = {value, (size_t)(comma - value)};
    uint64_t number;
    bool whole = comma[0] && slice_equals_nocase(slice_of(comma + 1), SLICE("includeSubDomains"));
    if (!slice_to_u64(seconds, &number) || number > HSTS_MAX_S || (comma[0] && !whole)) {
        snprintf(error, CLI_ERROR_LEN, "it has to be SECONDS or SECONDS,includeSubDomains");
        return KV_EINVAL;
    }
    snprintf(s->hsts, sizeof(s->hsts), "max-age=%u%s", (unsigned)number, whole ? "; includeSubDomains" : "");
    return KV_OK;
}

static int set_public_scheme(void *into, const char *value, char *error)
{
    struct serve_settings *s = into;
    if (strcmp(value, "http") != 0 && strcmp(value, "https") != 0) {
        snprintf(error, CLI_ERROR_LEN, "it has to be http or https");
        return KV_EINVAL;
    }
    return cli_set_string(s->public_scheme, sizeof(s->public_scheme), value, error);
}

static int set_public_port(void *into, const char *value, char *error)
{
    struct serve_settings *s = into;
    return cli_set_unsigned(&s->public_port, 1, 65535, value, error);
}

static int set_max_concurrent(void *into, const char *value, char *error)
{
    struct serve_settings *s = into;
    return cli_set_unsigned(&s->max_concurrent, 1, 1000000, value, error);
}

static int set_max_still(void *into, const char *value, char *error)
{
    struct serve_settings *s = into;
    s->has_max_still = true;
    return cli_set_unsigned(&s->max_still, 0, 1000000, value, error);
}

static int set_max_request_body(void *into, const char *value, char *error)
{
    struct serve_settings *s = into;
    return cli_set_bytes(&s->max_request_body, value, error);
}

static int set_memory_budget(void *into, const char *value, char *error)
{
    struct serve_settings *s = into;
    int result = cli_set_bytes(&s->memory_budget, value, error);
    if (result == KV_OK && s->memory_budget < LIMIT_BUDGET_MIN_BYTES) {
        snprintf(error, CLI_ERROR_LEN, "has to be 1M at least");
        return KV_EINVAL;
    }
    return result;
}

static int set_grace(void *into, const char *value, char *error)
{
    struct serve_settings *s = into;
    s->has_grace = true;
    return cli_set_wait(&s->grace_ms, value, error);
}

static int set_upgrade_idle(void *into, const char *value, char *error)
{
    struct serve_settings *s = into;
    return cli_set_wait(&s->upgrade_idle_ms, value, error);
}

static int set_answer_timeout(void *into, const char *value, char *error)
{
    struct serve_settings *s = into;
    s->has_answer_timeout = true;
    return cli_set_wait(&s->answer_timeout_ms, value, error);
}

static int set_address_connections(void *into, const char *value, char *error)
{
    struct serve_settings *s = into;
    return cli_set_unsigned(&s->address_connections, 1, 1000000, value, error);
}

static int set_address_connects(void *into, const char *value, char *error)
{
    struct serve_settings *s = into;
    return cli_set_unsigned(&s->address_connects, 1, ADDRESS_RATE_MAX, value, error);
}

static int set_address_requests(void *into, const char *value, char *error)
{
    struct serve_settings *s = into;
    return cli_set_unsigned(&s->address_requests, 1, ADDRESS_RATE_MAX, value, error);
}

static int set_head_timeout(void *into, const char *value, char *error)
{
    struct serve_settings *s = into;
    return cli_set_duration(&s->head_timeout_ms, value, error);
}

static int set_idle_timeout(void *into, const char *value, char *error)
{
    struct serve_settings *s = into;
    return cli_set_duration(&s->idle_timeout_ms, value, error);
}

static int set_stall_timeout(void *into, const char *value, char *error)
{
    struct serve_settings *s = into;
    s->has_stall_timeout = true;
    return cli_set_wait(&s->stall_timeout_ms, value, error);
}

static int set_ping_interval(void *into, const char *value, char *error)
{
    struct serve_settings *s = into;
    return cli_set_ping(&s->ping_ms, value, error);
}

static int set_ping_timeout(void *into, const char *value, char *error)
{
    struct serve_settings *s = into;
    return cli_set_ping(&s->dead_ms, value, error);
}

static int add_networks(struct networks *networks, const char *value, char *error)
{
    struct slice wrong;
    const char *why;
    int result = networks_add(networks, slice_of(value), &wrong, &why);
    if (result != KV_OK)
        snprintf(error, CLI_ERROR_LEN, "'%.*s': %s", (int)wrong.len, wrong.data, why);
    return result;
}

static int add_proxy_senders(void *into, const char *value, char *error)
{
    struct serve_settings *s = into;
    return add_networks(&s->proxy_senders, value, error);
}

static int add_trusted_proxies(void *into, const char *value, char *error)
{
    struct serve_settings *s = into;
    return add_networks(&s->trusted_proxies, value, error);
}

static int set_forwarded(void *into, const char *value, char *error)
{
    struct serve_settings *s = into;
    (void)value;
    (void)error;
    s->forwarded = true;
    return KV_OK;
}

/* "websocket,tcp", or "none". */
static int set_upgrades(void *into, const char *value, char *error)
{
    struct serve_settings *s = into;
    struct slice list = slice_of(value), protocol;
    bool none = slice_equals_nocase(list, SLICE("none"));
    if (!none && !http_is_protocol_list(list)) {
        snprintf(error, CLI_ERROR_LEN, "it has to be a list of protocols such as websocket,tcp, or none");
        return KV_EINVAL;
    }
    while (!none && slice_next_element(&list, &protocol)) {
        if (http_upgrade_is_allowed(protocol))
            continue;
        snprintf(error, CLI_ERROR_LEN, "'%.*s' carries HTTP, which would escape the rules for requests",
                 (int)protocol.len, protocol.data);
        return KV_EINVAL;
    }
    s->has_upgrades = true;
    if (!none)
        return cli_set_string(s->upgrades, sizeof(s->upgrades), value, error);
    s->upgrades[0] = '\0';
    return KV_OK;
}

static int set_shared_cookies(void *into, const char *value, char *error)
{
    struct serve_settings *s = into;
    (void)value;
    (void)error;
    s->shared_cookies = true;
    return KV_OK;
}

static int set_workers(void *into, const char *value, char *error)
{
    struct serve_settings *s = into;
    return cli_set_unsigned(&s->workers, 1, WORKERS_MAX, value, error);
}

static int set_io_uring(void *into, const char *value, char *error)
{
    return cli_set_io_uring(&((struct serve_settings *)into)->io_uring_off, value, error);
}

static int set_log_level(void *into, const char *value, char *error)
{
    struct serve_settings *s = into;
    s->has_log_level = true;
    if (log_level_parse(value, &s->log_level))
        return KV_OK;
    snprintf(error, CLI_ERROR_LEN, "it has to be error, warn, info or debug");
    return KV_EINVAL;
}

static int set_log_format(void *into, const char *value, char *error)
{
    struct serve_settings *s = into;
    if (log_format_parse(value, &s->log_format))
        return KV_OK;
    snprintf(error, CLI_ERROR_LEN, "it has to be text or json");
    return KV_EINVAL;
}

const struct cli_option serve_options[] = {
    {"base-host", "HOST", NULL, "tunnels are <name>.HOST (localhost)", .set = set_base_host},
    {"edge-listen", "ADDRESS", NULL, "where visitors come (:8080; 127.0.0.1:8080 for localhost)", .set = set_edge},
    {"control-listen", "ADDRESS", NULL, "where tunnel clients come (:7777; 127.0.0.1:7777 for localhost)",
     .set = set_control},
    {"admin-listen", "ADDRESS", NULL, "metrics and administration (127.0.0.1:9090)", .set = set_admin},
    {"tls-mode", "MODE", NULL, "off, or files: TLS for visitors and clients (off)", .set = set_tls_mode},
    {"tls-cert", "PEM", NULL, "certificate chain, for --tls-mode files; several, chosen by the name that is asked for",
     .repeatable = true, .set = set_tls_cert},
    {"tls-key", "PEM", NULL, "its private key; as many as certificates, in the same order", .repeatable = true,
     .set = set_tls_key},
    {"tls-ocsp", "DER", NULL, "OCSP response to staple to the certificate before it", .repeatable = true,
     .set = set_tls_ocsp},
    {"redirect-listen", "ADDRESS", NULL, "where visitors in the clear are sent on to https (nowhere)",
     .set = set_redirect},
    {"hsts", "SECONDS", NULL, "Strict-Transport-Security; SECONDS,includeSubDomains is the stronger form (none)",
     .set = set_hsts},
    {"public-scheme", "SCHEME", NULL, "scheme of the URLs that clients are told (https; http for localhost)",
     .set = set_public_scheme},
    {"public-port", "PORT", NULL, "port of the URLs that clients are told, if it is not the scheme's own",
     .set = set_public_port},
    {"max-concurrent", "N", NULL, "requests in flight of one tunnel (256)", .set = set_max_concurrent},
    {"max-idle-streams", "N", NULL,
     "besides these, requests of one tunnel that are answered and carry nothing for 10 s (4096)", .set = set_max_still},
    {"max-request-body-bytes", "BYTES", NULL, "larger request bodies get 413; 0: no limit (0)",
     .set = set_max_request_body},
    {"memory-budget", "BYTES", NULL, "for bodies on their way; new requests get 503 when it is spent (1G)",
     .set = set_memory_budget},
    {"upgrade-idle-timeout", "TIME", NULL,
     "WebSockets and other upgrades that carry nothing for so long are closed; 0: never (0)", .set = set_upgrade_idle},
    {"response-timeout", "TIME", NULL,
     "the most from the end of a request to the head of its answer, whatever its client allows; 0: no bound (0; 130s "
     "for "
     "clients of 0.1, which do not tell)",
     .set = set_answer_timeout},
    {"max-connections-per-address", "N", NULL, "visitors' connections from one address, or IPv6 /64 (no limit)",
     .set = set_address_connections},
    {"max-connects-per-second", "N", NULL,
     "new connections from one address, or IPv6 /64; a burst of five times that (no limit)",
     .set = set_address_connects},
    {"max-requests-per-second", "N", NULL,
     "requests from one address, or IPv6 /64; a burst of five times that (no limit)", .set = set_address_requests},
    {"head-timeout", "TIME", NULL, "for a visitor's TLS handshake and request head (15s)", .set = set_head_timeout},
    {"idle-timeout", "TIME", NULL, "for a visitor's connection without a request (75s)", .set = set_idle_timeout},
    {"stall-timeout", "TIME", NULL,
     "for a body, either way, of which nothing moves, while memory is short; 0: for ever (60s)",
     .set = set_stall_timeout},
    {"grace", "TIME", NULL, "after SIGTERM, for what is in flight; 0: none (30s)", .set = set_grace},
    {"ping-interval", "TIME", NULL, "how often a tunnel client is asked whether it lives (5s)",
     .set = set_ping_interval},
    {"ping-timeout", "TIME", NULL, "how long nothing may be heard of a client before its tunnel is closed (15s)",
     .set = set_ping_timeout},
    {"proxy-protocol-from", "NETWORKS", NULL,
     "addresses of TCP proxies, such as 127.0.0.1,10.0.0.0/8: their connections to the edge begin with a PROXY header",
     .repeatable = true, .set = add_proxy_senders},
    {"trusted-proxies", "NETWORKS", NULL,
     "addresses of HTTP proxies whose X-Forwarded-For, -Proto and -Host are believed", .repeatable = true,
     .set = add_trusted_proxies},
    {"forwarded", NULL, NULL, "tell local services who visits in Forwarded (RFC 7239) too", .set = set_forwarded},
    {"upgrades", "PROTOCOLS", NULL, "what visitors may upgrade to, such as websocket,tcp, or none (any but HTTP)",
     .set = set_upgrades},
    {"shared-cookies", NULL, NULL, "tenants are one family: let them set cookies for the base host",
     .set = set_shared_cookies},
    {"user", "NAME[:GROUP]", NULL, "whom root becomes after the ports are bound", .set = set_user},
    {"pid-file", "PATH", NULL, "where the process id is written; an upgrade changes it", .set = set_pid_file},
    {"workers", "N", NULL, "threads that serve (one a core)", .set = set_workers},
    {"database-url", "URL", "DATABASE_URL",
     "sqlite:/path/file.db or postgres://...; a SQLite file of your own unless given", .secret = true,
     .set = set_database},
    {"io-uring", "WHEN", "KAVILO_IO_URING",
     "auto or off (auto): many transfers in one system call where the kernel can", .set = set_io_uring},
    {"log-level", "LEVEL", NULL, "error, warn, info or debug (info)", .set = set_log_level},
    {"log-format", "FORMAT", NULL, "text or json (text)", .set = set_log_format},
    {.name = NULL},
};

/* ---- what they are together ------------------------------------------------------------------------------------ */

static bool is_localhost(const char *host)
{
    static const char name[] = "localhost";
    size_t len = strlen(host), tail = sizeof(name) - 1;
    return strcmp(host, name) == 0 ||
           (len > tail && host[len - tail - 1] == '.' && strcmp(host + len - tail, name) == 0);
}

static void set_default(char *into, size_t size, const char *value)
{
    if (!into[0])
        snprintf(into, size, "%s", value);
}

/* Every certificate has its key, and is there once: a file's name is what tells it from the others in metrics. */
static int settle_tls(const struct serve_settings *s)
{
    bool tls = strcmp(s->tls_mode, "files") == 0;
    if (tls && (s->tls_certs == 0 || s->tls_keys == 0))
        return cli_usage_error("--tls-mode files needs --tls-cert and --tls-key");
    if (!tls && s->hsts[0])
        return cli_usage_error(
            "--hsts is used with --tls-mode files only; otherwise whatever has the certificates says it");
    if (!tls && (s->tls_certs > 0 || s->tls_keys > 0))
        return cli_usage_error("--tls-cert and --tls-key are used with --tls-mode files only");
    if (s->tls_certs != s->tls_keys)
        return cli_usage_error("--tls-cert was given %u times and --tls-key %u times; they go in pairs", s->tls_certs,
                               s->tls_keys);
    for (unsigned i = 0; i < s->tls_certs; i++)
        for (unsigned j = 0; j < i; j++)
            if (strcmp(s->tls[i].cert, s->tls[j].cert) == 0)
                return cli_usage_error("--tls-cert '%s' was given twice", s->tls[i].cert);
    return CLI_EXIT_OK;
}

int serve_settle(struct serve_settings *s)
{
    set_default(s->base_host, sizeof(s->base_host), "localhost");
    bool local = is_localhost(s->base_host);
    set_default(s->edge, sizeof(s->edge), local ? "127.0.0.1:8080" : ":8080");
    set_default(s->control, sizeof(s->control), local ? "127.0.0.1:7777" : ":7777");
    set_default(s->admin, sizeof(s->admin), "127.0.0.1:9090");
    if (!s->has_tls_mode)
        set_default(s->tls_mode, sizeof(s->tls_mode), "off");
    bool tls = strcmp(s->tls_mode, "files") == 0;
    int status = settle_tls(s);
    if (status != CLI_EXIT_OK)
        return status;
    /* Without certificates of its own on a public name, a server stands behind something that has them. */
    set_default(s->public_scheme, sizeof(s->public_scheme), tls || !local ? "https" : "http");
    if (s->redirect[0] && strcmp(s->public_scheme, "https") != 0)
        return cli_usage_error("--redirect-listen leads to https, and visitors come by --public-scheme http");
    if (s->max_request_body == 0)
        s->max_request_body = UINT64_MAX;
    if (!s->memory_budget)
        s->memory_budget = LIMIT_BUDGET_BYTES;
    if (!s->max_concurrent)
        s->max_concurrent = LIMIT_CONCURRENT;
    if (!s->has_max_still)
        s->max_still = LIMIT_STILL_STREAMS;
    if (!s->has_grace)
        s->grace_ms = LIMIT_GRACE_MS;
    if (!s->head_timeout_ms)
        s->head_timeout_ms = LIMIT_HEAD_MS;
    if (!s->idle_timeout_ms)
        s->idle_timeout_ms = LIMIT_IDLE_MS;
    if (!s->has_stall_timeout)
        s->stall_timeout_ms = LIMIT_PROGRESS_MS;
    if (!s->has_log_level)
        s->log_level = LOG_LEVEL_INFO;
    if (!s->workers) {
        unsigned cores = uv_available_parallelism();
        s->workers = cores > WORKERS_MAX ? WORKERS_MAX : cores;
    }
    return cli_settle_pings(&s->ping_ms, &s->dead_ms);
}
