/* Stable names: listed and released. */
#include "cmd/tunneld_admin.h"

/* ---- list-names ------------------------------------------------------------------------------------------------ */

static int set_all(void *into, const char *value, char *error)
{
    (void)value;
    (void)error;
    ((struct admin_settings *)into)->all = true;
    return 0;
}

const struct cli_option admin_list_names_options[] = {
    ADMIN_OPTION_EMAIL("only this user's"),
    {"all", NULL, NULL, "released ones and those of deleted users too", .set = set_all},
    ADMIN_OPTION_JSON,
    ADMIN_OPTION_DATABASE,
    {0},
};

static int add_name(void *arg, const struct store_name *name)
{
    return admin_table_add(
        arg, (const char *[]){name->subdomain, name->name, name->email, name->created_at, name->released_at});
}

int admin_list_names(void *settings)
{
    static const struct admin_column columns[] = {
        {"subdomain", ADMIN_TEXT},       {"name", ADMIN_TEXT},
        {"email", ADMIN_OPTIONAL},       {"created_at", ADMIN_TEXT},
        {"released_at", ADMIN_OPTIONAL}, {0},
    };
    const struct admin_settings *s = settings;
    struct store *store;
    struct admin_table table;
    int status = admin_open(s, &store);
    if (status != CLI_EXIT_OK)
        return status;
    admin_table_init(&table, columns);
    int error = store_list_names(store, slice_of(s->email), s->all, add_name, &table);
    if (error == KV_OK)
        error = admin_table_print(&table, s->json);
    if (error == KV_OK && table.rows == 0)
        fprintf(stderr, "there are no stored names; connecting with --name makes one\n");
    admin_table_free(&table);
    return admin_close(store, error);
}

/* ---- release-name ---------------------------------------------------------------------------------------------- */

static int set_subdomain(void *into, const char *value, char *error)
{
    struct admin_settings *s = into;
    return cli_set_string(s->subdomain, sizeof(s->subdomain), value, error);
}

const struct cli_option admin_release_name_options[] = {
    ADMIN_OPTION_EMAIL("whose, together with --name"),
    {"name", "NAME", NULL, "the name", .set = admin_set_name},
    {"subdomain", "LABEL", NULL, "or the first label of its host name", .set = set_subdomain},
    ADMIN_OPTION_JSON,
    ADMIN_OPTION_DATABASE,
    {0},
};

int admin_release_name(void *settings)
{
    static const struct admin_column columns[] = {{"email", ADMIN_OPTIONAL},
                                                  {"name", ADMIN_OPTIONAL},
                                                  {"subdomain", ADMIN_OPTIONAL},
                                                  {"released", ADMIN_BOOL},
                                                  {0}};
    const struct admin_settings *s = settings;
    struct store *store;
    bool named = s->email[0] && s->name[0];
    if ((s->subdomain[0] != '\0') == named || (!named && (s->email[0] || s->name[0])))
        return cli_usage_error("name it either by --email and --name or by --subdomain");
    int status = admin_open(s, &store);
    if (status != CLI_EXIT_OK)
        return status;
    int error = named ? store_release_name(store, slice_of(s->email), slice_of(s->name))
                      : store_release_subdomain(store, slice_of(s->subdomain));
    if (error == KV_OK && s->json)
        error = admin_print_object(columns, (const char *[]){s->email, s->name, s->subdomain, "yes"});
    else if (error == KV_OK)
        fprintf(stderr, "released %s; a live tunnel closes within 2 s, and only the same account gets it again\n",
                named ? s->name : s->subdomain);
    return admin_close(store, error);
}
