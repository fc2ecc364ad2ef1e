/*
 * Lanes: threads with a connection each that take connecting tunnels off one queue.
 *
 * A job is owned by the caller until it is queued, by the queue and then by one lane, and at last by the task that
 * brings the answer to its worker; cancelling only raises a flag that each of them looks at, so nobody waits for
 * anybody. When the database is gone a lane learns it once, and until the next try answers KV_EUNAVAIL at once, so the
 * queue does not grow.
 *
 * A reconnect storm (every client comes back after the network did) asks for the same tokens again and again. When the
 * queue has become that long, a check that succeeded within the last STORE_REMEMBER_MS is not repeated. In quiet times
 * every connect asks, and a revoked token is refused at once.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/blake3.h"
#include "base/log.h"
#include "io/worker.h"
#include "store/store_thread_impl.h"
#include "store/store_time.h"

struct store_job {
    struct task task; /* brings the job to its worker */
    struct store_job *next;
    struct worker *worker;
    uint64_t since;
    atomic_bool cancelled;
    void (*random_name)(char *out);
    void (*done)(void *arg, const struct store_answer *answer);
    void *arg;
    struct store_answer answer;
    char sentence[STORE_ERROR_LEN];
    size_t token_len, name_len;
    char text[]; /* token, then name */
};

static void free_job(struct store_job *job)
{
    if (job)
        secret_wipe(job->text, job->token_len);
    free(job);
}

void store_note_reachable(struct store_thread *thread, bool reachable, const char *why)
{
    if (atomic_exchange(&thread->reachable, reachable) == reachable)
        return;
    if (reachable)
        log_info("the account database answers again");
    else
        log_warn("the account database cannot be used; live tunnels go on, new ones are told to come again",
                 log_str("reason", why));
}

bool store_thread_reachable(const struct store_thread *thread)
{
    return atomic_load(&((struct store_thread *)thread)->reachable);
}

/* ---- remembered token checks ----------------------------------------------------------------------------------- */

static struct store_memory *memory_row(struct store_thread *thread, const uint8_t hash[BLAKE3_LEN])
{
    return &thread->memory[(hash[0] | (size_t)hash[1] << 8) % STORE_REMEMBER_ROWS];
}

static bool recall(struct store_thread *thread, const uint8_t hash[BLAKE3_LEN], struct store_account *account)
{
    pthread_mutex_lock(&thread->lock);
    struct store_memory *row = memory_row(thread, hash);
    bool usable =
        thread->waiting >= STORE_STORM_JOBS && row->until > store_ticks() && secret_equals(row->hash, hash, BLAKE3_LEN);
    if (usable)
        *account = row->account;
    pthread_mutex_unlock(&thread->lock);
    return usable;
}

static void remember(struct store_thread *thread, const uint8_t hash[BLAKE3_LEN], const struct store_account *account)
{
    pthread_mutex_lock(&thread->lock);
    struct store_memory *row = memory_row(thread, hash);
    memcpy(row->hash, hash, BLAKE3_LEN);
    row->account = *account;
    row->until = store_ticks() + STORE_REMEMBER_MS;
    pthread_mutex_unlock(&thread->lock);
}

void store_forget_token(struct store_thread *thread, const char *token_id)
{
    for (size_t i = 0; i < STORE_REMEMBER_ROWS; i++)
        if (strcmp(thread->memory[i].account.token_id, token_id) == 0)
            thread->memory[i].until = 0;
}

/* ---- one job, on its lane -------------------------------------------------------------------------------------- */

static int authenticate(struct store_lane *lane, struct slice token, struct store_account *account)
{
    uint8_t hash[BLAKE3_LEN];
    blake3(token.data, token.len, hash);
    if (recall(lane->owner, hash, account))
        return KV_OK;
    int error = store_authenticate(lane->store, token, account);
    if (error == KV_OK)
        remember(lane->owner, hash, account);
    return error;
}

static int find_random_name(struct store_lane *lane, struct store_job *job)
{
    int error = KV_EEXIST;
    for (int tries = 0; error == KV_EEXIST && tries < STORE_RANDOM_TRIES; tries++) {
        job->random_name(job->answer.subdomain);
        error = store_subdomain_is_free(lane->store, slice_of(job->answer.subdomain));
    }
    return error == KV_EEXIST ? KV_EUNAVAIL : error;
}

/* Operators read the reason in the log; to the user it is none of his business. */
static void explain(struct store_lane *lane, struct store_job *job, int error)
{
    bool for_user = error == KV_EREFUSED || error == KV_EINVAL || error == KV_EEXIST;
    if (error != KV_OK)
        snprintf(job->sentence, sizeof(job->sentence), "%s",
                 for_user ? store_error(lane->store) : "the server cannot reach its account database; try again later");
    job->answer.error = error;
    job->answer.sentence = job->sentence;
}

static void run_job(struct store_lane *lane, struct store_job *job)
{
    struct slice token = {job->text, job->token_len}, name = {job->text + job->token_len, job->name_len};
    int error = KV_EUNAVAIL;
    if (store_ticks() - job->since > STORE_JOB_MS) {
        explain(lane, job, error);
        return;
    }
    error = authenticate(lane, token, &job->answer.account);
    secret_wipe_stack(); /* where the token was hashed */
    if (error == KV_OK && name.len > 0)
        error = store_claim_name(lane->store, &job->answer.account, name, job->answer.subdomain);
    else if (error == KV_OK)
        error = find_random_name(lane, job);
    store_note_reachable(lane->owner, error != KV_EUNAVAIL, store_error(lane->store));
    explain(lane, job, error);
}

/* ---- the answer, on the job's worker --------------------------------------------------------------------------- */

static void deliver(struct task *task)
{
    struct store_job *job = (struct store_job *)task;
    if (!atomic_load(&job->cancelled))
        job->done(job->arg, &job->answer);
    free_job(job);
}

static void drop(struct message *message)
{
    free_job((struct store_job *)message);
}

/* ---- the queue ------------------------------------------------------------------------------------------------- */

static struct store_job *next_job(struct store_thread *thread)
{
    struct store_job *job = NULL;
    pthread_mutex_lock(&thread->lock);
    while (!thread->first && !thread->stopping)
        pthread_cond_wait(&thread->job_waits, &thread->lock);
    if (!thread->stopping) {
        job = thread->first;
        thread->first = job->next;
        if (!thread->first)
            thread->last = &thread->first;
        thread->waiting--;
    }
    pthread_mutex_unlock(&thread->lock);
    return job;
}

static void *lane_main(void *arg)
{
    struct store_lane *lane = arg;
    struct store_job *job;
    while ((job = next_job(lane->owner)) != NULL) {
        if (atomic_load(&job->cancelled)) {
            free_job(job);
            continue;
        }
        run_job(lane, job);
        worker_run(job->worker, &job->task);
    }
    return NULL;
}

struct store_job *store_connect(struct store_thread *thread, struct worker *worker, struct slice token,
                                struct slice name, void (*random_name)(char *out),
                                void (*done)(void *arg, const struct store_answer *answer), void *arg)
{
    /* Longer ones are refused as such; only so much of them is needed for that. */
    if (token.len > LIMIT_TOKEN_BYTES)
        token.len = LIMIT_TOKEN_BYTES + 1;
    if (name.len > LIMIT_HOST_BYTES)
        name.len = LIMIT_HOST_BYTES;
    struct store_job *job = calloc(1, sizeof(*job) + token.len + name.len);
    if (!job)
        return NULL;
    job->task.run = deliver;
    job->task.message.drop = drop;
    job->worker = worker;
    job->since = store_ticks();
    job->random_name = random_name;
    job->done = done;
    job->arg = arg;
    job->token_len = token.len;
    job->name_len = name.len;
    if (token.len > 0)
        memcpy(job->text, token.data, token.len);
    if (name.len > 0)
        memcpy(job->text + token.len, name.data, name.len);

    pthread_mutex_lock(&thread->lock);
    *thread->last = job;
    thread->last = &job->next;
    thread->waiting++;
    pthread_cond_signal(&thread->job_waits);
    pthread_mutex_unlock(&thread->lock);
    return job;
}

void store_cancel(struct store_job *job)
{
    atomic_store(&job->cancelled, true);
}

/* ---- start and stop -------------------------------------------------------------------------------------------- */

static bool start_lane(struct store_lane *lane, struct store_thread *thread, struct store *store, void *(*run)(void *),
                       void *arg)
{
    lane->owner = thread;
    lane->store = store;
    lane->running = store && pthread_create(&lane->thread, NULL, run, arg) == 0;
    return lane->running;
}

static void stop_lane(struct store_lane *lane)
{
    if (lane->running)
        pthread_join(lane->thread, NULL);
    store_close(lane->store);
}

struct store_thread *store_thread_start(struct store *store)
{
    struct store_thread *thread = calloc(1, sizeof(*thread));
    pthread_condattr_t monotonic;
    if (!thread || !(thread->memory = calloc(STORE_REMEMBER_ROWS, sizeof(*thread->memory)))) {
        free(thread);
        store_close(store);
        return NULL;
    }
    pthread_mutex_init(&thread->lock, NULL);
    pthread_cond_init(&thread->job_waits, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&thread->stop_waits, &monotonic);
    pthread_condattr_destroy(&monotonic);
    thread->last = &thread->first;
    atomic_init(&thread->reachable, true);

    thread->lanes = store->backend->ops->threads;
    bool started = start_lane(&thread->watcher, thread, store_clone(store), store_watch_main, thread);
    for (unsigned i = 0; i < thread->lanes; i++)
        started &=
            start_lane(&thread->lane[i], thread, i == 0 ? store : store_clone(store), lane_main, &thread->lane[i]);
    if (!started) {
        store_thread_stop(thread);
        return NULL;
    }
    return thread;
}

void store_thread_stop(struct store_thread *thread)
{
    if (!thread)
        return;
    pthread_mutex_lock(&thread->lock);
    thread->stopping = true;
    pthread_cond_broadcast(&thread->job_waits);
    pthread_cond_broadcast(&thread->stop_waits);
    pthread_mutex_unlock(&thread->lock);

    for (unsigned i = 0; i < thread->lanes; i++)
        stop_lane(&thread->lane[i]);
    stop_lane(&thread->watcher);
    while (thread->first) {
        struct store_job *job = thread->first;
        thread->first = job->next;
        free_job(job);
    }
    pthread_cond_destroy(&thread->stop_waits);
    pthread_cond_destroy(&thread->job_waits);
    pthread_mutex_destroy(&thread->lock);
    secret_wipe(thread->memory, STORE_REMEMBER_ROWS * sizeof(*thread->memory));
    free(thread->memory);
    free(thread);
}
