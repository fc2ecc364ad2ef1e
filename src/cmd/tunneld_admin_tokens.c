/* Tokens: made, listed and revoked. */
#include <string.h>

#include "base/blake3.h"
#include "cmd/tunneld_admin.h"

/* ---- issue-token ----------------------------------------------------------------------------------------------- */

/* "30d", "12h" from now, or a time that store_time_parse() reads. */
static int set_expires(void *into, const char *value, char *error)
{
    static const struct {
        char unit;
        uint64_t seconds;
    } units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}, {'w', 7 * 86400}, {'y', 365 * 86400}};
    struct admin_settings *s = into;
    struct slice text = slice_of(value);
    uint64_t number;
    if (store_time_parse(text, &s->expires)) {
        if (s->expires > store_now())
            return 0;
        snprintf(error, CLI_ERROR_LEN, "is in the past");
        return KV_EINVAL;
    }
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (text.len < 2 || text.data[text.len - 1] != units[i].unit ||
            !slice_to_u64((struct slice){text.data, text.len - 1}, &number))
            continue;
        /* A hundred years are enough, and no product of these overflows. */
        if (number == 0 || number > 100ULL * 365 * 86400 / units[i].seconds) {
            snprintf(error, CLI_ERROR_LEN, "must be more than nothing and at most 100y");
            return KV_EINVAL;
        }
        s->expires = store_now() + (int64_t)(number * units[i].seconds);
        return 0;
    }
    snprintf(error, CLI_ERROR_LEN,
             "is neither a time from now (90d, 12h) nor a date (2027-01-31, 2027-01-31T12:00:00Z)");
    return KV_EINVAL;
}

static int set_endpoint(void *into, const char *value, char *error)
{
    struct admin_settings *s = into;
    return cli_set_string(s->endpoint, sizeof(s->endpoint), value, error);
}

/* The tokens that a user has under a name already. */
struct namesakes {
    const char *name;
    unsigned count;
};

static int count_namesake(void *arg, const struct store_token *token)
{
    struct namesakes *namesakes = arg;
    namesakes->count += strcmp(token->name, namesakes->name) == 0;
    return KV_OK;
}

/* For people; standard output has the token alone. */
static void explain_token(const struct admin_settings *s, const char *id, const char *expires, unsigned namesakes)
{
    fprintf(stderr, "made the token '%s' (%s) for %s%s%s; it is shown this once\n", s->name, id, s->email,
            expires[0] ? ", good until " : "", expires);
    if (namesakes > 0)
        fprintf(stderr, "there %s %u more of that name; list-tokens tells them apart by id\n",
                namesakes == 1 ? "is" : "are", namesakes);
    fprintf(stderr, "on the user's machine, which asks for it:\n  kavilo-tunnel login --endpoint %s\n",
            s->endpoint[0] ? s->endpoint : "https://BASE_HOST:7777");
}

const struct cli_option admin_issue_token_options[] = {
    {"email", "ADDRESS", NULL, "whose token it is", .required = true, .set = admin_set_email},
    {"name", "NAME", NULL, "what it is for, to tell it from others", .required = true, .set = admin_set_name},
    {"endpoint", "URL", "KAVILO_ENDPOINT", "the server as clients reach it, for the line that the user needs",
     .set = set_endpoint},
    {"expires", "WHEN", NULL, "90d, 12h, or a date in UTC; never unless given", .set = set_expires},
    ADMIN_OPTION_JSON,
    ADMIN_OPTION_DATABASE,
    {0},
};

int admin_issue_token(void *settings)
{
    static const struct admin_column columns[] = {{"token", ADMIN_TEXT},          {"id", ADMIN_TEXT},
                                                  {"email", ADMIN_TEXT},          {"name", ADMIN_TEXT},
                                                  {"expires_at", ADMIN_OPTIONAL}, {0}};
    const struct admin_settings *s = settings;
    struct store *store;
    char token[STORE_TOKEN_LEN + 1], id[STORE_ID_LEN + 1], expires[STORE_TIME_LEN + 1] = "";
    int status = admin_open(s, &store);
    if (status != CLI_EXIT_OK)
        return status;
    if (s->expires)
        store_time_format(s->expires, expires);
    struct namesakes namesakes = {s->name, 0};
    int error = store_list_tokens(store, slice_of(s->email), count_namesake, &namesakes);
    if (error == KV_OK)
        error = store_issue_token_until(store, slice_of(s->email), slice_of(s->name), s->expires, token, id);
    if (error == KV_OK && s->json)
        error = admin_print_object(columns, (const char *[]){token, id, s->email, s->name, expires});
    else if (error == KV_OK) {
        explain_token(s, id, expires, namesakes.count);
        printf("%s\n", token);
    }
    status = admin_close(store, error);
    secret_wipe(token, sizeof(token));
    return status;
}

/* ---- list-tokens ----------------------------------------------------------------------------------------------- */

const struct cli_option admin_list_tokens_options[] = {
    ADMIN_OPTION_EMAIL("only this user's"),
    ADMIN_OPTION_JSON,
    ADMIN_OPTION_DATABASE,
    {0},
};

static int add_token(void *arg, const struct store_token *token)
{
    return admin_table_add(arg, (const char *[]){token->id, token->email, token->name, token->created_at,
                                                 token->last_used_at, token->expires_at});
}

int admin_list_tokens(void *settings)
{
    static const struct admin_column columns[] = {
        {"id", ADMIN_TEXT},
        {"email", ADMIN_TEXT},
        {"name", ADMIN_TEXT},
        {"created_at", ADMIN_TEXT},
        {"last_used_at", ADMIN_OPTIONAL},
        {"expires_at", ADMIN_OPTIONAL},
        {0},
    };
    const struct admin_settings *s = settings;
    struct store *store;
    struct admin_table table;
    int status = admin_open(s, &store);
    if (status != CLI_EXIT_OK)
        return status;
    admin_table_init(&table, columns);
    int error = store_list_tokens(store, slice_of(s->email), add_token, &table);
    if (error == KV_OK)
        error = admin_table_print(&table, s->json);
    if (error == KV_OK && table.rows == 0)
        fprintf(stderr, "there are no tokens; admin issue-token makes one\n");
    admin_table_free(&table);
    return admin_close(store, error);
}

/* ---- revoke-token ---------------------------------------------------------------------------------------------- */

static int set_id(void *into, const char *value, char *error)
{
    struct admin_settings *s = into;
    return cli_set_string(s->id, sizeof(s->id), value, error);
}

const struct cli_option admin_revoke_token_options[] = {
    {"id", "ID", NULL, "which, as list-tokens shows it", .set = set_id},
    ADMIN_OPTION_EMAIL("or whose, together with --name"),
    {"name", "NAME", NULL, "the token's name", .set = admin_set_name},
    ADMIN_OPTION_JSON,
    ADMIN_OPTION_DATABASE,
    {0},
};

int admin_revoke_token(void *settings)
{
    static const struct admin_column columns[] = {{"revoked", ADMIN_NUMBER}, {0}};
    const struct admin_settings *s = settings;
    struct store *store;
    unsigned revoked = 1;
    char count[24];
    bool named = s->email[0] && s->name[0];
    if ((s->id[0] != '\0') == named || (!named && (s->email[0] || s->name[0])))
        return cli_usage_error("name the token either by --id or by --email and --name");
    int status = admin_open(s, &store);
    if (status != CLI_EXIT_OK)
        return status;
    int error = named ? store_revoke_tokens_named(store, slice_of(s->email), slice_of(s->name), &revoked)
                      : store_revoke_token(store, slice_of(s->id));
    snprintf(count, sizeof(count), "%u", revoked);
    if (error == KV_OK && s->json)
        error = admin_print_object(columns, (const char *[]){count});
    else if (error == KV_OK)
        fprintf(stderr, "revoked %s token%s; live tunnels close within 2 s\n", count, revoked == 1 ? "" : "s");
    return admin_close(store, error);
}
