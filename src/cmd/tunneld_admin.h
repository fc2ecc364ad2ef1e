/*
 * The admin commands of kavilo-tunneld: accounts, tokens, names and the database itself. They open the store by
 * themselves, beside a running server, which notices within 2 s. Those about live tunnels ask the server instead.
 *
 * Standard output carries only the thing made or asked for (with --json, one JSON document); words for people go to
 * standard error. Exit status: CLI_EXIT_USAGE when a value cannot be right or the database cannot be opened,
 * CLI_EXIT_FAILED when the database says no.
 *
 * tunneld.c puts TUNNELD_ADMIN_COMMANDS into its table. Shared parts: tunneld_admin.c (settings, opening),
 * tunneld_admin_output.c (tables and JSON).
 */
#ifndef KV_CMD_TUNNELD_ADMIN_H
#define KV_CMD_TUNNELD_ADMIN_H

#include <stdio.h>

#include "cmd/cli.h"
#include "store/store_admin.h"

#define ADMIN_TEXT_LEN 512

/* What the options of all of them are stored into; texts are "" when not given. */
struct admin_settings {
    char database[4096]; /* a URL; may hold a password */
    char email[ADMIN_TEXT_LEN];
    char name[ADMIN_TEXT_LEN];
    char slug[ADMIN_TEXT_LEN];
    char id[ADMIN_TEXT_LEN];
    char subdomain[ADMIN_TEXT_LEN];
    char file[4096];
    char admin_url[ADMIN_TEXT_LEN];
    int64_t expires;
    char endpoint[ADMIN_TEXT_LEN];
    bool rewrite;
    bool yes;
    bool all;
    bool dry_run;
    bool json;
};

/* ---- tunneld_admin.c ------------------------------------------------------------------------------------------- */

/* Opens the store that --database-url, DATABASE_URL or the default names, and brings its schema up to date (admin_open)
 * or leaves it as it is (admin_open_as_is). CLI_EXIT_OK and *store, or the exit status, and then the sentence has been
 * printed. */
int admin_open(const struct admin_settings *settings, struct store **store);
int admin_open_as_is(const struct admin_settings *settings, struct store **store);

/* Prints why a call failed, if it did, closes the store and returns the exit status of that kv_error. What was printed
 * to standard output and did not get there is a failure too. */
int admin_close(struct store *store, int error);

/* `set` functions of options that several commands have. */
int admin_set_database(void *into, const char *value, char *error);
int admin_set_email(void *into, const char *value, char *error);
int admin_set_name(void *into, const char *value, char *error);
int admin_set_json(void *into, const char *value, char *error);

#define ADMIN_OPTION_DATABASE                                                                                          \
    {                                                                                                                  \
        "database-url", "URL", "DATABASE_URL",                                                                         \
            "sqlite:/path/file.db or postgres://...; by default a SQLite file of yours", .secret = true,               \
                                                                                         .set = admin_set_database     \
    }
#define ADMIN_OPTION_EMAIL(help)                                                                                       \
    {                                                                                                                  \
        "email", "ADDRESS", NULL, help, .set = admin_set_email                                                         \
    }
#define ADMIN_OPTION_JSON                                                                                              \
    {                                                                                                                  \
        "json", NULL, NULL, "print JSON", .set = admin_set_json                                                        \
    }

/* ---- tunneld_admin_output.c ------------------------------------------------------------------------------------ */

/* How a column's text becomes JSON: as a string, as a string or null for "", as a number, as true for any text. */
enum admin_type {
    ADMIN_TEXT,
    ADMIN_OPTIONAL,
    ADMIN_NUMBER,
    ADMIN_BOOL
};

struct admin_column {
    const char *name; /* of the JSON member; in capitals the heading of the table */
    enum admin_type type;
};

#define ADMIN_COLUMNS_MAX 8

/* Rows that are collected to be printed, aligned or as a JSON array of objects. */
struct admin_table {
    const struct admin_column *columns; /* ends with a NULL name */
    char **cells;                       /* rows times columns */
    size_t rows, room, width;           /* width: columns */
};

void admin_table_init(struct admin_table *table, const struct admin_column *columns);
/* Copies one row; `cells` has a text per column. 0 or KV_ENOMEM. */
int admin_table_add(struct admin_table *table, const char *const *cells);
/* Prints all to standard output; nothing but JSON's "[]" when there are no rows. 0 or KV_ENOMEM. */
int admin_table_print(const struct admin_table *table, bool json);
void admin_table_free(struct admin_table *table);

/* Prints one object with these columns. 0 or KV_ENOMEM. */
int admin_print_object(const struct admin_column *columns, const char *const *cells);

/* ---- the commands: their options, and what they do ------------------------------------------------------------- */

#define ADMIN_DECLARE(symbol)                                                                                          \
    extern const struct cli_option symbol##_options[];                                                                 \
    int symbol(void *settings);

ADMIN_DECLARE(admin_create_user) /* tunneld_admin_users.c */
ADMIN_DECLARE(admin_list_users)
ADMIN_DECLARE(admin_disable_user)
ADMIN_DECLARE(admin_enable_user)
ADMIN_DECLARE(admin_delete_user)
ADMIN_DECLARE(admin_set_slug)
ADMIN_DECLARE(admin_issue_token) /* tunneld_admin_tokens.c */
ADMIN_DECLARE(admin_list_tokens)
ADMIN_DECLARE(admin_revoke_token)
ADMIN_DECLARE(admin_list_names) /* tunneld_admin_names.c */
ADMIN_DECLARE(admin_release_name)
ADMIN_DECLARE(admin_migrate) /* tunneld_admin_database.c */
ADMIN_DECLARE(admin_check)
ADMIN_DECLARE(admin_export) /* tunneld_admin_transfer.c */
ADMIN_DECLARE(admin_import)
ADMIN_DECLARE(admin_tunnels) /* tunneld_admin_live.c */
ADMIN_DECLARE(admin_kick)

#define ADMIN_COMMAND(name, symbol, summary, details)                                                                  \
    {                                                                                                                  \
        name, summary, details, symbol##_options, sizeof(struct admin_settings), symbol                                \
    }

/* clang-format off */
#define TUNNELD_ADMIN_COMMANDS                                                                                         \
    ADMIN_COMMAND("admin create-user", admin_create_user, "make a user; prints the slug",                              \
        "The slug is the part of the address before the '@', in lower case, with four random hex digits behind it. It "\
        "becomes the end of the user's stable host names."),                                                           \
    ADMIN_COMMAND("admin list-users", admin_list_users, "list the users", NULL),                                       \
    ADMIN_COMMAND("admin disable-user", admin_disable_user, "refuse a user's tokens, and close the tunnels",           \
        "Nothing is lost; enable-user takes it back."),                                                                \
    ADMIN_COMMAND("admin enable-user", admin_enable_user, "take disable-user back", NULL),                             \
    ADMIN_COMMAND("admin delete-user", admin_delete_user, "delete a user, the tokens and the address",                 \
        "The names stay reserved, so that nobody else ever gets them. There is no way back."),                         \
    ADMIN_COMMAND("admin set-slug", admin_set_slug, "give a user another slug",                                        \
        "New names end in the new slug. Stored names keep their host names, unless --rewrite moves those that end in " \
        "the old slug; live tunnels of moved names are closed, and come back under the new host name."),               \
    ADMIN_COMMAND("admin issue-token", admin_issue_token, "make a token for a user; prints it, once",                  \
        "The token is shown now and never again: the database keeps only a hash of it."),                              \
    ADMIN_COMMAND("admin list-tokens", admin_list_tokens, "list tokens, without what only their holders know", NULL),  \
    ADMIN_COMMAND("admin revoke-token", admin_revoke_token, "revoke a token, and close its tunnels",                   \
        "Name it by --id, as list-tokens shows it, or by --email and --name; of several tokens with one name all are " \
        "revoked."),                                                                                                   \
    ADMIN_COMMAND("admin list-names", admin_list_names, "list the stored names and their host names", NULL),           \
    ADMIN_COMMAND("admin release-name", admin_release_name, "take a stored name out of use, and close its tunnel",     \
        "Its host name stays reserved: only the same account gets it again, by connecting with the name. Name it by "  \
        "--email and --name, or by --subdomain."),                                                                     \
    ADMIN_COMMAND("admin migrate", admin_migrate, "bring the database's schema up to date",                            \
        "serve and the other admin commands do this by themselves."),                                                  \
    ADMIN_COMMAND("admin check", admin_check, "look for damage and broken rules in the database",                      \
        "Prints a line for each problem. Status 0 when there is none, 1 otherwise."),                                  \
    ADMIN_COMMAND("admin export", admin_export, "write all accounts as JSON lines",                                    \
        "Hashes of tokens are in it, so that they go on working after admin import; token texts are nowhere."),        \
    ADMIN_COMMAND("admin import", admin_import, "read what admin export wrote into a database",                        \
        "All or nothing: a row that is already there, or collides with one that is, ends it with nothing changed."),   \
    ADMIN_COMMAND("admin tunnels", admin_tunnels, "list the live tunnels of a running server",                         \
        "It asks the server's admin listener, and no database."),                                                      \
    ADMIN_COMMAND("admin kick", admin_kick, "close a live tunnel",                                                     \
        "Its client connects again by itself, as after any lost connection: to keep somebody out, revoke the token or "\
        "disable the user.")
/* clang-format on */

#endif
