/*
 * Accounts: users, tokens and the names that belong to them, for ever. The rules are the same on every back end and the
 * database's own constraints decide every race; no check-then-insert.
 *
 * Calls block on a database, so they never run on a worker. store_thread.h gives workers an asynchronous door; the
 * admin commands call straight.
 */
#ifndef KV_STORE_STORE_H
#define KV_STORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/limits.h"
#include "base/slice.h"

struct store;

#define STORE_ID_LEN    36 /* a UUID as text */
#define STORE_TOKEN_LEN 52 /* base32 of 32 random bytes */
#define STORE_ERROR_LEN 512

/* Opens "sqlite:/path/file.db", "postgres://..." or "postgresql://..." (any libpq URI). Does not migrate. NULL on
 * failure, with one sentence for the operator in error[STORE_ERROR_LEN] that names the place and the reason and never a
 * password. One thread at a time may use a store. */
struct store *store_open(const char *url, char *error);
void store_close(struct store *store);

/* The default, "sqlite:<data folder>/kavilo-tunnel/tunneld.db" ($XDG_DATA_HOME or ~/.local/share), into out; creates
 * nothing. 0, or KV_ENOTFOUND without a home. */
int store_default_url(char *out, size_t size);

/* The path of a URL that names a SQLite file; NULL for any other. Points into the URL. */
const char *store_file_of(const char *url);

/* Brings the schema up to date under a lock. 0; KV_ENEWER for a schema newer than this program or a changed migration;
 * KV_EIO, KV_EUNAVAIL. store_error() has the sentence. */
int store_migrate(struct store *store);

/* The sentence of the last failed call; never NULL. */
const char *store_error(const struct store *store);

/* ---- what a connecting tunnel asks ----------------------------------------------------------------------------- */

struct store_account {
    char user_id[STORE_ID_LEN + 1];
    char token_id[STORE_ID_LEN + 1];
    char email[LIMIT_EMAIL_BYTES + 1];
    char slug[LIMIT_LABEL_BYTES + 1];
};

/* Whose token this is. KV_OK; KV_EREFUSED when unknown, revoked, expired or its user disabled; KV_EUNAVAIL when the
 * database cannot be asked. Notes last_used_at, at most once a minute per token. */
int store_authenticate(struct store *store, struct slice token, struct store_account *account);

/* The subdomain of this account's name: the stored row's, or a new row `<name>-<slug>` when there is none yet.
 * KV_OK; KV_EINVAL when name and slug make no DNS label (store_error says why, for the user); KV_EEXIST when the
 * subdomain belongs to another account; KV_EUNAVAIL. */
int store_claim_name(struct store *store, const struct store_account *account, struct slice name,
                     char subdomain[LIMIT_LABEL_BYTES + 1]);

/* KV_OK when no stored name has this subdomain (a random one may be handed out), KV_EEXIST, or KV_EUNAVAIL. */
int store_subdomain_is_free(struct store *store, struct slice subdomain);

/* ---- administration; store/store_admin.h has the rest ---------------------------------------------------------- */

/* Makes a user; the slug is drawn as docs/ACCOUNTS.md says, anew on a collision. KV_OK, KV_EINVAL (no address),
 * KV_EEXIST (that address has an account), KV_ELIMIT (eight slugs in a row were taken), KV_EUNAVAIL. */
int store_create_user(struct store *store, struct slice email, char slug[LIMIT_LABEL_BYTES + 1]);

/* Makes a token that does not expire and returns its text, which is kept nowhere. KV_OK, KV_ENOTFOUND (no such user),
 * KV_EREFUSED (the user is disabled), KV_EINVAL (the name or the address), KV_EUNAVAIL. */
int store_issue_token(struct store *store, struct slice email, struct slice name, char token[STORE_TOKEN_LEN + 1]);

#endif
