/*
 * A machine that slept: CLOCK_BOOTTIME is ahead by the seconds that stand in the file FAULT_BOOTTIME, as a number in
 * eight bytes that the test writes while the program runs. All other clocks tell the truth.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile const int64_t *slept;

__attribute__((constructor)) static void map(void)
{
    const char *name = getenv("FAULT_BOOTTIME");
    int fd = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *mapped = mmap(NULL, sizeof(*slept), PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (mapped != MAP_FAILED)
        slept = mapped;
}

int clock_gettime(clockid_t clock, struct timespec *out)
{
    int result = (int)syscall(SYS_clock_gettime, clock, out);
    if (result == 0 && clock == CLOCK_BOOTTIME && slept)
        out->tv_sec += *slept;
    return result;
}
