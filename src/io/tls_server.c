/*
 * The TLS of a server. One OpenSSL context a port, made once: it holds the policy and no certificate. The certificate
 * comes in at each handshake, from `identities`, which renewal changes under a lock: what a handshake was given is its
 * own from then on (OpenSSL counts the references), so a reload is one pointer, and there is no moment in which a key
 * could meet another pair's certificate.
 *
 *     ClientHello ── on_ticket_key: resumed ──────────────────────────────────┐
 *          └── on_name ── on_certificate: the pair for it ── on_status: staple ┴── done
 *
 * Workers hold the lock for reading while they look a name up; renewal, on a thread of its own, holds it for writing
 * while it exchanges the pointers and for nothing else.
 */
#include "io/tls_impl.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

#include <openssl/err.h>

#include "base/blake3.h"
#include "base/error.h"
#include "base/limits.h"
#include "base/log.h"

/* What tells one state of a file from another, whichever way it was written: in place, renamed over, or by exchanging a
 * symbolic link above it. All 0 for a file that is not there. */
struct file_state {
    dev_t device;
    ino_t inode;
    off_t size;
    struct timespec modified, changed;
};

enum {
    FILES_OF_A_PAIR = 3
};

struct pair {
    struct tls_files files;
    struct tls_identity *identity;
    struct file_state loaded[FILES_OF_A_PAIR]; /* when they were read last, well or badly */
    struct file_state seen[FILES_OF_A_PAIR];   /* at the last look */
};

struct tls_server {
    pthread_rwlock_t lock; /* of pairs[].identity */
    SSL_CTX *policy;       /* what new pairs are held against; used by the renewing thread alone */
    struct tls_tickets tickets;
    atomic_uint_fast64_t full, resumed, failed, reloads, reloads_refused;
    unsigned count;
    struct pair pairs[];
};

/* ---- what happens in a handshake ------------------------------------------------------------------------------- */

static struct tls_server *server_of(const SSL *ssl)
{
    return SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
}

/* The name in a ClientHello's server_name (RFC 6066, 3), as it was sent; empty without. */
static struct slice name_in(const unsigned char *extension, size_t len)
{
    const size_t head = 5; /* the list's length, the kind of the first name, which is host_name (0), and its length */
    if (len < head || extension[2] != 0)
        return (struct slice){0};
    size_t name = (size_t)extension[3] << 8 | extension[4];
    return (struct slice){(const char *)extension + head, name < len - head ? name : len - head};
}

/* A session resumes under the name that it was made for and no other (RFC 8446, 4.6.1; RFC 6066, 3): what a client was
 * shown for one tenant says nothing about another. OpenSSL compares a context instead of the name, so each name has its
 * own: the hash of it. */
static int on_client_hello(SSL *ssl, int *alert, void *arg)
{
    (void)arg;
    const unsigned char *extension;
    size_t len;
    struct slice name = {0};
    char lower[TLSEXT_MAXLEN_host_name];
    uint8_t context[BLAKE3_LEN];
    if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &extension, &len) == 1)
        name = name_in(extension, len);
    if (name.len > sizeof(lower))
        name.len = 0; /* none that OpenSSL would take */
    slice_lower(name, lower);
    blake3(lower, name.len, context);
    if (SSL_set_session_id_context(ssl, context, sizeof(context)) == 1)
        return SSL_CLIENT_HELLO_SUCCESS;
    *alert = SSL_AD_INTERNAL_ERROR;
    return SSL_CLIENT_HELLO_ERROR;
}

static int on_ticket_key(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac,
                         int sealing)
{
    return tls_tickets_seal(&server_of(ssl)->tickets, name, iv, cipher, mac, sealing != 0);
}

/* A name is acknowledged whether a pair has it or not (RFC 6066, 3, leaves that open): it is the certificate that tells
 * a client where it is. */
static int on_name(SSL *ssl, int *alert, void *arg)
{
    (void)alert;
    (void)arg;
    return SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name) ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_NOACK;
}

/* Gives the connection every pair that has the name equally well: OpenSSL holds one for each kind of key, and takes the
 * kind that the client can verify. From the last to the first, because a later one takes the place of an earlier. */
static int on_certificate(SSL *ssl, void *arg)
{
    struct tls_server *server = arg;
    struct slice name = slice_of(SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name));
    enum tls_match matches[LIMIT_TLS_PAIRS] = {TLS_MATCH_NONE}, best = TLS_MATCH_NONE;
    bool given = true;
    pthread_rwlock_rdlock(&server->lock);
    for (unsigned i = 0; i < server->count && name.len > 0; i++) {
        matches[i] = tls_identity_match(server->pairs[i].identity, name);
        best = matches[i] > best ? matches[i] : best;
    }
    for (unsigned i = best == TLS_MATCH_NONE ? 1 : server->count; i-- > 0 && given;) {
        const struct tls_identity *identity = server->pairs[i].identity;
        if (matches[i] == best)
            given = SSL_use_cert_and_key(ssl, identity->leaf, identity->key, identity->chain, 1) == 1;
    }
    pthread_rwlock_unlock(&server->lock);
    return given;
}

/* The staple of the certificate that this connection serves. If a reload came in between, it has none any more. */
static int on_status(SSL *ssl, void *arg)
{
    struct tls_server *server = arg;
    const X509 *served = SSL_get_certificate(ssl);
    unsigned char *copy = NULL;
    size_t len = 0;
    pthread_rwlock_rdlock(&server->lock);
    for (unsigned i = 0; i < server->count && !copy; i++) {
        const struct tls_identity *identity = server->pairs[i].identity;
        if (identity->leaf != served || !identity->staple.der || identity->staple.until < (int64_t)time(NULL))
            continue;
        len = identity->staple.len;
        copy = OPENSSL_memdup(identity->staple.der, len);
    }
    pthread_rwlock_unlock(&server->lock);
    if (!copy)
        return SSL_TLSEXT_ERR_NOACK;
    if (SSL_set_tlsext_status_ocsp_resp(ssl, copy, (long)len) == 1) /* and OpenSSL frees it */
        return SSL_TLSEXT_ERR_OK;
    OPENSSL_free(copy);
    return SSL_TLSEXT_ERR_NOACK;
}

/* The first of ours that the client offers; `offered` is a list of length-prefixed names. */
static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *offered,
                   unsigned offered_len, void *ours)
{
    (void)ssl;
    for (const char *const *name = ours; *name; name++) {
        size_t len = strlen(*name);
        for (unsigned at = 0; at < offered_len; at += 1U + offered[at]) {
            if (offered[at] == len && len < offered_len - at && memcmp(offered + at + 1, *name, len) == 0) {
                *out = offered + at + 1;
                *out_len = offered[at];
                return SSL_TLSEXT_ERR_OK;
            }
        }
    }
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}

/* ---- policy ---------------------------------------------------------------------------------------------------- */

/* Mozilla's "intermediate" profile less the finite-field suites: what every client of the last ten years speaks, all of
 * it with forward secrecy and authenticated encryption. ChaCha20 goes first only for clients that prefer it, which are
 * those without AES in hardware. */
static bool apply_policy(SSL_CTX *ssl)
{
    SSL_CTX_set_options(ssl, SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    SSL_CTX_set_options(ssl, SSL_OP_CLEANSE_PLAINTEXT); /* tokens and cookies are not left in OpenSSL's buffers */
    SSL_CTX_set_security_level(ssl, 2); /* 112 bits: no RSA below 2048, no SHA-1, whatever the system's settings say */
    /* Sessions resume by tickets, which the client keeps; a cache here would be memory that visitors decide about. */
    SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_timeout(ssl, LIMIT_TICKET_KEY_S); /* a ticket ends before the last key that opens it does */
    SSL_CTX_set_client_hello_cb(ssl, on_client_hello, NULL);
    return SSL_CTX_set_cipher_list(ssl, "ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL") == 1 &&
           SSL_CTX_set_ciphersuites(ssl, TLS_DEFAULT_CIPHERSUITES) == 1 &&
           SSL_CTX_set1_groups_list(ssl, "X25519:P-256:P-384") == 1;
}

struct tls_context *tls_server_context(struct tls_server *server, const char *const *alpn, char *error)
{
    struct tls_context *context = tls_context_new(TLS_server_method(), error);
    if (!context)
        return NULL;
    SSL_CTX *ssl = tls_context_ssl(context);
    if (!apply_policy(ssl) || SSL_CTX_set_app_data(ssl, server) != 1 ||
        SSL_CTX_set_tlsext_ticket_key_evp_cb(ssl, on_ticket_key) != 1) {
        tls_refuse(error, "TLS cannot be set up: %s", tls_last_words());
        tls_context_free(context);
        return NULL;
    }
    SSL_CTX_set_tlsext_servername_callback(ssl, on_name);
    SSL_CTX_set_cert_cb(ssl, on_certificate, server);
    SSL_CTX_set_tlsext_status_cb(ssl, on_status);
    SSL_CTX_set_tlsext_status_arg(ssl, server);
    if (alpn)
        SSL_CTX_set_alpn_select_cb(ssl, on_alpn, (void *)alpn);
    return context;
}

void tls_count_handshake(struct ssl_st *ssl, bool completed)
{
    struct tls_server *server = server_of(ssl);
    if (!server)
        return;
    atomic_uint_fast64_t *counter = !completed                ? &server->failed
                                    : SSL_session_reused(ssl) ? &server->resumed
                                                              : &server->full;
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

/* ---- renewal --------------------------------------------------------------------------------------------------- */

static void look_at(const struct tls_files *files, struct file_state out[FILES_OF_A_PAIR])
{
    const char *const paths[FILES_OF_A_PAIR] = {files->cert, files->key, files->ocsp};
    memset(out, 0, FILES_OF_A_PAIR * sizeof(*out));
    for (int i = 0; i < FILES_OF_A_PAIR; i++) {
        struct stat file;
        if (paths[i] && stat(paths[i], &file) == 0)
            out[i] = (struct file_state){file.st_dev, file.st_ino, file.st_size, file.st_mtim, file.st_ctim};
    }
}

static bool same_moment(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

static bool same_state(const struct file_state a[FILES_OF_A_PAIR], const struct file_state b[FILES_OF_A_PAIR])
{
    for (int i = 0; i < FILES_OF_A_PAIR; i++)
        if (a[i].device != b[i].device || a[i].inode != b[i].inode || a[i].size != b[i].size ||
            !same_moment(&a[i].modified, &b[i].modified) || !same_moment(&a[i].changed, &b[i].changed))
            return false;
    return true;
}

/* The states are taken before the files are read: a change in between is seen at the next look. */
static struct tls_identity *load(struct tls_server *server, struct pair *pair, char *error)
{
    char warning[TLS_ERROR_LEN];
    look_at(&pair->files, pair->loaded);
    memcpy(pair->seen, pair->loaded, sizeof(pair->seen));
    struct tls_identity *identity = tls_identity_load(&pair->files, server->policy, error, warning);
    if (identity && warning[0])
        log_warn("serving without OCSP stapling", log_str("certificate", pair->files.cert), log_str("cause", warning));
    return identity;
}

#define DATE_LEN sizeof("2027-01-31T12:00:00Z")

static void write_date(int64_t seconds, char out[DATE_LEN])
{
    time_t at = (time_t)seconds;
    struct tm parts;
    if (!gmtime_r(&at, &parts) || strftime(out, DATE_LEN, "%Y-%m-%dT%H:%M:%SZ", &parts) == 0)
        out[0] = '\0';
}

static void renew(struct tls_server *server, struct pair *pair)
{
    char error[TLS_ERROR_LEN];
    struct tls_identity *fresh = load(server, pair, error);
    if (!fresh || !tls_identity_is_current(fresh, &pair->files, error)) {
        tls_identity_free(fresh);
        atomic_fetch_add_explicit(&server->reloads_refused, 1, memory_order_relaxed);
        log_warn("new certificate refused, the old one is served on", log_str("certificate", pair->files.cert),
                 log_str("cause", error));
        return;
    }
    char until[DATE_LEN];
    write_date(fresh->not_after, until);
    pthread_rwlock_wrlock(&server->lock);
    struct tls_identity *old = pair->identity;
    pair->identity = fresh;
    pthread_rwlock_unlock(&server->lock);
    atomic_fetch_add_explicit(&server->reloads, 1, memory_order_relaxed);
    log_info("certificate loaded", log_str("certificate", pair->files.cert), log_str("not_after", until),
             log_str("ocsp", fresh->staple.der ? "stapled" : "none"));
    tls_identity_free(old);
}

void tls_server_reload(struct tls_server *server)
{
    for (unsigned i = 0; i < server->count; i++)
        renew(server, &server->pairs[i]);
}

void tls_server_look(struct tls_server *server)
{
    for (unsigned i = 0; i < server->count; i++) {
        struct pair *pair = &server->pairs[i];
        struct file_state now[FILES_OF_A_PAIR];
        look_at(&pair->files, now);
        bool settled = same_state(now, pair->seen);
        memcpy(pair->seen, now, sizeof(pair->seen));
        if (settled && !same_state(now, pair->loaded))
            renew(server, pair);
    }
}

void tls_server_rotate_tickets(struct tls_server *server)
{
    tls_tickets_rotate(&server->tickets);
}

/* ---- start and end --------------------------------------------------------------------------------------------- */

static int load_first(struct tls_server *server, const struct tls_files *files, char *error)
{
    struct pair *pair = &server->pairs[server->count];
    pair->files = *files;
    pair->identity = load(server, pair, error);
    if (!pair->identity)
        return KV_ETLS;
    server->count++;
    if (!tls_identity_is_current(pair->identity, files, error))
        log_warn(error);
    return KV_OK;
}

struct tls_server *tls_server_new(const struct tls_files *files, unsigned count, char *error)
{
    snprintf(error, TLS_ERROR_LEN, "no memory for TLS");
    struct tls_server *server = calloc(1, sizeof(*server) + count * sizeof(server->pairs[0]));
    if (!server)
        return NULL;
    if (pthread_rwlock_init(&server->lock, NULL) != 0)
        goto fail_lock;
    if (tls_tickets_init(&server->tickets) != KV_OK)
        goto fail_tickets;
    server->policy = SSL_CTX_new(TLS_server_method());
    if (!server->policy || !apply_policy(server->policy))
        goto fail;
    for (unsigned i = 0; i < count; i++)
        if (load_first(server, &files[i], error) != KV_OK)
            goto fail;
    error[0] = '\0';
    return server;

fail:
    tls_server_free(server);
    return NULL;
fail_tickets:
    pthread_rwlock_destroy(&server->lock);
fail_lock:
    free(server);
    return NULL;
}

void tls_server_free(struct tls_server *server)
{
    if (!server)
        return;
    for (unsigned i = 0; i < server->count; i++)
        tls_identity_free(server->pairs[i].identity);
    SSL_CTX_free(server->policy);
    tls_tickets_destroy(&server->tickets);
    pthread_rwlock_destroy(&server->lock);
    free(server);
}

/* ---- facts ----------------------------------------------------------------------------------------------------- */

unsigned tls_server_pairs(const struct tls_server *server)
{
    return server->count;
}

bool tls_server_covers(struct tls_server *server, struct slice host)
{
    bool covered = false;
    pthread_rwlock_rdlock(&server->lock);
    for (unsigned i = 0; i < server->count; i++)
        covered |= tls_identity_match(server->pairs[i].identity, host) != TLS_MATCH_NONE;
    pthread_rwlock_unlock(&server->lock);
    return covered;
}

void tls_server_names(struct tls_server *server, char *out, size_t size)
{
    out[0] = '\0';
    pthread_rwlock_rdlock(&server->lock);
    for (unsigned i = 0; i < server->count; i++)
        tls_identity_names(server->pairs[i].identity, out, size);
    pthread_rwlock_unlock(&server->lock);
}

void tls_server_pair_facts(struct tls_server *server, unsigned pair, struct tls_pair_facts *out)
{
    pthread_rwlock_rdlock(&server->lock);
    const struct tls_identity *identity = server->pairs[pair].identity;
    *out = (struct tls_pair_facts){
        .cert = server->pairs[pair].files.cert,
        .not_after = identity->not_after,
        .staple_until = identity->staple.der ? identity->staple.until : 0,
    };
    pthread_rwlock_unlock(&server->lock);
}

void tls_server_count(const struct tls_server *server, struct tls_counts *out)
{
    *out = (struct tls_counts){
        .full = atomic_load_explicit(&server->full, memory_order_relaxed),
        .resumed = atomic_load_explicit(&server->resumed, memory_order_relaxed),
        .failed = atomic_load_explicit(&server->failed, memory_order_relaxed),
        .reloads = atomic_load_explicit(&server->reloads, memory_order_relaxed),
        .reloads_refused = atomic_load_explicit(&server->reloads_refused, memory_order_relaxed),
    };
}
