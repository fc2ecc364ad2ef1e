/*
 * What operators do with accounts. Every change is one statement or one transaction, works beside running servers, and
 * is noticed by them within 2 s (store_watch_start).
 *
 * All return KV_OK or a negative kv_error with a sentence in store_error(): KV_EINVAL for a value that cannot be right,
 * KV_ENOTFOUND for what is not there, KV_EUNAVAIL when the database cannot be used. Lists call a function per row,
 * whose texts live until it returns; times are RFC 3339 UTC or "", texts that are not set are "". A list function that
 * returns non-zero ends the list with that result. Users are looked up by address in any case; deleted ones are not
 * there.
 */
#ifndef KV_STORE_STORE_ADMIN_H
#define KV_STORE_STORE_ADMIN_H

#include "store/store.h"
#include "store/store_time.h"

/* ---- users ----------------------------------------------------------------------------------------------------- */

struct store_user {
    char id[STORE_ID_LEN + 1];
    char email[LIMIT_EMAIL_BYTES + 1];
    char slug[LIMIT_LABEL_BYTES + 1];
    char created_at[STORE_TIME_LEN + 1];
    char disabled_at[STORE_TIME_LEN + 1];
    unsigned long tokens; /* that have not been revoked; expired ones count */
    unsigned long names;
};

int store_list_users(struct store *store, int (*user)(void *arg, const struct store_user *user), void *arg);

/* A disabled user's tokens are refused until he is enabled again. Doing it twice is no error. */
int store_disable_user(struct store *store, struct slice email, bool disabled);

/* Revokes the tokens, releases the names, and takes the address off the row, which stays as their owner. */
int store_delete_user(struct store *store, struct slice email);

/* Gives the user another slug. With `rewrite` the names whose subdomain ends in the old one move to the new one, all or
 * none; the old subdomains stay reserved for the account. Without, stored names stay as they are. KV_EEXIST when the
 * slug or a new subdomain is taken. */
int store_set_slug(struct store *store, struct slice email, struct slice slug, bool rewrite, unsigned *rewritten);

/* ---- tokens ---------------------------------------------------------------------------------------------------- */

struct store_token {
    char id[STORE_ID_LEN + 1];
    char email[LIMIT_EMAIL_BYTES + 1];
    char name[256];
    char created_at[STORE_TIME_LEN + 1];
    char last_used_at[STORE_TIME_LEN + 1];
    char expires_at[STORE_TIME_LEN + 1];
};

/* As store_issue_token(); `expires` in seconds since 1970, 0 for never. The id is that of the new row. */
int store_issue_token_until(struct store *store, struct slice email, struct slice name, int64_t expires,
                            char token[STORE_TOKEN_LEN + 1], char id[STORE_ID_LEN + 1]);

/* Of one user, or with an empty address of all. */
int store_list_tokens(struct store *store, struct slice email, int (*token)(void *arg, const struct store_token *token),
                      void *arg);

/* By id, or all of this name that the user has; *revoked is how many. KV_ENOTFOUND when there is none. */
int store_revoke_token(struct store *store, struct slice id);
int store_revoke_tokens_named(struct store *store, struct slice email, struct slice name, unsigned *revoked);

/* ---- names ----------------------------------------------------------------------------------------------------- */

struct store_name {
    char id[STORE_ID_LEN + 1];
    char email[LIMIT_EMAIL_BYTES + 1]; /* "" when the user was deleted */
    char name[256];
    char subdomain[256];
    char created_at[STORE_TIME_LEN + 1];
    char released_at[STORE_TIME_LEN + 1];
};

/* Of one user, or with an empty address of all; `released` lists the released ones too. */
int store_list_names(struct store *store, struct slice email, bool released,
                     int (*name)(void *arg, const struct store_name *name), void *arg);

/* Takes a name out of use. Its subdomain stays reserved: only the same account can get it again, by asking for the
 * name. */
int store_release_name(struct store *store, struct slice email, struct slice name);
int store_release_subdomain(struct store *store, struct slice subdomain);

/* ---- the database itself --------------------------------------------------------------------------------------- */

/* How many migrations store_migrate() would apply; changes nothing. Negative as store_migrate(). */
int store_pending_migrations(struct store *store);

/* Looks for damage and for rows that break the rules; calls `problem` with a sentence for each. Returns how many, or
 * negative when the database cannot be read. Changes nothing. */
int store_check(struct store *store, void (*problem)(void *arg, const char *sentence), void *arg);

#endif
