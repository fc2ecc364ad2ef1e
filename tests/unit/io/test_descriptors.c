/* Listeners share the process's descriptors, each with a reserve of its own. */
#include "io/descriptors.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
    SHARES = 2,
    LIMIT = 200,
    SPARE = 20,
};

static int fds[SHARES][LIMIT];
static size_t counts[SHARES];

/* Takes as many as the share may have; how many it has then. */
static size_t fill(unsigned share)
{
    while (descriptors_may_take(share)) {
        int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        assert_true(fd >= 0);
        descriptors_take(fd, share);
        fds[share][counts[share]++] = fd;
    }
    return counts[share];
}

static void empty(unsigned share)
{
    while (counts[share] > 0)
        descriptors_close(fds[share][--counts[share]]);
}

static void a_flood_leaves_the_others_reserve(void **state)
{
    (void)state;
    size_t total = LIMIT - descriptors_open() - SPARE, reserve = total / 8;
    assert_true(descriptors_may_take(0));
    assert_int_equal(descriptors_most(), SIZE_MAX); /* not divided */
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &(struct rlimit){LIMIT, LIMIT}), 0);
    assert_int_equal(descriptors_divide(SHARES, SPARE), 0);
    assert_int_equal(descriptors_most(), total - reserve);

    assert_int_equal(fill(0), total - reserve);
    assert_int_equal(fill(1), reserve);
    assert_false(descriptors_may_take(0) || descriptors_may_take(1));
    assert_true(descriptors_may_take(DESCRIPTOR_UNSHARED));

    empty(0);
    assert_int_equal(fill(1), total - reserve);
    assert_int_equal(fill(0), reserve);
    empty(0);
    empty(1);
}

/* A descriptor that was closed behind its back is counted anew when its number comes again. */
static void numbers_come_again(void **state)
{
    (void)state;
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    for (int i = 0; i < 2 * LIMIT; i++)
        descriptors_take(fd, 0);
    assert_true(descriptors_may_take(0));
    descriptors_close(fd);
    fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    descriptors_close(fd); /* one that is not counted */
    assert_int_equal(fill(0), descriptors_most());
    empty(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_flood_leaves_the_others_reserve),
        cmocka_unit_test(numbers_come_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
