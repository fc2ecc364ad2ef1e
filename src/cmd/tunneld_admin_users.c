/* Users: made, and their slugs. */
#include <stdio.h>

#include "cmd/tunneld_admin.h"

const struct cli_option admin_create_user_options[] = {
    {"email", "ADDRESS", NULL, "the user's e-mail address", .required = true, .set = admin_set_email},
    ADMIN_OPTION_DATABASE,
    {0},
};

int admin_create_user(void *settings)
{
    const struct admin_settings *s = settings;
    struct store *store;
    char slug[LIMIT_LABEL_BYTES + 1];
    int status = admin_open(s, &store);
    if (status != CLI_EXIT_OK)
        return status;
    int error = store_create_user(store, slice_of(s->email), slug);
    if (error == KV_OK) {
        fprintf(stderr, "made the user %s; names will end in -%s\n", s->email, slug);
        printf("%s\n", slug);
    }
    return admin_close(store, error);
}
