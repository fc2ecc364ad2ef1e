/* What store_users.c, store_tokens.c and store_names.c share; nobody else includes this. */
#ifndef KV_STORE_STORE_ADMIN_IMPL_H
#define KV_STORE_STORE_ADMIN_IMPL_H

#include "store/store_admin.h"
#include "store/store_backend.h"

/* The id of the user with this address, in any case. KV_OK, KV_ENOTFOUND, KV_EINVAL, KV_EUNAVAIL. */
int store_lookup_user(struct store *store, struct slice email, char id[STORE_ID_LEN + 1]);

#endif
