/*
 * OCSP responses that are sent along with a certificate, so that a client need not ask the authority by itself. The
 * authority signs them for days at a time; fetching them is somebody else's task. A client that is handed a wrong one
 * gives up the handshake where it would have gone on with none, so a response is checked as a client checks it.
 */
#include "io/tls_impl.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include <openssl/err.h>
#include <openssl/ocsp.h>

#include "base/error.h"
#include "io/file.h"

#define STAPLE_BYTES (64 * 1024) /* 0.5 to 3 KiB are usual; a responder's own chain can be inside */
#define SKEW_S       300         /* clocks that are apart by less are no reason to refuse */

static X509 *issuer_of(X509 *leaf, STACK_OF(X509) * chain)
{
    for (int i = 0; i < sk_X509_num(chain); i++)
        if (X509_check_issued(sk_X509_value(chain, i), leaf) == X509_V_OK)
            return sk_X509_value(chain, i);
    return X509_check_issued(leaf, leaf) == X509_V_OK ? leaf : NULL;
}

/* Signed by the issuer, or by a responder that the issuer named (RFC 6960, 4.2.2.2). */
static bool is_signed_for(OCSP_BASICRESP *basic, X509 *issuer, STACK_OF(X509) * chain)
{
    X509_STORE *trust = X509_STORE_new();
    bool good = trust && X509_STORE_add_cert(trust, issuer) == 1 &&
                X509_STORE_set_flags(trust, X509_V_FLAG_PARTIAL_CHAIN) == 1 &&
                OCSP_basic_verify(basic, chain, trust, 0) == 1;
    X509_STORE_free(trust);
    return good;
}

/* The one of the answers in a response that is about this certificate, or NULL. The response says by which digest
 * issuers are named in it. */
static OCSP_SINGLERESP *answer_about(OCSP_BASICRESP *basic, X509 *leaf, X509 *issuer)
{
    for (int i = 0; i < OCSP_resp_count(basic); i++) {
        OCSP_SINGLERESP *answer = OCSP_resp_get0(basic, i);
        /* The getters want a mutable id and change nothing. */
        OCSP_CERTID *id = (OCSP_CERTID *)OCSP_SINGLERESP_get0_id(answer);
        ASN1_OBJECT *algorithm = NULL;
        const EVP_MD *digest = NULL;
        if (OCSP_id_get0_info(NULL, &algorithm, NULL, NULL, id) == 1)
            digest = EVP_get_digestbyobj(algorithm);
        OCSP_CERTID *own = digest ? OCSP_cert_to_id(digest, leaf, issuer) : NULL;
        bool same = own && OCSP_id_cmp(own, id) == 0;
        OCSP_CERTID_free(own);
        if (same)
            return answer;
    }
    return NULL;
}

/* NULL when it may be stapled, otherwise why not. */
static const char *objection(OCSP_RESPONSE *response, X509 *leaf, STACK_OF(X509) * chain, int64_t *until)
{
    if (OCSP_response_status(response) != OCSP_RESPONSE_STATUS_SUCCESSFUL)
        return "is the responder's refusal, not an answer";
    OCSP_BASICRESP *basic = OCSP_response_get1_basic(response);
    X509 *issuer = issuer_of(leaf, chain);
    OCSP_SINGLERESP *answer = basic && issuer ? answer_about(basic, leaf, issuer) : NULL;
    ASN1_GENERALIZEDTIME *this_update = NULL, *next_update = NULL;
    const char *words = NULL;
    int status = answer ? OCSP_single_get0_status(answer, NULL, NULL, &this_update, &next_update) : -1;
    *until = tls_seconds_of(next_update);
    if (!basic)
        words = "is not of the kind that certificates have (id-pkix-ocsp-basic)";
    else if (!issuer)
        words = "cannot be checked: the certificate's issuer is not in the chain file";
    else if (!answer)
        words = "is about another certificate";
    else if (!is_signed_for(basic, issuer, chain))
        words = "is not signed for the certificate's issuer";
    else if (status == V_OCSP_CERTSTATUS_REVOKED)
        words = "says that the certificate is revoked";
    else if (status != V_OCSP_CERTSTATUS_GOOD)
        words = "says that the certificate is not known";
    else if (OCSP_check_validity(this_update, next_update, SKEW_S, -1) != 1)
        words = *until < (int64_t)time(NULL) ? "has expired" : "is not valid yet";
    OCSP_BASICRESP_free(basic);
    return words;
}

int tls_staple_load(const char *path, X509 *leaf, STACK_OF(X509) * chain, struct tls_staple *out, char *error)
{
    struct buffer content;
    *out = (struct tls_staple){0};
    ERR_clear_error();
    int result = file_read(path, STAPLE_BYTES, &content);
    if (result != 0)
        return tls_refuse(error, "OCSP response '%s': %s", path,
                          result == KV_EIO ? strerror(errno) : kv_strerror(result));
    const unsigned char *at = (const unsigned char *)content.data;
    OCSP_RESPONSE *response = d2i_OCSP_RESPONSE(NULL, &at, (long)content.len);
    const char *words = "is no OCSP response in DER form";
    if (response && at == (const unsigned char *)content.data + content.len)
        words = objection(response, leaf, chain, &out->until);
    OCSP_RESPONSE_free(response);
    if (!words) {
        out->der = OPENSSL_memdup(content.data, content.len);
        out->len = content.len;
        words = out->der ? NULL : "finds no memory";
    }
    buffer_free(&content);
    ERR_clear_error();
    return words ? tls_refuse(error, "OCSP response '%s' %s", path, words) : KV_OK;
}

void tls_staple_free(struct tls_staple *staple)
{
    OPENSSL_free(staple->der);
    *staple = (struct tls_staple){0};
}
