/* `kavilo-tunneld serve`: the server itself, from its settings to its exit status. */
#ifndef KV_CMD_TUNNELD_SERVE_H
#define KV_CMD_TUNNELD_SERVE_H

#include "base/limits.h"
#include "base/log.h"
#include "cmd/cli.h"
#include "cmd/tunneld_admin.h"
#include "io/network.h"
#include "io/tls_server.h"

struct serve_settings {
    struct admin_settings store; /* only .database */
    char base_host[LIMIT_HOST_BYTES + 1];
    char edge[128], control[128], admin[128]; /* addresses to listen on */
    char user[128], pid_file[4096];
    char tls_mode[16];
    struct tls_files tls[LIMIT_TLS_PAIRS]; /* as many as certificates and keys were given, which are equally many */
    unsigned tls_certs, tls_keys;
    char redirect[128]; /* address to listen on; empty: none */
    char upgrades[512]; /* protocols */
    char hsts[64];      /* the field's value; empty: none */
    char public_scheme[8];
    unsigned long public_port;
    unsigned long max_concurrent, max_still;
    unsigned long long max_request_body, memory_budget;
    unsigned long grace_ms, answer_timeout_ms, upgrade_idle_ms;
    unsigned long address_connections, address_connects, address_requests; /* 0: no limit */
    unsigned long head_timeout_ms, idle_timeout_ms, stall_timeout_ms;      /* of visitors */
    unsigned long ping_ms, dead_ms;                                        /* 0: not given */
    unsigned long workers;
    struct networks proxy_senders, trusted_proxies;
    bool forwarded, shared_cookies;
    bool io_uring_off;
    enum log_level log_level;
    enum log_format log_format;
    /* "0" means something for these, so being given is noted */
    bool has_grace, has_log_level, has_tls_mode, has_upgrades, has_max_still, has_answer_timeout, has_stall_timeout;
};

/* tunneld_serve_options.c */
extern const struct cli_option serve_options[];
/* Fills in the defaults and checks what options have to do with each other. CLI_EXIT_OK, or the exit status, and then
 * the sentence has been printed. */
int serve_settle(struct serve_settings *settings);

/* tunneld_serve.c */
int serve_run(void *settings);

/* clang-format off */
#define TUNNELD_SERVE_COMMAND                                                                                          \
    {"serve", "answer visitors and tunnel clients",                                                                    \
     "With no option at all it serves *.localhost on this machine alone, with accounts in a SQLite file of your own. " \
     "SIGTERM and SIGINT drain: what is in flight finishes within --grace, a second signal ends at once. SIGHUP reads " \
     "certificates anew. SIGUSR2 starts the program anew and hands it the listening sockets, then drains.",            \
     serve_options, sizeof(struct serve_settings), serve_run}
/* clang-format on */

#endif
