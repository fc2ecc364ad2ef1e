/* Stable names, as operators list and release them. store.c has how a connecting tunnel claims one. */
#include <stdio.h>

#include "store/store_admin_impl.h"

#define NAME_COLUMNS                                                                                                   \
    "SELECT n.id, CASE WHEN u.deleted_at IS NULL THEN u.email END, coalesce(n.released_name, n.name), n.subdomain, "   \
    "n.created_at, n.released_at FROM tunnels n JOIN users u ON u.id = n.user_id "

static const struct statement list_all = {
    BOTH(NAME_COLUMNS "WHERE n.released_at IS NULL OR $1 = 'yes' ORDER BY u.email, n.released_at IS NOT NULL, n.name"),
};
static const struct statement list_of_user = {
    BOTH(NAME_COLUMNS "WHERE (n.released_at IS NULL OR $1 = 'yes') AND u.id = $2 "
                      "ORDER BY n.released_at IS NOT NULL, n.name"),
};

struct name_list {
    int (*name)(void *arg, const struct store_name *name);
    void *arg;
};

static int give_name(void *arg, const struct slice *columns)
{
    struct name_list *list = arg;
    struct store_name name;
    store_copy_text(name.id, sizeof(name.id), columns[0]);
    store_copy_text(name.email, sizeof(name.email), columns[1]);
    store_copy_text(name.name, sizeof(name.name), columns[2]);
    store_copy_text(name.subdomain, sizeof(name.subdomain), columns[3]);
    store_copy_time(name.created_at, columns[4]);
    store_copy_time(name.released_at, columns[5]);
    return list->name(list->arg, &name);
}

int store_list_names(struct store *store, struct slice email, bool released,
                     int (*name)(void *arg, const struct store_name *name), void *arg)
{
    char user_id[STORE_ID_LEN + 1];
    struct name_list list = {name, arg};
    struct slice all = released ? SLICE("yes") : SLICE("no");
    int rows = email.len > 0 ? store_lookup_user(store, email, user_id) : KV_OK;
    if (rows == KV_OK && email.len > 0)
        rows = STORE_RUN(store, &list_of_user, give_name, &list, all, slice_of(user_id));
    else if (rows == KV_OK)
        rows = STORE_RUN(store, &list_all, give_name, &list, all);
    return rows < 0 ? rows : KV_OK;
}

/* ---- releasing ------------------------------------------------------------------------------------------------- */

#define RELEASE "UPDATE tunnels SET released_at = $1, released_name = name, name = '#' || CAST(id AS text) "

static const struct statement release_named = {
    BOTH(RELEASE "WHERE user_id = $2 AND name = $3 AND released_at IS NULL"),
};
static const struct statement release_subdomain = {BOTH(RELEASE "WHERE subdomain = $2 AND released_at IS NULL")};

int store_release_name(struct store *store, struct slice email, struct slice name)
{
    char user_id[STORE_ID_LEN + 1], now[STORE_TIME_LEN + 1];
    int rows = store_lookup_user(store, email, user_id);
    if (rows != KV_OK)
        return rows;
    store_time_format(store_now(), now);
    rows = STORE_RUN(store, &release_named, NULL, NULL, slice_of(now), slice_of(user_id), name);
    if (rows == 0)
        return store_fail(store, KV_ENOTFOUND, "the user %.*s has no name '%.*s'", (int)email.len, email.data,
                          (int)name.len, name.data);
    return rows < 0 ? rows : KV_OK;
}

int store_release_subdomain(struct store *store, struct slice subdomain)
{
    char now[STORE_TIME_LEN + 1];
    store_time_format(store_now(), now);
    int rows = STORE_RUN(store, &release_subdomain, NULL, NULL, slice_of(now), subdomain);
    if (rows == 0)
        return store_fail(store, KV_ENOTFOUND, "no stored name has the subdomain '%.*s'", (int)subdomain.len,
                          subdomain.data);
    return rows < 0 ? rows : KV_OK;
}
