/*
 * A pair of files as one thing that can be served: read, checked whole, and never changed afterwards. Which names it is
 * for is told by the certificate itself (subjectAltName); a common name counts for nothing, as for every browser.
 */
#include "io/tls_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>

#include "base/error.h"

int64_t tls_seconds_of(const ASN1_TIME *time)
{
    struct tm parts;
    return time && ASN1_TIME_to_tm(time, &parts) == 1 ? (int64_t)timegm(&parts) : INT64_MAX;
}

/* Key and certificate belong together, and the policy takes both: sizes and digests of the whole chain. */
static int check(struct tls_identity *identity, const struct tls_files *files, SSL_CTX *policy, char *error)
{
    if (X509_check_private_key(identity->leaf, identity->key) != 1)
        return tls_refuse(error, "the key in '%s' does not belong to the certificate in '%s'", files->key, files->cert);
    if (SSL_CTX_use_cert_and_key(policy, identity->leaf, identity->key, identity->chain, 1) != 1)
        return tls_refuse(error, "certificate file '%s' cannot be used: %s", files->cert, tls_last_words());
    return KV_OK;
}

struct tls_identity *tls_identity_load(const struct tls_files *files, SSL_CTX *policy, char *error, char *warning)
{
    error[0] = warning[0] = '\0';
    ERR_clear_error();
    struct tls_identity *identity = calloc(1, sizeof(*identity));
    if (!identity) {
        tls_refuse(error, "certificate file '%s': no memory", files->cert);
        return NULL;
    }
    if (tls_load_chain(files->cert, &identity->leaf, &identity->chain, error) != KV_OK ||
        tls_load_key(files->key, &identity->key, error) != KV_OK || check(identity, files, policy, error) != KV_OK)
        goto fail;
    identity->names = X509_get_ext_d2i(identity->leaf, NID_subject_alt_name, NULL, NULL);
    identity->not_after = tls_seconds_of(X509_get0_notAfter(identity->leaf));
    if (files->ocsp)
        tls_staple_load(files->ocsp, identity->leaf, identity->chain, &identity->staple, warning);
    ERR_clear_error();
    return identity;

fail:
    tls_identity_free(identity);
    return NULL;
}

void tls_identity_free(struct tls_identity *identity)
{
    if (!identity)
        return;
    tls_staple_free(&identity->staple);
    GENERAL_NAMES_free(identity->names);
    EVP_PKEY_free(identity->key);
    sk_X509_pop_free(identity->chain, X509_free);
    X509_free(identity->leaf);
    free(identity);
}

bool tls_identity_is_current(const struct tls_identity *identity, const struct tls_files *files, char *error)
{
    error[0] = '\0';
    if (X509_cmp_current_time(X509_get0_notAfter(identity->leaf)) < 0)
        snprintf(error, TLS_ERROR_LEN, "the certificate in '%s' has expired; clients will refuse it", files->cert);
    else if (X509_cmp_current_time(X509_get0_notBefore(identity->leaf)) > 0)
        snprintf(error, TLS_ERROR_LEN, "the certificate in '%s' is not valid yet; clients will refuse it", files->cert);
    return error[0] == '\0';
}

/* ---- names ----------------------------------------------------------------------------------------------------- */

static bool covers(struct slice wildcard, struct slice name)
{
    const char *dot = memchr(name.data, '.', name.len);
    if (!slice_starts_with(wildcard, SLICE("*.")) || !dot || dot == name.data)
        return false;
    size_t label = (size_t)(dot - name.data);
    return slice_equals_nocase((struct slice){wildcard.data + 1, wildcard.len - 1},
                               (struct slice){dot, name.len - label});
}

void tls_identity_names(const struct tls_identity *identity, char *out, size_t size)
{
    for (int i = 0; i < sk_GENERAL_NAME_num(identity->names); i++) {
        const GENERAL_NAME *entry = sk_GENERAL_NAME_value(identity->names, i);
        size_t len = strlen(out);
        if (entry->type == GEN_DNS)
            snprintf(out + len, size - len, "%s%.*s", len > 0 ? ", " : "", ASN1_STRING_length(entry->d.dNSName),
                     (const char *)ASN1_STRING_get0_data(entry->d.dNSName));
    }
}

enum tls_match tls_identity_match(const struct tls_identity *identity, struct slice name)
{
    enum tls_match best = TLS_MATCH_NONE;
    for (int i = 0; i < sk_GENERAL_NAME_num(identity->names); i++) {
        const GENERAL_NAME *entry = sk_GENERAL_NAME_value(identity->names, i);
        if (entry->type != GEN_DNS)
            continue;
        struct slice pattern = {(const char *)ASN1_STRING_get0_data(entry->d.dNSName),
                                (size_t)ASN1_STRING_length(entry->d.dNSName)};
        if (slice_equals_nocase(pattern, name))
            return TLS_MATCH_EXACT;
        if (covers(pattern, name))
            best = TLS_MATCH_WILDCARD;
    }
    return best;
}
