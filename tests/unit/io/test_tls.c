/* TLS contexts: every mistake with a file has its sentence; handshakes in memory show what is spoken and trusted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>
#include <sys/stat.h>

#include "io/tls_stage.h"

static const char *const no_alpn[] = {NULL};
static const char *const edge_alpn[] = {"h2", "http/1.1", NULL};
static const char *const h2_alpn[] = {"h2", NULL};
static const char *const h1_alpn[] = {"http/1.1", NULL};

static int make_files(void **state)
{
    (void)state;
    snprintf(folder, sizeof(folder), "/tmp/kavilo-test-tls-XXXXXX");
    assert_non_null(mkdtemp(folder));
    EVP_PKEY *ca_key = cert_key(), *middle_key = cert_key(), *key = cert_key(), *other_key = cert_key();
    X509 *ca = cert_make(&(struct cert_wish){.common_name = "Test CA", .authority = true}, ca_key, NULL, NULL);
    X509 *middle = cert_make(&(struct cert_wish){.common_name = "Middle", .authority = true}, middle_key, ca, ca_key);
    static const char names[] = STAGE_NAMES;
    X509 *leaf = cert_make(&(struct cert_wish){"leaf", names, false, 0, 0}, key, middle, middle_key);
    X509 *expired = cert_make(&(struct cert_wish){"old", names, false, -86400, -60}, key, ca, ca_key);
    X509 *early = cert_make(&(struct cert_wish){"early", names, false, 3600, 86400}, key, ca, ca_key);
    X509 *lonely = cert_make(&(struct cert_wish){"lonely", names, false, 0, 0}, key, NULL, NULL);

    cert_write(in_folder("ca.pem"), (X509 *[]){ca, NULL}, NULL, NULL);
    cert_write(in_folder("chain.pem"), (X509 *[]){leaf, middle, NULL}, NULL, NULL);
    cert_write(in_folder("both.pem"), (X509 *[]){leaf, middle, NULL}, key, NULL);
    cert_write(in_folder("key.pem"), NULL, key, NULL);
    cert_write(in_folder("other-key.pem"), NULL, other_key, NULL);
    cert_write(in_folder("locked-key.pem"), NULL, key, "secret");
    cert_write(in_folder("expired.pem"), (X509 *[]){expired, NULL}, NULL, NULL);
    cert_write(in_folder("early.pem"), (X509 *[]){early, NULL}, NULL, NULL);
    cert_write(in_folder("lonely.pem"), (X509 *[]){lonely, NULL}, NULL, NULL);
    X509 *all[] = {ca, middle, leaf, expired, early, lonely};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        X509_free(all[i]);
    EVP_PKEY *keys[] = {ca_key, middle_key, key, other_key};
    for (size_t i = 0; i < 4; i++)
        EVP_PKEY_free(keys[i]);

    static const char broken[] = "-----BEGIN CERTIFICATE-----\nMIIB!!\n-----END CERTIFICATE-----\n";
    static const char broken_key[] = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    static const char params[] = "-----BEGIN DH PARAMETERS-----\nAAAA\n-----END DH PARAMETERS-----\n";
    write_text("empty.pem", "", 0);
    write_text("words.pem", "no certificate\n", 15);
    write_text("broken.pem", broken, sizeof(broken) - 1);
    write_text("broken-key.pem", broken_key, sizeof(broken_key) - 1);
    write_text("params.pem", params, sizeof(params) - 1);
    char *large = test_calloc(1, 1100 * 1024);
    write_text("large.pem", large, 1100 * 1024);
    test_free(large);

    /* A good first certificate, a broken one behind it. */
    FILE *from = fopen(in_folder("chain.pem"), "r");
    char content[16384];
    size_t len = fread(content, 1, sizeof(content) - sizeof(broken), from);
    fclose(from);
    memcpy(content + len, broken, sizeof(broken) - 1);
    write_text("broken-tail.pem", content, len + sizeof(broken) - 1);
    return 0;
}

static int remove_files(void **state)
{
    (void)state;
    stage_free_servers();
    static const char *const names[] = {
        "ca.pem",      "chain.pem", "both.pem",       "key.pem",         "other-key.pem", "locked-key.pem",
        "expired.pem", "early.pem", "lonely.pem",     "empty.pem",       "words.pem",     "broken.pem",
        "params.pem",  "large.pem", "broken-key.pem", "broken-tail.pem",
    };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        unlink(in_folder(names[i]));
    return rmdir(folder);
}

/* ---- files ----------------------------------------------------------------------------------------------------- */

static const struct {
    const char *cert, *key;
    const char *sentence; /* part of it; "" for none */
    bool made;
} identities[] = {
    {"chain.pem", "key.pem", "", true},
    {"both.pem", "both.pem", "", true},
    {"expired.pem", "key.pem", "", true}, /* with a warning in the log */
    {"early.pem", "key.pem", "", true},
    {"absent.pem", "key.pem", "absent.pem': No such file or directory", false},
    {"chain.pem", "absent.pem", "key file '", false},
    {".", "key.pem", "Is a directory", false},
    {"empty.pem", "key.pem", "empty.pem' is empty", false},
    {"words.pem", "key.pem", "words.pem' is not in PEM form", false},
    {"broken.pem", "key.pem", "broken.pem' holds a broken certificate", false},
    {"broken-tail.pem", "key.pem", "a certificate behind the first is broken", false},
    {"params.pem", "key.pem", "params.pem' holds no certificate", false},
    {"large.pem", "key.pem", "large.pem' is larger than", false},
    {"key.pem", "chain.pem", "key.pem' holds a private key but no certificate", false},
    {"chain.pem", "chain.pem", "chain.pem' holds a certificate but no private key", false},
    {"chain.pem", "words.pem", "words.pem' holds no private key in PEM form", false},
    {"chain.pem", "broken-key.pem", "broken-key.pem' holds a broken key", false},
    {"chain.pem", "other-key.pem", "other-key.pem' does not belong to the certificate in", false},
    {"chain.pem", "locked-key.pem", "locked-key.pem' is encrypted", false},
};

static void files_of_a_server(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(identities) / sizeof(identities[0]); i++) {
        char error[TLS_ERROR_LEN] = "not set";
        const struct tls_files files = {in_folder(identities[i].cert), in_folder(identities[i].key), NULL};
        struct tls_server *server = tls_server_new(&files, 1, error);
        if ((server != NULL) != identities[i].made)
            fail_msg("%s and %s: %s", identities[i].cert, identities[i].key, error);
        if (identities[i].sentence[0] == '\0')
            assert_string_equal(error, "");
        else if (!strstr(error, identities[i].sentence))
            fail_msg("%s and %s: '%s' should say '%s'", identities[i].cert, identities[i].key, error,
                     identities[i].sentence);
        assert_int_equal(ERR_peek_error(), 0);
        tls_server_free(server);
    }
}

static void files_of_a_client(void **state)
{
    (void)state;
    static const struct {
        const char *file, *sentence;
    } refused[] = {
        {"absent.pem", "No such file or directory"},           {"words.pem", "not in PEM form"},
        {"key.pem", "holds a private key but no certificate"}, {"broken.pem", "broken"},
        {"broken-tail.pem", "certificate 3 cannot be used"},   {"empty.pem", "is empty"},
    };
    char error[TLS_ERROR_LEN];
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        assert_null(tls_client_context(in_folder(refused[i].file), true, h2_alpn, error));
        if (!strstr(error, refused[i].sentence) || !strstr(error, "CA certificate file"))
            fail_msg("%s: %s", refused[i].file, error);
        assert_int_equal(ERR_peek_error(), 0);
    }
    static const char *const too_long[] = {"a-protocol-name-that-is-longer-than-any-that-is-registered-anywhere-today",
                                           NULL};
    assert_null(tls_client_context(NULL, true, too_long, error));
    struct tls_context *system = tls_client_context(NULL, true, h2_alpn, error);
    assert_non_null(system);
    assert_string_equal(error, "");
    tls_context_free(system);
    tls_context_free(NULL);
}

/* ---- handshakes ------------------------------------------------------------------------------------------------ */

static const struct {
    const char *cert, *ca, *name;
    bool verify;
    const char *text; /* part of the client's words; NULL: trusted */
} trusts[] = {
    {"chain.pem", "ca.pem", "a.example", true, NULL},
    {"chain.pem", "ca.pem", "a.example.", true, NULL},
    {"chain.pem", "ca.pem", "A.Example", true, NULL},
    {"chain.pem", "ca.pem", "quick-fox-3947.tnl.example", true, NULL},
    {"chain.pem", "ca.pem", "127.0.0.1", true, NULL},
    {"chain.pem", "ca.pem", "::1", true, NULL},
    {"chain.pem", "ca.pem", "::1%lo", true, NULL},
    {"lonely.pem", "lonely.pem", "a.example", true, NULL}, /* self-signed, and trusted by name of its file */
    {"chain.pem", "ca.pem", "b.example", true, "certificate is for another host name"},
    {"chain.pem", "ca.pem", "a.b.tnl.example", true, "certificate is for another host name"},
    {"chain.pem", "ca.pem", "leaf", true, "certificate is for another host name"},
    {"chain.pem", "ca.pem", "127.0.0.2", true, "certificate is for another address"},
    {"chain.pem", "ca.pem", "::2", true, "certificate is for another address"},
    {"expired.pem", "ca.pem", "a.example", true, "certificate has expired"},
    {"early.pem", "ca.pem", "a.example", true, "not valid yet"},
    {"lonely.pem", "ca.pem", "a.example", true, "self-signed certificate; give --ca-cert"},
    {"chain.pem", NULL, "a.example", true, "not trusted here; give --ca-cert"},
    {"chain.pem", "lonely.pem", "a.example", true, "not trusted here; give --ca-cert"},
    {"lonely.pem", NULL, "b.example", false, NULL},
    {"expired.pem", NULL, "", false, NULL},
};

static void trusts_what_it_should(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(trusts) / sizeof(trusts[0]); i++) {
        struct tls_context *server = server_of(trusts[i].cert, NULL);
        struct tls_context *client = client_of(trusts[i].ca, trusts[i].verify, NULL);
        struct pair pair = {tls_new_ssl(client, false, slice_of(trusts[i].name)),
                            tls_new_ssl(server, true, (struct slice){0})};
        assert_non_null(pair.client);
        assert_non_null(pair.server);
        /* What runs keeps what it needs: a reload may come at any moment. */
        tls_context_free(server);
        tls_context_free(client);
        connect_bios(&pair);
        char text[TLS_ERROR_LEN];
        bool through = shake(&pair, text);
        if (through != !trusts[i].text)
            fail_msg("%s as '%s' with %s: %s", trusts[i].cert, trusts[i].name, trusts[i].ca, text);
        if (trusts[i].text && !strstr(text, trusts[i].text))
            fail_msg("%s as '%s': '%s' should say '%s'", trusts[i].cert, trusts[i].name, text, trusts[i].text);
        free_pair(&pair);
    }
}

static void sends_names_and_not_addresses(void **state)
{
    (void)state;
    static const struct {
        const char *name, *sni;
    } rows[] = {{"a.example.", "a.example"}, {"127.0.0.1", NULL}, {"::1", NULL}};
    struct tls_context *server = server_of("chain.pem", NULL), *client = client_of("ca.pem", true, NULL);
    for (size_t i = 0; i < 3; i++) {
        struct pair pair = {tls_new_ssl(client, false, slice_of(rows[i].name)),
                            tls_new_ssl(server, true, (struct slice){0})};
        connect_bios(&pair);
        char text[TLS_ERROR_LEN];
        assert_true(shake(&pair, text));
        const char *seen = SSL_get_servername(pair.server, TLSEXT_NAMETYPE_host_name);
        if (rows[i].sni)
            assert_string_equal(seen, rows[i].sni);
        else
            assert_null(seen);
        free_pair(&pair);
    }
    tls_context_free(server);
    tls_context_free(client);
}

static void refuses_names_that_are_none(void **state)
{
    (void)state;
    struct tls_context *client = client_of("ca.pem", true, NULL);
    char name[300];
    memset(name, 'a', sizeof(name));
    assert_null(tls_new_ssl(client, false, (struct slice){0})); /* nothing to verify would verify nothing */
    assert_null(tls_new_ssl(client, false, SLICE(".")));
    assert_null(tls_new_ssl(client, false, (struct slice){name, 254}));
    assert_null(tls_new_ssl(client, false, (struct slice){"a\0b", 3}));
    tls_context_free(client);
}

static void agrees_on_a_protocol(void **state)
{
    (void)state;
    static const char *const reversed[] = {"http/1.1", "h2", NULL};
    static const char *const strange[] = {"h", "h23", NULL};
    const struct {
        const char *const *server, *const *client;
        const char *agreed; /* NULL: refused */
    } rows[] = {
        {edge_alpn, edge_alpn, "h2"}, {edge_alpn, reversed, "h2"}, {edge_alpn, h1_alpn, "http/1.1"},
        {h2_alpn, edge_alpn, "h2"},   {edge_alpn, no_alpn, ""},    {NULL, edge_alpn, ""},
        {h2_alpn, h1_alpn, NULL},     {edge_alpn, strange, NULL},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct tls_context *server = server_of("chain.pem", rows[i].server);
        struct tls_context *client = client_of("ca.pem", true, rows[i].client);
        struct pair pair = {tls_new_ssl(client, false, SLICE("a.example")),
                            tls_new_ssl(server, true, (struct slice){0})};
        connect_bios(&pair);
        char text[TLS_ERROR_LEN];
        assert_int_equal(shake(&pair, text), rows[i].agreed != NULL);
        if (rows[i].agreed) {
            const unsigned char *name;
            unsigned len;
            SSL_get0_alpn_selected(pair.client, &name, &len);
            assert_int_equal(len, strlen(rows[i].agreed));
            assert_memory_equal(name, rows[i].agreed, len);
        } else {
            assert_string_equal(text, "no common application protocol (ALPN)");
        }
        free_pair(&pair);
        tls_context_free(server);
        tls_context_free(client);
    }
}

/* What a client with these settings gets from our server. */
static bool try_policy(int max_version, const char *ciphers, char text[TLS_ERROR_LEN])
{
    struct tls_context *server = server_of("chain.pem", NULL);
    SSL_CTX *client = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_security_level(client, 0); /* so that the client offers what it should not */
    SSL_CTX_set_min_proto_version(client, 0);
    SSL_CTX_set_max_proto_version(client, max_version);
    assert_int_equal(SSL_CTX_set_cipher_list(client, ciphers), 1);
    struct pair pair = {SSL_new(client), tls_new_ssl(server, true, (struct slice){0})};
    SSL_set_connect_state(pair.client);
    connect_bios(&pair);
    bool through = shake(&pair, text);
    if (through && max_version == TLS1_2_VERSION) {
        /* No renegotiation: our server answers a second handshake with an alert. */
        SSL_renegotiate(pair.client);
        assert_false(shake(&pair, text) && SSL_num_renegotiations(pair.server) > 0);
        assert_int_equal(SSL_num_renegotiations(pair.server), 0);
    }
    free_pair(&pair);
    SSL_CTX_free(client);
    tls_context_free(server);
    return through;
}

static void speaks_sound_versions_and_suites_only(void **state)
{
    (void)state;
    char text[TLS_ERROR_LEN];
    assert_true(try_policy(TLS1_3_VERSION, "DEFAULT", text));
    assert_true(try_policy(TLS1_2_VERSION, "ECDHE-ECDSA-AES128-GCM-SHA256", text));
    assert_true(try_policy(TLS1_2_VERSION, "ECDHE-ECDSA-CHACHA20-POLY1305", text));
    assert_false(try_policy(TLS1_2_VERSION, "ECDHE-ECDSA-AES128-SHA", text));
    assert_string_equal(text, "no common TLS cipher or parameters");
    assert_false(try_policy(TLS1_2_VERSION, "AES128-GCM-SHA256", text)); /* no forward secrecy */
    assert_false(try_policy(TLS1_1_VERSION, "DEFAULT:@SECLEVEL=0", text));
    assert_string_equal(text, "no common TLS version");
}

/* ---- words for what is not TLS at all -------------------------------------------------------------------------- */

static void words_of(bool server, const char *bytes, size_t len, const char *expected)
{
    struct tls_context *context = server ? server_of("chain.pem", NULL) : client_of("ca.pem", true, NULL);
    SSL *ssl = tls_new_ssl(context, server, server ? (struct slice){0} : SLICE("a.example"));
    BIO *in = BIO_new_mem_buf(bytes, (int)len), *out = BIO_new(BIO_s_mem());
    BIO_set_mem_eof_return(in, 0); /* behind the bytes: the end */
    SSL_set_bio(ssl, in, out);
    int result = SSL_do_handshake(ssl);
    assert_true(result <= 0 && !wants_more(ssl, result));
    char text[TLS_ERROR_LEN];
    tls_error_text(text, sizeof(text), ssl);
    assert_string_equal(text, expected);
    assert_int_equal(ERR_peek_error(), 0);
    SSL_free(ssl);
    tls_context_free(context);
}

static void words_for_strangers(void **state)
{
    (void)state;
    static const char http[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    static const char answer[] = "HTTP/1.1 400 Bad Request\r\n\r\n";
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    static const char noise[] = "\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f";
    words_of(true, http, sizeof(http) - 1, "not TLS: the peer sent a plain HTTP request");
    words_of(true, preface, sizeof(preface) - 1, "not TLS: the peer speaks something else");
    words_of(true, noise, sizeof(noise) - 1, "not TLS: the peer speaks something else");
    words_of(false, answer, sizeof(answer) - 1, "not TLS: the peer speaks something else");
    words_of(false, "", 0, "the peer closed the connection without ending TLS");
    words_of(true, "", 0, "the peer closed the connection without ending TLS");

    struct tls_context *context = server_of("chain.pem", NULL);
    SSL *ssl = tls_new_ssl(context, true, (struct slice){0});
    char text[TLS_ERROR_LEN];
    tls_error_text(text, sizeof(text), ssl); /* nothing in the queue: the transport failed, not TLS */
    assert_string_equal(text, "the peer closed during the TLS handshake");
    SSL_free(ssl);
    assert_ptr_equal(tls_context_ref(context), context);
    tls_context_free(context);
    tls_context_free(context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_of_a_server),
        cmocka_unit_test(files_of_a_client),
        cmocka_unit_test(trusts_what_it_should),
        cmocka_unit_test(sends_names_and_not_addresses),
        cmocka_unit_test(refuses_names_that_are_none),
        cmocka_unit_test(agrees_on_a_protocol),
        cmocka_unit_test(speaks_sound_versions_and_suites_only),
        cmocka_unit_test(words_for_strangers),
    };
    return cmocka_run_group_tests(tests, make_files, remove_files);
}
