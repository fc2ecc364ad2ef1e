/*
 * `kavilo-tunnel tunnel`: gives a local service a public URL for as long as it runs.
 *
 * Standard output carries the three lines of a tunnel that is up, each time it comes up, and nothing else; the log goes
 * to standard error. The exit status is CLI_EXIT_OK after a signal, CLI_EXIT_USAGE for a value that cannot work
 * (nothing was started then) and CLI_EXIT_FAILED when the server refused the tunnel for good.
 *
 * tunnel.c puts TUNNEL_RUN_COMMAND into its table; tunnel_run_options.c has the flags.
 */
#ifndef KV_CMD_TUNNEL_RUN_H
#define KV_CMD_TUNNEL_RUN_H

#include <stdbool.h>

#include "base/log.h"
#include "client/url.h"
#include "cmd/cli.h"

/* As the command line and the environment say; texts are NULL, and times have their `has_`, when not given. */
struct tunnel_run {
    struct url url;
    const char *name;
    const char *endpoint, *token, *ca_cert, *proxy; /* not resolved yet: the settings file may say more */
    const char *host_header;
    bool no_rewrite, no_subdomains;
    const char *origin_ca;
    unsigned long connect_ms, response_ms;
    unsigned long ping_ms, dead_ms; /* 0: not given */
    enum log_level log_level;
    enum log_format log_format;
    bool takeover, origin_insecure, io_uring_off, has_connect, has_response, has_log_level;
};

extern const struct cli_option tunnel_run_options[];
extern const char tunnel_run_details[];

int tunnel_run(void *settings);

#define TUNNEL_RUN_COMMAND                                                                                             \
    {                                                                                                                  \
        "tunnel", "open a tunnel to a service on this machine", tunnel_run_details, tunnel_run_options,                \
            sizeof(struct tunnel_run), tunnel_run                                                                      \
    }

#endif
