/* A count for each class, and the same for each visitor in a table of those who hold something. */
#include "tunnel/admission.h"

/* Without memory an element stays outside the table (hh.tbl is NULL) instead of ending the process. */
#define HASH_NONFATAL_OOM             1
#define HASH_FUNCTION(key, len, hash) ((hash) = (unsigned)(*(const uint64_t *)(key)*0x9e3779b97f4a7c15u >> 32))
#include <uthash.h>

#include "base/pool.h"

#define SHARE 3 /* times what is free */

struct admission_visitor {
    uint64_t site;
    uint32_t held[ADMISSION_CLASSES];
    UT_hash_handle hh;
};

static struct admission_visitor *find_visitor(struct admission *a, uint64_t site)
{
    struct admission_visitor *v;
    HASH_FIND(hh, a->visitors, &site, sizeof(site), v);
    if (v)
        return v;
    v = pool_zalloc(sizeof(*v));
    if (!v)
        return NULL;
    v->site = site;
    HASH_ADD(hh, a->visitors, site, sizeof(v->site), v);
    if (v->hh.tbl)
        return v;
    pool_free(v, sizeof(*v));
    return NULL;
}

static void forget_if_empty(struct admission *a, struct admission_visitor *v)
{
    if (v->held[ADMISSION_WORKING] > 0 || v->held[ADMISSION_STILL] > 0)
        return;
    HASH_DELETE(hh, a->visitors, v);
    pool_free(v, sizeof(*v));
}

static uint32_t free_places(const struct admission *a, enum admission_class class)
{
    return a->held[class] < a->caps[class] ? a->caps[class] - a->held[class] : 0;
}

static bool is_within_share(const struct admission *a, enum admission_class class, const struct admission_visitor *v)
{
    return v->held[class] < (uint64_t)SHARE * free_places(a, class);
}

static void count(struct admission *a, struct admission_place *place, enum admission_class class)
{
    place->class = class;
    a->held[class]++;
    if (place->visitor)
        place->visitor->held[class]++;
}

static void uncount(struct admission *a, struct admission_place *place)
{
    a->held[place->class]--;
    if (place->visitor)
        place->visitor->held[place->class]--;
}

enum close_reason admission_enter(struct admission *a, struct admission_place *place, uint64_t site)
{
    struct admission_visitor *v = NULL;
    if (free_places(a, ADMISSION_WORKING) == 0)
        return REASON_TUNNEL_BUSY;
    if (site != 0) {
        v = find_visitor(a, site);
        if (!v)
            return REASON_SERVER_BUSY;
        if (!is_within_share(a, ADMISSION_WORKING, v)) {
            forget_if_empty(a, v);
            return REASON_VISITOR_BUSY;
        }
    }
    *place = (struct admission_place){.visitor = v, .held = true};
    count(a, place, ADMISSION_WORKING);
    return REASON_NONE;
}

bool admission_rest(struct admission *a, struct admission_place *place)
{
    if (!place->held || place->class == ADMISSION_STILL || free_places(a, ADMISSION_STILL) == 0 ||
        (place->visitor && !is_within_share(a, ADMISSION_STILL, place->visitor)))
        return false;
    uncount(a, place);
    count(a, place, ADMISSION_STILL);
    return true;
}

void admission_wake(struct admission *a, struct admission_place *place)
{
    if (!place->held || place->class == ADMISSION_WORKING)
        return;
    uncount(a, place);
    count(a, place, ADMISSION_WORKING);
}

void admission_leave(struct admission *a, struct admission_place *place)
{
    if (!place->held)
        return;
    uncount(a, place);
    if (place->visitor)
        forget_if_empty(a, place->visitor);
    *place = (struct admission_place){.held = false};
}
