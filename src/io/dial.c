/*
 * resolve ── attempt 0 ──(250 ms or refused)── attempt 1 ── … ── the first connected socket wins, the others are
 * closed. Attempts are bare sockets watched by poll handles; the winner leaves its handle and goes to the caller.
 */
#include "io/dial.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "base/error.h"
#include "io/listener.h"
#include "io/resolve.h"
#include "io/worker.h"

#define STAGGER_MS 250 /* RFC 8305, 5: Connection Attempt Delay */
#define STORY_LEN  256 /* four addresses or so: more make a log line no clearer */

struct attempt {
    uv_poll_t poll;
    struct dial *dial; /* NULL once decided */
    int fd;
    unsigned index;
};

struct dial {
    struct worker *worker;
    void (*done)(void *arg, int fd, const struct sockaddr *address, int error, const char *text);
    void *arg;
    struct resolve *resolve;
    struct resolve_answer answer;
    unsigned next;    /* address to try next */
    unsigned running; /* attempts undecided */
    struct attempt *attempts[RESOLVE_ADDRESSES_MAX];
    struct deadline stagger;
    struct free_node free;
    int last_errno;
    char story[STORY_LEN]; /* "address: reason; address: reason", as far as it fits */
};

static void on_attempt_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void end_attempt(struct attempt *a, bool close_socket)
{
    a->dial->attempts[a->index] = NULL;
    a->dial->running--;
    a->dial = NULL;
    uv_close((uv_handle_t *)&a->poll, on_attempt_closed);
    if (close_socket)
        close(a->fd);
}

static void free_dial(struct free_node *node)
{
    free((char *)node - offsetof(struct dial, free));
}

static void dispose(struct dial *d)
{
    resolve_cancel(d->resolve);
    deadline_cancel(&d->stagger);
    for (unsigned i = 0; i < d->next; i++)
        if (d->attempts[i])
            end_attempt(d->attempts[i], true);
    d->free.free = free_dial;
    worker_free_later(d->worker, &d->free);
}

void dial_cancel(struct dial *dial)
{
    if (dial)
        dispose(dial);
}

static void finish(struct dial *d, int fd, const struct sockaddr *address, int error, const char *text)
{
    void (*done)(void *, int, const struct sockaddr *, int, const char *) = d->done;
    void *arg = d->arg;
    dispose(d); /* the answer, and so the address, lives until the turn's end */
    done(arg, fd, address, error, text);
}

static void try_next(struct dial *d);

static void note_failure(struct dial *d, unsigned index, int error_number)
{
    char address[SOCKADDR_TEXT_LEN];
    size_t len = strlen(d->story), room = sizeof(d->story) - len;
    sockaddr_format(&d->answer.addresses[index].any, address);
    int n = snprintf(d->story + len, room, "%s%s: %s", len > 0 ? "; " : "", address, strerror(error_number));
    if (n < 0 || (size_t)n >= room)
        d->story[len] = '\0';
}

/* An address did not work: the next one at once; after the last, the story is told. One address needs no name, it is
 * the one that was asked for. */
static void attempt_failed(struct dial *d, unsigned index, int error_number)
{
    note_failure(d, index, error_number);
    if (d->last_errno != ECONNREFUSED) /* somebody is there: that says more than "no route" to another address */
        d->last_errno = error_number;
    if (d->next < d->answer.count)
        try_next(d);
    else if (d->running == 0)
        finish(d, -1, NULL, d->last_errno == ECONNREFUSED ? KV_EREFUSED : KV_EIO,
               d->answer.count > 1 ? d->story : strerror(d->last_errno));
}

static void on_writable(uv_poll_t *poll, int status, int events)
{
    (void)events;
    struct attempt *a = poll->data;
    struct dial *d = a->dial;
    if (!d)
        return;
    int error_number = 0;
    socklen_t len = sizeof(error_number);
    /* libuv says EBADF for whatever went wrong; the socket knows better. */
    if (getsockopt(a->fd, SOL_SOCKET, SO_ERROR, &error_number, &len) != 0 || (status < 0 && error_number == 0))
        error_number = status < 0 ? -status : EIO;
    unsigned index = a->index;
    int fd = a->fd;
    end_attempt(a, error_number != 0);
    if (error_number)
        attempt_failed(d, index, error_number);
    else
        finish(d, fd, &d->answer.addresses[index].any, KV_OK, NULL);
}

/* 0 or an errno. */
static int start_attempt(struct dial *d, unsigned index)
{
    const union resolve_address *address = &d->answer.addresses[index];
    struct attempt *a = calloc(1, sizeof(*a));
    if (!a)
        return ENOMEM;
    int error_number = 0;
    a->fd = socket(address->any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (a->fd < 0) {
        error_number = errno;
        goto fail;
    }
    /* Interrupted, it goes on by itself as well (POSIX, connect). */
    if (connect(a->fd, &address->any, resolve_address_len(address)) != 0 && errno != EINPROGRESS && errno != EINTR) {
        error_number = errno;
        goto fail_socket;
    }
    if (uv_poll_init(worker_loop(d->worker), &a->poll, a->fd) != 0) {
        error_number = EIO;
        goto fail_socket;
    }
    a->poll.data = a;
    a->dial = d;
    a->index = index;
    d->attempts[index] = a;
    d->running++;
    uv_poll_start(&a->poll, UV_WRITABLE, on_writable);
    return 0;

fail_socket:
    close(a->fd);
fail:
    free(a);
    return error_number;
}

static void try_next(struct dial *d)
{
    unsigned index = d->next++;
    int error_number = start_attempt(d, index);
    if (error_number) {
        attempt_failed(d, index, error_number);
        return;
    }
    if (d->next < d->answer.count)
        deadline_arm(d->worker, &d->stagger, STAGGER_MS);
}

static void on_stagger(struct deadline *deadline)
{
    struct dial *d = (struct dial *)((char *)deadline - offsetof(struct dial, stagger));
    if (d->next < d->answer.count)
        try_next(d);
}

static void on_resolved(void *arg, int error, const char *text, const struct resolve_answer *answer)
{
    struct dial *d = arg;
    d->resolve = NULL;
    if (error) {
        finish(d, -1, NULL, error, text);
        return;
    }
    d->answer = *answer;
    try_next(d);
}

struct dial *dial_start(struct worker *worker, struct slice host, uint16_t port,
                        void (*done)(void *arg, int fd, const struct sockaddr *address, int error, const char *text),
                        void *arg)
{
    struct dial *d = calloc(1, sizeof(*d));
    if (!d)
        return NULL;
    d->worker = worker;
    d->done = done;
    d->arg = arg;
    d->stagger.expired = on_stagger;
    d->resolve = resolve_start(worker, host, port, on_resolved, d);
    if (!d->resolve) {
        free(d);
        return NULL;
    }
    return d;
}
