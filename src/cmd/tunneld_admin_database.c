/* The database itself: its schema, and whether it is whole. */
#include <stdlib.h>
#include <string.h>

#include "cmd/tunneld_admin.h"

/* ---- migrate --------------------------------------------------------------------------------------------------- */

static int set_dry_run(void *into, const char *value, char *error)
{
    (void)value;
    (void)error;
    ((struct admin_settings *)into)->dry_run = true;
    return 0;
}

const struct cli_option admin_migrate_options[] = {
    {"dry-run", NULL, NULL, "only say how many migrations there are to apply", .set = set_dry_run},
    ADMIN_OPTION_JSON,
    ADMIN_OPTION_DATABASE,
    {0},
};

int admin_migrate(void *settings)
{
    static const struct admin_column columns[] = {{"pending", ADMIN_NUMBER}, {"applied", ADMIN_NUMBER}, {0}};
    const struct admin_settings *s = settings;
    struct store *store;
    char pending[24], applied[24];
    int status = admin_open_as_is(s, &store);
    if (status != CLI_EXIT_OK)
        return status;
    int count = store_pending_migrations(store);
    int error = count >= 0 && !s->dry_run ? store_migrate(store) : count;
    snprintf(pending, sizeof(pending), "%d", s->dry_run ? count : 0);
    snprintf(applied, sizeof(applied), "%d", s->dry_run ? 0 : count);
    if (error >= 0 && s->json)
        error = admin_print_object(columns, (const char *[]){pending, applied});
    else if (error >= 0 && count == 0)
        fprintf(stderr, "the schema is up to date\n");
    else if (error >= 0)
        fprintf(stderr, s->dry_run ? "migrations to apply: %d\n" : "migrations applied: %d\n", count);
    return admin_close(store, error < 0 ? error : KV_OK);
}

/* ---- check ----------------------------------------------------------------------------------------------------- */

const struct cli_option admin_check_options[] = {ADMIN_OPTION_JSON, ADMIN_OPTION_DATABASE, {0}};

static void add_problem(void *arg, const char *sentence)
{
    /* One that does not fit into memory is counted all the same. */
    (void)admin_table_add(arg, (const char *[]){sentence});
}

static int run_check(const struct admin_settings *s, struct store *store, int *found)
{
    static const struct admin_column columns[] = {{"problem", ADMIN_TEXT}, {0}};
    struct admin_table table;
    admin_table_init(&table, columns);
    *found = store_check(store, add_problem, &table);
    int error = *found < 0 ? *found : KV_OK;
    if (error == KV_OK && s->json)
        error = admin_table_print(&table, true);
    else if (error == KV_OK)
        for (size_t i = 0; i < table.rows; i++)
            printf("%s\n", table.cells[i]);
    admin_table_free(&table);
    return error;
}

int admin_check(void *settings)
{
    const struct admin_settings *s = settings;
    struct store *store;
    int found = 0, status = admin_open_as_is(s, &store);
    if (status != CLI_EXIT_OK)
        return status;
    int error = store_pending_migrations(store);
    if (error > 0) {
        store_close(store);
        return cli_failure("the schema is not up to date: run admin migrate first");
    }
    if (error == KV_OK)
        error = run_check(s, store, &found);
    status = admin_close(store, error);
    if (status != CLI_EXIT_OK)
        return status;
    if (found == 0) {
        fprintf(stderr, "no problems\n");
        return CLI_EXIT_OK;
    }
    fprintf(stderr, "problems: %d\n", found);
    return CLI_EXIT_FAILED;
}
