/* A server's TLS: which certificate a name gets, how tickets age, what is stapled, and that renewal takes good pairs
 * and nothing else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <openssl/ocsp.h>

#include "base/log.h"
#include "io/tls_stage.h"

static EVP_PKEY *ca_key, *key, *rsa_key;
static X509 *ca, *leaf;
static struct tls_context *client;

static void write_cert(const char *name, const struct cert_wish *wish, EVP_PKEY *own)
{
    X509 *cert = cert_make(wish, own, ca, ca_key);
    cert_write(in_folder(name), (X509 *[]){cert, ca, NULL}, NULL, NULL);
    X509_free(cert);
}

static int start(void **state)
{
    (void)state;
    log_configure(LOG_LEVEL_ERROR, LOG_FORMAT_TEXT);
    snprintf(folder, sizeof(folder), "/tmp/kavilo-test-tls-XXXXXX");
    assert_non_null(mkdtemp(folder));
    ca_key = cert_key();
    key = cert_key();
    rsa_key = EVP_RSA_gen(2048);
    ca = cert_make(&(struct cert_wish){.common_name = "Test CA", .authority = true}, ca_key, NULL, NULL);
    leaf = cert_make(&(struct cert_wish){"leaf", STAGE_NAMES, false, 0, 0}, key, ca, ca_key);
    cert_write(in_folder("ca.pem"), (X509 *[]){ca, NULL}, NULL, NULL);
    cert_write(in_folder("leaf.pem"), (X509 *[]){leaf, ca, NULL}, NULL, NULL);
    cert_write(in_folder("alone.pem"), (X509 *[]){leaf, NULL}, NULL, NULL);
    cert_write(in_folder("key.pem"), NULL, key, NULL);
    cert_write(in_folder("rsa-key.pem"), NULL, rsa_key, NULL);
    write_cert("other.pem", &(struct cert_wish){"other", "DNS:other.example", false, 0, 0}, key);
    write_cert("b.pem", &(struct cert_wish){"b", "DNS:b.tnl.example,DNS:*.sub.tnl.example", false, 0, 0}, key);
    write_cert("rsa.pem", &(struct cert_wish){"rsa", STAGE_NAMES, false, 0, 0}, rsa_key);
    write_cert("nameless.pem", &(struct cert_wish){"a.example", NULL, false, 0, 0}, key);
    write_cert("old.pem", &(struct cert_wish){"old", STAGE_NAMES, false, -86400, -60}, key);
    client = client_of("ca.pem", true, NULL);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    static const char *const names[] = {"ca.pem",    "leaf.pem", "alone.pem",   "key.pem", "rsa-key.pem",
                                        "other.pem", "b.pem",    "rsa.pem",     "old.pem", "ocsp",
                                        "now.pem",   "now.key",  "nameless.pem"};
    stage_free_servers();
    tls_context_free(client);
    X509_free(leaf);
    X509_free(ca);
    EVP_PKEY_free(rsa_key);
    EVP_PKEY_free(key);
    EVP_PKEY_free(ca_key);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        unlink(in_folder(names[i]));
    return rmdir(folder);
}

/* ---- names ----------------------------------------------------------------------------------------------------- */

/* The common name of the certificate that a client is shown who asks for a name (NULL: for none). */
static const char *shown(struct tls_context *server, const char *name, const char *suites)
{
    static char common_name[64];
    SSL_CTX *asking = SSL_CTX_new(TLS_client_method());
    struct pair pair = {SSL_new(asking), tls_new_ssl(server, true, (struct slice){0})};
    SSL_set_connect_state(pair.client);
    if (name)
        SSL_set_tlsext_host_name(pair.client, name);
    if (suites) {
        SSL_set_max_proto_version(pair.client, TLS1_2_VERSION);
        assert_int_equal(SSL_set_cipher_list(pair.client, suites), 1);
    }
    connect_bios(&pair);
    char text[TLS_ERROR_LEN];
    bool through = shake(&pair, text);
    if (through) {
        X509_NAME_get_text_by_NID(X509_get_subject_name(SSL_get0_peer_certificate(pair.client)), NID_commonName,
                                  common_name, sizeof(common_name));
    }
    free_pair(&pair);
    SSL_CTX_free(asking);
    return through ? common_name : "";
}

static void name_chooses_the_certificate(void **state)
{
    (void)state;
    const struct tls_files files[] = {
        {in_folder("other.pem"), in_folder("key.pem"), NULL},
        {in_folder("leaf.pem"), in_folder("key.pem"), NULL},
        {in_folder("b.pem"), in_folder("key.pem"), NULL},
        {in_folder("nameless.pem"), in_folder("key.pem"), NULL},
    };
    static const struct {
        const char *name, *shown;
    } rows[] = {
        {"other.example", "other"},   {"a.example", "leaf"},
        {"A.EXAMPLE", "leaf"},        {"quick-fox-3947.tnl.example", "leaf"}, /* by its wildcard */
        {"b.tnl.example", "b"},                                 /* exact before wildcard, though it stands behind */
        {"x.sub.tnl.example", "b"},   {"tnl.example", "other"}, /* a wildcard has a label in its place */
        {"a.b.tnl.example", "other"},                           /* and one only */
        {"xtnl.example", "other"},    {"127.0.0.1", "other"},   /* an address is no name (RFC 6066, 3) */
        {"nobody.example", "other"},  {NULL, "other"},
    };
    struct tls_context *server = context_of(stage_server(files, 4), NULL);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const char *got = shown(server, rows[i].name, NULL);
        if (strcmp(got, rows[i].shown) != 0)
            fail_msg("%s is shown '%s' and not '%s'", rows[i].name ? rows[i].name : "no name", got, rows[i].shown);
    }
    tls_context_free(server);
}

static void two_kinds_of_key_for_one_name(void **state)
{
    (void)state;
    const struct tls_files files[] = {
        {in_folder("rsa.pem"), in_folder("rsa-key.pem"), NULL},
        {in_folder("leaf.pem"), in_folder("key.pem"), NULL},
        {in_folder("old.pem"), in_folder("key.pem"), NULL}, /* as good as the second by name and key: never shown */
    };
    struct tls_context *server = context_of(stage_server(files, 3), NULL);
    assert_string_equal(shown(server, "a.example", "ECDHE-RSA-AES128-GCM-SHA256"), "rsa");
    assert_string_equal(shown(server, "a.example", "ECDHE-ECDSA-AES128-GCM-SHA256"), "leaf");
    assert_string_equal(shown(server, "nobody.example", "ECDHE-ECDSA-AES128-GCM-SHA256"), ""); /* the first alone */
    tls_context_free(server);
}

static void weak_keys_are_refused(void **state)
{
    (void)state;
    EVP_PKEY *weak = EVP_RSA_gen(1024);
    X509 *cert = cert_make(&(struct cert_wish){"weak", STAGE_NAMES, false, 0, 0}, weak, ca, ca_key);
    cert_write(in_folder("now.pem"), (X509 *[]){cert, NULL}, weak, NULL);
    char error[TLS_ERROR_LEN];
    assert_null(tls_server_new(&(struct tls_files){in_folder("now.pem"), in_folder("now.pem"), NULL}, 1, error));
    assert_non_null(strstr(error, "now.pem' cannot be used: ee key too small"));
    assert_int_equal(ERR_peek_error(), 0);
    X509_free(cert);
    EVP_PKEY_free(weak);
}

/* ---- tickets --------------------------------------------------------------------------------------------------- */

/* A handshake with what the last one left; the new session takes its place. True if it was resumed. */
static bool visit_host(struct tls_context *server, int version, SSL_SESSION **session, const char *host)
{
    struct pair pair = {tls_new_ssl(client, false, slice_of(host)), tls_new_ssl(server, true, (struct slice){0})};
    SSL_set_max_proto_version(pair.client, version);
    if (*session)
        SSL_set_session(pair.client, *session);
    connect_bios(&pair);
    char text[TLS_ERROR_LEN], byte;
    if (!shake(&pair, text))
        fail_msg("%s", text);
    bool resumed = SSL_session_reused(pair.client);
    assert_int_equal(resumed, SSL_session_reused(pair.server));
    tls_count_handshake(pair.server, true);
    assert_int_equal(SSL_write(pair.server, "x", 1), 1); /* the tickets are read on the way to it */
    assert_int_equal(SSL_read(pair.client, &byte, 1), 1);
    SSL_SESSION_free(*session);
    *session = SSL_get1_session(pair.client);
    SSL_shutdown(pair.client);
    free_pair(&pair);
    return resumed;
}

static bool visit(struct tls_context *server, int version, SSL_SESSION **session)
{
    return visit_host(server, version, session, "a.example");
}

/* What a client was shown under one name says nothing about another. */
static void sessions_resume_under_their_own_name(void **state)
{
    (void)state;
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    struct tls_server *server = stage_server(&(struct tls_files){in_folder("leaf.pem"), in_folder("key.pem"), NULL}, 1);
    struct tls_context *edge = context_of(server, NULL);
    for (int i = 0; i < 2; i++) {
        SSL_SESSION *session = NULL;
        assert_false(visit_host(edge, versions[i], &session, "a.tnl.example"));
        assert_true(visit_host(edge, versions[i], &session, "a.tnl.example"));
        assert_true(visit_host(edge, versions[i], &session, "A.Tnl.Example")); /* names have no case */
        assert_false(visit_host(edge, versions[i], &session, "b.tnl.example"));
        assert_true(visit_host(edge, versions[i], &session, "b.tnl.example"));
        assert_false(visit_host(edge, versions[i], &session, "a.tnl.example"));
        SSL_SESSION_free(session);
    }
    tls_context_free(edge);
}

static void tickets_age(void **state)
{
    (void)state;
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    struct tls_server *server = stage_server(&(struct tls_files){in_folder("leaf.pem"), in_folder("key.pem"), NULL}, 1);
    struct tls_context *edge = context_of(server, NULL), *control = context_of(server, NULL);
    for (int i = 0; i < 2; i++) {
        SSL_SESSION *session = NULL;
        assert_false(visit(edge, versions[i], &session));
        assert_true(visit(edge, versions[i], &session));
        assert_true(visit(control, versions[i], &session)); /* one key for all ports */
        tls_server_reload(server);
        assert_true(visit(edge, versions[i], &session)); /* a reload is no reason */

        SSL_SESSION *kept = session;
        SSL_SESSION_up_ref(kept);
        tls_server_rotate_tickets(server);
        assert_true(visit(edge, versions[i], &session)); /* the key before; the ticket is a new one now */
        tls_server_rotate_tickets(server);
        assert_true(visit(edge, versions[i], &session));
        assert_false(visit(edge, versions[i], &kept)); /* two keys back */
        assert_true(visit(edge, versions[i], &kept));
        SSL_SESSION_free(kept);

        SSL_SESSION_set_time(session, (long)time(NULL) - 13 * 3600L);
        tls_server_rotate_tickets(server);
        tls_server_rotate_tickets(server);
        assert_false(visit(edge, versions[i], &session));
        SSL_SESSION_free(session);
    }
    struct tls_counts counts;
    tls_server_count(server, &counts);
    assert_int_equal(counts.full, 6);
    assert_int_equal(counts.resumed, 12);
    tls_context_free(edge);
    tls_context_free(control);
}

/* ---- stapling -------------------------------------------------------------------------------------------------- */

struct answer {
    int status; /* V_OCSP_CERTSTATUS_* */
    X509 *about;
    EVP_PKEY *by;
    long from_s, until_s; /* from now */
    const EVP_MD *digest;
};

static void write_answer(const struct answer *answer)
{
    OCSP_BASICRESP *basic = OCSP_BASICRESP_new();
    OCSP_CERTID *id = OCSP_cert_to_id(answer->digest, answer->about, ca);
    ASN1_TIME *from = X509_gmtime_adj(NULL, answer->from_s), *until = X509_gmtime_adj(NULL, answer->until_s);
    assert_non_null(OCSP_basic_add1_status(basic, id, answer->status, 0, from, from, until));
    assert_int_equal(OCSP_basic_sign(basic, ca, answer->by, EVP_sha256(), NULL, OCSP_NOCERTS), 1);
    OCSP_RESPONSE *response = OCSP_response_create(OCSP_RESPONSE_STATUS_SUCCESSFUL, basic);
    unsigned char *der = NULL;
    int len = i2d_OCSP_RESPONSE(response, &der);
    write_text("ocsp", (const char *)der, (size_t)len);
    OPENSSL_free(der);
    OCSP_RESPONSE_free(response);
    ASN1_TIME_free(from);
    ASN1_TIME_free(until);
    OCSP_CERTID_free(id);
    OCSP_BASICRESP_free(basic);
}

/* Length of the response that a client who asks for one gets; -1 for none. */
static long stapled(struct tls_context *server)
{
    struct pair pair = {tls_new_ssl(client, false, SLICE("a.example")), tls_new_ssl(server, true, (struct slice){0})};
    SSL_set_tlsext_status_type(pair.client, TLSEXT_STATUSTYPE_ocsp);
    connect_bios(&pair);
    char text[TLS_ERROR_LEN];
    const unsigned char *response;
    assert_true(shake(&pair, text));
    long len = SSL_get_tlsext_status_ocsp_resp(pair.client, &response);
    free_pair(&pair);
    return len;
}

static void staples_what_is_good(void **state)
{
    (void)state;
    X509 *other = cert_make(&(struct cert_wish){"other", NULL, false, 0, 0}, key, ca, ca_key);
    const struct {
        const char *cert;
        struct answer answer;
        bool stapled;
    } rows[] = {
        {"leaf.pem", {V_OCSP_CERTSTATUS_GOOD, leaf, ca_key, -60, 3600, EVP_sha1()}, true},
        {"leaf.pem", {V_OCSP_CERTSTATUS_GOOD, leaf, ca_key, -60, 3600, EVP_sha256()}, true},
        {"leaf.pem", {V_OCSP_CERTSTATUS_GOOD, other, ca_key, -60, 3600, EVP_sha1()}, false},
        {"leaf.pem", {V_OCSP_CERTSTATUS_UNKNOWN, leaf, ca_key, -60, 3600, EVP_sha1()}, false},
        {"leaf.pem", {V_OCSP_CERTSTATUS_REVOKED, leaf, ca_key, -60, 3600, EVP_sha1()}, false},
        {"leaf.pem", {V_OCSP_CERTSTATUS_GOOD, leaf, ca_key, -7200, -3600, EVP_sha1()}, false},
        {"leaf.pem", {V_OCSP_CERTSTATUS_GOOD, leaf, ca_key, 3600, 7200, EVP_sha1()}, false},
        {"alone.pem", {V_OCSP_CERTSTATUS_GOOD, leaf, ca_key, -60, 3600, EVP_sha1()}, false}, /* no issuer to check */
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        write_answer(&rows[i].answer);
        const struct tls_files files = {in_folder(rows[i].cert), in_folder("key.pem"), in_folder("ocsp")};
        struct tls_server *server = stage_server(&files, 1);
        struct tls_context *context = context_of(server, NULL);
        struct tls_pair_facts facts;
        tls_server_pair_facts(server, 0, &facts);
        if ((stapled(context) > 0) != rows[i].stapled || (facts.staple_until > time(NULL)) != rows[i].stapled)
            fail_msg("row %zu", i);
        assert_int_equal(ERR_peek_error(), 0);
        tls_context_free(context);
    }
    X509_free(other);
}

static void staples_nothing_else(void **state)
{
    (void)state;
    const struct tls_files files = {in_folder("leaf.pem"), in_folder("key.pem"), in_folder("ocsp")};
    static const struct answer good = {V_OCSP_CERTSTATUS_GOOD, NULL, NULL, -60, 3600, NULL};
    struct answer answer = good;
    answer.about = leaf;
    answer.by = ca_key;
    answer.digest = EVP_sha1();
    write_answer(&answer);
    struct tls_server *server = stage_server(&files, 1);
    struct tls_context *context = context_of(server, NULL);
    assert_true(stapled(context) > 0);

    /* A flipped bit in the signature. */
    FILE *file = fopen(in_folder("ocsp"), "r+");
    fseek(file, -1, SEEK_END);
    int last = fgetc(file);
    fseek(file, -1, SEEK_END);
    fputc(last ^ 1, file);
    fclose(file);
    tls_server_reload(server);
    assert_int_equal(stapled(context), -1);

    static const char refusal[] = "\x30\x03\x0a\x01\x06"; /* OCSPResponse: unauthorized */
    write_text("ocsp", refusal, sizeof(refusal) - 1);
    tls_server_reload(server);
    assert_int_equal(stapled(context), -1);
    write_text("ocsp", "words", 5);
    tls_server_reload(server);
    assert_int_equal(stapled(context), -1);
    unlink(in_folder("ocsp"));
    tls_server_reload(server);
    assert_int_equal(stapled(context), -1);
    write_answer(&answer);
    tls_server_reload(server);
    assert_true(stapled(context) > 0);

    struct tls_counts counts;
    tls_server_count(server, &counts);
    assert_int_equal(counts.reloads, 5); /* the pair is good without its staple */
    assert_int_equal(counts.reloads_refused, 0);
    tls_context_free(context);
}

/* ---- renewal --------------------------------------------------------------------------------------------------- */

/* Writes a pair of this common name, both halves or one. */
static void issue(const char *common_name, bool cert_half, bool key_half)
{
    EVP_PKEY *fresh = cert_key();
    X509 *cert = cert_make(&(struct cert_wish){common_name, STAGE_NAMES, false, 0, 0}, fresh, ca, ca_key);
    if (cert_half)
        cert_write(in_folder("now.pem"), (X509 *[]){cert, ca, NULL}, NULL, NULL);
    if (key_half)
        cert_write(in_folder("now.key"), NULL, fresh, NULL);
    X509_free(cert);
    EVP_PKEY_free(fresh);
}

static uint64_t refused(struct tls_server *server)
{
    struct tls_counts counts;
    tls_server_count(server, &counts);
    return counts.reloads_refused;
}

static void bad_pairs_are_refused(void **state)
{
    (void)state;
    issue("first", true, true);
    struct tls_server *server = stage_server(&(struct tls_files){in_folder("now.pem"), in_folder("now.key"), NULL}, 1);
    struct tls_context *context = context_of(server, NULL);
    assert_string_equal(shown(context, "a.example", NULL), "first");

    issue("second", true, false); /* the certificate before its key */
    tls_server_reload(server);
    assert_int_equal(refused(server), 1);
    assert_string_equal(shown(context, "a.example", NULL), "first");

    assert_int_equal(truncate(in_folder("now.pem"), 300), 0); /* half-written */
    tls_server_reload(server);
    assert_int_equal(refused(server), 2);
    unlink(in_folder("now.pem"));
    tls_server_reload(server);
    assert_int_equal(refused(server), 3);
    assert_int_equal(link(in_folder("old.pem"), in_folder("now.pem")), 0); /* has expired */
    unlink(in_folder("now.key"));
    assert_int_equal(link(in_folder("key.pem"), in_folder("now.key")), 0);
    tls_server_reload(server);
    assert_int_equal(refused(server), 4);
    assert_string_equal(shown(context, "a.example", NULL), "first");

    unlink(in_folder("now.pem"));
    unlink(in_folder("now.key"));
    issue("third", true, true);
    tls_server_reload(server);
    assert_int_equal(refused(server), 4);
    assert_string_equal(shown(context, "a.example", NULL), "third");
    tls_context_free(context);
}

static void changes_are_seen_when_they_settle(void **state)
{
    (void)state;
    issue("first", true, true);
    const struct tls_files files[] = {
        {in_folder("now.pem"), in_folder("now.key"), NULL},
        {in_folder("other.pem"), in_folder("key.pem"), NULL},
    };
    struct tls_server *server = stage_server(files, 2);
    struct tls_context *context = context_of(server, NULL);
    struct tls_counts counts;
    tls_server_look(server);
    tls_server_look(server);
    tls_server_count(server, &counts);
    assert_int_equal(counts.reloads, 0); /* nothing changed */

    issue("half", true, false);
    tls_server_look(server);
    issue("second", true, true); /* the writer is through before the files have held for a look */
    tls_server_look(server);
    assert_string_equal(shown(context, "a.example", NULL), "first");
    tls_server_look(server);
    assert_string_equal(shown(context, "a.example", NULL), "second");
    assert_int_equal(refused(server), 0);
    tls_server_look(server);
    tls_server_count(server, &counts);
    assert_int_equal(counts.reloads, 1); /* the pair that changed, once */

    unlink(in_folder("now.key"));
    for (int i = 0; i < 4; i++)
        tls_server_look(server);
    assert_int_equal(refused(server), 1); /* said once, not at every look */
    assert_string_equal(shown(context, "a.example", NULL), "second");
    tls_context_free(context);
}

static void running_handshakes_keep_their_pair(void **state)
{
    (void)state;
    issue("first", true, true);
    struct tls_server *server = stage_server(&(struct tls_files){in_folder("now.pem"), in_folder("now.key"), NULL}, 1);
    struct tls_context *context = context_of(server, NULL);
    struct pair pair = {tls_new_ssl(client, false, SLICE("a.example")), tls_new_ssl(context, true, (struct slice){0})};
    SSL_set_max_proto_version(pair.client, TLS1_2_VERSION); /* the certificate first, the key's use a flight later */
    connect_bios(&pair);
    SSL_do_handshake(pair.client);
    SSL_do_handshake(pair.server);
    for (int i = 0; i < 1000; i++) { /* none of them leaves anything: the sanitizers would tell */
        if (i % 100 == 0)
            issue("next", true, true);
        tls_server_reload(server);
    }
    char text[TLS_ERROR_LEN];
    assert_true(shake(&pair, text));
    assert_string_equal(shown(context, "a.example", NULL), "next");
    free_pair(&pair);
    tls_context_free(context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(name_chooses_the_certificate),
        cmocka_unit_test(two_kinds_of_key_for_one_name),
        cmocka_unit_test(weak_keys_are_refused),
        cmocka_unit_test(sessions_resume_under_their_own_name),
        cmocka_unit_test(tickets_age),
        cmocka_unit_test(staples_what_is_good),
        cmocka_unit_test(staples_nothing_else),
        cmocka_unit_test(bad_pairs_are_refused),
        cmocka_unit_test(changes_are_seen_when_they_settle),
        cmocka_unit_test(running_handshakes_keep_their_pair),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
