/* Tokens: made, listed and taken back. */
#include <stdio.h>

#include "base/blake3.h"
#include "cmd/tunneld_admin.h"

const struct cli_option admin_issue_token_options[] = {
    {"email", "ADDRESS", NULL, "whose token it is", .required = true, .set = admin_set_email},
    {"name", "NAME", NULL, "what it is for, to tell it from others", .required = true, .set = admin_set_name},
    ADMIN_OPTION_DATABASE,
    {0},
};

int admin_issue_token(void *settings)
{
    const struct admin_settings *s = settings;
    struct store *store;
    char token[STORE_TOKEN_LEN + 1];
    int status = admin_open(s, &store);
    if (status != CLI_EXIT_OK)
        return status;
    int error = store_issue_token(store, slice_of(s->email), slice_of(s->name), token);
    if (error == KV_OK) {
        fprintf(stderr, "made the token '%s' for %s; it is shown this once\n", s->name, s->email);
        printf("%s\n", token);
        secret_wipe(token, sizeof(token));
    }
    return admin_close(store, error);
}
