/* What the files of the command line share with each other; nobody else includes this. */
#ifndef KV_CMD_CLI_IMPL_H
#define KV_CMD_CLI_IMPL_H

#include <stdio.h>

#include "cmd/cli.h"

/* ---- cli_help.c ------------------------------------------------------------------------------------------------ */

/* The program's page: summary and list of commands. With `group` ("admin") only the commands that begin with it. */
void cli_help_program(FILE *to, const char *program, const char *summary, const struct cli_command *commands,
                      const char *group);
/* One command's page. */
void cli_help_command(FILE *to, const char *program, const struct cli_command *command);

/* The name in the table that a mistyped word was probably meant to be; NULL when none is near. */
const char *cli_nearest_command(const struct cli_command *commands, const char *word);
const char *cli_nearest_option(const struct cli_option *options, const char *word);

/* ---- cli.c ----------------------------------------------------------------------------------------------------- */

/* True when `name` is "<group> <something>". */
bool cli_in_group(const char *name, const char *group);

#endif
