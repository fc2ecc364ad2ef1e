/*
 * Giving up rights. The order matters: groups first, because only root may set them; then the group; then the user, all
 * three of each (real, effective, saved), after which there is no way back.
 */
#include "io/process.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#ifdef __linux__
#include <sys/prctl.h>
#endif

#include "base/error.h"

#define NAME_LEN 64 /* LOGIN_NAME_MAX is 256, and nobody's is longer than this */

void process_harden(void)
{
#ifdef __linux__
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
#endif
}

static int split(const char *text, char name[NAME_LEN], char group[NAME_LEN], char *error)
{
    const char *colon = strchr(text, ':');
    size_t len = colon ? (size_t)(colon - text) : strlen(text);
    if (len == 0 || len >= NAME_LEN || (colon && (colon[1] == '\0' || strlen(colon + 1) >= NAME_LEN))) {
        snprintf(error, PROCESS_ERROR_LEN, "'%.64s' is no NAME or NAME:GROUP", text);
        return KV_EINVAL;
    }
    snprintf(name, NAME_LEN, "%.*s", (int)len, text);
    snprintf(group, NAME_LEN, "%s", colon ? colon + 1 : "");
    return KV_OK;
}

/* True if nothing of root is left, tried and not believed. */
static bool is_dropped(uid_t uid, gid_t gid)
{
    uid_t ruid, euid, suid;
    gid_t rgid, egid, sgid;
    if (getresuid(&ruid, &euid, &suid) != 0 || getresgid(&rgid, &egid, &sgid) != 0)
        return false;
    return ruid == uid && euid == uid && suid == uid && rgid == gid && egid == gid && sgid == gid && setuid(0) != 0;
}

static int drop(const struct passwd *user, bool own_groups, gid_t gid, char *error)
{
    int failed = own_groups ? initgroups(user->pw_name, gid) : setgroups(1, &gid);
    if (failed != 0 || setresgid(gid, gid, gid) != 0 || setresuid(user->pw_uid, user->pw_uid, user->pw_uid) != 0) {
        snprintf(error, PROCESS_ERROR_LEN, "cannot become %.64s: %s", user->pw_name, strerror(errno));
        return KV_EINVAL;
    }
    if (!is_dropped(user->pw_uid, gid)) {
        snprintf(error, PROCESS_ERROR_LEN, "cannot become %.64s: rights of root are left", user->pw_name);
        return KV_EINVAL;
    }
    return KV_OK;
}

int process_become(const char *text, char error[PROCESS_ERROR_LEN])
{
    char name[NAME_LEN], group_name[NAME_LEN];
    if (split(text, name, group_name, error) != KV_OK)
        return KV_EINVAL;
    const struct passwd *user = getpwnam(name);
    const struct group *group = group_name[0] ? getgrnam(group_name) : NULL;
    if (!user || (group_name[0] && !group)) {
        snprintf(error, PROCESS_ERROR_LEN, "there is no %s %s", user ? "group" : "user", user ? group_name : name);
        return KV_EINVAL;
    }
    if (user->pw_uid == 0) {
        snprintf(error, PROCESS_ERROR_LEN, "%s is root, whose rights are to be given up", name);
        return KV_EINVAL;
    }
    if (geteuid() == user->pw_uid)
        return KV_OK;
    if (geteuid() != 0) {
        snprintf(error, PROCESS_ERROR_LEN, "only root can become %s", name);
        return KV_EINVAL;
    }
    if (drop(user, !group, group ? group->gr_gid : user->pw_gid, error) != KV_OK)
        return KV_EINVAL;
    setenv("HOME", user->pw_dir, 1);
    unsetenv("XDG_DATA_HOME");
    process_harden(); /* the kernel makes a process that changes its user dumpable or not by a setting of its own */
    return KV_OK;
}
