/*
 * Keys of session tickets. A ticket holds the session's secrets, sealed with AES-256-CBC and HMAC-SHA-256 (RFC 5077,
 * 4), and is kept by the client: the server holds nothing for it but these keys. Who learns a key can read every
 * session that was resumed with it, so keys live in memory alone and are replaced; the one before stays good for one
 * period more, and a ticket that it opens is answered with a new one.
 */
#include "io/tls_impl.h"

#include <openssl/core_names.h>
#include <openssl/evp.h>

#include "base/blake3.h"
#include "base/error.h"
#include "base/random.h"

static void draw(struct tls_ticket_key *key)
{
    random_bytes(key, sizeof(*key));
}

int tls_tickets_init(struct tls_tickets *tickets)
{
    if (pthread_mutex_init(&tickets->lock, NULL) != 0)
        return KV_ENOMEM;
    draw(&tickets->current);
    draw(&tickets->previous); /* nobody has a ticket of it */
    return KV_OK;
}

void tls_tickets_destroy(struct tls_tickets *tickets)
{
    secret_wipe(&tickets->current, sizeof(tickets->current));
    secret_wipe(&tickets->previous, sizeof(tickets->previous));
    pthread_mutex_destroy(&tickets->lock);
}

void tls_tickets_rotate(struct tls_tickets *tickets)
{
    struct tls_ticket_key next;
    draw(&next);
    pthread_mutex_lock(&tickets->lock);
    tickets->previous = tickets->current;
    tickets->current = next;
    pthread_mutex_unlock(&tickets->lock);
    secret_wipe(&next, sizeof(next));
}

static bool apply(const struct tls_ticket_key *key, const unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac,
                  bool sealing)
{
    unsigned char mac_key[TICKET_KEY_BYTES];
    char digest[] = "SHA256";
    memcpy(mac_key, key->mac, sizeof(mac_key)); /* OpenSSL's parameters are not const */
    const OSSL_PARAM parameters[] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, mac_key, sizeof(mac_key)),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_end(),
    };
    bool applied = EVP_CipherInit_ex2(cipher, EVP_aes_256_cbc(), key->cipher, iv, sealing, NULL) == 1 &&
                   EVP_MAC_CTX_set_params(mac, parameters) == 1;
    secret_wipe(mac_key, sizeof(mac_key));
    return applied;
}

int tls_tickets_seal(struct tls_tickets *tickets, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
                     EVP_MAC_CTX *mac, bool sealing)
{
    enum {
        FAILED = -1,
        UNKNOWN = 0,
        GOOD = 1,
        GOOD_BUT_RENEW = 2
    } result = GOOD;
    struct tls_ticket_key key;
    pthread_mutex_lock(&tickets->lock);
    if (sealing || memcmp(name, tickets->current.name, TICKET_NAME_BYTES) == 0) {
        key = tickets->current;
    } else if (memcmp(name, tickets->previous.name, TICKET_NAME_BYTES) == 0) {
        key = tickets->previous;
        result = GOOD_BUT_RENEW;
    } else {
        result = UNKNOWN;
    }
    pthread_mutex_unlock(&tickets->lock);
    if (result == UNKNOWN)
        return UNKNOWN;
    if (sealing) {
        memcpy(name, key.name, TICKET_NAME_BYTES);
        random_bytes(iv, (size_t)EVP_CIPHER_get_iv_length(EVP_aes_256_cbc()));
    }
    if (!apply(&key, iv, cipher, mac, sealing))
        result = FAILED;
    secret_wipe(&key, sizeof(key));
    return result;
}
