/*
 * LD_PRELOAD: memory that runs out on order. Every allocation of the process is counted, whoever makes it (the program,
 * libuv, nghttp2, OpenSSL, SQLite, libc), and those whose number lies between `first` and `last` fail with ENOMEM.
 * Anonymous memory that is mapped is an allocation too, but for what libc maps for itself.
 *
 * FAULT_MALLOC names a file of one struct fault_malloc, which the test maps as well: it arms and disarms the fault
 * while the program runs, and reads how far the counting came. Under AddressSanitizer what follows us in the search
 * order is its allocator, so its checks stay (ASAN_OPTIONS=verify_asan_link_order=0 lets us stand in front of it).
 */
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FRAMES 12

/* Shared with tests/system/faults/shims.py. Numbers count from 1; `first` 0 is disarmed and counts nothing. */
struct fault_malloc {
    atomic_uint_least64_t first, last;
    atomic_uint_least64_t calls, failed;
    uint64_t frames[FRAMES]; /* return addresses of the latest failure, innermost first; 0 behind the last */
};

static struct fault_malloc *fault;

/* Weak, so that it can be seen to be missing: a sanitizer's runtime allocates before the loader has bound us. */
extern __typeof__(dlsym) dlsym __attribute__((weak));

static void *next(const char *name)
{
    static _Thread_local bool looking; /* dlsym may allocate; it lives without */
    if (!dlsym || looking)
        return NULL;
    looking = true;
    void *found = dlsym(RTLD_NEXT, name);
    looking = false;
    return found;
}

__attribute__((constructor)) static void map_fault(void)
{
    void *frames[1];
    backtrace(frames, 1); /* the first call loads what it needs */
    const char *path = getenv("FAULT_MALLOC");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *mapped = mmap(NULL, sizeof(*fault), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (mapped != MAP_FAILED)
        fault = mapped;
}

static void note_place(void)
{
    void *frames[FRAMES + 2];
    int count = backtrace(frames, FRAMES + 2);
    for (int i = 0; i < FRAMES; i++)
        fault->frames[i] = i + 2 < count ? (uint64_t)(uintptr_t)frames[i + 2] : 0;
}

/* True if this call is to fail. */
static bool fails(void)
{
    static _Thread_local bool noting; /* backtrace may allocate */
    uint64_t first = fault && !noting ? atomic_load(&fault->first) : 0;
    if (first == 0)
        return false;
    uint64_t call = atomic_fetch_add(&fault->calls, 1) + 1;
    if (call < first || call > atomic_load(&fault->last))
        return false;
    noting = true;
    note_place();
    noting = false;
    atomic_fetch_add(&fault->failed, 1);
    errno = ENOMEM;
    return true;
}

void *malloc(size_t size)
{
    static void *(*real)(size_t);
    if (!real)
        real = (void *(*)(size_t))(uintptr_t)next("malloc");
    return !real || fails() ? NULL : real(size);
}

void *calloc(size_t count, size_t size)
{
    static void *(*real)(size_t, size_t);
    if (!real)
        real = (void *(*)(size_t, size_t))(uintptr_t)next("calloc");
    return !real || fails() ? NULL : real(count, size);
}

void *realloc(void *old, size_t size)
{
    static void *(*real)(void *, size_t);
    if (!real)
        real = (void *(*)(void *, size_t))(uintptr_t)next("realloc");
    return !real || fails() ? NULL : real(old, size);
}

void *reallocarray(void *old, size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    return realloc(old, bytes);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    static void *(*real)(size_t, size_t);
    if (!real)
        real = (void *(*)(size_t, size_t))(uintptr_t)next("aligned_alloc");
    return !real || fails() ? NULL : real(alignment, size);
}

int posix_memalign(void **out, size_t alignment, size_t size)
{
    static int (*real)(void **, size_t, size_t);
    if (!real)
        real = (int (*)(void **, size_t, size_t))(uintptr_t)next("posix_memalign");
    return !real || fails() ? ENOMEM : real(out, alignment, size);
}

void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
    static void *(*real)(void *, size_t, int, int, int, off_t);
    if ((flags & MAP_ANONYMOUS) && fails())
        return MAP_FAILED;
    if (!real)
        real = (void *(*)(void *, size_t, int, int, int, off_t))(uintptr_t)next("mmap");
    if (!real) /* a sanitizer's runtime, before the loader has bound us */
        return (void *)(uintptr_t)syscall(SYS_mmap, address, length, protection, flags, fd, offset);
    return real(address, length, protection, flags, fd, offset);
}
