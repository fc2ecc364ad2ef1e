/*
 * The watcher: a thread that asks once a second, in one query, whether the tokens and names of all live tunnels are
 * still good. Polling rather than notices, because the changes come from anywhere (admin commands in another process,
 * psql, another server) and both back ends must notice them alike. When the database cannot be asked nobody is closed.
 *
 * A watch:  listed ── the watcher found a reason ──► sent ── its task runs on the worker ──► called
 *              └───────────────────── store_watch_stop() ends it in any of the three ──────────┘
 *
 * The list and `sent` are under the thread's lock; `stopped` and `called` belong to the worker alone.
 */
#include <stdlib.h>
#include <utlist.h>

#include "base/buffer.h"
#include "base/log.h"
#include "io/worker.h"
#include "store/store_thread_impl.h"
#include "store/store_time.h"

struct store_watch {
    struct task task;
    struct store_watch *prev, *next;
    struct store_thread *thread;
    struct worker *worker;
    char user_id[STORE_ID_LEN + 1];
    char token_id[STORE_ID_LEN + 1];
    char subdomain[LIMIT_LABEL_BYTES + 1]; /* "" when it is no stored one */
    uint64_t poll;                         /* the last query that asked for it */
    bool sent;
    bool stopped, called;
    const char *sentence;
    void (*closed)(void *arg, const char *sentence);
    void *arg;
};

/* ---- what the database said ------------------------------------------------------------------------------------ */

static const struct statement ask_all = {
    .sqlite = "SELECT 'token', t.id, t.expires_at, u.disabled_at, u.deleted_at FROM api_tokens t "
              "JOIN users u ON u.id = t.user_id WHERE t.id IN (SELECT value FROM json_each($1)) "
              "UNION ALL SELECT 'name', n.subdomain, n.user_id, NULL, NULL FROM tunnels n "
              "WHERE n.released_at IS NULL AND n.subdomain IN (SELECT value FROM json_each($2))",
    .postgres = "SELECT 'token', CAST(t.id AS text), CAST(t.expires_at AS text), CAST(u.disabled_at AS text), "
                "CAST(u.deleted_at AS text) FROM api_tokens t JOIN users u ON u.id = t.user_id "
                "WHERE t.id IN (SELECT CAST(value AS uuid) FROM json_array_elements_text(CAST($1 AS json))) "
                "UNION ALL SELECT 'name', CAST(n.subdomain AS text), CAST(n.user_id AS text), NULL, NULL "
                "FROM tunnels n WHERE n.released_at IS NULL "
                "AND n.subdomain IN (SELECT value FROM json_array_elements_text(CAST($2 AS json)))",
};

struct finding {
    char key[1 + LIMIT_LABEL_BYTES + 1]; /* 't' and a token's id, or 'n' and a subdomain */
    char owner[STORE_ID_LEN + 1];        /* of a subdomain */
    const char *problem;                 /* of a token; NULL: none */
};

struct findings {
    struct finding *row;
    size_t count, room;
};

static const char *token_problem(const struct slice *columns)
{
    int64_t expiry;
    if (columns[2].data && (!store_time_parse(columns[2], &expiry) || expiry <= store_now()))
        return "the token has expired";
    if (columns[3].data)
        return "the account is disabled";
    return columns[4].data ? "the account was deleted" : NULL;
}

static int note_finding(void *arg, const struct slice *columns)
{
    struct findings *findings = arg;
    if (findings->count == findings->room) {
        size_t room = findings->room ? findings->room * 2 : 64;
        struct finding *grown = realloc(findings->row, room * sizeof(*grown));
        if (!grown)
            return KV_ENOMEM;
        findings->row = grown;
        findings->room = room;
    }
    struct finding *f = &findings->row[findings->count++];
    struct text_row text = {.count = 2, .column = {{f->key + 1, sizeof(f->key) - 1}, {f->owner, sizeof(f->owner)}}};
    bool token = slice_equals(columns[0], SLICE("token"));
    f->key[0] = token ? 't' : 'n';
    f->problem = token ? token_problem(columns) : NULL;
    return store_copy_row(&text, (const struct slice[]){columns[1], token ? (struct slice){0} : columns[2]});
}

static int compare(const void *a, const void *b)
{
    return strcmp(((const struct finding *)a)->key, ((const struct finding *)b)->key);
}

static const struct finding *find(const struct findings *findings, char kind, const char *key)
{
    struct finding wanted = {.key = {kind}};
    memcpy(wanted.key + 1, key, strlen(key) + 1);
    return findings->count ? bsearch(&wanted, findings->row, findings->count, sizeof(wanted), compare) : NULL;
}

/* Why this tunnel has to end, or NULL. */
static const char *judge(const struct findings *findings, const struct store_watch *watch)
{
    const struct finding *token = find(findings, 't', watch->token_id);
    if (!token)
        return "the token was revoked";
    if (token->problem || !watch->subdomain[0])
        return token->problem;
    const struct finding *name = find(findings, 'n', watch->subdomain);
    if (!name || strcmp(name->owner, watch->user_id) != 0)
        return "the name was released or has another subdomain now";
    return NULL;
}

/* ---- one poll -------------------------------------------------------------------------------------------------- */

/* JSON arrays of all that is watched: UUIDs and labels, which need no escapes. With the lock held. */
static int list_watched(struct store_thread *thread, struct buffer *tokens, struct buffer *names)
{
    int error = buffer_append_string(tokens, "[");
    error = error == KV_OK ? buffer_append_string(names, "[") : error;
    for (struct store_watch *w = thread->watches; w && error == KV_OK; w = w->next) {
        w->poll = thread->poll;
        error = buffer_printf(tokens, "%s\"%s\"", tokens->len > 1 ? "," : "", w->token_id);
        if (error == KV_OK && w->subdomain[0])
            error = buffer_printf(names, "%s\"%s\"", names->len > 1 ? "," : "", w->subdomain);
    }
    error = error == KV_OK ? buffer_append_string(tokens, "]") : error;
    return error == KV_OK ? buffer_append_string(names, "]") : error;
}

/* Those that were listed for this poll; later ones were not asked for. With the lock held. */
static void judge_all(struct store_thread *thread, const struct findings *findings)
{
    struct store_watch *watch, *next;
    DL_FOREACH_SAFE (thread->watches, watch, next) {
        watch->sentence = watch->poll == thread->poll ? judge(findings, watch) : NULL;
        if (!watch->sentence)
            continue;
        store_forget_token(thread, watch->token_id);
        DL_DELETE(thread->watches, watch);
        watch->sent = true;
        worker_run(watch->worker, &watch->task);
    }
}

static void poll_once(struct store_thread *thread)
{
    struct buffer tokens = BUFFER_INIT(BACKEND_PARAMETERS_BYTES / 2), names = BUFFER_INIT(BACKEND_PARAMETERS_BYTES / 2);
    struct findings findings = {0};
    pthread_mutex_lock(&thread->lock);
    thread->poll++;
    int error = list_watched(thread, &tokens, &names);
    pthread_mutex_unlock(&thread->lock);

    /* Asked with empty lists too: this is also how we know whether the database answers. */
    struct store *store = thread->watcher.store;
    if (error == KV_OK)
        error = STORE_RUN(store, &ask_all, note_finding, &findings, buffer_slice(&tokens), buffer_slice(&names));
    store_note_reachable(thread, error >= 0, store_error(store));
    if (error >= 0) {
        if (findings.count > 0)
            qsort(findings.row, findings.count, sizeof(*findings.row), compare);
        pthread_mutex_lock(&thread->lock);
        judge_all(thread, &findings);
        pthread_mutex_unlock(&thread->lock);
    }
    free(findings.row);
    buffer_free(&names);
    buffer_free(&tokens);
}

void *store_watch_main(void *arg)
{
    struct store_thread *thread = arg;
    pthread_mutex_lock(&thread->lock);
    while (!thread->stopping) {
        uint64_t at = store_ticks() + STORE_POLL_MS;
        struct timespec until = {.tv_sec = (time_t)(at / 1000), .tv_nsec = (long)(at % 1000) * 1000000};
        pthread_mutex_unlock(&thread->lock);
        poll_once(thread);
        pthread_mutex_lock(&thread->lock);
        while (!thread->stopping && store_ticks() < at)
            pthread_cond_timedwait(&thread->stop_waits, &thread->lock, &until);
    }
    pthread_mutex_unlock(&thread->lock);
    return NULL;
}

/* ---- on the watch's worker ------------------------------------------------------------------------------------- */

static void deliver(struct task *task)
{
    struct store_watch *watch = (struct store_watch *)task;
    if (watch->stopped) {
        free(watch);
        return;
    }
    watch->called = true;
    watch->closed(watch->arg, watch->sentence); /* may have freed it */
}

/* The worker ends before the task ran. */
static void drop(struct message *message)
{
    struct store_watch *watch = (struct store_watch *)message;
    watch->called = true;
    if (watch->stopped)
        free(watch);
}

struct store_watch *store_watch_start(struct store_thread *thread, struct worker *worker,
                                      const struct store_account *account, struct slice subdomain, bool named,
                                      void (*closed)(void *arg, const char *sentence), void *arg)
{
    struct store_watch *watch = calloc(1, sizeof(*watch));
    if (!watch)
        return NULL;
    watch->task.run = deliver;
    watch->task.message.drop = drop;
    watch->thread = thread;
    watch->worker = worker;
    watch->closed = closed;
    watch->arg = arg;
    memcpy(watch->user_id, account->user_id, sizeof(watch->user_id));
    memcpy(watch->token_id, account->token_id, sizeof(watch->token_id));
    if (named && subdomain.len <= LIMIT_LABEL_BYTES)
        memcpy(watch->subdomain, subdomain.data, subdomain.len);
    pthread_mutex_lock(&thread->lock);
    DL_APPEND(thread->watches, watch);
    pthread_mutex_unlock(&thread->lock);
    return watch;
}

void store_watch_stop(struct store_watch *watch)
{
    if (!watch)
        return;
    pthread_mutex_lock(&watch->thread->lock);
    bool sent = watch->sent;
    if (!sent)
        DL_DELETE(watch->thread->watches, watch);
    pthread_mutex_unlock(&watch->thread->lock);
    if (sent && !watch->called)
        watch->stopped = true; /* its task frees it */
    else
        free(watch);
}
