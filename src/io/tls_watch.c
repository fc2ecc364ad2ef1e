/*
 * The thread that keeps a server's TLS fresh: new files, asked for or seen, and new keys for tickets. It is a thread of
 * its own because it reads files, and a network file system may take its time.
 *
 * Files are looked at, not watched: one stat(2) a file and second costs nothing, follows every symbolic link on the way
 * (certbot exchanges one, Kubernetes another one further up), and works on file systems that tell nobody of changes.
 */
#include "io/tls_server.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

#include "base/limits.h"

#define LOOK_S 1 /* a change has to hold for so long before it is believed */

struct tls_watch {
    struct tls_server *server;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool reload, stop;
};

/* Waits for the next look or an order; true for the end. */
static bool await_turn(struct tls_watch *watch, struct timespec *turn, bool *reload)
{
    pthread_mutex_lock(&watch->lock);
    int error = 0;
    while (!watch->stop && !watch->reload && error == 0)
        error = pthread_cond_timedwait(&watch->wake, &watch->lock, turn);
    *reload = watch->reload;
    watch->reload = false;
    bool stop = watch->stop;
    pthread_mutex_unlock(&watch->lock);
    return stop;
}

static void *run(void *arg)
{
    struct tls_watch *watch = arg;
    struct timespec turn;
    clock_gettime(CLOCK_MONOTONIC, &turn);
    time_t rotate_at = turn.tv_sec + LIMIT_TICKET_KEY_S;
    turn.tv_sec += LOOK_S;
    for (bool reload; !await_turn(watch, &turn, &reload);) {
        if (reload) {
            tls_server_reload(watch->server);
            continue;
        }
        tls_server_look(watch->server);
        clock_gettime(CLOCK_MONOTONIC, &turn);
        if (turn.tv_sec >= rotate_at) {
            tls_server_rotate_tickets(watch->server);
            rotate_at = turn.tv_sec + LIMIT_TICKET_KEY_S;
        }
        turn.tv_sec += LOOK_S;
    }
    return NULL;
}

struct tls_watch *tls_watch_start(struct tls_server *server)
{
    struct tls_watch *watch = calloc(1, sizeof(*watch));
    pthread_condattr_t clock;
    if (!watch)
        return NULL;
    watch->server = server;
    if (pthread_mutex_init(&watch->lock, NULL) != 0)
        goto fail_lock;
    if (pthread_condattr_init(&clock) != 0)
        goto fail_clock;
    if (pthread_condattr_setclock(&clock, CLOCK_MONOTONIC) != 0 || pthread_cond_init(&watch->wake, &clock) != 0)
        goto fail_wake;
    if (pthread_create(&watch->thread, NULL, run, watch) != 0)
        goto fail_thread;
    pthread_condattr_destroy(&clock);
    return watch;

fail_thread:
    pthread_cond_destroy(&watch->wake);
fail_wake:
    pthread_condattr_destroy(&clock);
fail_clock:
    pthread_mutex_destroy(&watch->lock);
fail_lock:
    free(watch);
    return NULL;
}

static void tell(struct tls_watch *watch, bool *what)
{
    pthread_mutex_lock(&watch->lock);
    *what = true;
    pthread_cond_signal(&watch->wake);
    pthread_mutex_unlock(&watch->lock);
}

void tls_watch_reload(struct tls_watch *watch)
{
    if (watch)
        tell(watch, &watch->reload);
}

void tls_watch_stop(struct tls_watch *watch)
{
    if (!watch)
        return;
    tell(watch, &watch->stop);
    pthread_join(watch->thread, NULL);
    pthread_cond_destroy(&watch->wake);
    pthread_mutex_destroy(&watch->lock);
    free(watch);
}
