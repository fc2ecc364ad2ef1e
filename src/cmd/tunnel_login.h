/*
 * `kavilo-tunnel login` stores a token, and where it is good for, in the user's settings file, and `logout` takes the
 * token out. Nothing is asked of any server without --check: a token can be stored before the network is there.
 *
 * tunnel.c puts both into its table.
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
    bool check;
};

extern const struct cli_option tunnel_login_options[], tunnel_logout_options[];
extern const char tunnel_login_details[], tunnel_logout_details[];

/* CLI_EXIT_USAGE for a token or a settings file that cannot be, CLI_EXIT_FAILED when the file cannot be written. */
int tunnel_login(void *settings);
int tunnel_logout(void *settings);

#define TUNNEL_LOGIN_COMMAND                                                                                           \
    {                                                                                                                  \
        "login", "store your token, so that tunnels need none on the command line", tunnel_login_details,              \
            tunnel_login_options, sizeof(struct tunnel_login), tunnel_login                                            \
    }

#define TUNNEL_LOGOUT_COMMAND                                                                                          \
    {                                                                                                                  \
        "logout", "forget the token that login stored", tunnel_logout_details, tunnel_logout_options, 0, tunnel_logout \
    }

#endif
