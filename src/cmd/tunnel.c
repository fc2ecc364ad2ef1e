/* kavilo-tunnel: the table of its commands. */
#include "cmd/cli.h"
#include "cmd/tunnel_login.h"
#include "cmd/tunnel_run.h"

static const struct cli_command commands[] = {
    TUNNEL_RUN_COMMAND,
    TUNNEL_LOGIN_COMMAND,
    TUNNEL_LOGOUT_COMMAND,
    {.name = NULL},
};

int main(int argc, char **argv)
{
    return cli_main("kavilo-tunnel", "the client of self-hosted HTTP tunnels", commands, argc, argv);
}
