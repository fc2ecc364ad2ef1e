/*
 * The PostgreSQL back end: one libpq connection, driven without blocking calls so that every wait has a deadline. (The
 * blocking ones would wait for a stopped server for ever.)
 *
 *     closed ──connect, settings──► ready ──query──► ready
 *        ▲                            │
 *        └── lost, timed out ─────────┘   then refused without asking until retry_at; the pause doubles from
 *                                         BACKEND_RETRY_FIRST_MS to BACKEND_RETRY_MAX_MS
 *
 * A statement that was under way when the connection was lost is not sent again: whether it was done is not known. One
 * that finds a connection closed while it was idle (a restarted server) connects first and is sent once.
 *
 * libpq's own texts reach the operator on one line. They name hosts, users and databases, never passwords; the text of
 * a connection string that cannot be parsed may hold one and is kept back.
 */
#include <libpq-fe.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/buffer.h"
#include "store/store_backend.h"
#include "store/store_time.h"

/* Of the advisory lock that migrators take: "kavilo" in ASCII. */
#define MIGRATE_LOCK "118074549365103"

struct pg {
    struct backend backend;
    char *conninfo;
    PGconn *conn; /* NULL: closed */
    uint64_t retry_at;
    uint64_t pause;
    bool in_transaction; /* between begin and its end; a lost connection does not clear it, so that nothing that was
                            meant for the transaction runs outside of it on the next connection */
    uint64_t query_ms;   /* the deadline of one statement at the moment */
    const struct statement *prepared[BACKEND_STATEMENTS_MAX];
    size_t prepared_count;
};

static struct pg *of(struct backend *backend)
{
    return (struct pg *)backend; /* its first member */
}

/* ---- failures -------------------------------------------------------------------------------------------------- */

/* libpq's messages have several lines; an operator's sentence has one. */
static void say(struct pg *pg, const char *what, const char *text)
{
    int used = snprintf(pg->backend.error, sizeof(pg->backend.error), "PostgreSQL: %s", what);
    size_t len = (size_t)used < sizeof(pg->backend.error) ? (size_t)used : sizeof(pg->backend.error) - 1;
    bool gap = false;
    for (; *text && len + 3 < sizeof(pg->backend.error); text++) {
        if (*text == '\n' || *text == '\t' || *text == ' ') {
            gap = true;
            continue;
        }
        if (gap)
            pg->backend.error[len++] = ' ';
        gap = false;
        pg->backend.error[len++] = *text;
    }
    pg->backend.error[len] = '\0';
}

static void disconnect(struct pg *pg)
{
    PQfinish(pg->conn);
    pg->conn = NULL;
    pg->prepared_count = 0;
    pg->query_ms = BACKEND_QUERY_MS;
}

/* The connection is of no use any more; the text of why has been noted. */
static int lost(struct pg *pg)
{
    disconnect(pg);
    pg->pause = pg->pause == 0 ? BACKEND_RETRY_FIRST_MS : pg->pause * 2;
    if (pg->pause > BACKEND_RETRY_MAX_MS)
        pg->pause = BACKEND_RETRY_MAX_MS;
    pg->retry_at = store_ticks() + pg->pause;
    return KV_EUNAVAIL;
}

/* SQLSTATE (PostgreSQL manual, appendix A) of a refused statement. */
static int classify(const char *state)
{
    static const struct {
        const char *prefix;
        int error;
    } classes[] = {
        {"23505", KV_EEXIST},    /* unique_violation */
        {"23503", KV_ENOTFOUND}, /* foreign_key_violation */
        {"08", KV_EUNAVAIL},     /* connection exceptions */
        {"25006", KV_EUNAVAIL},  /* read_only_sql_transaction: a standby */
        {"40", KV_EUNAVAIL},     /* rolled back: deadlock, serialization */
        {"53", KV_EUNAVAIL},     /* out of disk, memory, connections */
        {"55P03", KV_EUNAVAIL},  /* lock_not_available */
        {"57", KV_EUNAVAIL},     /* shut down, cancelled by a time-out */
        {"58", KV_EUNAVAIL},     /* system error of the server */
    };
    for (size_t i = 0; i < sizeof(classes) / sizeof(classes[0]); i++)
        if (state && strncmp(state, classes[i].prefix, strlen(classes[i].prefix)) == 0)
            return classes[i].error;
    return KV_EIO;
}

/* ---- waiting --------------------------------------------------------------------------------------------------- */

static int wait_socket(struct pg *pg, short events, uint64_t deadline)
{
    uint64_t now = store_ticks();
    struct pollfd p = {.fd = PQsocket(pg->conn), .events = events};
    int ready = now < deadline && p.fd >= 0 ? poll(&p, 1, (int)(deadline - now)) : 0;
    return ready == 0 ? KV_ETIMEDOUT : KV_OK; /* an interrupted poll is asked again by the callers' loops */
}

/* Sends what is queued and takes results until there is none; the one that failed, or the last, is *out. */
static int await(struct pg *pg, PGresult **out)
{
    uint64_t deadline = store_ticks() + pg->query_ms;
    *out = NULL;
    for (;;) {
        int unsent = PQflush(pg->conn);
        if (unsent >= 0 && !PQisBusy(pg->conn) && unsent == 0) {
            PGresult *next = PQgetResult(pg->conn);
            if (!next)
                break;
            if (*out && PQresultStatus(*out) == PGRES_FATAL_ERROR) {
                PQclear(next);
                continue;
            }
            PQclear(*out);
            *out = next;
            continue;
        }
        if (unsent < 0)
            goto gone;
        if (wait_socket(pg, (short)(unsent ? POLLIN | POLLOUT : POLLIN), deadline) != KV_OK) {
            say(pg, "no answer in time", "");
            goto lost;
        }
        if (!PQconsumeInput(pg->conn))
            goto gone;
    }
    if (*out && PQstatus(pg->conn) == CONNECTION_OK)
        return KV_OK;

gone:
    say(pg, "the connection was lost: ", PQerrorMessage(pg->conn));
lost:
    PQclear(*out);
    *out = NULL;
    return lost(pg);
}

/* Waits for the results of what was sent, and sorts them. The result is the caller's on success. */
static int finish(struct pg *pg, int sent, PGresult **out)
{
    if (!sent) {
        say(pg, "cannot send: ", PQerrorMessage(pg->conn));
        *out = NULL;
        return lost(pg);
    }
    int error = await(pg, out);
    if (error != KV_OK)
        return error;
    ExecStatusType status = PQresultStatus(*out);
    if (status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK)
        return KV_OK;
    say(pg, "",
        PQresultErrorField(*out, PG_DIAG_MESSAGE_PRIMARY) ? PQresultErrorField(*out, PG_DIAG_MESSAGE_PRIMARY)
                                                          : PQresultErrorMessage(*out));
    error = classify(PQresultErrorField(*out, PG_DIAG_SQLSTATE));
    PQclear(*out);
    *out = NULL;
    return error;
}

/* Simple protocol: several statements without parameters. */
static int command(struct pg *pg, const char *sql)
{
    PGresult *result;
    int error = finish(pg, PQsendQuery(pg->conn, sql), &result);
    PQclear(result);
    return error;
}

/* ---- connecting ------------------------------------------------------------------------------------------------ */

static int handshake(struct pg *pg)
{
    uint64_t deadline = store_ticks() + BACKEND_CONNECT_MS;
    /* In front of the operator's string, whose settings win. */
    static const char *const keys[] = {"fallback_application_name", "keepalives_idle", "tcp_user_timeout", "dbname", 0};
    const char *const values[] = {"kavilo-tunneld", "30", "10000", pg->conninfo, 0};
    pg->conn = PQconnectStartParams(keys, values, 1);
    if (!pg->conn) {
        say(pg, "no memory", "");
        return KV_ENOMEM;
    }
    PostgresPollingStatusType next = PGRES_POLLING_WRITING;
    while (PQstatus(pg->conn) != CONNECTION_BAD && next != PGRES_POLLING_OK && next != PGRES_POLLING_FAILED) {
        if (wait_socket(pg, next == PGRES_POLLING_READING ? POLLIN : POLLOUT, deadline) != KV_OK) {
            say(pg, "the server does not answer", "");
            return KV_EUNAVAIL;
        }
        next = PQconnectPoll(pg->conn);
    }
    if (PQstatus(pg->conn) != CONNECTION_OK || PQsetnonblocking(pg->conn, 1) != 0) {
        say(pg, "", PQerrorMessage(pg->conn));
        return KV_EUNAVAIL;
    }
    return KV_OK;
}

static void ignore_notice(void *arg, const PGresult *result)
{
    (void)arg;
    (void)result;
}

static int pg_connect(struct backend *backend)
{
    struct pg *pg = of(backend);
    /* A server that went away while we were idle shows as an end of file now rather than in the middle of a query. */
    if (pg->conn && PQconsumeInput(pg->conn) && PQstatus(pg->conn) == CONNECTION_OK)
        return KV_OK;
    if (pg->in_transaction) {
        if (pg->conn) {
            say(pg, "the connection was lost within a transaction", "");
            lost(pg);
        }
        return KV_EUNAVAIL;
    }
    disconnect(pg);
    if (store_ticks() < pg->retry_at)
        return KV_EUNAVAIL; /* the sentence of the last try still stands */

    int error = handshake(pg);
    if (error != KV_OK) {
        lost(pg);
        return error;
    }
    PQsetNoticeReceiver(pg->conn, ignore_notice, NULL);
    /* The server's own time-outs end what we have stopped waiting for. The rest fixes the text form of values. */
    char settings[512];
    snprintf(settings, sizeof(settings),
             "SET client_encoding = 'UTF8'; SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; SET bytea_output = 'hex';"
             "SET statement_timeout = %d; SET lock_timeout = %d; SET idle_in_transaction_session_timeout = %d",
             BACKEND_QUERY_MS, BACKEND_LOCK_MS, BACKEND_MIGRATE_MS);
    error = command(pg, settings);
    if (error != KV_OK) {
        if (pg->conn)
            lost(pg);
        return KV_EUNAVAIL;
    }
    pg->pause = 0;
    return KV_OK;
}

/* ---- statements ------------------------------------------------------------------------------------------------ */

/* Prepares a statement once a connection; its name is its place in the list. */
static int prepare(struct pg *pg, const struct statement *statement, char name[8])
{
    size_t i = 0;
    while (i < pg->prepared_count && pg->prepared[i] != statement)
        i++;
    snprintf(name, 8, "s%u", (unsigned)(i % 1000));
    if (i < pg->prepared_count)
        return KV_OK;
    if (i == BACKEND_STATEMENTS_MAX) {
        say(pg, "too many statements", "");
        return KV_ELIMIT;
    }
    PGresult *result;
    int error = finish(pg, PQsendPrepare(pg->conn, name, statement->postgres, 0, NULL), &result);
    PQclear(result);
    if (error == KV_OK)
        pg->prepared[pg->prepared_count++] = statement;
    return error;
}

/* Parameters go as NUL-terminated text behind one another; bytes in the hex form that bytea reads. */
static int write_parameters(const struct statement *statement, const struct slice *parameters, size_t count,
                            struct buffer *text, const char **values)
{
    static const char digits[] = "0123456789abcdef";
    size_t starts[BACKEND_PARAMETERS_MAX];
    int error = KV_OK;
    for (size_t i = 0; i < count && error == KV_OK; i++) {
        starts[i] = text->len;
        if (!parameters[i].data)
            continue;
        if (statement->bytes & 1U << i) {
            error = buffer_append_string(text, "\\x");
            for (size_t j = 0; j < parameters[i].len && error == KV_OK; j++) {
                unsigned char byte = (unsigned char)parameters[i].data[j];
                error = buffer_append(text, (char[]){digits[byte >> 4], digits[byte & 15]}, 2);
            }
        } else {
            error = buffer_append_slice(text, parameters[i]);
        }
        if (error == KV_OK)
            error = buffer_append(text, "", 1);
    }
    for (size_t i = 0; i < count && error == KV_OK; i++)
        values[i] = parameters[i].data ? text->data + starts[i] : NULL;
    return error;
}

static int give_rows(const PGresult *result, backend_row_fn *row, void *arg)
{
    int rows = PQntuples(result), fields = PQnfields(result);
    for (int r = 0; r < rows && row; r++) {
        struct slice columns[BACKEND_COLUMNS_MAX] = {0};
        for (int f = 0; f < fields && f < BACKEND_COLUMNS_MAX; f++)
            if (!PQgetisnull(result, r, f))
                columns[f] = (struct slice){PQgetvalue(result, r, f), (size_t)PQgetlength(result, r, f)};
        int error = row(arg, columns);
        if (error != KV_OK)
            return error;
    }
    return rows;
}

static int pg_run(struct backend *backend, const struct statement *statement, const struct slice *parameters,
                  size_t count, backend_row_fn *row, void *arg)
{
    struct pg *pg = of(backend);
    const char *values[BACKEND_PARAMETERS_MAX] = {0};
    struct buffer text = BUFFER_INIT(BACKEND_PARAMETERS_BYTES);
    char name[8];
    PGresult *result = NULL;
    int error = pg_connect(backend);
    if (error == KV_OK)
        error = prepare(pg, statement, name);
    if (error == KV_OK)
        error = write_parameters(statement, parameters, count, &text, values);
    if (error == KV_OK)
        error = finish(pg, PQsendQueryPrepared(pg->conn, name, (int)count, values, NULL, NULL, 0), &result);
    if (error == KV_OK && PQresultStatus(result) == PGRES_TUPLES_OK)
        error = give_rows(result, row, arg);
    else if (error == KV_OK)
        error = (int)strtol(PQcmdTuples(result), NULL, 10);
    PQclear(result);
    buffer_free(&text);
    return error;
}

static int pg_script(struct backend *backend, const char *sql)
{
    int error = pg_connect(backend);
    return error == KV_OK ? command(of(backend), sql) : error;
}

/* ---- transactions ---------------------------------------------------------------------------------------------- */

static int pg_begin(struct backend *backend, enum backend_transaction kind)
{
    struct pg *pg = of(backend);
    char sql[256] = "BEGIN";
    int error = pg_connect(backend);
    if (error != KV_OK)
        return error;
    if (kind != BACKEND_WRITE)
        pg->query_ms = BACKEND_MIGRATE_MS;
    if (kind == BACKEND_READ)
        snprintf(sql, sizeof(sql), "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = 0");
    if (kind == BACKEND_MIGRATE)
        snprintf(sql, sizeof(sql),
                 "BEGIN; SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = %d;"
                 "SELECT pg_advisory_xact_lock(" MIGRATE_LOCK ")",
                 BACKEND_MIGRATE_MS / 2);
    pg->in_transaction = true;
    error = command(pg, sql);
    if (error != KV_OK)
        backend->ops->rollback(backend);
    return error;
}

static void pg_rollback(struct backend *backend)
{
    struct pg *pg = of(backend);
    char kept[STORE_ERROR_LEN];
    memcpy(kept, backend->error, sizeof(kept));
    pg->query_ms = BACKEND_QUERY_MS;
    pg->in_transaction = false;
    if (pg->conn && PQtransactionStatus(pg->conn) != PQTRANS_IDLE && command(pg, "ROLLBACK") != KV_OK && pg->conn)
        lost(pg);
    memcpy(backend->error, kept, sizeof(kept));
}

static int pg_commit(struct backend *backend)
{
    struct pg *pg = of(backend);
    PGresult *result = NULL;
    int error = pg_connect(backend);
    if (error == KV_OK)
        error = finish(pg, PQsendQuery(pg->conn, "COMMIT"), &result);
    /* COMMIT of a failed transaction succeeds as "ROLLBACK". */
    if (error == KV_OK && strcmp(PQcmdStatus(result), "COMMIT") != 0) {
        say(pg, "the transaction was rolled back", "");
        error = KV_EIO;
    }
    PQclear(result);
    pg_rollback(backend); /* of a committed one: only the bookkeeping */
    return error;
}

static void pg_free(struct backend *backend)
{
    struct pg *pg = of(backend);
    PQfinish(pg->conn);
    free(pg->conninfo);
    free(pg);
}

static const struct backend_ops pg_ops = {
    .name = "PostgreSQL",
    .migrations = postgres_migrations,
    .threads = 4, /* a round trip each; the server does the real work and has connections to spare for so many */
    .connect = pg_connect,
    .run = pg_run,
    .script = pg_script,
    .begin = pg_begin,
    .commit = pg_commit,
    .rollback = pg_rollback,
    .free = pg_free,
};

struct backend *pg_backend(const char *conninfo, char *error)
{
    char *why = NULL;
    PQconninfoOption *options = PQconninfoParse(conninfo, &why);
    bool valid = options != NULL;
    PQconninfoFree(options);
    PQfreemem(why);
    if (!valid) {
        snprintf(error, STORE_ERROR_LEN,
                 "this is no PostgreSQL connection string that can be read (libpq's URI or "
                 "keyword form; special characters in a URI's password are written as %%XX)");
        return NULL;
    }
    struct pg *pg = calloc(1, sizeof(*pg));
    if (!pg || !(pg->conninfo = strdup(conninfo))) {
        snprintf(error, STORE_ERROR_LEN, "no memory");
        free(pg);
        return NULL;
    }
    pg->backend.ops = &pg_ops;
    pg->query_ms = BACKEND_QUERY_MS;
    return &pg->backend;
}
