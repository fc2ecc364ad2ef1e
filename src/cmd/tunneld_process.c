/* --user and --pid-file. See tunneld_process.h. */
#include "cmd/tunneld_process.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "cmd/cli.h"
#include "io/file.h"
#include "io/process.h"
#include "store/store.h"

/* The database and what SQLite puts beside it. Made by root, they would be found out at the first write, as a riddle.
 */
static int check_owner(const char *path)
{
    static const char *const suffixes[] = {"", "-wal", "-shm"};
    char file[4096 + 8];
    struct stat facts;
    for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
        snprintf(file, sizeof(file), "%s%s", path, suffixes[i]);
        if (stat(file, &facts) == 0 && facts.st_uid != geteuid())
            return cli_usage_error("--user: the database file %s is not this user's; chown it", file);
    }
    return CLI_EXIT_OK;
}

int server_become(const char *user, const char *database)
{
    char error[PROCESS_ERROR_LEN], standard[4096];
    if (!user[0])
        return CLI_EXIT_OK;
    if (process_become(user, error) != KV_OK)
        return cli_usage_error("--user %s: %s", user, error);
    if (!database[0] && store_default_url(standard, sizeof(standard)) == KV_OK)
        database = standard;
    const char *path = store_file_of(database);
    return path ? check_owner(path) : CLI_EXIT_OK;
}

int pid_file_write(const char *path)
{
    char text[24];
    if (!path[0])
        return CLI_EXIT_OK;
    int len = snprintf(text, sizeof(text), "%d\n", (int)getpid());
    if (file_replace(path, (struct slice){text, (size_t)len}) != KV_OK || chmod(path, 0644) != 0)
        return cli_usage_error("--pid-file %s: %s", path, strerror(errno));
    return CLI_EXIT_OK;
}

void pid_file_remove(const char *path)
{
    char text[24];
    struct buffer content;
    if (!path[0] || file_read(path, sizeof(text), &content) != KV_OK)
        return;
    int len = snprintf(text, sizeof(text), "%d\n", (int)getpid());
    if (slice_equals(buffer_slice(&content), (struct slice){text, (size_t)len}))
        unlink(path);
    buffer_free(&content);
}
