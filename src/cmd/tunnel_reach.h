/* What the client's commands need to reach their server. The main thread. */
#ifndef KV_CMD_TUNNEL_REACH_H
#define KV_CMD_TUNNEL_REACH_H

struct settings;
struct tls_context;

/* TLS to the server and to the proxy before it; NULL where none is spoken. The caller frees them. */
struct tunnel_reach {
    struct tls_context *endpoint, *proxy;
};

/* CLI_EXIT_OK, or the exit status, and then the sentence has been printed and nothing is left. */
int tunnel_reach_make(const struct settings *settings, struct tunnel_reach *out);
/* Legal on a zeroed one. */
void tunnel_reach_free(struct tunnel_reach *reach);

/* Connects once, as a tunnel with a random name does, and leaves again. CLI_EXIT_OK when the server takes the token, or
 * CLI_EXIT_FAILED; a sentence on standard error says how it went. The settings have a token. */
int tunnel_reach_check(const struct settings *settings);

#endif
