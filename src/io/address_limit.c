/*
 * The table of addresses: sets of eight entries, found by a hash with a key of this process's own, so that nobody can
 * choose addresses that meet in one set.
 */
#include "io/address_limit.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/bucket.h"
#include "base/random.h"
#include "io/conn.h"
#include "io/network.h"
#include "io/worker.h"

#define SETS_BITS     13
#define SETS          (1 << SETS_BITS)
#define WAYS          8
#define LOCKS         64
#define BURST_SECONDS 5 /* a page and all that belongs to it come at once */

struct entry { /* of one cache line */
    struct ip ip;
    uint32_t connections; /* open */
    bool used;            /* has been somebody's, and stays somebody's */
    uint64_t seen;        /* when it was last asked for, by the clock of the worker that asked */
    struct bucket connects, requests;
};

struct address_limit {
    struct address_rates rates;
    uint64_t key[2];
    pthread_mutex_t locks[LOCKS];
    struct entry sets[SETS][WAYS];
};

struct address_limit *address_limit_new(const struct address_rates *rates)
{
    struct address_limit *l = calloc(1, sizeof(*l)); /* pages that no address needs are never touched */
    if (!l)
        return NULL;
    l->rates = *rates;
    random_bytes(l->key, sizeof(l->key));
    for (unsigned i = 0; i < LOCKS; i++)
        pthread_mutex_init(&l->locks[i], NULL);
    return l;
}

void address_limit_free(struct address_limit *l)
{
    if (!l)
        return;
    for (unsigned i = 0; i < LOCKS; i++)
        pthread_mutex_destroy(&l->locks[i]);
    free(l);
}

/* ---- the table ------------------------------------------------------------------------------------------------- */

static struct ip subject_of(const struct ip *ip)
{
    struct ip subject = *ip;
    if (!ip_is_v4(ip))
        memset(subject.bytes + 8, 0, 8);
    return subject;
}

/* Multiply-shift hashing: the upper bits of a product with an odd key, in which every bit of an address has a part. Two
 * addresses meet with at most twice the chance that dice would give them (Dietzfelbinger et al., A Reliable Randomized
 * Algorithm for the Closest-Pair Problem, 1997). */
static unsigned set_of(const struct address_limit *l, const struct ip *subject)
{
    uint64_t high, low;
    memcpy(&high, subject->bytes, 8);
    memcpy(&low, subject->bytes + 8, 8);
    return (unsigned)((high * (l->key[0] | 1) + low * (l->key[1] | 1)) >> (64 - SETS_BITS));
}

/* The entry of an address. Its buckets are full when it is new; NULL when it is, and nobody can make room. A set is
 * filled from its beginning: behind one that nobody had yet there is none that is used. */
static struct entry *find(struct address_limit *l, unsigned set, const struct ip *subject, uint64_t now_ms)
{
    struct entry *silent = NULL;
    for (struct entry *e = l->sets[set]; e < l->sets[set] + WAYS; e++) {
        if (!e->used) {
            silent = e;
            break;
        }
        if (memcmp(&e->ip, subject, sizeof(*subject)) == 0)
            return e;
        if (e->connections == 0 && (!silent || e->seen < silent->seen))
            silent = e;
    }
    if (!silent)
        return NULL;
    *silent = (struct entry){.ip = *subject, .used = true};
    bucket_start(&silent->connects, l->rates.connections_per_second * BURST_SECONDS, now_ms);
    bucket_start(&silent->requests, l->rates.requests_per_second * BURST_SECONDS, now_ms);
    return silent;
}

static struct entry *lock_entry(struct address_limit *l, const struct ip *ip, uint64_t now_ms, unsigned *set)
{
    struct ip subject = subject_of(ip);
    *set = set_of(l, &subject);
    pthread_mutex_lock(&l->locks[*set % LOCKS]);
    struct entry *e = find(l, *set, &subject, now_ms);
    if (e)
        e->seen = now_ms;
    return e;
}

static bool take(struct bucket *b, uint32_t rate, uint64_t now_ms)
{
    if (rate == 0)
        return true;
    bucket_fill(b, rate, rate * BURST_SECONDS, now_ms);
    return bucket_take(b, 1);
}

/* ---- what is counted ------------------------------------------------------------------------------------------- */

bool address_limit_connect(struct address_limit *l, const struct ip *ip, uint64_t now_ms, bool *counted)
{
    unsigned set;
    struct entry *e = lock_entry(l, ip, now_ms, &set);
    bool may = !e || ((l->rates.connections == 0 || e->connections < l->rates.connections) &&
                      take(&e->connects, l->rates.connections_per_second, now_ms));
    *counted = e && may;
    if (*counted)
        e->connections++;
    pthread_mutex_unlock(&l->locks[set % LOCKS]);
    return may;
}

void address_limit_disconnect(struct address_limit *l, const struct ip *ip)
{
    struct ip subject = subject_of(ip);
    unsigned set = set_of(l, &subject);
    pthread_mutex_lock(&l->locks[set % LOCKS]);
    for (struct entry *e = l->sets[set]; e < l->sets[set] + WAYS; e++)
        if (memcmp(&e->ip, &subject, sizeof(subject)) == 0 && e->connections > 0)
            e->connections--;
    pthread_mutex_unlock(&l->locks[set % LOCKS]);
}

bool address_hold_take(struct address_limit *limit, const struct networks *exempt, const struct conn *conn,
                       struct address_hold *hold)
{
    *hold = (struct address_hold){.held = false};
    if (!limit)
        return true;
    hold->ip = ip_of(conn_peer(conn));
    if (exempt && networks_contain(exempt, &hold->ip))
        return true;
    return address_limit_connect(limit, &hold->ip, worker_now(conn_worker(conn)), &hold->held);
}

void address_hold_drop(struct address_limit *limit, struct address_hold *hold)
{
    if (hold->held)
        address_limit_disconnect(limit, &hold->ip);
    hold->held = false;
}

bool address_limit_request(struct address_limit *l, const struct ip *ip, uint64_t now_ms)
{
    if (l->rates.requests_per_second == 0)
        return true;
    unsigned set;
    struct entry *e = lock_entry(l, ip, now_ms, &set);
    bool may = !e || take(&e->requests, l->rates.requests_per_second, now_ms);
    pthread_mutex_unlock(&l->locks[set % LOCKS]);
    return may;
}
