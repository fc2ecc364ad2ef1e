/* Small files: read up to a cap, replaced as a whole or not at all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "io/file.h"

static char folder[64];

static const char *in_folder(const char *name)
{
    static char path[PATH_MAX];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    return path;
}

static int set_up(void **state)
{
    (void)state;
    snprintf(folder, sizeof(folder), "/tmp/kavilo-test-file-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(in_folder("f"));
    return rmdir(folder); /* fails when something was left behind */
}

static void assert_content(const char *expected)
{
    struct buffer content;
    assert_int_equal(file_read(in_folder("f"), 4096, &content), 0);
    assert_int_equal(content.len, strlen(expected));
    assert_memory_equal(content.data, expected, content.len);
    file_wipe(&content);
    assert_null(content.data);
}

static void reads_up_to_its_cap(void **state)
{
    (void)state;
    struct buffer content;
    assert_int_equal(file_replace(in_folder("f"), SLICE("12345678")), 0);
    assert_int_equal(file_read(in_folder("f"), 8, &content), 0);
    assert_true(slice_equals(buffer_slice(&content), SLICE("12345678")));
    file_wipe(&content);
    assert_int_equal(file_read(in_folder("f"), 7, &content), KV_ELIMIT);
    assert_null(content.data);
    assert_int_equal(file_read("/dev/zero", 4096, &content), KV_ELIMIT);
    assert_int_equal(file_read(in_folder("absent"), 8, &content), KV_EIO);
    assert_int_equal(errno, ENOENT);
    assert_int_equal(file_read(folder, 8, &content), KV_EIO);
    assert_int_equal(errno, EISDIR);
    assert_int_equal(file_read("/dev/null", 8, &content), 0);
    assert_int_equal(content.len, 0);
    file_wipe(&content);
}

static void reads_pipes(void **state)
{
    (void)state;
    int ends[2];
    struct buffer content;
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(write(ends[1], "abc", 3), 3);
    close(ends[1]);
    assert_int_equal(file_read_fd(ends[0], 4096, &content), 0);
    assert_true(slice_equals(buffer_slice(&content), SLICE("abc")));
    file_wipe(&content);
    close(ends[0]);
}

static void replaces_whole_files(void **state)
{
    (void)state;
    struct stat facts;
    assert_int_equal(file_replace(in_folder("f"), SLICE("first, and longer")), 0);
    assert_content("first, and longer");
    assert_int_equal(stat(in_folder("f"), &facts), 0);
    assert_int_equal(facts.st_mode & 07777, 0600);
    ino_t before = facts.st_ino;
    assert_int_equal(file_replace(in_folder("f"), SLICE("second")), 0);
    assert_content("second");
    assert_int_equal(stat(in_folder("f"), &facts), 0);
    assert_true(facts.st_ino != before); /* a reader of the old one reads on undisturbed */
}

static void leaves_the_old_one_when_it_fails(void **state)
{
    (void)state;
    assert_int_equal(file_replace(in_folder("absent/f"), SLICE("x")), KV_EIO);
    assert_int_equal(errno, ENOENT);
    assert_int_equal(mkdir(in_folder("d"), 0700), 0);
    assert_int_equal(file_replace(in_folder("d"), SLICE("x")), KV_EIO);
    assert_int_equal(rmdir(in_folder("d")), 0);

    /* A write that stops in the middle, as on a full disk: the limit lets the first bytes through. */
    assert_int_equal(file_replace(in_folder("f"), SLICE("old")), 0);
    struct rlimit normal, small;
    getrlimit(RLIMIT_FSIZE, &normal);
    small = normal;
    small.rlim_cur = 4;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    int result = file_replace(in_folder("f"), SLICE("0123456789"));
    int cause = errno;
    setrlimit(RLIMIT_FSIZE, &normal);
    signal(SIGXFSZ, handler);
    assert_int_equal(result, KV_EIO);
    assert_int_equal(cause, EFBIG);
    assert_content("old");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(reads_up_to_its_cap, set_up, tear_down),
        cmocka_unit_test_setup_teardown(reads_pipes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(replaces_whole_files, set_up, tear_down),
        cmocka_unit_test_setup_teardown(leaves_the_old_one_when_it_fails, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
