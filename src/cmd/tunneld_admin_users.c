/* Users: made, listed, disabled, deleted, and their slugs. */
#include <string.h>
#include <unistd.h>

#include "cmd/tunneld_admin.h"

/* ---- create-user ----------------------------------------------------------------------------------------------- */

const struct cli_option admin_create_user_options[] = {
    {"email", "ADDRESS", NULL, "the user's e-mail address", .required = true, .set = admin_set_email},
    ADMIN_OPTION_JSON,
    ADMIN_OPTION_DATABASE,
    {0},
};

int admin_create_user(void *settings)
{
    static const struct admin_column columns[] = {{"email", ADMIN_TEXT}, {"slug", ADMIN_TEXT}, {0}};
    const struct admin_settings *s = settings;
    struct store *store;
    char slug[LIMIT_LABEL_BYTES + 1];
    int status = admin_open(s, &store);
    if (status != CLI_EXIT_OK)
        return status;
    int error = store_create_user(store, slice_of(s->email), slug);
    if (error == KV_OK && s->json)
        error = admin_print_object(columns, (const char *[]){s->email, slug});
    else if (error == KV_OK) {
        fprintf(stderr, "made the user %s; stable names will end in -%s\n", s->email, slug);
        printf("%s\n", slug);
    }
    return admin_close(store, error);
}

/* ---- list-users ------------------------------------------------------------------------------------------------ */

const struct cli_option admin_list_users_options[] = {ADMIN_OPTION_JSON, ADMIN_OPTION_DATABASE, {0}};

static int add_user(void *arg, const struct store_user *user)
{
    char tokens[24], names[24];
    snprintf(tokens, sizeof(tokens), "%lu", user->tokens);
    snprintf(names, sizeof(names), "%lu", user->names);
    return admin_table_add(
        arg, (const char *[]){user->email, user->slug, tokens, names, user->created_at, user->disabled_at});
}

int admin_list_users(void *settings)
{
    static const struct admin_column columns[] = {
        {"email", ADMIN_TEXT},
        {"slug", ADMIN_TEXT},
        {"tokens", ADMIN_NUMBER},
        {"names", ADMIN_NUMBER},
        {"created_at", ADMIN_TEXT},
        {"disabled_at", ADMIN_OPTIONAL},
        {0},
    };
    const struct admin_settings *s = settings;
    struct store *store;
    struct admin_table table;
    int status = admin_open(s, &store);
    if (status != CLI_EXIT_OK)
        return status;
    admin_table_init(&table, columns);
    int error = store_list_users(store, add_user, &table);
    if (error == KV_OK)
        error = admin_table_print(&table, s->json);
    if (error == KV_OK && table.rows == 0)
        fprintf(stderr, "there are no users yet; admin create-user makes one\n");
    admin_table_free(&table);
    return admin_close(store, error);
}

/* ---- disable-user, enable-user, delete-user -------------------------------------------------------------------- */

const struct cli_option admin_disable_user_options[] = {
    {"email", "ADDRESS", NULL, "the user's e-mail address", .required = true, .set = admin_set_email},
    ADMIN_OPTION_JSON,
    ADMIN_OPTION_DATABASE,
    {0},
};
const struct cli_option admin_enable_user_options[] = {
    {"email", "ADDRESS", NULL, "the user's e-mail address", .required = true, .set = admin_set_email},
    ADMIN_OPTION_JSON,
    ADMIN_OPTION_DATABASE,
    {0},
};
static int set_yes(void *into, const char *value, char *error)
{
    (void)value;
    (void)error;
    ((struct admin_settings *)into)->yes = true;
    return KV_OK;
}

const struct cli_option admin_delete_user_options[] = {
    {"email", "ADDRESS", NULL, "the user's e-mail address", .required = true, .set = admin_set_email},
    {"yes", NULL, NULL, "do not ask whether that is meant", .set = set_yes},
    ADMIN_OPTION_JSON,
    ADMIN_OPTION_DATABASE,
    {0},
};

/* Says what was done to a user: an object with one member that is true, or a sentence. */
static int say_done(const struct admin_settings *s, const char *member, const char *sentence)
{
    const struct admin_column columns[] = {{"email", ADMIN_TEXT}, {member, ADMIN_BOOL}, {0}};
    if (s->json)
        return admin_print_object(columns, (const char *[]){s->email, "yes"});
    fprintf(stderr, "%s: %s\n", s->email, sentence);
    return KV_OK;
}

int admin_disable_user(void *settings)
{
    const struct admin_settings *s = settings;
    struct store *store;
    int status = admin_open(s, &store);
    if (status != CLI_EXIT_OK)
        return status;
    int error = store_disable_user(store, slice_of(s->email), true);
    if (error == KV_OK)
        error = say_done(s, "disabled", "disabled; live tunnels close within 2 s");
    return admin_close(store, error);
}

int admin_enable_user(void *settings)
{
    const struct admin_settings *s = settings;
    struct store *store;
    int status = admin_open(s, &store);
    if (status != CLI_EXIT_OK)
        return status;
    int error = store_disable_user(store, slice_of(s->email), false);
    if (error == KV_OK)
        error = say_done(s, "enabled", "enabled");
    return admin_close(store, error);
}

/* Nothing brings a user back, so a person is asked, and a script has to say that it means it. */
static int confirm(const struct admin_settings *s)
{
    char answer[16];
    if (s->yes)
        return CLI_EXIT_OK;
    if (!isatty(STDIN_FILENO))
        return cli_usage_error("deleting %s cannot be taken back; --yes says that it is meant", s->email);
    fprintf(stderr, "Delete %s with all tokens? That cannot be taken back. Type yes: ", s->email);
    if (fgets(answer, sizeof(answer), stdin) && strcmp(answer, "yes\n") == 0)
        return CLI_EXIT_OK;
    return cli_failure("nothing was deleted");
}

int admin_delete_user(void *settings)
{
    const struct admin_settings *s = settings;
    struct store *store;
    int status = confirm(s);
    if (status == CLI_EXIT_OK)
        status = admin_open(s, &store);
    if (status != CLI_EXIT_OK)
        return status;
    int error = store_delete_user(store, slice_of(s->email));
    if (error == KV_OK)
        error = say_done(s, "deleted", "deleted; live tunnels close within 2 s, the names stay reserved");
    return admin_close(store, error);
}

/* ---- set-slug -------------------------------------------------------------------------------------------------- */

static int set_slug(void *into, const char *value, char *error)
{
    struct admin_settings *s = into;
    return cli_set_string(s->slug, sizeof(s->slug), value, error);
}

static int set_rewrite(void *into, const char *value, char *error)
{
    (void)value;
    (void)error;
    ((struct admin_settings *)into)->rewrite = true;
    return 0;
}

const struct cli_option admin_set_slug_options[] = {
    {"email", "ADDRESS", NULL, "the user's e-mail address", .required = true, .set = admin_set_email},
    {"slug", "SLUG", NULL, "the new one: a-z, 0-9 and hyphens between them", .required = true, .set = set_slug},
    {"rewrite", NULL, NULL, "move the stored names that end in the old slug", .set = set_rewrite},
    ADMIN_OPTION_JSON,
    ADMIN_OPTION_DATABASE,
    {0},
};

int admin_set_slug(void *settings)
{
    static const struct admin_column columns[] = {
        {"email", ADMIN_TEXT}, {"slug", ADMIN_TEXT}, {"rewritten", ADMIN_NUMBER}, {0}};
    const struct admin_settings *s = settings;
    struct store *store;
    unsigned rewritten;
    char count[24];
    int status = admin_open(s, &store);
    if (status != CLI_EXIT_OK)
        return status;
    int error = store_set_slug(store, slice_of(s->email), slice_of(s->slug), s->rewrite, &rewritten);
    snprintf(count, sizeof(count), "%u", rewritten);
    if (error == KV_OK && s->json)
        error = admin_print_object(columns, (const char *[]){s->email, s->slug, count});
    else if (error == KV_OK)
        fprintf(stderr, "%s: the slug is %s; %s stored names moved to it\n", s->email, s->slug, count);
    return admin_close(store, error);
}
