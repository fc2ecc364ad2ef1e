/* Two ends of a TLS connection in memory, and the files that they are made of: a folder of one run's own. */
#ifndef KV_TEST_TLS_STAGE_H
#define KV_TEST_TLS_STAGE_H

#include <stdlib.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

#include "io/certs.h"
#include "io/tls.h"
#include "io/tls_server.h"

/* ---- files ----------------------------------------------------------------------------------------------------- */

static char folder[64];

/* A file in this run's folder; the same name yields the same text, which stays. */
static inline const char *in_folder(const char *name)
{
    static char paths[64][128];
    char path[128];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    unsigned i = 0;
    while (paths[i][0] && strcmp(paths[i], path) != 0)
        assert_in_range(++i, 0, 63);
    memcpy(paths[i], path, sizeof(path));
    return paths[i];
}

static inline void write_text(const char *name, const char *text, size_t len)
{
    FILE *file = fopen(in_folder(name), "w");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, len, file), len);
    fclose(file);
}

/* The certificates of all tests name the same host, and the whole of one base host. */
#define STAGE_NAMES "DNS:a.example,DNS:*.tnl.example,IP:127.0.0.1,IP:::1"

/* ---- ends ------------------------------------------------------------------------------------------------------ */

/* Servers live until the test program's end, as those of the program do. */
static struct tls_server *stage_servers[256];
static unsigned stage_server_count;

static inline struct tls_server *stage_server(const struct tls_files *files, unsigned count)
{
    char error[TLS_ERROR_LEN];
    struct tls_server *server = tls_server_new(files, count, error);
    if (!server)
        fail_msg("%s", error);
    assert_string_equal(error, "");
    assert_in_range(stage_server_count, 0, 255);
    stage_servers[stage_server_count++] = server;
    return server;
}

static inline void stage_free_servers(void)
{
    while (stage_server_count > 0)
        tls_server_free(stage_servers[--stage_server_count]);
}

static inline struct tls_context *context_of(struct tls_server *server, const char *const *alpn)
{
    char error[TLS_ERROR_LEN];
    struct tls_context *context = tls_server_context(server, alpn, error);
    assert_non_null(context);
    return context;
}

/* A server with this certificate and the key of this run. */
static inline struct tls_context *server_of(const char *cert, const char *const *alpn)
{
    return context_of(stage_server(&(struct tls_files){in_folder(cert), in_folder("key.pem"), NULL}, 1), alpn);
}

static inline struct tls_context *client_of(const char *ca, bool verify, const char *const *alpn)
{
    char error[TLS_ERROR_LEN];
    struct tls_context *context = tls_client_context(ca ? in_folder(ca) : NULL, verify, alpn, error);
    assert_non_null(context);
    return context;
}

struct pair {
    SSL *client, *server;
};

static inline void connect_bios(struct pair *pair)
{
    BIO *client, *server;
    assert_int_equal(BIO_new_bio_pair(&client, 0, &server, 0), 1);
    SSL_set_bio(pair->client, client, client);
    SSL_set_bio(pair->server, server, server);
}

static inline void free_pair(struct pair *pair)
{
    SSL_free(pair->client);
    SSL_free(pair->server);
    ERR_clear_error();
}

static inline bool wants_more(SSL *ssl, int result)
{
    int error = SSL_get_error(ssl, result);
    return result == 1 || error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE;
}

/* True when both sides are through; otherwise the words of the side that failed first are in text. */
static inline bool shake(struct pair *pair, char text[TLS_ERROR_LEN])
{
    text[0] = '\0';
    for (int turn = 0; turn < 20; turn++) {
        SSL *sides[2] = {pair->client, pair->server};
        for (int i = 0; i < 2; i++) {
            int result = SSL_do_handshake(sides[i]);
            if (!wants_more(sides[i], result)) {
                tls_error_text(text, TLS_ERROR_LEN, sides[i]);
                assert_int_equal(ERR_peek_error(), 0);
                return false;
            }
        }
        if (SSL_is_init_finished(pair->client) && SSL_is_init_finished(pair->server))
            return true;
    }
    return false;
}

#endif
