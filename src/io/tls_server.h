/*
 * The TLS of a server: what its ports have in common. The certificates with their keys, chosen by the name that a
 * client asks for (SNI) and exchanged while running; the keys of session tickets; stapled OCSP responses; counters.
 *
 *     tls_server_new ── tls_server_context (one a port) ── connections
 *            └── tls_watch_start: a thread that sees files change, reloads, renews ticket keys ── tls_watch_stop
 *
 * A pair is loaded and checked whole before a handshake can see it, and put in the place of the old one in one step. A
 * new one that is no good (unreadable, half-written, key and certificate of two different pairs, not valid today) is
 * refused with a line in the log and a count, and the old one is served on. Connections and tickets outlive a reload:
 * neither depends on the pair that the handshake was made with.
 */
#ifndef KV_IO_TLS_SERVER_H
#define KV_IO_TLS_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/slice.h"

struct tls_context;
struct tls_server;
struct tls_watch;

/* Where a pair lies. The texts are kept, not copied. */
struct tls_files {
    const char *cert; /* PEM: the certificate, then those that lead from it to the authority */
    const char *key;  /* PEM, without a pass phrase */
    const char *ocsp; /* DER: an OCSP response to staple; NULL for none */
};

/* Loads 1 to LIMIT_TLS_PAIRS pairs. NULL on failure, with a sentence that names the file in error[TLS_ERROR_LEN].
 * What is odd but can be served (a certificate that has expired, a response that cannot be stapled) is a warning in the
 * log. Blocks on files. */
struct tls_server *tls_server_new(const struct tls_files *files, unsigned count, char *error);
/* After the contexts and their connections have ended. NULL is legal. */
void tls_server_free(struct tls_server *server);

/* A context for one port; ALPN protocols in order of preference (NULL-terminated, or NULL for none; the array is kept,
 * not copied: a static one). A client that offers ALPN without any of them is refused (RFC 7301, 3.2); one that offers
 * no ALPN is not. The certificate is the one of the pair that has the name that the client asks for, an exact name
 * before a wildcard; of pairs that are equally good the first, or, with keys of two kinds, the one that the client can
 * verify; without a match the first of all. NULL without memory, with a sentence in error. Any thread. */
struct tls_context *tls_server_context(struct tls_server *server, const char *const *alpn, char *error);

/* ---- renewal: one thread at a time; these block on files ------------------------------------------------------- */

/* Reads every pair anew. */
void tls_server_reload(struct tls_server *server);
/* Reads those pairs anew whose files differ from what was read last and are the same as at the last look: a writer in
 * the middle of his work is waited for. To be called in a steady rhythm. */
void tls_server_look(struct tls_server *server);
/* A new key for session tickets; tickets of the last one are still taken, older ones lead to a full handshake. */
void tls_server_rotate_tickets(struct tls_server *server);

/* A thread that looks once a second, and rotates the tickets' keys every LIMIT_TICKET_KEY_S. NULL without memory or
 * threads. The server outlives it. */
struct tls_watch *tls_watch_start(struct tls_server *server);
/* Has it reload every pair now. Any thread; returns at once. NULL is legal. */
void tls_watch_reload(struct tls_watch *watch);
/* Ends and joins it. NULL is legal. */
void tls_watch_stop(struct tls_watch *watch);

/* Whether one of the pairs is for this host. Any thread. */
bool tls_server_covers(struct tls_server *server, struct slice host);
/* The names that the pairs are for, for a person: "*.example.com, example.com"; cut where out ends. Any thread. */
void tls_server_names(struct tls_server *server, char *out, size_t size);

/* ---- facts, for metrics; any thread ---------------------------------------------------------------------------- */

struct tls_pair_facts {
    const char *cert;     /* the file's name as it was given */
    int64_t not_after;    /* of the certificate that is served; seconds since 1970 */
    int64_t staple_until; /* nextUpdate of the stapled response; 0 when none is stapled */
};

unsigned tls_server_pairs(const struct tls_server *server);
void tls_server_pair_facts(struct tls_server *server, unsigned pair, struct tls_pair_facts *out);

/* Totals since the start. */
struct tls_counts {
    uint64_t full, resumed;            /* handshakes that were completed */
    uint64_t failed;                   /* that were begun and were not */
    uint64_t reloads, reloads_refused; /* of pairs */
};
void tls_server_count(const struct tls_server *server, struct tls_counts *out);

#endif
