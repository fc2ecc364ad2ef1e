/* Small files, read whole and replaced whole. */
#include "io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/blake3.h"
#include "base/error.h"
#include "base/random.h"

#define NAME_TRIES 8 /* names for the new file; each is random, so that a second try is rarely needed */

int file_read(const char *path, size_t limit, struct buffer *out)
{
    *out = (struct buffer)BUFFER_INIT(limit);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return KV_EIO;
    int result = file_read_fd(fd, limit, out);
    int saved = errno;
    close(fd);
    errno = saved;
    return result;
}

/* Up to `size` bytes, fewer only at the end of the file; -1 with errno. */
static ssize_t read_all(int fd, char *data, size_t size)
{
    size_t len = 0;
    while (len < size) {
        ssize_t n = read(fd, data + len, size - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        if (n == 0)
            break;
        len += (size_t)n;
    }
    return (ssize_t)len;
}

int file_read_fd(int fd, size_t limit, struct buffer *out)
{
    *out = (struct buffer)BUFFER_INIT(limit);
    int result = buffer_reserve(out, limit);
    if (result != 0)
        return result;
    ssize_t len = read_all(fd, out->data, limit);
    char beyond = 0;
    ssize_t more = len < (ssize_t)limit ? 0 : read_all(fd, &beyond, 1);
    out->len = len > 0 ? (size_t)len : 0;
    if (len < 0 || more != 0) {
        result = len < 0 || more < 0 ? KV_EIO : KV_ELIMIT;
        int saved = errno;
        file_wipe(out);
        errno = saved;
        return result;
    }
    return 0;
}

void file_wipe(struct buffer *content)
{
    if (content->data)
        secret_wipe(content->data, content->len);
    buffer_free(content);
}

static int write_all(int fd, struct slice content)
{
    while (content.len > 0) {
        ssize_t n = write(fd, content.data, content.len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        content.data += n;
        content.len -= (size_t)n;
    }
    return 0;
}

/* A rename is on disk once its folder is. Some file systems cannot sync folders: the file itself is whole anyway. */
static void sync_folder(const char *path)
{
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    snprintf(folder, sizeof(folder), "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        (void)fsync(fd);
        close(fd);
    }
}

/* Creates "<path>.<random>" that nobody else has; its name into temporary. The descriptor, or -1 with errno. */
static int create_beside(const char *path, char temporary[PATH_MAX])
{
    for (int i = 0; i < NAME_TRIES; i++) {
        char random[2 * 4 + 1];
        random_hex(random, 4);
        int len = snprintf(temporary, PATH_MAX, "%s.%s", path, random);
        if (len < 0 || len >= PATH_MAX) {
            errno = ENAMETOOLONG;
            return -1;
        }
        int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (fd >= 0 || errno != EEXIST)
            return fd;
    }
    return -1;
}

int file_replace(const char *path, struct slice content)
{
    int saved;
    char temporary[PATH_MAX];
    char *target = realpath(path, NULL); /* follows a link of the user's; fails for a file that is not there yet */
    if (!target && errno != ENOENT)
        return errno == ENOMEM ? KV_ENOMEM : KV_EIO;
    const char *place = target ? target : path;

    int fd = create_beside(place, temporary);
    if (fd < 0)
        goto err_create;
    if (write_all(fd, content) != 0 || fsync(fd) != 0)
        goto err_write;
    int closed = close(fd);
    fd = -1;
    if (closed != 0 || rename(temporary, place) != 0)
        goto err_write;
    sync_folder(place);
    free(target);
    return 0;

err_write:
    saved = errno;
    if (fd >= 0)
        close(fd);
    unlink(temporary);
    errno = saved;
err_create:
    saved = errno;
    free(target);
    errno = saved;
    return KV_EIO;
}
