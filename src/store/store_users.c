/*
 * Users, as operators make and change them.
 *
 * Rows that others may change at the same moment are locked by the first statement of a transaction that touches them
 * (SQLite locks the whole file when it begins), so that what follows rests on what was read.
 */
#include <stdio.h>
#include <stdlib.h>

#include "store/rules.h"
#include "store/store_admin_impl.h"

#define SLUG_TRIES 8

/* ---- users ----------------------------------------------------------------------------------------------------- */

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

int store_lookup_user(struct store *store, struct slice email, char id[STORE_ID_LEN + 1])
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

static const struct statement list_users = {
    BOTH("SELECT u.id, u.email, u.slug, u.created_at, u.disabled_at, "
         "(SELECT count(*) FROM api_tokens t WHERE t.user_id = u.id), "
         "(SELECT count(*) FROM tunnels n WHERE n.user_id = u.id AND n.released_at IS NULL) "
         "FROM users u WHERE u.deleted_at IS NULL ORDER BY u.email"),
};

struct user_list {
    int (*user)(void *arg, const struct store_user *user);
    void *arg;
};

static int give_user(void *arg, const struct slice *columns)
{
    struct user_list *list = arg;
    struct store_user user = {0};
    uint64_t tokens = 0, names = 0;
    store_copy_text(user.id, sizeof(user.id), columns[0]);
    store_copy_text(user.email, sizeof(user.email), columns[1]);
    store_copy_text(user.slug, sizeof(user.slug), columns[2]);
    store_copy_time(user.created_at, columns[3]);
    store_copy_time(user.disabled_at, columns[4]);
    slice_to_u64(columns[5], &tokens);
    slice_to_u64(columns[6], &names);
    user.tokens = tokens;
    user.names = names;
    return list->user(list->arg, &user);
}

int store_list_users(struct store *store, int (*user)(void *arg, const struct store_user *user), void *arg)
{
    struct user_list list = {user, arg};
    int rows = store_run(store, &list_users, NULL, 0, give_user, &list);
    return rows < 0 ? rows : KV_OK;
}

static const struct statement disable = {
    BOTH("UPDATE users SET disabled_at = $2 WHERE id = $1 AND disabled_at IS NULL"),
};
static const struct statement enable = {BOTH("UPDATE users SET disabled_at = NULL WHERE id = $1")};

int store_disable_user(struct store *store, struct slice email, bool disabled)
{
    char id[STORE_ID_LEN + 1], now[STORE_TIME_LEN + 1];
    int error = store_lookup_user(store, email, id);
    if (error != KV_OK)
        return error;
    store_time_format(store_now(), now);
    int rows = disabled ? STORE_RUN(store, &disable, NULL, NULL, slice_of(id), slice_of(now))
                        : STORE_RUN(store, &enable, NULL, NULL, slice_of(id));
    return rows < 0 ? rows : KV_OK;
}

/* ---- deleting -------------------------------------------------------------------------------------------------- */

/* No address has a colon in it, so nobody can ask for this one. */
static const struct statement bury_user = {
    BOTH("UPDATE users SET email = 'deleted:' || CAST(id AS text), deleted_at = $2 WHERE id = $1 AND deleted_at IS "
         "NULL"),
};
static const struct statement delete_tokens = {BOTH("DELETE FROM api_tokens WHERE user_id = $1")};
static const struct statement release_all = {
    BOTH("UPDATE tunnels SET released_at = $2, released_name = name, name = '#' || CAST(id AS text) "
         "WHERE user_id = $1 AND released_at IS NULL"),
};

int store_delete_user(struct store *store, struct slice email)
{
    char id[STORE_ID_LEN + 1], now[STORE_TIME_LEN + 1];
    int error = store_lookup_user(store, email, id);
    if (error != KV_OK)
        return error;
    error = store_begin(store, BACKEND_WRITE);
    if (error != KV_OK)
        return error;
    store_time_format(store_now(), now);
    /* First the user: whoever is claiming a name or getting a token at this moment waits for it. */
    int rows = STORE_RUN(store, &bury_user, NULL, NULL, slice_of(id), slice_of(now));
    if (rows == 0)
        rows = store_fail(store, KV_ENOTFOUND, "there is no user %.*s", (int)email.len, email.data);
    if (rows >= 0)
        rows = STORE_RUN(store, &delete_tokens, NULL, NULL, slice_of(id));
    if (rows >= 0)
        rows = STORE_RUN(store, &release_all, NULL, NULL, slice_of(id), slice_of(now));
    if (rows >= 0)
        return store_commit(store);
    store_rollback(store);
    return rows;
}

/* ---- another slug ---------------------------------------------------------------------------------------------- */

static const struct statement lock_slug = {
    .sqlite = "SELECT slug FROM users WHERE id = $1 AND deleted_at IS NULL",
    .postgres = "SELECT slug FROM users WHERE id = $1 AND deleted_at IS NULL FOR UPDATE",
};
static const struct statement set_slug = {BOTH("UPDATE users SET slug = $2 WHERE id = $1")};
static const struct statement names_of = {
    BOTH("SELECT id, name, subdomain FROM tunnels WHERE user_id = $1 AND released_at IS NULL ORDER BY name"),
};
static const struct statement drop_own_reserve = {
    BOTH("DELETE FROM tunnels WHERE user_id = $1 AND subdomain = $2 AND released_at IS NOT NULL"),
};
static const struct statement move_name = {BOTH("UPDATE tunnels SET subdomain = $2 WHERE id = $1")};
static const struct statement reserve_old = {
    BOTH("INSERT INTO tunnels (id, user_id, name, subdomain, created_at, released_at, released_name) "
         "VALUES ($1, $2, $3, $4, $5, $6, $7)"),
};

struct named_row {
    char id[STORE_ID_LEN + 1];
    char name[LIMIT_LABEL_BYTES + 1];
    char old[LIMIT_LABEL_BYTES + 1];
};

/* The user's names that were made of the old slug. */
struct moving {
    const char *old_slug;
    struct named_row *row;
    size_t count, room;
};

static int note_moving(void *arg, const struct slice *columns)
{
    struct moving *moving = arg;
    size_t tail = strlen(moving->old_slug) + 1;
    if (columns[2].len > LIMIT_LABEL_BYTES || columns[2].len != columns[1].len + tail ||
        memcmp(columns[2].data, columns[1].data, columns[1].len) != 0 || columns[2].data[columns[1].len] != '-' ||
        memcmp(columns[2].data + columns[1].len + 1, moving->old_slug, tail - 1) != 0)
        return KV_OK;
    if (moving->count == moving->room) {
        size_t room = moving->room ? moving->room * 2 : 16;
        struct named_row *grown = realloc(moving->row, room * sizeof(*grown));
        if (!grown)
            return KV_ENOMEM;
        moving->row = grown;
        moving->room = room;
    }
    struct named_row *row = &moving->row[moving->count++];
    store_copy_text(row->id, sizeof(row->id), columns[0]);
    store_copy_text(row->name, sizeof(row->name), columns[1]);
    store_copy_text(row->old, sizeof(row->old), columns[2]);
    return KV_OK;
}

static int move_one(struct store *store, const char *user_id, const struct named_row *row, const char *slug)
{
    char subdomain[LIMIT_LABEL_BYTES + 1], why[256], id[STORE_ID_LEN + 1], mark[STORE_ID_LEN + 2];
    char now[STORE_TIME_LEN + 1];
    if (!rules_subdomain(slice_of(row->name), slug, subdomain, why, sizeof(why)))
        return store_fail(store, KV_EINVAL, "the name '%s' cannot take the new slug: %s", row->name, why);
    /* Moving back to where the account was before. */
    int rows = STORE_RUN(store, &drop_own_reserve, NULL, NULL, slice_of(user_id), slice_of(subdomain));
    if (rows >= 0)
        rows = STORE_RUN(store, &move_name, NULL, NULL, slice_of(row->id), slice_of(subdomain));
    if (rows == KV_EEXIST)
        return store_fail(store, KV_EEXIST, "the name '%s' cannot move: the subdomain '%s' is taken", row->name,
                          subdomain);
    if (rows < 0)
        return rows;
    store_new_id(id);
    snprintf(mark, sizeof(mark), "#%s", id);
    store_time_format(store_now(), now);
    return STORE_RUN(store, &reserve_old, NULL, NULL, slice_of(id), slice_of(user_id), slice_of(mark),
                     slice_of(row->old), slice_of(now), slice_of(now), slice_of(row->name));
}

static int change_slug(struct store *store, const char *user_id, const char *slug, bool rewrite, unsigned *rewritten)
{
    char old[128];
    struct text_row row = {.count = 1, .column = {{old, sizeof(old)}}};
    int rows = STORE_RUN(store, &lock_slug, store_copy_row, &row, slice_of(user_id));
    if (rows == 0)
        return store_fail(store, KV_ENOTFOUND, "the user was deleted at this moment");
    if (rows < 0 || strcmp(old, slug) == 0)
        return rows < 0 ? rows : KV_OK;
    rows = STORE_RUN(store, &set_slug, NULL, NULL, slice_of(user_id), slice_of(slug));
    if (rows == KV_EEXIST)
        return store_fail(store, KV_EEXIST, "the slug '%s' belongs to another user", slug);
    if (rows < 0 || !rewrite)
        return rows < 0 ? rows : KV_OK;

    struct moving moving = {.old_slug = old};
    rows = STORE_RUN(store, &names_of, note_moving, &moving, slice_of(user_id));
    for (size_t i = 0; i < moving.count && rows >= 0; i++)
        rows = move_one(store, user_id, &moving.row[i], slug);
    *rewritten = (unsigned)moving.count;
    free(moving.row);
    return rows < 0 ? rows : KV_OK;
}

int store_set_slug(struct store *store, struct slice email, struct slice slug, bool rewrite, unsigned *rewritten)
{
    char id[STORE_ID_LEN + 1], text[LIMIT_LABEL_BYTES + 1];
    const char *why = rules_slug(slug);
    *rewritten = 0;
    if (why)
        return store_fail(store, KV_EINVAL, "'%.*s' cannot be a slug: %s", slug.len < 100 ? (int)slug.len : 100,
                          slug.len > 0 ? slug.data : "", why);
    store_copy_text(text, sizeof(text), slug);
    int error = store_lookup_user(store, email, id);
    if (error != KV_OK)
        return error;
    error = store_begin(store, BACKEND_WRITE);
    if (error != KV_OK)
        return error;
    error = change_slug(store, id, text, rewrite, rewritten);
    if (error == KV_OK)
        return store_commit(store);
    store_rollback(store);
    return error;
}
