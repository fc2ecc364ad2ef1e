/* What the files of TLS share; nobody else includes this. */
#ifndef KV_IO_TLS_IMPL_H
#define KV_IO_TLS_IMPL_H

#include <pthread.h>
#include <stdint.h>

#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "io/tls.h"
#include "io/tls_server.h"

/* ---- tls.c ----------------------------------------------------------------------------------------------------- */

/* A context of this method with what both sides have in common; or NULL, with a sentence in error. */
struct tls_context *tls_context_new(const SSL_METHOD *method, char *error);
SSL_CTX *tls_context_ssl(struct tls_context *context);

/* ---- tls_pem.c: what PEM files hold; 0, or KV_ETLS with a sentence in error[TLS_ERROR_LEN] --------------------- */

/* Writes the sentence, empties OpenSSL's error queue and returns KV_ETLS for `return`. */
__attribute__((format(printf, 2, 3))) int tls_refuse(char *error, const char *format, ...);
/* OpenSSL's words for the failure that was just seen. */
const char *tls_last_words(void);

/* A certificate and those behind it, which may be none (an empty stack). The caller frees both. */
int tls_load_chain(const char *cert_file, X509 **leaf, STACK_OF(X509) * *chain, char *error);
int tls_load_key(const char *key_file, EVP_PKEY **key, char *error);
/* Authorities to trust instead of the system's. */
int tls_load_authorities(SSL_CTX *ssl, const char *ca_file, char *error);

/* ---- tls_ocsp.c ------------------------------------------------------------------------------------------------ */

/* A response that its authority gave about a certificate, to be sent along with it (RFC 6066, 8). */
struct tls_staple {
    unsigned char *der; /* NULL: none */
    size_t len;
    int64_t until; /* its nextUpdate, in seconds since 1970; INT64_MAX if it names none */
};

/* Reads the response (DER) in a file and holds it against the certificate: it has to be signed for its issuer, be about
 * it, say `good` and be valid now. 0, or KV_ETLS with a sentence in error. */
int tls_staple_load(const char *path, X509 *leaf, STACK_OF(X509) * chain, struct tls_staple *out, char *error);
/* Legal on a zeroed one. */
void tls_staple_free(struct tls_staple *staple);

/* ---- tls_identity.c -------------------------------------------------------------------------------------------- */

/* A certificate that can be served: with its key, which belongs to it, and its chain. Never changed once it is made. */
struct tls_identity {
    X509 *leaf;
    STACK_OF(X509) * chain;
    EVP_PKEY *key;
    GENERAL_NAMES *names; /* subjectAltName; NULL for none */
    struct tls_staple staple;
    int64_t not_after; /* seconds since 1970 */
};

/* Loads a pair and checks it whole; `policy` is a context of the kind that is to serve it. NULL on failure, with a
 * sentence that names the file. A response that cannot be stapled is no failure: it is left out, and `warning`
 * (TLS_ERROR_LEN) says why; otherwise that is empty. */
struct tls_identity *tls_identity_load(const struct tls_files *files, SSL_CTX *policy, char *error, char *warning);
void tls_identity_free(struct tls_identity *identity);

/* False, with a sentence that names the file, when clients will refuse the certificate today for its dates. */
bool tls_identity_is_current(const struct tls_identity *identity, const struct tls_files *files, char *error);

/* Seconds since 1970; INT64_MAX for a time that is not there (NULL) or cannot be read. */
int64_t tls_seconds_of(const ASN1_TIME *time);

enum tls_match {
    TLS_MATCH_NONE,
    TLS_MATCH_WILDCARD, /* "*.tnl.example" for one label in front (RFC 9525, 6.3) */
    TLS_MATCH_EXACT,
};
enum tls_match tls_identity_match(const struct tls_identity *identity, struct slice name);
/* Adds the DNS names that it is for to the text in `out`, with ", " between them; cut where it ends. */
void tls_identity_names(const struct tls_identity *identity, char *out, size_t size);

/* ---- tls_tickets.c --------------------------------------------------------------------------------------------- */

#define TICKET_NAME_BYTES 16
#define TICKET_KEY_BYTES  32

/* What a session ticket is sealed with (RFC 5077, 4). */
struct tls_ticket_key {
    unsigned char name[TICKET_NAME_BYTES]; /* told in the ticket: which key it is */
    unsigned char cipher[TICKET_KEY_BYTES], mac[TICKET_KEY_BYTES];
};

/* The key that new tickets get, and the one before it, whose tickets are still taken. */
struct tls_tickets {
    pthread_mutex_t lock;
    struct tls_ticket_key current, previous;
};

/* 0 or KV_ENOMEM. */
int tls_tickets_init(struct tls_tickets *tickets);
/* Wipes the keys. */
void tls_tickets_destroy(struct tls_tickets *tickets);
/* A new key for new tickets; those of the key before the last are refused from here on. Any thread. */
void tls_tickets_rotate(struct tls_tickets *tickets);
/* For OpenSSL's callback (SSL_CTX_set_tlsext_ticket_key_evp_cb), whose results it returns. Any thread. */
int tls_tickets_seal(struct tls_tickets *tickets, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
                     EVP_MAC_CTX *mac, bool sealing);

#endif
