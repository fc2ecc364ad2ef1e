/* Keys and certificates for tests, made anew at each run; nothing secret is ever committed. */
#ifndef KV_TEST_CERTS_H
#define KV_TEST_CERTS_H

#include <assert.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

struct cert_wish {
    const char *common_name;
    const char *names;    /* subjectAltName: "DNS:a.example,IP:127.0.0.1"; NULL for none */
    bool authority;       /* may sign others */
    long from_s, until_s; /* from now; both 0: an hour ago to a day ahead */
};

static inline EVP_PKEY *cert_key(void)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    assert(key);
    return key;
}

static inline void cert_extend(X509 *cert, int nid, const char *value)
{
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, NULL, nid, value);
    assert(extension && X509_add_ext(cert, extension, -1) == 1);
    X509_EXTENSION_free(extension);
}

/* A certificate for `key`, signed by the issuer, or by itself when that is NULL. */
static inline X509 *cert_make(const struct cert_wish *wish, EVP_PKEY *key, X509 *issuer, EVP_PKEY *issuer_key)
{
    static long serial = 1000;
    X509 *cert = X509_new();
    assert(cert);
    X509_set_version(cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), serial++);
    bool default_dates = wish->from_s == 0 && wish->until_s == 0;
    X509_gmtime_adj(X509_getm_notBefore(cert), default_dates ? -3600 : wish->from_s);
    X509_gmtime_adj(X509_getm_notAfter(cert), default_dates ? 86400 : wish->until_s);
    X509_set_pubkey(cert, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC,
                               (const unsigned char *)wish->common_name, -1, -1, 0);
    X509_set_issuer_name(cert, X509_get_subject_name(issuer ? issuer : cert));
    cert_extend(cert, NID_basic_constraints, wish->authority ? "critical,CA:TRUE" : "critical,CA:FALSE");
    if (wish->names)
        cert_extend(cert, NID_subject_alt_name, wish->names);
    int signed_bytes = X509_sign(cert, issuer ? issuer_key : key, EVP_sha256());
    assert(signed_bytes > 0);
    (void)signed_bytes;
    return cert;
}

/* Writes the certificates (ends with NULL) and then the key (may be NULL, may be encrypted) to one PEM file. */
static inline void cert_write(const char *path, X509 *const *certs, EVP_PKEY *key, const char *pass_phrase)
{
    FILE *file = fopen(path, "w");
    assert(file);
    for (; certs && *certs; certs++)
        PEM_write_X509(file, *certs);
    if (key)
        PEM_write_PrivateKey(file, key, pass_phrase ? EVP_aes_128_cbc() : NULL, (const unsigned char *)pass_phrase,
                             pass_phrase ? (int)strlen(pass_phrase) : 0, NULL, NULL);
    fclose(file);
}

#endif
