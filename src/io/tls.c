/*
 * TLS contexts and the SSL objects made from them. What goes over the wire is OpenSSL's and conn's business; here is
 * what both sides have in common, the client's policy (a server's is in tls_server.c), and the words for what went
 * wrong.
 */
#include "io/tls_impl.h"

#include <arpa/inet.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include <openssl/err.h>
#include <openssl/x509v3.h>

#include "base/error.h"
#include "base/limits.h"

struct tls_context {
    atomic_uint references;
    SSL_CTX *ssl;
    bool verify;
    struct slice plain_answer;
};

/* ---- making contexts ------------------------------------------------------------------------------------------- */

struct tls_context *tls_context_new(const SSL_METHOD *method, char *error)
{
    error[0] = '\0';
    struct tls_context *context = calloc(1, sizeof(*context));
    SSL_CTX *ssl = SSL_CTX_new(method);
    if (!context || !ssl || SSL_CTX_set_min_proto_version(ssl, TLS1_2_VERSION) != 1)
        goto err;
    SSL_CTX_set_options(ssl, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_mode(ssl, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    atomic_init(&context->references, 1);
    context->ssl = ssl;
    return context;

err:
    ERR_clear_error();
    SSL_CTX_free(ssl);
    free(context);
    snprintf(error, TLS_ERROR_LEN, "no memory for TLS");
    return NULL;
}

static int offer_alpn(SSL_CTX *ssl, const char *const *alpn)
{
    unsigned char list[64];
    unsigned used = 0;
    for (; alpn && *alpn; alpn++) {
        size_t len = strlen(*alpn);
        if (len == 0 || len >= sizeof(list) - used)
            return KV_ELIMIT;
        list[used] = (unsigned char)len;
        memcpy(list + used + 1, *alpn, len);
        used += 1 + (unsigned)len;
    }
    if (used == 0)
        return 0;
    return SSL_CTX_set_alpn_protos(ssl, list, used) == 0 ? 0 : KV_ENOMEM; /* 0 is its success */
}

struct tls_context *tls_client_context(const char *ca_file, bool verify, const char *const *alpn, char *error)
{
    struct tls_context *context = tls_context_new(TLS_client_method(), error);
    if (!context)
        return NULL;
    context->verify = verify;
    SSL_CTX_set_verify(context->ssl, verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
    int result = offer_alpn(context->ssl, alpn);
    if (result != 0) {
        snprintf(error, TLS_ERROR_LEN, "TLS cannot be set up: %s", kv_strerror(result));
        goto err;
    }
    if (verify && ca_file && tls_load_authorities(context->ssl, ca_file, error) != 0)
        goto err;
    if (verify && !ca_file && SSL_CTX_set_default_verify_paths(context->ssl) != 1) {
        snprintf(error, TLS_ERROR_LEN, "the system's trusted certificates cannot be read: %s",
                 ERR_reason_error_string(ERR_peek_error()));
        goto err;
    }
    ERR_clear_error();
    return context;

err:
    ERR_clear_error();
    tls_context_free(context);
    return NULL;
}

SSL_CTX *tls_context_ssl(struct tls_context *context)
{
    return context->ssl;
}

struct tls_context *tls_context_ref(struct tls_context *context)
{
    atomic_fetch_add_explicit(&context->references, 1, memory_order_relaxed);
    return context;
}

void tls_context_set_plain_answer(struct tls_context *context, struct slice answer)
{
    context->plain_answer = answer;
}

struct slice tls_plain_answer(const struct tls_context *context)
{
    int reason = ERR_GET_REASON(ERR_peek_error());
    bool is_http = reason == SSL_R_HTTP_REQUEST || reason == SSL_R_HTTPS_PROXY_REQUEST;
    return is_http ? context->plain_answer : (struct slice){0};
}

void tls_context_free(struct tls_context *context)
{
    if (!context || atomic_fetch_sub_explicit(&context->references, 1, memory_order_acq_rel) > 1)
        return;
    SSL_CTX_free(context->ssl); /* counted by OpenSSL itself: running connections hold their own */
    free(context);
}

/* ---- one connection -------------------------------------------------------------------------------------------- */

/* The address of a literal, without its zone: 4 or 16 bytes, or 0 for a name. */
static size_t literal_address(const char *name, unsigned char out[16])
{
    char bare[INET6_ADDRSTRLEN];
    int len = (int)strcspn(name, "%");
    if (len >= (int)sizeof(bare))
        return 0;
    snprintf(bare, sizeof(bare), "%.*s", len, name);
    if (inet_pton(AF_INET, bare, out) == 1)
        return 4;
    return inet_pton(AF_INET6, bare, out) == 1 ? 16 : 0;
}

/* SNI (names only: RFC 6066, 3) and the name or address that the certificate has to be for. */
static int set_server_name(SSL *ssl, bool verify, struct slice server_name)
{
    char name[LIMIT_HOST_BYTES + 1];
    if (server_name.len > 0 && server_name.data[server_name.len - 1] == '.')
        server_name.len--;
    if (server_name.len == 0)
        return verify ? KV_EINVAL : 0;
    if (server_name.len >= sizeof(name) || memchr(server_name.data, '\0', server_name.len))
        return KV_EINVAL;
    memcpy(name, server_name.data, server_name.len);
    name[server_name.len] = '\0';

    unsigned char address[16];
    size_t address_len = literal_address(name, address);
    if (address_len > 0)
        return X509_VERIFY_PARAM_set1_ip(SSL_get0_param(ssl), address, address_len) == 1 ? 0 : KV_ENOMEM;
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return SSL_set_tlsext_host_name(ssl, name) == 1 && SSL_set1_host(ssl, name) == 1 ? 0 : KV_ENOMEM;
}

struct ssl_st *tls_new_ssl(struct tls_context *context, bool server, struct slice server_name)
{
    SSL *ssl = SSL_new(context->ssl);
    if (ssl && server) {
        SSL_set_accept_state(ssl);
    } else if (ssl) {
        SSL_set_connect_state(ssl);
        if (set_server_name(ssl, context->verify, server_name) != 0) {
            SSL_free(ssl);
            ssl = NULL;
        }
    }
    ERR_clear_error();
    return ssl;
}

/* ---- words ----------------------------------------------------------------------------------------------------- */

static const char *verify_phrase(long result)
{
    switch (result) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
        return "certificate has expired";
    case X509_V_ERR_CERT_NOT_YET_VALID:
        return "certificate is not valid yet; is the clock right?";
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
        return "self-signed certificate; give --ca-cert";
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
        return "certificate of an authority that is not trusted here; give --ca-cert";
    case X509_V_ERR_HOSTNAME_MISMATCH:
        return "certificate is for another host name";
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
        return "certificate is for another address";
    default:
        return X509_verify_cert_error_string(result);
    }
}

/* NULL for a reason that OpenSSL's own words describe well enough. */
static const char *reason_phrase(int reason)
{
    switch (reason) {
    case SSL_R_HTTP_REQUEST:
        return "not TLS: the peer sent a plain HTTP request";
    case SSL_R_WRONG_VERSION_NUMBER:
    case SSL_R_HTTPS_PROXY_REQUEST:
    case SSL_R_PACKET_LENGTH_TOO_LONG:
    case SSL_R_BAD_RECORD_TYPE:
        return "not TLS: the peer speaks something else";
    case SSL_R_UNEXPECTED_EOF_WHILE_READING:
        return "the peer closed the connection without ending TLS";
    case SSL_R_UNSUPPORTED_PROTOCOL:
    case SSL_R_TLSV1_ALERT_PROTOCOL_VERSION:
        return "no common TLS version";
    case SSL_R_NO_SHARED_CIPHER:
    case SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE:
        return "no common TLS cipher or parameters";
    case SSL_R_NO_APPLICATION_PROTOCOL:
    case SSL_R_TLSV1_ALERT_NO_APPLICATION_PROTOCOL:
        return "no common application protocol (ALPN)";
    case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
    case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED:
        return "the peer does not trust our certificate";
    default:
        return NULL;
    }
}

void tls_error_text(char *out, size_t size, struct ssl_st *ssl)
{
    /* The first entry of the queue is the cause, those behind it are the layers it passed. */
    unsigned long code = ERR_peek_error();
    long verified = SSL_get_verify_mode(ssl) & SSL_VERIFY_PEER ? SSL_get_verify_result(ssl) : X509_V_OK;
    const char *phrase = NULL;
    if (verified != X509_V_OK)
        phrase = verify_phrase(verified);
    else if (code != 0 && ERR_GET_LIB(code) == ERR_LIB_SSL)
        phrase = reason_phrase(ERR_GET_REASON(code));
    if (!phrase && code != 0)
        phrase = ERR_reason_error_string(code);
    if (!phrase)
        phrase = SSL_is_init_finished(ssl) ? "the connection ended" : "the peer closed during the TLS handshake";
    snprintf(out, size, "%s", phrase);
    ERR_clear_error();
}
