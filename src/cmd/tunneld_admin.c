/* What all admin commands do: find the database, open it, say what went wrong. */
#include "cmd/tunneld_admin.h"

#include <errno.h>
#include <string.h>

int admin_set_database(void *into, const char *value, char *error)
{
    struct admin_settings *s = into;
    return cli_set_string(s->database, sizeof(s->database), value, error);
}

int admin_set_email(void *into, const char *value, char *error)
{
    struct admin_settings *s = into;
    return cli_set_string(s->email, sizeof(s->email), value, error);
}

int admin_set_name(void *into, const char *value, char *error)
{
    struct admin_settings *s = into;
    return cli_set_string(s->name, sizeof(s->name), value, error);
}

int admin_set_json(void *into, const char *value, char *error)
{
    (void)value;
    (void)error;
    ((struct admin_settings *)into)->json = true;
    return 0;
}

int admin_open_as_is(const struct admin_settings *settings, struct store **store)
{
    char standard[4096], error[STORE_ERROR_LEN];
    const char *url = settings->database;
    if (!url[0]) {
        if (store_default_url(standard, sizeof(standard)) != KV_OK)
            return cli_usage_error("no database is named and there is no home folder for one: set DATABASE_URL");
        url = standard;
    }
    *store = store_open(url, error);
    return *store ? CLI_EXIT_OK : cli_usage_error("%s", error);
}

int admin_open(const struct admin_settings *settings, struct store **store)
{
    int status = admin_open_as_is(settings, store);
    int error = status == CLI_EXIT_OK ? store_migrate(*store) : KV_OK;
    if (error == KV_OK)
        return status;
    cli_failure("%s", store_error(*store));
    store_close(*store);
    *store = NULL;
    return error == KV_ENEWER || error == KV_EINVAL ? CLI_EXIT_USAGE : CLI_EXIT_FAILED;
}

int admin_close(struct store *store, int error)
{
    int status = CLI_EXIT_OK;
    if (error == KV_EINVAL || error == KV_ENEWER)
        status = cli_usage_error("%s", store_error(store));
    else if (error == KV_ENOMEM)
        status = cli_failure("no memory");
    else if (error < 0)
        status = cli_failure("%s", store_error(store));
    else if (fflush(stdout) != 0)
        status = cli_failure("what was made could not be printed: %s", strerror(errno));
    store_close(store);
    return status;
}
