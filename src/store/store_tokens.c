/*
 * Tokens, as operators make, list and revoke them. A revoked token's row is deleted, which is what anybody with psql
 * would do, and what servers of the original system understand too.
 */
#include <stdio.h>

#include "base/base32.h"
#include "base/blake3.h"
#include "base/random.h"
#include "store/rules.h"
#include "store/store_admin_impl.h"

/* The row lock lets PostgreSQL wait for a deletion of the user that is under way, and then see it. */
static const struct statement insert_token = {
    .sqlite = "INSERT INTO api_tokens (id, user_id, token_hash, name, created_at, expires_at) "
              "SELECT $1, u.id, $3, $4, $5, $6 FROM users u WHERE u.id = $2 AND u.deleted_at IS NULL",
    .postgres = "INSERT INTO api_tokens (id, user_id, token_hash, name, created_at, expires_at) "
                "SELECT CAST($1 AS uuid), u.id, CAST($3 AS bytea), CAST($4 AS text), CAST($5 AS timestamptz), "
                "CAST($6 AS timestamptz) FROM users u WHERE u.id = $2 AND u.deleted_at IS NULL FOR KEY SHARE",
    .bytes = 1 << 2,
};

static const struct statement find_disabled = {
    BOTH("SELECT 1 FROM users WHERE id = $1 AND disabled_at IS NOT NULL"),
};

static int make_token(struct store *store, const char *user_id, struct slice name, int64_t expires,
                      char token[STORE_TOKEN_LEN + 1], char id[STORE_ID_LEN + 1])
{
    char now[STORE_TIME_LEN + 1], end[STORE_TIME_LEN + 1];
    uint8_t secret[32], hash[BLAKE3_LEN];
    _Static_assert(BASE32_LEN(sizeof(secret)) == STORE_TOKEN_LEN, "a token is base32 of 32 bytes");
    random_bytes(secret, sizeof(secret));
    base32_encode(secret, sizeof(secret), token);
    secret_wipe(secret, sizeof(secret));
    blake3(token, STORE_TOKEN_LEN, hash);

    store_new_id(id);
    store_time_format(store_now(), now);
    store_time_format(expires, end);
    return STORE_RUN(store, &insert_token, NULL, NULL, slice_of(id), slice_of(user_id),
                     {(const char *)hash, sizeof(hash)}, name, slice_of(now),
                     expires ? slice_of(end) : (struct slice){0});
}

int store_issue_token_until(struct store *store, struct slice email, struct slice name, int64_t expires,
                            char token[STORE_TOKEN_LEN + 1], char id[STORE_ID_LEN + 1])
{
    char user_id[STORE_ID_LEN + 1];
    const char *why = rules_token_name(name);
    if (why)
        return store_fail(store, KV_EINVAL, "this cannot be the name of a token: %s", why);
    if (expires != 0 && expires <= store_now())
        return store_fail(store, KV_EINVAL, "a token cannot expire in the past");
    int error = store_lookup_user(store, email, user_id);
    if (error != KV_OK)
        return error;
    int rows = STORE_RUN(store, &find_disabled, NULL, NULL, slice_of(user_id));
    if (rows > 0)
        return store_fail(store, KV_EREFUSED, "the user %.*s is disabled; enable the user first", (int)email.len,
                          email.data);
    if (rows == 0)
        rows = make_token(store, user_id, name, expires, token, id);
    if (rows == 1)
        return KV_OK;
    secret_wipe(token, STORE_TOKEN_LEN);
    return rows < 0 ? rows : store_fail(store, KV_ENOTFOUND, "there is no user %.*s", (int)email.len, email.data);
}

int store_issue_token(struct store *store, struct slice email, struct slice name, char token[STORE_TOKEN_LEN + 1])
{
    char id[STORE_ID_LEN + 1];
    return store_issue_token_until(store, email, name, 0, token, id);
}

/* ---- listing --------------------------------------------------------------------------------------------------- */

static const struct statement list_all = {
    BOTH("SELECT t.id, u.email, t.name, t.created_at, t.last_used_at, t.expires_at FROM api_tokens t "
         "JOIN users u ON u.id = t.user_id ORDER BY u.email, t.created_at, t.id"),
};
static const struct statement list_of_user = {
    BOTH("SELECT t.id, u.email, t.name, t.created_at, t.last_used_at, t.expires_at FROM api_tokens t "
         "JOIN users u ON u.id = t.user_id WHERE u.id = $1 ORDER BY t.created_at, t.id"),
};

struct token_list {
    int (*token)(void *arg, const struct store_token *token);
    void *arg;
};

static int give_token(void *arg, const struct slice *columns)
{
    struct token_list *list = arg;
    struct store_token token;
    store_copy_text(token.id, sizeof(token.id), columns[0]);
    store_copy_text(token.email, sizeof(token.email), columns[1]);
    store_copy_text(token.name, sizeof(token.name), columns[2]);
    store_copy_time(token.created_at, columns[3]);
    store_copy_time(token.last_used_at, columns[4]);
    store_copy_time(token.expires_at, columns[5]);
    return list->token(list->arg, &token);
}

int store_list_tokens(struct store *store, struct slice email, int (*token)(void *arg, const struct store_token *token),
                      void *arg)
{
    char user_id[STORE_ID_LEN + 1];
    struct token_list list = {token, arg};
    int rows = email.len > 0 ? store_lookup_user(store, email, user_id) : KV_OK;
    if (rows == KV_OK && email.len > 0)
        rows = STORE_RUN(store, &list_of_user, give_token, &list, slice_of(user_id));
    else if (rows == KV_OK)
        rows = store_run(store, &list_all, NULL, 0, give_token, &list);
    return rows < 0 ? rows : KV_OK;
}

/* ---- revoking -------------------------------------------------------------------------------------------------- */

static const struct statement revoke_one = {BOTH("DELETE FROM api_tokens WHERE id = $1")};
static const struct statement revoke_named = {BOTH("DELETE FROM api_tokens WHERE user_id = $1 AND name = $2")};

int store_revoke_token(struct store *store, struct slice id)
{
    if (!rules_is_uuid(id))
        return store_fail(store, KV_EINVAL, "this is no id of a token; list-tokens shows them");
    int rows = STORE_RUN(store, &revoke_one, NULL, NULL, id);
    return rows == 0  ? store_fail(store, KV_ENOTFOUND, "there is no token %.*s", (int)id.len, id.data)
           : rows < 0 ? rows
                      : KV_OK;
}

int store_revoke_tokens_named(struct store *store, struct slice email, struct slice name, unsigned *revoked)
{
    char user_id[STORE_ID_LEN + 1];
    *revoked = 0;
    int rows = store_lookup_user(store, email, user_id);
    if (rows != KV_OK)
        return rows;
    rows = STORE_RUN(store, &revoke_named, NULL, NULL, slice_of(user_id), name);
    if (rows == 0)
        return store_fail(store, KV_ENOTFOUND, "the user %.*s has no token named '%.*s'", (int)email.len, email.data,
                          (int)name.len, name.data);
    *revoked = rows > 0 ? (unsigned)rows : 0;
    return rows < 0 ? rows : KV_OK;
}
