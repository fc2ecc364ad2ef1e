/*
 * The admin commands of kavilo-tunneld: accounts, tokens, names and the database itself. They open the store by
 * themselves, beside a running server, which notices within 2 s.
 *
 * Standard output carries only the thing made or asked for (with --json, JSON); words for people go to standard error.
 * Exit status: CLI_EXIT_USAGE when a value cannot be right or the database cannot be opened, CLI_EXIT_FAILED when the
 * database says no.
 *
 * tunneld.c puts TUNNELD_ADMIN_COMMANDS into its table.
 */
#ifndef KV_CMD_TUNNELD_ADMIN_H
#define KV_CMD_TUNNELD_ADMIN_H

#include "cmd/cli.h"
#include "store/store.h"

#define ADMIN_TEXT_LEN 512

/* What the options of all of them are stored into; texts are "" when not given. */
struct admin_settings {
    char database[4096]; /* a URL; may hold a password */
    char email[ADMIN_TEXT_LEN];
    char name[ADMIN_TEXT_LEN];
    bool json;
};

/* Opens the store that --database-url, DATABASE_URL or the default names, and brings its schema up to date. CLI_EXIT_OK
 * and *store, or the exit status, and then the sentence has been printed. */
int admin_open(const struct admin_settings *settings, struct store **store);

/* Prints why a call failed, if it did, closes the store and returns the exit status of that kv_error. */
int admin_close(struct store *store, int error);

/* `set` functions of options that several commands have. */
int admin_set_database(void *into, const char *value, char *error);
int admin_set_email(void *into, const char *value, char *error);
int admin_set_name(void *into, const char *value, char *error);
int admin_set_json(void *into, const char *value, char *error);

#define ADMIN_OPTION_DATABASE                                                                                          \
    {                                                                                                                  \
        "database-url", "URL", "DATABASE_URL",                                                                         \
            "sqlite:/path/file.db or postgres://...; a SQLite file of your own unless given",                          \
            .secret = true, .set = admin_set_database                                                                  \
    }
#define ADMIN_OPTION_JSON                                                                                              \
    {                                                                                                                  \
        "json", NULL, NULL, "print JSON", .set = admin_set_json                                                        \
    }

/* tunneld_admin_users.c */
extern const struct cli_option admin_create_user_options[];
int admin_create_user(void *settings);

/* tunneld_admin_tokens.c */
extern const struct cli_option admin_issue_token_options[];
int admin_issue_token(void *settings);

#define ADMIN_COMMAND(name, symbol, summary, details)                                                                  \
    {                                                                                                                  \
        name, summary, details, symbol##_options, sizeof(struct admin_settings), symbol                                \
    }

/* clang-format off */
#define TUNNELD_ADMIN_COMMANDS                                                                                         \
    ADMIN_COMMAND("admin create-user", admin_create_user, "make a user; prints the slug",                              \
        "The slug is the part of the address before the '@', in lower case, with four random hex digits behind it. It "\
        "becomes the end of the user's stable host names."),                                                           \
    ADMIN_COMMAND("admin issue-token", admin_issue_token, "make a token for a user; prints it, once",                  \
        "The token is shown now and never again: the database keeps only a hash of it.")
/* clang-format on */

#endif
