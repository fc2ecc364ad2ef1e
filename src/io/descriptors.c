/*
 * A byte for each descriptor says whose share it counts in, so that whoever closes one need not know. It is given back
 * before the close, because the number may be another thread's at once.
 */
#include "io/descriptors.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <uv.h>

#include "base/error.h"

#define DESCRIPTORS_MAX (1024UL * 1024) /* as many as are counted, whatever the limit */
#define RESERVE_PART    8               /* of what is divided, for each share */
#define RESERVE_MAX     256             /* more than that is no reserve but a wall */
#define NOBODYS         0               /* in `owner`; otherwise the share and 1 */

static size_t total, reserve; /* total 0: not divided */
static unsigned share_count;
static atomic_size_t taken[DESCRIPTOR_SHARES_MAX];
static atomic_uchar *owner;
static size_t owner_count;

size_t descriptors_open(void)
{
    struct stat folder;
    uv_fs_t list;
    if (stat("/proc/self/fd", &folder) == 0 && folder.st_size > 0)
        return (size_t)folder.st_size; /* Linux 6.2 and later keep count; walking is slow when there are many */
    int count = uv_fs_scandir(NULL, &list, "/dev/fd", 0, NULL);
    uv_fs_req_cleanup(&list);
    return count > 0 ? (size_t)count - 1 : 0; /* less the one that was used for looking */
}

int descriptors_divide(unsigned shares, size_t spare)
{
    struct rlimit limit;
    if (shares > DESCRIPTOR_SHARES_MAX || getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return KV_OK;
    size_t most = limit.rlim_cur < DESCRIPTORS_MAX ? (size_t)limit.rlim_cur : DESCRIPTORS_MAX;
    size_t used = descriptors_open() + spare;
    if (most < used + (size_t)shares * RESERVE_PART)
        return KV_OK; /* too few to be divided */
    owner = calloc(most, sizeof(*owner));
    if (!owner)
        return KV_ENOMEM;
    owner_count = most;
    share_count = shares;
    total = most - used;
    reserve = total / RESERVE_PART < RESERVE_MAX ? total / RESERVE_PART : RESERVE_MAX;
    return KV_OK;
}

size_t descriptors_most(void)
{
    return total ? total - (share_count - 1) * reserve : SIZE_MAX;
}

bool descriptors_may_take(unsigned share)
{
    if (share >= share_count)
        return true;
    size_t spoken_for = 0;
    for (unsigned i = 0; i < share_count; i++) {
        size_t count = atomic_load_explicit(&taken[i], memory_order_relaxed);
        if (i == share && count < reserve)
            return true;
        spoken_for += i == share || count > reserve ? count : reserve;
    }
    return spoken_for < total;
}

/* Whose it was does not count it any more. */
static void give(int fd)
{
    if (fd < 0 || (size_t)fd >= owner_count)
        return;
    unsigned char before = atomic_exchange_explicit(&owner[fd], NOBODYS, memory_order_relaxed);
    if (before != NOBODYS)
        atomic_fetch_sub_explicit(&taken[before - 1], 1, memory_order_relaxed);
}

void descriptors_take(int fd, unsigned share)
{
    if (share >= share_count || fd < 0 || (size_t)fd >= owner_count)
        return;
    give(fd);
    atomic_fetch_add_explicit(&taken[share], 1, memory_order_relaxed);
    atomic_store_explicit(&owner[fd], (unsigned char)(share + 1), memory_order_relaxed);
}

void descriptors_close(int fd)
{
    give(fd);
    close(fd);
}
