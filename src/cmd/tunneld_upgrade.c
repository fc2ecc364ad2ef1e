/* Both ends of a succession. See tunneld_upgrade.h. */
#include "cmd/tunneld_upgrade.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

#include "base/buffer.h"
#include "base/error.h"
#include "base/log.h"
#include "base/random.h"
#include "cmd/cli.h"
#include "cmd/tunneld_ports.h"
#include "io/activation.h"
#include "io/file.h"
#include "tunnel/registry.h"

#define CHANNEL_NAME   "succession"
#define CHANNEL_S      5 /* in which the list has to go on: writer and reader have nothing else to do */
#define LIST_MAX       (64 * 1024 * 1024) /* some hundred bytes a session */
#define STATUS_NO_EXEC 127                /* as a shell says it */

/* ---- starting the successor ------------------------------------------------------------------------------------ */

/* What the child needs, made before the fork: after it only system calls are safe, because other threads may have held
 * any lock (POSIX, fork). */
struct launch {
    int fds[ACTIVATION_MAX]; /* duplicates above those that they are to become */
    unsigned count;
    char names[ACTIVATION_MAX * ACTIVATION_NAME_LEN];
    char fds_variable[32], names_variable[ACTIVATION_MAX * ACTIVATION_NAME_LEN + 32];
    char pid_variable[32]; /* "LISTEN_PID=0000000000": the child puts its number in */
    char **environment;
    sigset_t mask;
};

#define PID_DIGITS 10

static int add(struct launch *launch, int fd, const char *name, unsigned total)
{
    size_t used = strlen(launch->names);
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, ACTIVATION_FIRST_FD + (int)total);
    if (copy < 0)
        return KV_EIO;
    launch->fds[launch->count++] = copy;
    snprintf(launch->names + used, sizeof(launch->names) - used, "%s%s", used > 0 ? ":" : "", name);
    return KV_OK;
}

static int make_environment(struct launch *launch)
{
    size_t count = 0;
    while (environ[count])
        count++;
    launch->environment = calloc(count + 4, sizeof(char *));
    if (!launch->environment)
        return KV_ENOMEM;
    memcpy(launch->environment, environ, count * sizeof(char *));
    snprintf(launch->fds_variable, sizeof(launch->fds_variable), "LISTEN_FDS=%u", launch->count);
    snprintf(launch->names_variable, sizeof(launch->names_variable), "LISTEN_FDNAMES=%s", launch->names);
    snprintf(launch->pid_variable, sizeof(launch->pid_variable), "LISTEN_PID=%0*d", PID_DIGITS, 0);
    launch->environment[count++] = launch->fds_variable;
    launch->environment[count++] = launch->names_variable;
    launch->environment[count] = launch->pid_variable;
    return KV_OK;
}

static int prepare(struct launch *launch, const struct port *ports, unsigned count, int channel)
{
    unsigned total = 1;
    for (unsigned i = 0; i < count; i++)
        total += ports[i].count;
    int error = total <= ACTIVATION_MAX ? add(launch, channel, CHANNEL_NAME, total) : KV_ELIMIT;
    for (unsigned i = 0; !error && i < count; i++)
        for (unsigned k = 0; !error && k < ports[i].count; k++)
            error = add(launch, ports[i].fds[k], ports[i].name, total);
    return error ? error : make_environment(launch);
}

static void release(struct launch *launch)
{
    for (unsigned i = 0; i < launch->count; i++)
        close(launch->fds[i]);
    free(launch->environment);
    free(launch);
}

/* The child, from fork to exec: system calls only. The search in PATH is as the shell's was. */
_Noreturn static void become(struct launch *launch)
{
    char *digit = launch->pid_variable + strlen(launch->pid_variable);
    pid_t pid = getpid();
    for (int i = 0; i < PID_DIGITS; i++, pid /= 10)
        *--digit = (char)('0' + pid % 10);
    int channel = launch->fds[0];
    for (unsigned i = 0; i < launch->count; i++)
        if (dup2(launch->fds[i], ACTIVATION_FIRST_FD + (int)i) < 0)
            _exit(STATUS_NO_EXEC);
    signal(SIGPIPE, SIG_DFL);
    sigprocmask(SIG_SETMASK, &launch->mask, NULL);
    char **arguments = cli_arguments();
    execvpe(arguments[0], arguments, launch->environment);
    unsigned char why = (unsigned char)errno;
    (void)!write(channel, &why, 1);
    _exit(STATUS_NO_EXEC);
}

static uint64_t now_ms(void)
{
    return uv_hrtime() / 1000000;
}

void upgrade_start(struct upgrade *upgrade, const struct port *ports, unsigned count, const sigset_t *mask)
{
    int pair[2] = {-1, -1};
    struct launch *launch = calloc(1, sizeof(*launch));
    int error = launch ? KV_OK : KV_ENOMEM;
    if (!error && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        error = KV_EIO;
    if (!error)
        error = prepare(launch, ports, count, pair[1]);
    if (!error) {
        launch->mask = *mask;
        upgrade->child = fork();
        if (upgrade->child == 0)
            become(launch);
    }
    if (error || upgrade->child < 0) {
        log_error("no successor can be started; serving on", log_str("cause", strerror(errno)));
        upgrade->child = 0;
        if (pair[0] >= 0)
            close(pair[0]);
    } else {
        upgrade->channel = pair[0];
        upgrade->started = now_ms();
        log_info("upgrade: a successor is starting; serving on until it is ready", log_int("pid", upgrade->child),
                 log_str("program", cli_arguments()[0]));
    }
    if (pair[1] >= 0)
        close(pair[1]);
    if (launch)
        release(launch);
}

/* ---- waiting for it -------------------------------------------------------------------------------------------- */

static void reap(struct upgrade *upgrade)
{
    close(upgrade->channel);
    while (waitpid(upgrade->child, NULL, 0) < 0 && errno == EINTR)
        continue;
    upgrade->child = 0;
}

void upgrade_cancel(struct upgrade *upgrade)
{
    if (!upgrade->child)
        return;
    kill(upgrade->child, SIGKILL);
    reap(upgrade);
}

static void tell_failure(struct upgrade *upgrade, unsigned char why)
{
    int status = 0;
    if (why) {
        log_error("upgrade failed: the program cannot be executed; serving on", log_str("program", cli_arguments()[0]),
                  log_str("cause", strerror(why)));
        reap(upgrade);
        return;
    }
    kill(upgrade->child, SIGKILL); /* it closed the channel, so it ends or has ended */
    while (waitpid(upgrade->child, &status, 0) < 0 && errno == EINTR)
        continue;
    log_error("upgrade failed: the successor ended before it was ready, its last words are above; serving on",
              log_int("pid", upgrade->child), log_int("status", WIFEXITED(status) ? WEXITSTATUS(status) : -1));
    close(upgrade->channel);
    upgrade->child = 0;
}

enum upgrade_state upgrade_poll(struct upgrade *upgrade)
{
    unsigned char word = 0;
    if (!upgrade->child)
        return UPGRADE_NONE;
    ssize_t n = recv(upgrade->channel, &word, 1, MSG_DONTWAIT);
    if (n == 1 && word == 0)
        return UPGRADE_READY;
    if (n >= 0) {
        tell_failure(upgrade, word);
        return UPGRADE_NONE;
    }
    if (now_ms() - upgrade->started < LIMIT_UPGRADE_MS)
        return UPGRADE_STARTING;
    log_error("upgrade failed: the successor was not ready in time and was ended; serving on",
              log_int("pid", upgrade->child), log_uint("after_ms", LIMIT_UPGRADE_MS));
    upgrade_cancel(upgrade);
    return UPGRADE_NONE;
}

/* ---- the list, written ----------------------------------------------------------------------------------------- */

static void add_session(void *arg, const struct registry_session *session)
{
    char instance[2 * WIRE_INSTANCE_LEN + 1] = "-";
    for (size_t i = 0; session->has_instance && i < WIRE_INSTANCE_LEN; i++)
        snprintf(instance + 2 * i, 3, "%02x", session->instance[i]);
    buffer_printf(arg, "%s %s %s %s\n", session->subdomain, session->user_id, instance,
                  session->named ? "named" : "random");
}

static bool send_all(int fd, struct slice bytes)
{
    while (bytes.len > 0) {
        ssize_t n = send(fd, bytes.data, bytes.len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        bytes.data += n;
        bytes.len -= (size_t)n;
    }
    return true;
}

void upgrade_hand_over(struct upgrade *upgrade, struct registry *registry)
{
    char words[64];
    const struct timeval patience = {.tv_sec = CHANNEL_S};
    struct buffer list = BUFFER_INIT(LIST_MAX);
    /* The service manager hears it from us, whom it believes, before the successor speaks for itself. */
    snprintf(words, sizeof(words), "MAINPID=%d", (int)upgrade->child);
    activation_notify(words);
    buffer_printf(&list, SUCCESSION_HEADING "\n");
    registry_list(registry, add_session, &list);
    setsockopt(upgrade->channel, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    if (!send_all(upgrade->channel, buffer_slice(&list)))
        log_warn("the successor did not take the list of sessions; it serves without");
    log_info("upgrade: the successor serves", log_int("pid", upgrade->child),
             log_uint("sessions", registry_count(registry)));
    buffer_free(&list);
    close(upgrade->channel);
    upgrade->child = 0;
}

/* ---- the list, read -------------------------------------------------------------------------------------------- */

int succession_take(struct activation *given)
{
    for (unsigned i = 0; i < given->count; i++) {
        int fd = given->given[i].fd;
        if (fd < 0 || strcmp(given->given[i].name, CHANNEL_NAME) != 0)
            continue;
        given->given[i].fd = -1;
        return fd;
    }
    return -1;
}

/* Cuts what is before the separator, or all, from *rest. */
static struct slice cut(struct slice *rest, char separator)
{
    const char *end = rest->len > 0 ? memchr(rest->data, separator, rest->len) : NULL;
    struct slice part = {rest->data, end ? (size_t)(end - rest->data) : rest->len};
    size_t taken = end ? part.len + 1 : part.len;
    rest->data += taken;
    rest->len -= taken;
    return part;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool read_text(char *out, size_t size, struct slice text)
{
    if (text.len == 0 || text.len >= size)
        return false;
    memcpy(out, text.data, text.len);
    return true;
}

/* One line; what it says beyond what we know is a newer version's. */
static bool read_session(struct slice line, struct registry_session *out)
{
    *out = (struct registry_session){0};
    if (!read_text(out->subdomain, sizeof(out->subdomain), cut(&line, ' ')) ||
        !read_text(out->user_id, sizeof(out->user_id), cut(&line, ' ')))
        return false;
    struct slice instance = cut(&line, ' ');
    out->has_instance = instance.len == 2 * WIRE_INSTANCE_LEN;
    for (size_t i = 0; out->has_instance && i < WIRE_INSTANCE_LEN; i++) {
        int high = hex_digit(instance.data[2 * i]), low = hex_digit(instance.data[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        out->instance[i] = (uint8_t)(high << 4 | low);
    }
    out->named = !slice_equals(cut(&line, ' '), SLICE("random"));
    return true;
}

static unsigned expect_all(struct registry *registry, struct slice list)
{
    unsigned count = 0;
    struct registry_session session;
    if (!slice_equals(cut(&list, '\n'), SLICE(SUCCESSION_HEADING)))
        return 0;
    while (list.len > 0)
        if (read_session(cut(&list, '\n'), &session) && registry_expect(registry, &session) == KV_OK)
            count++;
    return count;
}

/* True with all of it, otherwise `list` has its beginning. */
static bool read_list(int channel, struct buffer *list)
{
    const struct timeval patience = {.tv_sec = CHANNEL_S};
    char part[16384];
    ssize_t n;
    setsockopt(channel, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    while ((n = recv(channel, part, sizeof(part), 0)) > 0 || (n < 0 && errno == EINTR))
        if (n > 0 && buffer_append(list, part, (size_t)n) != KV_OK)
            return false;
    return n == 0 && list->len > 0;
}

void succession_take_over(int channel, struct registry *registry)
{
    const unsigned char ready = 0;
    struct buffer list = BUFFER_INIT(LIST_MAX);
    (void)!send(channel, &ready, 1, MSG_NOSIGNAL);
    bool complete = read_list(channel, &list);
    close(channel);
    struct slice told = buffer_slice(&list);
    while (told.len > 0 && told.data[told.len - 1] != '\n') /* half a line may name somebody else */
        told.len--;
    unsigned count = expect_all(registry, told);
    if (!complete)
        log_warn("the other process did not tell all of its sessions; visitors of any name wait for a client");
    registry_expect_until(registry, LIMIT_ARRIVAL_MS, !complete);
    buffer_free(&list);
    log_info("taking over from another process", log_uint("expected_sessions", count));
}
