/*
 * Command lines of both programs: a table of commands, each with a table of options. `--name value`, `--name=value`,
 * switches, `--help` everywhere. Whatever cannot work is one sentence on standard error and exit status 2.
 *
 *     program --help | --version | help [command]        the overview, KV_VERSION, one command's page
 *     program command [--option value]...                 parsed into the command's zeroed settings, then run
 *
 * An option's value comes from the command line or, when it is not there, from its environment variable (an empty
 * variable counts as unset). The sentence about a bad value names the place it came from. All of it runs on the main
 * thread before any other is started.
 */
#ifndef KV_CMD_CLI_H
#define KV_CMD_CLI_H

#include <stdbool.h>
#include <stddef.h>

#define CLI_ERROR_LEN 512

enum {
    CLI_EXIT_OK = 0,
    CLI_EXIT_FAILED = 1, /* the thing was tried and did not work */
    CLI_EXIT_USAGE = 2,  /* the thing cannot be tried: flag, environment, file, address */
};

struct cli_option {
    const char *name;        /* without dashes: "base-host" */
    const char *value_name;  /* "HOST" in the help; NULL for a switch, whose set gets "true" */
    const char *environment; /* variable that gives the value when the flag is absent; NULL for none */
    const char *help;        /* one line, wrapped where it is printed */
    bool required;
    bool repeatable; /* set is called once for each time it is given; otherwise twice is an error */
    bool secret;     /* the value is never shown in a sentence (tokens, URLs with passwords) */
    /* Stores the value into the command's own struct; `value` lives until the process ends. 0, or negative with a
     * sentence in error[CLI_ERROR_LEN] that says why the value cannot be (without naming flag and value: the caller of
     * set puts them in front). */
    int (*set)(void *into, const char *value, char *error);
};

struct cli_command {
    const char *name;                 /* "serve", or two words: "admin create-user" */
    const char *summary;              /* one line for the list */
    const char *details;              /* further paragraph(s) of --help, or NULL */
    const struct cli_option *options; /* ends with a NULL name; NULL for none */
    size_t settings_size;             /* of the zeroed struct that `set` and `run` get; it is wiped after run */
    int (*run)(void *settings);       /* returns the exit status */
};

/* Picks the command, parses, runs; prints help or the sentence otherwise. Commands end with a NULL name. Returns the
 * exit status. */
int cli_main(const char *program, const char *summary, const struct cli_command *commands, int argc, char **argv);

/* The command line that cli_main was given, NULL at its end. Valid until the process ends. */
char **cli_arguments(void);

/* One sentence on standard error, prefixed with the program's name; returns CLI_EXIT_USAGE for `return`. */
int cli_usage_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same, returns CLI_EXIT_FAILED. */
int cli_failure(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Reads one secret line: from a terminal without echo and with the prompt on standard error, else from standard input
 * as it comes. The line's end is cut. 0; KV_ELIMIT when it does not fit out[size]; KV_EINVAL when it holds a NUL;
 * KV_ENOTFOUND at the end of input; KV_ECANCELED when the terminal said so (Ctrl-C ends the process as usual, after the
 * echo is back); KV_EIO. `out` is wiped on failure. */
int cli_read_secret(const char *prompt, char *out, size_t size);

/* Ready-made `set` helpers for common values; `into` is the field itself. Each returns 0, or KV_EINVAL with the reason
 * in error[CLI_ERROR_LEN]. */

/* A copy of a non-empty value that fits, NUL included. */
int cli_set_string(char *into, size_t size, const char *value, char *error);
/* An address to listen on, as sockaddr_parse (io/listener.h) takes it; kept as text. */
int cli_set_port_or_address(char *into, size_t size, const char *value, char *error);
int cli_set_unsigned(unsigned long *into, unsigned long min, unsigned long max, const char *value, char *error);
/* "30", "30s", "5m", "1h", "1500ms" -> milliseconds, at most 1000 hours, which fit an unsigned int. A bare number is
 * seconds. 0 is refused. */
int cli_set_duration(unsigned long *into_ms, const char *value, char *error);
/* The same for a wait that 0 switches off. */
int cli_set_wait(unsigned long *into_ms, const char *value, char *error);
/* --ping-interval and --ping-timeout: a duration from LIMIT_PING_MIN_MS to LIMIT_PING_MAX_MS. */
int cli_set_ping(unsigned long *into_ms, const char *value, char *error);
/* Fills in the defaults of the two for those that are 0 and checks them together. CLI_EXIT_OK, or the exit status, and
 * then the sentence has been printed. */
int cli_settle_pings(unsigned long *interval_ms, unsigned long *timeout_ms);
/* --io-uring: "auto" or "off". */
int cli_set_io_uring(bool *into_off, const char *value, char *error);
/* "64k", "10M", "1G" (powers of 1024) or plain bytes. */
int cli_set_bytes(unsigned long long *into, const char *value, char *error);

#endif
