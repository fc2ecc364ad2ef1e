/* kavilo-tunneld: the table of its commands. */
#include "cmd/cli.h"
#include "cmd/tunneld_admin.h"
#include "cmd/tunneld_serve.h"

static const struct cli_command commands[] = {
    TUNNELD_SERVE_COMMAND,
    TUNNELD_ADMIN_COMMANDS,
    {.name = NULL},
};

int main(int argc, char **argv)
{
    return cli_main("kavilo-tunneld", "the server of self-hosted HTTP tunnels", commands, argc, argv);
}
