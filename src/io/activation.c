/* The few lines of systemd's protocol that a server needs. See activation.h. */
#include "io/activation.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/error.h"
#include "base/slice.h"

/* ---- descriptors ----------------------------------------------------------------------------------------------- */

/* LISTEN_FDS as a number; 0 when there are none, or they are another process's. */
static int read_count(unsigned *count, char *error)
{
    const char *fds = getenv("LISTEN_FDS"), *pid = getenv("LISTEN_PID");
    uint64_t number, owner;
    *count = 0;
    if (!fds || !pid || !slice_to_u64(slice_of(pid), &owner) || owner != (uint64_t)getpid())
        return KV_OK;
    if (!slice_to_u64(slice_of(fds), &number) || number > ACTIVATION_MAX) {
        snprintf(error, ACTIVATION_ERROR_LEN, "LISTEN_FDS '%.20s': it has to be a number of at most %d", fds,
                 ACTIVATION_MAX);
        return KV_EINVAL;
    }
    *count = (unsigned)number;
    return KV_OK;
}

/* The next of the names between colons; the rest stays in *names. */
static struct slice next_name(struct slice *names)
{
    size_t len = 0;
    while (len < names->len && names->data[len] != ':')
        len++;
    struct slice name = {names->data, len};
    size_t taken = len < names->len ? len + 1 : len;
    names->data += taken;
    names->len -= taken;
    return name;
}

static int take_one(struct activation *out, struct slice name, char *error)
{
    int fd = ACTIVATION_FIRST_FD + (int)out->count;
    if (name.len >= ACTIVATION_NAME_LEN)
        name.len = ACTIVATION_NAME_LEN - 1;
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) {
        snprintf(error, ACTIVATION_ERROR_LEN, "LISTEN_FDS promises descriptor %d, and it is not open", fd);
        return KV_EINVAL;
    }
    out->given[out->count].fd = fd;
    snprintf(out->given[out->count].name, ACTIVATION_NAME_LEN, "%.*s", (int)name.len, name.data);
    out->count++;
    return KV_OK;
}

int activation_take(struct activation *out, char error[ACTIVATION_ERROR_LEN])
{
    unsigned count;
    out->count = 0;
    int result = read_count(&count, error);
    const char *given = getenv("LISTEN_FDNAMES");
    struct slice names = slice_of(given ? given : "");
    while (result == KV_OK && out->count < count)
        result = take_one(out, next_name(&names), error);
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDNAMES");
    return result;
}

void activation_close(struct activation *activation)
{
    for (unsigned i = 0; i < activation->count; i++)
        if (activation->given[i].fd >= 0)
            close(activation->given[i].fd);
    activation->count = 0;
}

/* ---- words ----------------------------------------------------------------------------------------------------- */

void activation_notify(const char *assignments)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t len = path ? strlen(path) : 0;
    if (len < 2 || len >= sizeof(address.sun_path) || (path[0] != '/' && path[0] != '@'))
        return;
    memcpy(address.sun_path, path, len);
    if (path[0] == '@') /* in the abstract name space, where names begin with a NUL */
        address.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    (void)sendto(fd, assignments, strlen(assignments), MSG_NOSIGNAL, (const struct sockaddr *)&address,
                 (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len));
    close(fd);
}
