/*
 * TLS settings that connections share: trust, certificates, ALPN. A context is made once and reference-counted. A
 * server's comes from io/tls_server.h, where its certificates are.
 *
 * Both sides speak TLS 1.2 and 1.3, the server with forward secrecy and authenticated encryption only, without
 * renegotiation and compression; idle connections give their record buffers back.
 */
#ifndef KV_IO_TLS_H
#define KV_IO_TLS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/slice.h"

struct ssl_st; /* OpenSSL's SSL */
struct tls_context;

/* Room for the sentence that explains a failure to the operator. */
#define TLS_ERROR_LEN 512

/* A client context that verifies the peer's certificate and name against ca_file (PEM), or the system's trust store
 * when it is NULL, or not at all when verify is false. It offers the ALPN protocols (NULL-terminated, or NULL for
 * none). NULL on failure, with a sentence that names the file in error[TLS_ERROR_LEN]; on success that is empty. Blocks
 * on files. */
struct tls_context *tls_client_context(const char *ca_file, bool verify, const char *const *alpn, char *error);

/* Reference counting; any thread. tls_context_free(NULL) is legal. */
struct tls_context *tls_context_ref(struct tls_context *context);
void tls_context_free(struct tls_context *context);

/* What a server says, in the clear, to a client that speaks HTTP without TLS; static text. Before the context is used.
 */
void tls_context_set_plain_answer(struct tls_context *context, struct slice answer);

/* ---- for the connection code alone ----------------------------------------------------------------------------- */

/*
 * One connection's SSL, without BIOs, in accept state (`server`) or connect state. On the client side server_name is
 * the host name or literal address (no brackets): names go out as SNI, and with a verifying context the certificate
 * must be for that name or address; it must not be empty then. The SSL keeps what it needs of the context by itself: no
 * reference has to be held for it. Free with SSL_free. NULL without memory or for a name that cannot be one.
 */
struct ssl_st *tls_new_ssl(struct tls_context *context, bool server, struct slice server_name);

/* The text of tls_context_set_plain_answer if this thread's OpenSSL error queue says that the peer spoke HTTP; empty
 * otherwise. To be called before tls_error_text. */
struct slice tls_plain_answer(const struct tls_context *context);

/* Counts a server's handshake: completed, or begun and given up. Does nothing for a client's. */
void tls_count_handshake(struct ssl_st *ssl, bool completed);

/* Why TLS failed, as one calm phrase ("certificate has expired"), from the verify result and this thread's OpenSSL
 * error queue, which is emptied. To be called right after the SSL_* call that failed, before another one. */
void tls_error_text(char *out, size_t size, struct ssl_st *ssl);

#endif
