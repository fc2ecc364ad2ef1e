/*
 * What PEM files hold. OpenSSL's own loaders say "no start line" for a dozen different mistakes; here
 * each gets a sentence, because the operator who reads it has just bought a certificate and wants to know which of the
 * files is the wrong one.
 */
#include "io/tls_impl.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include "base/error.h"
#include "io/file.h"

#define PEM_FILE_BYTES (1024 * 1024) /* a system's whole trust store has 200 KiB; more is not what was meant */

int tls_refuse(char *error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error, TLS_ERROR_LEN, format, arguments);
    va_end(arguments);
    ERR_clear_error();
    return KV_ETLS;
}

const char *tls_last_words(void)
{
    const char *words = ERR_reason_error_string(ERR_peek_last_error());
    return words ? words : "unknown reason";
}

static bool no_more_pem(void)
{
    unsigned long last = ERR_peek_last_error();
    return ERR_GET_LIB(last) == ERR_LIB_PEM && ERR_GET_REASON(last) == PEM_R_NO_START_LINE;
}

/* A server must not stop at a prompt: an encrypted key is noted and refused. */
static int no_password(char *buffer, int size, int writing, void *asked)
{
    (void)buffer;
    (void)size;
    (void)writing;
    *(bool *)asked = true;
    return -1;
}

/* `what` names the file's role in sentences: "certificate file". */
static int read_pem(const char *what, const char *path, struct buffer *content, char *error)
{
    int result = file_read(path, PEM_FILE_BYTES, content);
    if (result == KV_EIO)
        return tls_refuse(error, "%s '%s': %s", what, path, strerror(errno));
    if (result == KV_ELIMIT)
        return tls_refuse(error, "%s '%s' is larger than %d bytes and cannot be a PEM file", what, path,
                          PEM_FILE_BYTES);
    if (result != 0)
        return tls_refuse(error, "%s '%s': %s", what, path, kv_strerror(result));
    if (content->len == 0) {
        file_wipe(content);
        return tls_refuse(error, "%s '%s' is empty", what, path);
    }
    return 0;
}

static bool mentions(const struct buffer *content, const char *text)
{
    return memmem(content->data, content->len, text, strlen(text)) != NULL;
}

static int no_certificate(const char *what, const char *path, const struct buffer *content, char *error)
{
    if (!no_more_pem())
        return tls_refuse(error, "%s '%s' holds a broken certificate: %s", what, path, tls_last_words());
    if (mentions(content, "PRIVATE KEY-----"))
        return tls_refuse(error, "%s '%s' holds a private key but no certificate", what, path);
    if (mentions(content, "-----BEGIN "))
        return tls_refuse(error, "%s '%s' holds no certificate", what, path);
    return tls_refuse(error, "%s '%s' is not in PEM form (no line begins with -----BEGIN CERTIFICATE)", what, path);
}

/* The certificates behind the first, up to the file's end. */
static int load_issuers(BIO *bio, const char *what, const char *path, STACK_OF(X509) * chain, char *error)
{
    bool encrypted = false;
    for (X509 *issuer; (issuer = PEM_read_bio_X509(bio, NULL, no_password, &encrypted)) != NULL;) {
        if (sk_X509_push(chain, issuer) <= 0) {
            X509_free(issuer);
            return tls_refuse(error, "%s '%s': no memory", what, path);
        }
    }
    if (no_more_pem())
        return KV_OK;
    return tls_refuse(error, "%s '%s': a certificate behind the first is broken: %s", what, path, tls_last_words());
}

int tls_load_chain(const char *cert_file, X509 **leaf, STACK_OF(X509) * *chain, char *error)
{
    static const char what[] = "certificate file";
    struct buffer content;
    int result = read_pem(what, cert_file, &content, error);
    if (result != 0)
        return result;
    bool encrypted = false;
    BIO *bio = BIO_new_mem_buf(content.data, (int)content.len);
    *chain = sk_X509_new_null();
    *leaf = bio && *chain ? PEM_read_bio_X509(bio, NULL, no_password, &encrypted) : NULL;
    if (!bio || !*chain)
        result = tls_refuse(error, "%s '%s': no memory", what, cert_file);
    else if (!*leaf)
        result = no_certificate(what, cert_file, &content, error);
    else
        result = load_issuers(bio, what, cert_file, *chain, error);
    BIO_free(bio);
    file_wipe(&content);
    return result;
}

int tls_load_key(const char *key_file, EVP_PKEY **key, char *error)
{
    static const char what[] = "key file";
    struct buffer content;
    int result = read_pem(what, key_file, &content, error);
    if (result != 0)
        return result;
    bool encrypted = false;
    BIO *bio = BIO_new_mem_buf(content.data, (int)content.len);
    *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_password, &encrypted) : NULL;
    if (!bio)
        result = tls_refuse(error, "%s '%s': no memory", what, key_file);
    else if (encrypted)
        result = tls_refuse(error, "%s '%s' is encrypted; give a key without a pass phrase", what, key_file);
    else if (!*key && mentions(&content, "PRIVATE KEY-----"))
        result = tls_refuse(error, "%s '%s' holds a broken key: %s", what, key_file, tls_last_words());
    else if (!*key && mentions(&content, "-----BEGIN CERTIFICATE"))
        result = tls_refuse(error, "%s '%s' holds a certificate but no private key", what, key_file);
    else if (!*key)
        result = tls_refuse(error, "%s '%s' holds no private key in PEM form", what, key_file);
    BIO_free(bio);
    file_wipe(&content);
    return result;
}

int tls_load_authorities(SSL_CTX *ssl, const char *ca_file, char *error)
{
    static const char what[] = "CA certificate file";
    struct buffer content;
    ERR_clear_error();
    int result = read_pem(what, ca_file, &content, error);
    if (result != 0)
        return result;
    X509_STORE *store = SSL_CTX_get_cert_store(ssl);
    BIO *bio = BIO_new_mem_buf(content.data, (int)content.len);
    unsigned count = 0;
    bool encrypted = false;
    X509 *authority = NULL;
    while (bio && (authority = PEM_read_bio_X509(bio, NULL, no_password, &encrypted)) != NULL) {
        int added = X509_STORE_add_cert(store, authority); /* a second copy of one is no error */
        X509_free(authority);
        if (added != 1)
            break;
        count++;
    }
    if (!bio)
        result = tls_refuse(error, "%s '%s': no memory", what, ca_file);
    else if (count == 0)
        result = no_certificate(what, ca_file, &content, error);
    else if (!no_more_pem())
        result =
            tls_refuse(error, "%s '%s': certificate %u cannot be used: %s", what, ca_file, count + 1, tls_last_words());
    ERR_clear_error();
    BIO_free(bio);
    file_wipe(&content);
    return result;
}
