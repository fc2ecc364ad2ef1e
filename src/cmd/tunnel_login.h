/*
 * `kavilo-tunnel login`: stores a token, and where it is good for, in the user's settings file. Nothing is asked of any
 * server: a token can be stored before the network is there.
 *
 * tunnel.c puts TUNNEL_LOGIN_COMMAND into its table.
 */
#ifndef KV_CMD_TUNNEL_LOGIN_H
#define KV_CMD_TUNNEL_LOGIN_H

#include "base/limits.h"
#include "client/url.h"
#include "cmd/cli.h"

struct tunnel_login {
    char token[LIMIT_TOKEN_BYTES + 1]; /* "" when not given */
    const char *token_file;
    struct url endpoint; /* text is "" when not given */
    const char *ca_cert, *proxy;
};

extern const struct cli_option tunnel_login_options[];
extern const char tunnel_login_details[];

/* CLI_EXIT_USAGE for a token or a settings file that cannot be, CLI_EXIT_FAILED when the file cannot be written. */
int tunnel_login(void *settings);

#define TUNNEL_LOGIN_COMMAND                                                                                           \
    {                                                                                                                  \
        "login", "store your token, so that tunnels need none on the command line", tunnel_login_details,              \
            tunnel_login_options, sizeof(struct tunnel_login), tunnel_login                                            \
    }

#endif
