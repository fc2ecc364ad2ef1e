/* The table, its copies, and the messages that keep them the same. See registry.h. */
#include "tunnel/registry.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* Without memory an element stays outside the table (hh.tbl is NULL) instead of ending the process. */
#define HASH_NONFATAL_OOM 1
/* Every request looks one name up, so a multiplication for eight bytes of it. */
static unsigned hash_name(const char *name, size_t len)
{
    const uint64_t spread = 0x9e3779b97f4a7c15u;
    uint64_t hash = len, word;
    for (; len >= sizeof(word); name += sizeof(word), len -= sizeof(word)) {
        memcpy(&word, name, sizeof(word));
        hash = (hash ^ word) * spread;
        hash ^= hash >> 32;
    }
    for (word = 0; len > 0; name++, len--)
        word = word << 8 | (unsigned char)*name;
    hash = (hash ^ word) * spread;
    return (unsigned)(hash >> 32);
}
#define HASH_FUNCTION(key, len, hash) ((hash) = hash_name((const char *)(key), (len)))
#include <uthash.h>
#include <uv.h>

#include "base/error.h"
#include "tunnel/arrivals.h"

struct entry {
    struct registry_session session;
    UT_hash_handle hh; /* by subdomain */
};

/* A worker's copy of what it needs for routing. */
struct route {
    char subdomain[LIMIT_LABEL_BYTES + 1];
    struct address link;
    bool no_subdomains;
    UT_hash_handle hh;
};

struct registry {
    struct worker_group *group;
    unsigned workers; /* of the group, which is gone before the registry */
    pthread_mutex_t lock;
    struct entry *entries;
    struct arrivals arrivals; /* under the lock */
    atomic_bool expecting;    /* whether anybody is: what visitors' workers look at before they take the lock */
    struct route **copies;    /* one table per worker, touched by that worker alone */
};

static uint64_t now_ms(void)
{
    return uv_hrtime() / 1000000;
}

/* ---- publishing ------------------------------------------------------------------------------------------------ */

struct publication;

struct copy_task {
    struct task task;
    struct publication *publication;
};

/* One publication on its way through all workers. */
struct publication {
    struct registry *registry;
    char subdomain[LIMIT_LABEL_BYTES + 1];
    atomic_uint left;   /* workers that have not copied it yet */
    atomic_bool failed; /* one of them had no memory for it */
    struct worker *claimer;
    void (*published)(void *arg, int error); /* NULL for a release */
    void *arg;
    struct task done;
    struct copy_task copies[];
};

static void run_done(struct task *task)
{
    struct publication *p = (struct publication *)((char *)task - offsetof(struct publication, done));
    p->published(p->arg, atomic_load_explicit(&p->failed, memory_order_relaxed) ? KV_ENOMEM : KV_OK);
    free(p);
}

static void drop_done(struct message *message)
{
    free((char *)message - offsetof(struct publication, done));
}

static bool is_last(struct publication *p)
{
    return atomic_fetch_sub_explicit(&p->left, 1, memory_order_acq_rel) == 1;
}

/* A worker that ends before it copied: nobody is told any more. */
static void drop_copy(struct message *message)
{
    struct publication *p = ((struct copy_task *)message)->publication;
    if (is_last(p))
        free(p);
}

/* False without memory for it; removing needs none. */
static bool set_route(struct route **table, const char *subdomain, const struct registry_session *session)
{
    struct route *route;
    HASH_FIND_STR(*table, subdomain, route);
    if (!session) {
        if (route) {
            HASH_DEL(*table, route);
            free(route);
        }
        return true;
    }
    if (!route) {
        route = calloc(1, sizeof(*route));
        if (!route)
            return false;
        memcpy(route->subdomain, subdomain, strlen(subdomain));
        HASH_ADD_STR(*table, subdomain, route);
        if (!route->hh.tbl) {
            free(route);
            return false;
        }
    }
    route->link = session->link;
    route->no_subdomains = session->no_subdomains;
    return true;
}

static void run_copy(struct task *task)
{
    struct publication *p = ((struct copy_task *)task)->publication;
    struct registry *r = p->registry;
    struct entry *entry;
    struct registry_session session;
    pthread_mutex_lock(&r->lock);
    HASH_FIND_STR(r->entries, p->subdomain, entry);
    if (entry)
        session = entry->session;
    pthread_mutex_unlock(&r->lock);
    if (!set_route(&r->copies[worker_index(worker_current())], p->subdomain, entry ? &session : NULL))
        atomic_store_explicit(&p->failed, true, memory_order_relaxed);
    if (!is_last(p))
        return;
    if (p->published)
        worker_run(p->claimer, &p->done);
    else
        free(p);
}

static struct publication *publication_new(struct registry *r, const char *subdomain)
{
    unsigned count = worker_count(r->group);
    struct publication *p = calloc(1, sizeof(*p) + count * sizeof(p->copies[0]));
    if (!p)
        return NULL;
    p->registry = r;
    memcpy(p->subdomain, subdomain, strlen(subdomain));
    atomic_init(&p->left, count);
    p->done.run = run_done;
    p->done.message.drop = drop_done;
    for (unsigned i = 0; i < count; i++) {
        p->copies[i] = (struct copy_task){.task.run = run_copy, .publication = p};
        p->copies[i].task.message.drop = drop_copy;
    }
    return p;
}

static void publish(struct publication *p)
{
    /* The last worker frees it, perhaps before this loop has looked at its end again. */
    struct worker_group *group = p->registry->group;
    unsigned count = worker_count(group);
    for (unsigned i = 0; i < count; i++)
        worker_run(worker_at(group, i), &p->copies[i].task);
}

/* ---- claims ---------------------------------------------------------------------------------------------------- */

static void drop_eviction(struct message *message)
{
    free(message);
}

static struct registry_eviction *eviction_new(enum close_reason reason)
{
    struct registry_eviction *e = calloc(1, sizeof(*e));
    if (!e)
        return NULL;
    e->message.drop = drop_eviction;
    e->reason = reason;
    return e;
}

/* REASON_NONE: the holder stays. */
static enum close_reason may_evict(const struct registry_session *holder, const struct registry_session *claim,
                                   bool takeover)
{
    if (strcmp(holder->user_id, claim->user_id) != 0)
        return REASON_NONE;
    if (holder->has_instance && claim->has_instance &&
        memcmp(holder->instance, claim->instance, WIRE_INSTANCE_LEN) == 0)
        return REASON_REPLACED;
    return takeover ? REASON_TAKEN_OVER : REASON_NONE;
}

/* Under the lock: puts the session into the table, or says that it is taken. */
static int decide(struct registry *r, const struct registry_session *session, bool takeover,
                  enum registry_verdict *verdict)
{
    struct entry *entry;
    HASH_FIND_STR(r->entries, session->subdomain, entry);
    if (!entry && !arrivals_allow(&r->arrivals, session, takeover, now_ms())) {
        *verdict = REGISTRY_TAKEN;
        return KV_OK;
    }
    if (!entry) {
        entry = calloc(1, sizeof(*entry));
        if (!entry)
            return KV_ENOMEM;
        entry->session = *session;
        HASH_ADD_STR(r->entries, session.subdomain, entry);
        if (!entry->hh.tbl) {
            free(entry);
            return KV_ENOMEM;
        }
        arrivals_remove(&r->arrivals, session->subdomain);
        *verdict = REGISTRY_CLAIMED;
        return KV_OK;
    }
    enum close_reason reason = may_evict(&entry->session, session, takeover);
    if (reason == REASON_NONE) {
        *verdict = REGISTRY_TAKEN;
        return KV_OK;
    }
    struct registry_eviction *eviction = eviction_new(reason);
    if (!eviction)
        return KV_ENOMEM;
    message_send(entry->session.owner, &eviction->message);
    entry->session = *session; /* the key stays the same text */
    *verdict = REGISTRY_CLAIMED;
    return KV_OK;
}

int registry_claim(struct registry *r, const struct registry_session *session, bool takeover,
                   enum registry_verdict *verdict, void (*published)(void *arg, int error), void *arg)
{
    struct publication *p = publication_new(r, session->subdomain);
    if (!p)
        return KV_ENOMEM;
    p->claimer = worker_current();
    p->published = published;
    p->arg = arg;
    pthread_mutex_lock(&r->lock);
    int error = decide(r, session, takeover, verdict);
    pthread_mutex_unlock(&r->lock);
    if (error || *verdict != REGISTRY_CLAIMED)
        free(p);
    else
        publish(p);
    return error;
}

void registry_release(struct registry *r, const char *subdomain, const char *session)
{
    struct entry *entry;
    pthread_mutex_lock(&r->lock);
    HASH_FIND_STR(r->entries, subdomain, entry);
    if (entry && strcmp(entry->session.session, session) != 0)
        entry = NULL;
    if (entry)
        HASH_DEL(r->entries, entry);
    pthread_mutex_unlock(&r->lock);
    if (!entry)
        return;
    struct publication *p = publication_new(r, entry->session.subdomain);
    free(entry);
    if (p)
        publish(p); /* without memory the copies keep an address that answers "no tunnel" by itself */
}

/* ---- asking ---------------------------------------------------------------------------------------------------- */

bool registry_find(struct registry *r, struct slice subdomain, bool below, struct address *link)
{
    struct route *route;
    HASH_FIND(hh, r->copies[worker_index(worker_current())], subdomain.data, subdomain.len, route);
    if (!route || (below && route->no_subdomains))
        return false;
    *link = route->link;
    return true;
}

void registry_list(struct registry *r, void (*each)(void *arg, const struct registry_session *session), void *arg)
{
    pthread_mutex_lock(&r->lock);
    for (const struct entry *entry = r->entries; entry; entry = entry->hh.next)
        each(arg, &entry->session);
    pthread_mutex_unlock(&r->lock);
}

bool registry_kick(struct registry *r, struct slice subdomain)
{
    struct entry *entry;
    pthread_mutex_lock(&r->lock);
    HASH_FIND(hh, r->entries, subdomain.data, subdomain.len, entry);
    struct registry_eviction *eviction = entry ? eviction_new(REASON_KICKED) : NULL;
    if (eviction)
        message_send(entry->session.owner, &eviction->message);
    pthread_mutex_unlock(&r->lock);
    return eviction != NULL;
}

bool registry_is_live(struct registry *r, const char *subdomain)
{
    struct entry *entry;
    pthread_mutex_lock(&r->lock);
    HASH_FIND_STR(r->entries, subdomain, entry);
    pthread_mutex_unlock(&r->lock);
    return entry != NULL;
}

size_t registry_count(struct registry *r)
{
    pthread_mutex_lock(&r->lock);
    size_t count = HASH_COUNT(r->entries);
    pthread_mutex_unlock(&r->lock);
    return count;
}

/* ---- sessions that are expected -------------------------------------------------------------------------------- */

int registry_expect(struct registry *r, const struct registry_session *session)
{
    struct entry *entry;
    pthread_mutex_lock(&r->lock);
    HASH_FIND_STR(r->entries, session->subdomain, entry);
    int error = entry ? KV_OK : arrivals_add(&r->arrivals, session);
    pthread_mutex_unlock(&r->lock);
    return error;
}

void registry_expect_until(struct registry *r, unsigned patience_ms, bool anyone)
{
    pthread_mutex_lock(&r->lock);
    r->arrivals.until = now_ms() + patience_ms;
    r->arrivals.anyone = anyone;
    atomic_store_explicit(&r->expecting, true, memory_order_relaxed);
    pthread_mutex_unlock(&r->lock);
}

bool registry_awaits_sessions(struct registry *r)
{
    pthread_mutex_lock(&r->lock);
    bool awaits = now_ms() < r->arrivals.until && (r->arrivals.anyone || arrivals_count(&r->arrivals) > 0);
    pthread_mutex_unlock(&r->lock);
    return awaits;
}

bool registry_is_expecting(const struct registry *r)
{
    return atomic_load_explicit(&r->expecting, memory_order_relaxed);
}

bool registry_expects(struct registry *r, struct slice subdomain)
{
    struct route *route;
    if (!registry_is_expecting(r))
        return false;
    HASH_FIND(hh, r->copies[worker_index(worker_current())], subdomain.data, subdomain.len, route);
    if (route)
        return false;
    struct entry *entry;
    pthread_mutex_lock(&r->lock);
    uint64_t now = now_ms();
    HASH_FIND(hh, r->entries, subdomain.data, subdomain.len, entry); /* claimed, and not yet published to us */
    bool expected = entry || arrivals_has(&r->arrivals, subdomain, now);
    if (now >= r->arrivals.until) {
        arrivals_clear(&r->arrivals);
        atomic_store_explicit(&r->expecting, false, memory_order_relaxed);
    }
    pthread_mutex_unlock(&r->lock);
    return expected;
}

bool registry_expected_name(struct registry *r, const struct registry_session *session, char out[LIMIT_LABEL_BYTES + 1])
{
    pthread_mutex_lock(&r->lock);
    const char *name = arrivals_name_of(&r->arrivals, session, now_ms());
    if (name)
        memcpy(out, name, strlen(name) + 1);
    pthread_mutex_unlock(&r->lock);
    return name != NULL;
}

/* ---- start and end --------------------------------------------------------------------------------------------- */

struct registry *registry_new(struct worker_group *group)
{
    struct registry *r = calloc(1, sizeof(*r));
    if (!r)
        return NULL;
    r->copies = calloc(worker_count(group), sizeof(struct route *));
    if (!r->copies) {
        free(r);
        return NULL;
    }
    r->group = group;
    r->workers = worker_count(group);
    pthread_mutex_init(&r->lock, NULL);
    return r;
}

void registry_free(struct registry *r)
{
    if (!r)
        return;
    struct entry *entry, *next_entry;
    HASH_ITER (hh, r->entries, entry, next_entry) {
        HASH_DEL(r->entries, entry);
        free(entry);
    }
    for (unsigned i = 0; i < r->workers; i++) {
        struct route *route, *next_route;
        HASH_ITER (hh, r->copies[i], route, next_route) {
            HASH_DEL(r->copies[i], route);
            free(route);
        }
    }
    arrivals_clear(&r->arrivals);
    pthread_mutex_destroy(&r->lock);
    free(r->copies);
    free(r);
}
