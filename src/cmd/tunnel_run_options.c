/* The flags of `kavilo-tunnel tunnel`: what each may be, and what the help says about it. */
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "client/settings.h"
#include "cmd/tunnel_run.h"
#include "http/syntax.h"

const char tunnel_run_details[] =
    "Connects to the server, prints the public URL, and passes every request that comes in there to the service. It "
    "reconnects by itself for as long as it runs; a service that is down is no reason to end. Ctrl-C ends it: requests "
    "in flight get two seconds, a second Ctrl-C cuts them off.\n\n"
    "Endpoint, token and CA come from the flags, else from the environment, else from what 'login' stored.";

static int set_url(void *into, const char *value, char *error)
{
    struct tunnel_run *run = into;
    return url_parse_service(slice_of(value), &run->url, error);
}

/* What no server could put in front of "-<slug>" in a label; the rest is the server's to say, in its own words. The
 * name is never changed. */
static int set_name(void *into, const char *value, char *error)
{
    struct tunnel_run *run = into;
    size_t len = strlen(value);
    run->name = value;
    if (len == 0)
        snprintf(error, CLI_ERROR_LEN, "must not be empty; leave --name out for a random name");
    else if (strspn(value, "abcdefghijklmnopqrstuvwxyz0123456789-") != len)
        snprintf(error, CLI_ERROR_LEN, "has more than a-z, 0-9 and '-' in it; it becomes a part of a host name");
    else if (value[0] == '-')
        snprintf(error, CLI_ERROR_LEN, "begins with a hyphen, as no host name does");
    else if (len > LIMIT_LABEL_BYTES - 2)
        snprintf(error, CLI_ERROR_LEN, "is too long; with what the server adds, a host name's label has %d characters",
                 LIMIT_LABEL_BYTES);
    else
        return KV_OK;
    return KV_EINVAL;
}

static int set_endpoint(void *into, const char *value, char *error)
{
    struct tunnel_run *run = into;
    struct url parsed;
    run->endpoint = value;
    return url_parse_endpoint(slice_of(value), &parsed, error);
}

static int set_token(void *into, const char *value, char *error)
{
    struct tunnel_run *run = into;
    run->token = value;
    return settings_check_token(slice_of(value), error);
}

static int set_ca_cert(void *into, const char *value, char *error)
{
    struct tunnel_run *run = into;
    run->ca_cert = value;
    return settings_check_ca_cert(value, error);
}

static int set_proxy(void *into, const char *value, char *error)
{
    struct tunnel_run *run = into;
    struct proxy parsed;
    run->proxy = value;
    int result = proxy_parse(slice_of(value), &parsed, error);
    proxy_wipe(&parsed);
    return result;
}

static int set_takeover(void *into, const char *value, char *error)
{
    (void)value;
    (void)error;
    ((struct tunnel_run *)into)->takeover = true;
    return KV_OK;
}

static int set_host_header(void *into, const char *value, char *error)
{
    struct tunnel_run *run = into;
    run->host_header = value;
    if (http_is_authority(slice_of(value)))
        return KV_OK;
    snprintf(error, CLI_ERROR_LEN, "is no host; give HOST or HOST:PORT");
    return KV_EINVAL;
}

static int set_subdomains(void *into, const char *value, char *error)
{
    struct tunnel_run *run = into;
    run->no_subdomains = strcmp(value, "off") == 0;
    if (run->no_subdomains || strcmp(value, "on") == 0)
        return KV_OK;
    snprintf(error, CLI_ERROR_LEN, "must be on or off");
    return KV_EINVAL;
}

static int set_no_rewrite(void *into, const char *value, char *error)
{
    (void)value;
    (void)error;
    ((struct tunnel_run *)into)->no_rewrite = true;
    return KV_OK;
}

static int set_origin_ca(void *into, const char *value, char *error)
{
    struct tunnel_run *run = into;
    run->origin_ca = value;
    return settings_check_ca_cert(value, error);
}

static int set_origin_insecure(void *into, const char *value, char *error)
{
    (void)value;
    (void)error;
    ((struct tunnel_run *)into)->origin_insecure = true;
    return KV_OK;
}

static int set_connect_timeout(void *into, const char *value, char *error)
{
    struct tunnel_run *run = into;
    run->has_connect = true;
    return cli_set_duration(&run->connect_ms, value, error);
}

static int set_response_timeout(void *into, const char *value, char *error)
{
    struct tunnel_run *run = into;
    run->has_response = true;
    return cli_set_wait(&run->response_ms, value, error);
}

static int set_ping_interval(void *into, const char *value, char *error)
{
    return cli_set_ping(&((struct tunnel_run *)into)->ping_ms, value, error);
}

static int set_ping_timeout(void *into, const char *value, char *error)
{
    return cli_set_ping(&((struct tunnel_run *)into)->dead_ms, value, error);
}

static int set_io_uring(void *into, const char *value, char *error)
{
    return cli_set_io_uring(&((struct tunnel_run *)into)->io_uring_off, value, error);
}

static int set_log_level(void *into, const char *value, char *error)
{
    struct tunnel_run *run = into;
    run->has_log_level = true;
    if (log_level_parse(value, &run->log_level))
        return KV_OK;
    snprintf(error, CLI_ERROR_LEN, "must be error, warn, info or debug");
    return KV_EINVAL;
}

static int set_log_format(void *into, const char *value, char *error)
{
    struct tunnel_run *run = into;
    if (log_format_parse(value, &run->log_format))
        return KV_OK;
    snprintf(error, CLI_ERROR_LEN, "must be text or json");
    return KV_EINVAL;
}

const struct cli_option tunnel_run_options[] = {
    {.name = "url",
     .value_name = "URL",
     .help = "the local service: a port, HOST:PORT, or a URL with http://, https:// or h2c:// (HTTP/2 without TLS, for "
             "gRPC)",
     .required = true,
     .set = set_url},
    {.name = "name",
     .value_name = "NAME",
     .help = "keep the public URL: it begins with NAME each time; without, it is a new random one",
     .set = set_name},
    {.name = "endpoint",
     .value_name = "URL",
     .environment = "KAVILO_ENDPOINT",
     .help = "the server to connect to; " SETTINGS_DEFAULT_ENDPOINT " unless given",
     .set = set_endpoint},
    {.name = "token",
     .value_name = "TOKEN",
     .environment = "KAVILO_TOKEN",
     .help = "your token; other users of this machine can see it on the command line, so prefer the environment or "
             "'login'",
     .secret = true,
     .set = set_token},
    {.name = "ca-cert",
     .value_name = "PEM",
     .environment = "KAVILO_CA_CERT",
     .help = "file of certificate authorities to trust for the server, instead of the system's",
     .set = set_ca_cert},
    {.name = "proxy",
     .value_name = "URL",
     .environment = "KAVILO_PROXY",
     .help =
         "the proxy on the way to the server: http://, https://, socks5:// or socks5h://[USER:PASSWORD@]HOST[:PORT], "
         "or none; HTTPS_PROXY, ALL_PROXY and NO_PROXY count unless given. A password is better kept in the "
         "environment or the settings file",
     .secret = true,
     .set = set_proxy},
    {.name = "takeover", .help = "take the name from another client of yours that holds it", .set = set_takeover},
    {.name = "subdomains",
     .value_name = "on|off",
     .help = "whether hosts with further labels in front of the public host name lead here too: on unless given",
     .set = set_subdomains},
    {.name = "host-header",
     .value_name = "HOST",
     .help = "what the service sees as Host, instead of the public host name",
     .set = set_host_header},
    {.name = "no-rewrite",
     .help = "leave fields as they are that name a place as one side knows it: WebDAV's Destination, and with "
             "--host-header Location, Content-Location, Refresh and the domains of cookies",
     .set = set_no_rewrite},
    {.name = "origin-ca",
     .value_name = "PEM",
     .help = "file of certificate authorities to trust for an https service, instead of the system's",
     .set = set_origin_ca},
    {.name = "origin-insecure",
     .help = "accept any certificate of an https service; on this machine's own addresses that is so without the flag, "
             "unless --origin-ca is given",
     .set = set_origin_insecure},
    {.name = "connect-timeout",
     .value_name = "TIME",
     .help = "how long a connection to the service may take: 10s unless given",
     .set = set_connect_timeout},
    {.name = "response-timeout",
     .value_name = "TIME",
     .help = "how long the service may take from a request's end to the beginning of its answer, 0 for ever: 120s "
             "unless given",
     .set = set_response_timeout},
    {.name = "ping-interval",
     .value_name = "TIME",
     .help = "how often the server is asked whether it lives: 5s unless given",
     .set = set_ping_interval},
    {.name = "ping-timeout",
     .value_name = "TIME",
     .help = "how long nothing may be heard of the server before the client connects anew: 15s unless given",
     .set = set_ping_timeout},
    {.name = "io-uring",
     .value_name = "WHEN",
     .environment = "KAVILO_IO_URING",
     .help = "auto: many transfers in one system call where the kernel can, or off: auto unless given",
     .set = set_io_uring},
    {.name = "log-level",
     .value_name = "LEVEL",
     .help = "error, warn, info or debug: info unless given",
     .set = set_log_level},
    {.name = "log-format", .value_name = "FORMAT", .help = "text or json: text unless given", .set = set_log_format},
    {.name = NULL},
};
