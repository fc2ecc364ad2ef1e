/*
 * TLS settings that connections share: certificates, trust, ALPN. A context is made once from files, checked whole
 * before it is used, and reference-counted, so that a reload swaps the context for new connections and leaves the
 * running ones alone.
 */
#ifndef KV_IO_TLS_H
#define KV_IO_TLS_H

#include <stdbool.h>
#include <stddef.h>

struct tls_context;

/* Room for the sentence that explains a failure to the operator. */
#define TLS_ERROR_LEN 512

/* A server context: PEM chain and key, which must match; ALPN protocols in order of preference (NULL-terminated).
 * TLS 1.2 and 1.3. NULL on failure, with a sentence that names the file in error[TLS_ERROR_LEN]. */
struct tls_context *tls_server_context(const char *cert_file, const char *key_file, const char *const *alpn,
                                       char *error);

/* A client context that verifies the peer's certificate and name against ca_file (PEM), or the system's trust store
 * when it is NULL, or not at all when verify is false. */
struct tls_context *tls_client_context(const char *ca_file, bool verify, const char *const *alpn, char *error);

/* Reference counting; any thread. tls_context_free(NULL) is legal. */
struct tls_context *tls_context_ref(struct tls_context *context);
void tls_context_free(struct tls_context *context);

#endif
