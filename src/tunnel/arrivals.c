/* The tables of expected sessions: all by name, and those with random names by their client. See arrivals.h. */
#include "tunnel/arrivals.h"

#include <stdlib.h>
#include <string.h>

/* Without memory an element stays outside the table (hh.tbl is NULL) instead of ending the process. */
#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "base/error.h"
#include "tunnel/registry.h"

/* Of bytes alone, zeroed behind the text: it is a key as a whole. */
struct who {
    char user_id[REGISTRY_TEXT_LEN];
    uint8_t instance[WIRE_INSTANCE_LEN];
};

struct arrival {
    char subdomain[LIMIT_LABEL_BYTES + 1];
    struct who who;
    bool has_instance;
    bool findable; /* in `unnamed`, where one client may have several */
    UT_hash_handle hh, by_who;
};

static struct who who_is(const struct registry_session *session)
{
    struct who who = {0};
    memcpy(who.user_id, session->user_id, strnlen(session->user_id, sizeof(who.user_id) - 1));
    memcpy(who.instance, session->instance, sizeof(who.instance));
    return who;
}

/* Takes it out of the tables that it is in. */
static void drop(struct arrivals *arrivals, struct arrival *a)
{
    if (a->findable)
        HASH_DELETE(by_who, arrivals->unnamed, a);
    HASH_DEL(arrivals->table, a);
    free(a);
}

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
    a->who = who_is(session);
    a->has_instance = session->has_instance;
    HASH_ADD_STR(arrivals->table, subdomain, a);
    if (!a->hh.tbl) {
        free(a);
        return KV_ENOMEM;
    }
    if (session->named || !session->has_instance)
        return KV_OK;
    HASH_ADD(by_who, arrivals->unnamed, who, sizeof(a->who), a);
    a->findable = a->by_who.tbl != NULL;
    if (!a->findable) {
        drop(arrivals, a);
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
    return strcmp(a->who.user_id, session->user_id) == 0 && a->has_instance == session->has_instance &&
           memcmp(a->who.instance, session->instance, sizeof(a->who.instance)) == 0;
}

bool arrivals_allow(const struct arrivals *arrivals, const struct registry_session *session, bool takeover,
                    uint64_t now)
{
    const struct arrival *a = find(arrivals, slice_of(session->subdomain), now);
    return !a || is_same(a, session) || (takeover && strcmp(a->who.user_id, session->user_id) == 0);
}

const char *arrivals_name_of(const struct arrivals *arrivals, const struct registry_session *session, uint64_t now)
{
    if (!session->has_instance || now >= arrivals->until)
        return NULL;
    const struct who who = who_is(session);
    struct arrival *a;
    HASH_FIND(by_who, arrivals->unnamed, &who, sizeof(who), a);
    return a ? a->subdomain : NULL;
}

void arrivals_remove(struct arrivals *arrivals, const char *subdomain)
{
    struct arrival *a;
    HASH_FIND_STR(arrivals->table, subdomain, a);
    if (a)
        drop(arrivals, a);
}

size_t arrivals_count(const struct arrivals *arrivals)
{
    return HASH_COUNT(arrivals->table);
}

void arrivals_clear(struct arrivals *arrivals)
{
    struct arrival *a, *next;
    HASH_ITER (hh, arrivals->table, a, next)
        drop(arrivals, a);
    *arrivals = (struct arrivals){0};
}
