/*
 * What a service manager, or the process that we succeed, has to do with a process beside signals: listening sockets
 * that were bound before it started, and a word when it serves. The protocol is systemd's (sd_listen_fds(3),
 * sd_notify(3)); a server that replaces itself (cmd/tunneld_upgrade.h) hands its sockets over in the same way.
 */
#ifndef KV_IO_ACTIVATION_H
#define KV_IO_ACTIVATION_H

#include <stddef.h>

#define ACTIVATION_MAX       512 /* descriptors: some for each worker */
#define ACTIVATION_NAME_LEN  32
#define ACTIVATION_ERROR_LEN 256
#define ACTIVATION_FIRST_FD  3 /* SD_LISTEN_FDS_START */

/* Descriptors that were handed to this process, each with its name; close-on-exec. Whoever uses one sets it to -1. */
struct activation {
    unsigned count;
    struct {
        int fd;
        char name[ACTIVATION_NAME_LEN];
    } given[ACTIVATION_MAX];
};

/* Takes what LISTEN_FDS, LISTEN_PID and LISTEN_FDNAMES tell of, and removes them from the environment, so that no child
 * of ours takes them for its own. Variables meant for another process give none. 0; or KV_EINVAL with a sentence. On
 * the main thread, before any other. */
int activation_take(struct activation *out, char error[ACTIVATION_ERROR_LEN]);

/* Closes what nobody used. */
void activation_close(struct activation *activation);

/* Tells the service manager ("READY=1\nMAINPID=42"), if NOTIFY_SOCKET names one. What cannot be told is not: nothing
 * here depends on it. Any thread. */
void activation_notify(const char *assignments);

#endif
