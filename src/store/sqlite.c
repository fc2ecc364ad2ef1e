/*
 * The embedded back end: one SQLite file.
 *
 * The file holds secrets' hashes and people's addresses, so it is created 0600 before SQLite sees it (SQLite gives its
 * -wal and -shm files the mode of the main one), in a folder of 0700 when the folder is the default one. Journal: WAL
 * with synchronous=FULL, so that admin commands and the watcher read beside a writing server, and what was answered
 * with success survives a power cut. Writers wait for one another BACKEND_LOCK_MS.
 *
 * A connection belongs to one thread (SQLITE_OPEN_NOMUTEX). Never open the file with plain open(2) while a connection
 * exists: closing any descriptor of a file drops the process's POSIX locks on it, SQLite's too.
 */
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/random.h"
#include "store/store_backend.h"
#include "store/store_time.h"

struct sqlite {
    struct backend backend;
    char *path;
    bool make_folder;
    sqlite3 *db;         /* NULL: not open */
    uint64_t patience;   /* milliseconds to wait for another connection's write */
    uint64_t wait_until; /* of the wait that is under way */
    bool suspect;        /* the file itself failed: open it anew before the next use */
    struct {
        const struct statement *statement;
        sqlite3_stmt *prepared;
    } cache[BACKEND_STATEMENTS_MAX];
    size_t cached;
};

static struct sqlite *of(struct backend *backend)
{
    return (struct sqlite *)backend; /* its first member */
}

/* ---- failures -------------------------------------------------------------------------------------------------- */

static int classify(int code, int extended)
{
    switch (extended) {
    case SQLITE_CONSTRAINT_UNIQUE:
    case SQLITE_CONSTRAINT_PRIMARYKEY:
    case SQLITE_CONSTRAINT_ROWID:
        return KV_EEXIST;
    case SQLITE_CONSTRAINT_FOREIGNKEY:
        return KV_ENOTFOUND;
    default:
        break;
    }
    switch (code) {
    case SQLITE_NOMEM:
        return KV_ENOMEM;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_FULL:
    case SQLITE_IOERR:
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
    case SQLITE_PROTOCOL:
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return KV_EUNAVAIL;
    default:
        return KV_EIO;
    }
}

static int failed(struct sqlite *s, const char *what)
{
    int code = sqlite3_errcode(s->db) & 0xff, extended = sqlite3_extended_errcode(s->db);
    int os = sqlite3_system_errno(s->db);
    s->suspect |= code == SQLITE_IOERR || code == SQLITE_CORRUPT || code == SQLITE_NOTADB || code == SQLITE_CANTOPEN;
    bool blame_system = os != 0 && (code == SQLITE_CANTOPEN || code == SQLITE_IOERR || code == SQLITE_FULL);
    const char *reason = code == SQLITE_BUSY ? "another process keeps it locked" : sqlite3_errmsg(s->db);
    snprintf(s->backend.error, sizeof(s->backend.error), "%s %s: %s%s%s%s", what, s->path, reason,
             blame_system ? " (" : "", blame_system ? strerror(os) : "", blame_system ? ")" : "");
    return classify(code, extended);
}

/* ---- opening --------------------------------------------------------------------------------------------------- */

/* Called by SQLite while another connection has the lock. Short random pauses, so that whoever waits has the same
 * chance as whoever comes; SQLite's own handler sleeps longer and longer, and starves beside busy writers. */
static int wait_for_lock(void *arg, int waits)
{
    struct sqlite *s = arg;
    if (waits == 0)
        s->wait_until = store_ticks() + s->patience;
    if (store_ticks() >= s->wait_until)
        return 0;
    sqlite3_sleep(1 + (int)random_below(4));
    return 1;
}

static void close_db(struct sqlite *s)
{
    for (size_t i = 0; i < s->cached; i++)
        sqlite3_finalize(s->cache[i].prepared);
    s->cached = 0;
    sqlite3_close(s->db);
    s->db = NULL;
    s->suspect = false;
}

/* mkdir -p of the path's folders, each 0700. */
static int make_folders(struct sqlite *s)
{
    for (char *slash = strchr(s->path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        int made = mkdir(s->path, 0700), error = errno;
        if (made != 0 && error != EEXIST) {
            snprintf(s->backend.error, sizeof(s->backend.error), "cannot make the folder %s: %s", s->path,
                     strerror(error));
            *slash = '/';
            return KV_EUNAVAIL;
        }
        *slash = '/';
    }
    return KV_OK;
}

/* What root makes for a server that runs as somebody else belongs to that somebody: the owner of the folder, or, where
 * there is none yet, the user whose home it is to be. SQLite itself does the same for the files beside the database. */

/* Makes the database's own folder. False if it is nobody's home, or cannot be made. */
static bool make_home(const char *folder)
{
    const struct passwd *user;
    setpwent();
    do
        user = getpwent();
    while (user && strcmp(user->pw_dir, folder) != 0);
    bool made = user && mkdir(folder, 0700) == 0;
    if (made && chown(folder, user->pw_uid, user->pw_gid) != 0) {
        rmdir(folder);
        made = false;
    }
    endpwent();
    return made;
}

/* The folder of the path, made by root for its owner if it was missing. False if there is none. */
static bool find_folder(const struct sqlite *s, struct stat *folder)
{
    const char *slash = strrchr(s->path, '/');
    char *name = slash && slash > s->path ? strndup(s->path, (size_t)(slash - s->path)) : NULL;
    if (!name)
        return false;
    bool found = stat(name, folder) == 0;
    if (!found && errno == ENOENT && make_home(name))
        found = stat(name, folder) == 0;
    free(name);
    return found;
}

static int make_file(struct sqlite *s)
{
    struct stat folder;
    bool for_somebody = geteuid() == 0 && find_folder(s, &folder) && folder.st_uid != 0;
    int fd = open(s->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 && errno == EEXIST)
        return KV_OK;
    if (fd >= 0 && (!for_somebody || fchown(fd, folder.st_uid, folder.st_gid) == 0))
        return close(fd) == 0 ? KV_OK : KV_EUNAVAIL;
    snprintf(s->backend.error, sizeof(s->backend.error), "cannot make the database file %s: %s", s->path,
             strerror(errno));
    if (fd >= 0) { /* an empty file of root's would be in the server's way */
        close(fd);
        unlink(s->path);
    }
    return KV_EUNAVAIL;
}

/* SQLite does not wait when two connections turn a new file into WAL at once: one is refused, so it asks again. */
static int set_up(struct sqlite *s)
{
    uint64_t until = store_ticks() + BACKEND_LOCK_MS;
    int code;
    while ((code = sqlite3_exec(s->db,
                                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; "
                                "PRAGMA trusted_schema = OFF",
                                NULL, NULL, NULL)) == SQLITE_BUSY &&
           store_ticks() < until)
        sqlite3_sleep(10);
    return code;
}

static int sqlite_connect(struct backend *backend)
{
    struct sqlite *s = of(backend);
    if (s->db && s->suspect && sqlite3_get_autocommit(s->db))
        close_db(s);
    if (s->db)
        return KV_OK;
    int error = s->make_folder ? make_folders(s) : KV_OK;
    if (error == KV_OK)
        error = make_file(s);
    if (error != KV_OK)
        return error;

    if (sqlite3_open_v2(s->path, &s->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK)
        goto failed;
    s->patience = BACKEND_LOCK_MS;
    sqlite3_busy_handler(s->db, wait_for_lock, s);
    if (set_up(s) != SQLITE_OK)
        goto failed;
    return KV_OK;

failed:
    error = failed(s, "cannot open the database file");
    close_db(s);
    return error == KV_EIO ? KV_EUNAVAIL : error;
}

/* ---- statements ------------------------------------------------------------------------------------------------ */

static int prepare(struct sqlite *s, const struct statement *statement, sqlite3_stmt **out)
{
    for (size_t i = 0; i < s->cached; i++)
        if (s->cache[i].statement == statement) {
            *out = s->cache[i].prepared;
            return KV_OK;
        }
    if (s->cached == BACKEND_STATEMENTS_MAX) {
        snprintf(s->backend.error, sizeof(s->backend.error), "too many statements");
        return KV_ELIMIT;
    }
    if (sqlite3_prepare_v3(s->db, statement->sqlite, -1, SQLITE_PREPARE_PERSISTENT, out, NULL) != SQLITE_OK)
        return failed(s, "cannot ask");
    s->cache[s->cached].statement = statement;
    s->cache[s->cached++].prepared = *out;
    return KV_OK;
}

static int bind(struct sqlite *s, const struct statement *statement, sqlite3_stmt *prepared,
                const struct slice *parameters, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        char name[24];
        snprintf(name, sizeof(name), "$%zu", i + 1);
        int at = sqlite3_bind_parameter_index(prepared, name);
        if (at == 0)
            continue; /* the other dialect's only */
        int code;
        if (!parameters[i].data)
            code = sqlite3_bind_null(prepared, at);
        else if (statement->bytes & 1U << i)
            code = sqlite3_bind_blob64(prepared, at, parameters[i].data, parameters[i].len, SQLITE_STATIC);
        else
            code = sqlite3_bind_text64(prepared, at, parameters[i].data, parameters[i].len, SQLITE_STATIC, SQLITE_UTF8);
        if (code != SQLITE_OK)
            return failed(s, "cannot ask");
    }
    return KV_OK;
}

static int give_row(sqlite3_stmt *prepared, backend_row_fn *row, void *arg)
{
    struct slice columns[BACKEND_COLUMNS_MAX] = {0};
    int count = sqlite3_column_count(prepared);
    for (int i = 0; i < count && i < BACKEND_COLUMNS_MAX; i++) {
        const char *text = (const char *)sqlite3_column_text(prepared, i);
        columns[i] = (struct slice){text, (size_t)sqlite3_column_bytes(prepared, i)};
    }
    return row ? row(arg, columns) : KV_OK;
}

static int sqlite_run(struct backend *backend, const struct statement *statement, const struct slice *parameters,
                      size_t count, backend_row_fn *row, void *arg)
{
    struct sqlite *s = of(backend);
    sqlite3_stmt *prepared = NULL;
    int error = sqlite_connect(backend);
    if (error == KV_OK)
        error = prepare(s, statement, &prepared);
    if (error == KV_OK)
        error = bind(s, statement, prepared, parameters, count);
    if (error != KV_OK)
        return error;

    if (statement->may_be_lost)
        s->patience = 0;
    int rows = 0, code;
    while ((code = sqlite3_step(prepared)) == SQLITE_ROW) {
        rows++;
        error = give_row(prepared, row, arg);
        if (error != KV_OK)
            break;
    }
    if (code != SQLITE_ROW && code != SQLITE_DONE)
        error = failed(s, "cannot use");
    if (sqlite3_column_count(prepared) == 0)
        rows = sqlite3_changes(s->db);
    sqlite3_reset(prepared);
    sqlite3_clear_bindings(prepared);
    if (statement->may_be_lost)
        s->patience = BACKEND_LOCK_MS;
    return error != KV_OK ? error : rows;
}

static int sqlite_script(struct backend *backend, const char *sql)
{
    struct sqlite *s = of(backend);
    int error = sqlite_connect(backend);
    if (error != KV_OK)
        return error;
    return sqlite3_exec(s->db, sql, NULL, NULL, NULL) == SQLITE_OK ? KV_OK : failed(s, "cannot change");
}

/* ---- transactions ---------------------------------------------------------------------------------------------- */

static int sqlite_begin(struct backend *backend, enum backend_transaction kind)
{
    struct sqlite *s = of(backend);
    int error = sqlite_connect(backend);
    if (error != KV_OK)
        return error;
    /* IMMEDIATE takes the write lock now, where waiting for it is possible: a reader that becomes a writer later may
     * only be refused. It is also what lets one migrator at a time in. */
    if (kind == BACKEND_MIGRATE)
        s->patience = BACKEND_MIGRATE_MS;
    int code = sqlite3_exec(s->db, kind == BACKEND_READ ? "BEGIN" : "BEGIN IMMEDIATE", NULL, NULL, NULL);
    if (kind == BACKEND_MIGRATE)
        s->patience = BACKEND_LOCK_MS;
    return code == SQLITE_OK ? KV_OK : failed(s, "cannot use");
}

static void sqlite_rollback(struct backend *backend)
{
    struct sqlite *s = of(backend);
    if (s->db && !sqlite3_get_autocommit(s->db))
        sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
}

static int sqlite_commit(struct backend *backend)
{
    struct sqlite *s = of(backend);
    if (sqlite3_exec(s->db, "COMMIT", NULL, NULL, NULL) == SQLITE_OK)
        return KV_OK;
    int error = failed(s, "cannot write to");
    sqlite_rollback(backend);
    return error;
}

static void sqlite_free(struct backend *backend)
{
    struct sqlite *s = of(backend);
    close_db(s);
    free(s->path);
    free(s);
}

static const struct backend_ops sqlite_ops = {
    .name = "SQLite",
    .migrations = sqlite_migrations,
    .threads = 1, /* one writer at a time anyway, and reads take microseconds */
    .connect = sqlite_connect,
    .run = sqlite_run,
    .script = sqlite_script,
    .begin = sqlite_begin,
    .commit = sqlite_commit,
    .rollback = sqlite_rollback,
    .free = sqlite_free,
};

struct backend *sqlite_backend(const char *path, bool make_folder, char *error)
{
    struct sqlite *s = calloc(1, sizeof(*s));
    if (!s || !(s->path = strdup(path))) {
        snprintf(error, STORE_ERROR_LEN, "no memory");
        free(s);
        return NULL;
    }
    s->backend.ops = &sqlite_ops;
    s->make_folder = make_folder;
    return &s->backend;
}
