/* The table of expected sessions, by name. See arrivals.h. */
#include "tunnel/arrivals.h"

#include <stdlib.h>
#include <string.h>

/* Without memory an element stays outside the table (hh.tbl is NULL) instead of ending the process. */
#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "base/error.h"
#include "tunnel/registry.h"

struct arrival {
    char subdomain[LIMIT_LABEL_BYTES + 1];
    char user_id[REGISTRY_TEXT_LEN];
    uint8_t instance[WIRE_INSTANCE_LEN];
    bool has_instance, named;
    UT_hash_handle hh;
};

int arrivals_add(struct arrivals *arrivals, const struct registry_session *session)
{
    struct arrival *a;
    HASH_FIND_STR(arrivals->table, session->subdomain, a);
    if (a)
        return KV_OK;
    a = calloc(1, sizeof(*a));
    if (!a)
        return KV_ENOMEM;
    memcpy(a->subdomain, session->subdomain, sizeof(a->subdomain));
    memcpy(a->user_id, session->user_id, sizeof(a->user_id));
    memcpy(a->instance, session->instance, sizeof(a->instance));
    a->has_instance = session->has_instance;
    a->named = session->named;
    HASH_ADD_STR(arrivals->table, subdomain, a);
    if (!a->hh.tbl) {
        free(a);
        return KV_ENOMEM;
    }
    return KV_OK;
}

static struct arrival *find(const struct arrivals *arrivals, struct slice subdomain, uint64_t now)
{
    struct arrival *a = NULL;
    if (now < arrivals->until)
        HASH_FIND(hh, arrivals->table, subdomain.data, subdomain.len, a);
    return a;
}

bool arrivals_has(const struct arrivals *arrivals, struct slice subdomain, uint64_t now)
{
    return now < arrivals->until && (arrivals->anyone || find(arrivals, subdomain, now));
}

/* The same process, as far as can be told: a client that names no instance is taken for any of its user's that does
 * not. */
static bool is_same(const struct arrival *a, const struct registry_session *session)
{
    return strcmp(a->user_id, session->user_id) == 0 && a->has_instance == session->has_instance &&
           memcmp(a->instance, session->instance, sizeof(a->instance)) == 0;
}

bool arrivals_allow(const struct arrivals *arrivals, const struct registry_session *session, bool takeover,
                    uint64_t now)
{
    const struct arrival *a = find(arrivals, slice_of(session->subdomain), now);
    return !a || is_same(a, session) || (takeover && strcmp(a->user_id, session->user_id) == 0);
}

const char *arrivals_name_of(const struct arrivals *arrivals, const struct registry_session *session, uint64_t now)
{
    if (!session->has_instance || now >= arrivals->until)
        return NULL;
    for (const struct arrival *a = arrivals->table; a; a = a->hh.next)
        if (!a->named && is_same(a, session))
            return a->subdomain;
    return NULL;
}

void arrivals_remove(struct arrivals *arrivals, const char *subdomain)
{
    struct arrival *a;
    HASH_FIND_STR(arrivals->table, subdomain, a);
    if (!a)
        return;
    HASH_DEL(arrivals->table, a);
    free(a);
}

size_t arrivals_count(const struct arrivals *arrivals)
{
    return HASH_COUNT(arrivals->table);
}

void arrivals_clear(struct arrivals *arrivals)
{
    struct arrival *a, *next;
    HASH_ITER (hh, arrivals->table, a, next) {
        HASH_DEL(arrivals->table, a);
        free(a);
    }
    *arrivals = (struct arrivals){0};
}
