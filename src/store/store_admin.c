/*
 * The store above the seam: what operators ask. Users and tokens are made here; the rest of their lives follows below.
 */
#include <stdio.h>

#include "base/base32.h"
#include "base/blake3.h"
#include "base/random.h"
#include "store/rules.h"
#include "store/store_backend.h"
#include "store/store_time.h"

#define SLUG_TRIES 8

/* ---- users ---- */

static const struct statement insert_user = {
    BOTH("INSERT INTO users (id, email, slug, created_at) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING"),
};

/* Addresses are stored lowered, so UNIQUE (email) decides between our own inserts. Rows of an adopted database may be
 * mixed; two of them may even differ in case alone, and then the one that is written exactly so comes first. */
static const struct statement find_user = {
    .sqlite = "SELECT id, email FROM users WHERE lower(email) = $1 AND deleted_at IS NULL ORDER BY email <> $2, email",
    .postgres = "SELECT id, email FROM users WHERE lower(email COLLATE \"C\") = $1 AND deleted_at IS NULL "
                "ORDER BY email <> $2, email",
};

struct found_user {
    size_t rows;
    bool exact; /* the first row's address is written as asked */
    char id[STORE_ID_LEN + 1];
    struct slice asked;
};

static int note_user(void *arg, const struct slice *columns)
{
    struct found_user *found = arg;
    if (found->rows++ > 0)
        return KV_OK;
    snprintf(found->id, sizeof(found->id), "%.*s", (int)columns[0].len, columns[0].data);
    found->exact = slice_equals(columns[1], found->asked);
    return KV_OK;
}

static int no_address(struct store *store, struct slice email, const char *why)
{
    return store_fail(store, KV_EINVAL, "'%.*s' is no e-mail address: %s", email.len < 100 ? (int)email.len : 100,
                      email.len > 0 ? email.data : "", why);
}

/* KV_OK, KV_ENOTFOUND, KV_EINVAL, KV_EUNAVAIL. */
static int lookup_user(struct store *store, struct slice email, char id[STORE_ID_LEN + 1])
{
    char lowered[LIMIT_EMAIL_BYTES + 1];
    const char *why = rules_email(email, lowered);
    if (why)
        return no_address(store, email, why);
    struct found_user found = {.asked = email};
    int rows = STORE_RUN(store, &find_user, note_user, &found, slice_of(lowered), email);
    if (rows < 0)
        return rows;
    if (rows == 0)
        return store_fail(store, KV_ENOTFOUND, "there is no user %.*s", (int)email.len, email.data);
    if (rows > 1 && !found.exact)
        return store_fail(store, KV_EINVAL,
                          "%d users have this address in different cases; write it exactly as list-users shows it",
                          rows);
    memcpy(id, found.id, sizeof(found.id));
    return KV_OK;
}

int store_create_user(struct store *store, struct slice email, char slug[LIMIT_LABEL_BYTES + 1])
{
    char lowered[LIMIT_EMAIL_BYTES + 1], base[RULES_SLUG_BASE_BYTES + 1], digits[RULES_SLUG_HEX + 1];
    const char *why = rules_email(email, lowered);
    if (why)
        return no_address(store, email, why);
    rules_slug_base(lowered, base);

    for (int tries = 0; tries < SLUG_TRIES; tries++) {
        /* Rows that only another program can have made in another case; of our own, the constraint finds all. */
        struct found_user found = {.asked = email};
        int rows = STORE_RUN(store, &find_user, note_user, &found, slice_of(lowered), slice_of(lowered));
        if (rows < 0)
            return rows;
        if (rows > 0)
            return store_fail(store, KV_EEXIST, "there is already a user %s", lowered);

        char id[STORE_ID_LEN + 1], now[STORE_TIME_LEN + 1];
        store->draw(digits, RULES_SLUG_HEX / 2);
        snprintf(slug, LIMIT_LABEL_BYTES + 1, "%s-%s", base, digits);
        store_new_id(id);
        store_time_format(store_now(), now);
        rows =
            STORE_RUN(store, &insert_user, NULL, NULL, slice_of(id), slice_of(lowered), slice_of(slug), slice_of(now));
        if (rows < 0)
            return rows;
        if (rows == 1)
            return KV_OK;
    }
    return store_fail(store, KV_ELIMIT, "%d random slugs '%s-....' in a row were taken; try again", SLUG_TRIES, base);
}

/* ---- tokens ---- */

static const struct statement insert_token = {
    BOTH("INSERT INTO api_tokens (id, user_id, token_hash, name, created_at) VALUES ($1, $2, $3, $4, $5)"),
    .bytes = 1 << 2,
};

int store_issue_token(struct store *store, struct slice email, struct slice name, char token[STORE_TOKEN_LEN + 1])
{
    char user_id[STORE_ID_LEN + 1], id[STORE_ID_LEN + 1], now[STORE_TIME_LEN + 1];
    uint8_t secret[32], hash[BLAKE3_LEN];
    _Static_assert(BASE32_LEN(sizeof(secret)) == STORE_TOKEN_LEN, "a token is base32 of 32 bytes");
    int error = lookup_user(store, email, user_id);
    if (error != KV_OK)
        return error;

    random_bytes(secret, sizeof(secret));
    base32_encode(secret, sizeof(secret), token);
    secret_wipe(secret, sizeof(secret));
    blake3(token, STORE_TOKEN_LEN, hash);
    store_new_id(id);
    store_time_format(store_now(), now);
    int rows = STORE_RUN(store, &insert_token, NULL, NULL, slice_of(id), slice_of(user_id),
                         {(const char *)hash, sizeof(hash)}, name, slice_of(now));
    if (rows == 1)
        return KV_OK;
    secret_wipe(token, STORE_TOKEN_LEN);
    if (rows == KV_ENOTFOUND)
        return store_fail(store, KV_ENOTFOUND, "there is no user %.*s", (int)email.len, email.data);
    return rows < 0 ? rows : KV_EIO;
}
