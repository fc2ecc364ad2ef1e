/* Connections over TLS, against each other and against OpenSSL alone: what is delivered, what a pause keeps, and how
 * each direction ends. test_conn.c has them in the clear. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <stdlib.h>

#include "io/certs.h"
#include "io/conn_stage.h"
#include "io/tls.h"
#include "io/tls_server.h"

static char folder[64];
static struct tls_server *tls_server;
static struct tls_context *server_tls, *client_tls;

static int start(void **state)
{
    (void)state;
    static const char *const alpn[] = {"h2", NULL};
    char cert[128], error[TLS_ERROR_LEN];
    snprintf(folder, sizeof(folder), "/tmp/kavilo-test-conn-XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(cert, sizeof(cert), "%s/cert.pem", folder);
    EVP_PKEY *key = cert_key();
    X509 *self = cert_make(&(struct cert_wish){"here", "DNS:here.test,IP:127.0.0.1", false, 0, 0}, key, NULL, NULL);
    cert_write(cert, (X509 *[]){self, NULL}, key, NULL);
    X509_free(self);
    EVP_PKEY_free(key);
    tls_server = tls_server_new(&(struct tls_files){cert, cert, NULL}, 1, error);
    assert_non_null(tls_server);
    server_tls = tls_server_context(tls_server, alpn, error);
    client_tls = tls_client_context(cert, true, alpn, error);
    assert_non_null(server_tls);
    assert_non_null(client_tls);
    unlink(cert);
    rmdir(folder);
    return worker_group_start(1, &group);
}

static int stop(void **state)
{
    (void)state;
    worker_group_stop(group, 5000);
    tls_context_free(server_tls);
    tls_context_free(client_tls);
    tls_server_free(tls_server);
    return (int)chunk_live_count();
}

static void tls_pair(struct owner *server, struct owner *client)
{
    uint16_t port = 0;
    int listener = listening(&port, AF_INET);
    assert_int_equal(listen(listener, 1), 0);
    owner_init(client);
    struct call call = {client,
                        {.host = SLICE("127.0.0.1"),
                         .port = port,
                         .tls = client_tls,
                         .tls_name = SLICE("here.test"),
                         .timeout_ms = 10000}};
    on_worker(worker(), do_dial, &call);
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    close(listener);
    owner_accept(server, fd, server_tls);
    assert_true(wait_for(&server->ready) && wait_for(&client->ready));
    assert_true(conn_is_tls(client->conn));
    assert_true(slice_equals(conn_alpn(client->conn), SLICE("h2")));
}

static void speaks_tls(void **state)
{
    (void)state;
    struct owner server, client;
    tls_pair(&server, &client);
    on_worker(worker(), do_write_hello, &client);
    assert_true(wait_for(&server.data));
    assert_memory_equal(server.first, "hello", 5);
    on_worker(worker(), do_write_bulk, &server);
    on_worker(worker(), do_close, &server);
    assert_true(wait_for(&client.eof)); /* close_notify, after everything */
    assert_int_equal(client.received, BULK_BYTES);
    assert_int_equal(client.closed, 0);
    on_worker(worker(), do_abort, &client);
}

/* Records that arrive while the owner has paused are kept, in order, and the end that follows them too. */
static void tls_pauses_in_the_middle(void **state)
{
    (void)state;
    struct owner server, client;
    tls_pair(&server, &client);
    client.pause_in_data = true; /* after every record */
    on_worker(worker(), do_write_bulk, &server);
    on_worker(worker(), do_close, &server);
    size_t before = 0;
    while (sem_trywait(&client.eof) != 0) {
        if (sem_trywait(&client.data) == 0) {
            assert_true(client.received > before);
            before = client.received;
            on_worker(worker(), do_resume, &client);
        }
        on_worker(worker(), nothing, NULL);
    }
    assert_int_equal(client.received, BULK_BYTES);
    assert_int_equal(client.eofs, 1);
    on_worker(worker(), do_abort, &client);
}

/* An end without close_notify could be anybody's: it is no orderly end. */
/* A client by OpenSSL alone, on a blocking socket: it says what no connection of ours would. */
static SSL *raw_client(int fd)
{
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    SSL *ssl = SSL_new(context);
    SSL_CTX_free(context);
    SSL_set_fd(ssl, fd);
    assert_int_equal(SSL_connect(ssl), 1);
    return ssl;
}

/* Three records that arrive together. */
static void write_three_records(SSL *ssl, int fd)
{
    static const char record[1000];
    for (int corked = 1; corked >= 0; corked--) {
        setsockopt(fd, IPPROTO_TCP, TCP_CORK, &corked, sizeof(corked));
        for (int i = 0; i < 3 && corked; i++)
            assert_int_equal(SSL_write(ssl, record, sizeof(record)), sizeof(record));
    }
}

/* The end of our direction takes nothing from the other, of which a pause has kept some. */
static void tls_keeps_input_past_its_shutdown(void **state)
{
    (void)state;
    int fds[2];
    struct owner o;
    char bytes[8];
    connected_pair(fds);
    owner_accept(&o, fds[1], server_tls);
    SSL *ssl = raw_client(fds[0]);
    assert_true(wait_for(&o.ready));
    o.pause_in_data = true;
    write_three_records(ssl, fds[0]);
    assert_true(wait_for(&o.data));
    on_worker(worker(), do_write_hello, &o);
    on_worker(worker(), do_shutdown, &o);
    assert_int_equal(SSL_read(ssl, bytes, sizeof(bytes)), 5);
    assert_int_equal(SSL_read(ssl, bytes, sizeof(bytes)), 0);
    assert_int_equal(SSL_get_error(ssl, 0), SSL_ERROR_ZERO_RETURN);
    for (int i = 0; i < 2; i++) {
        on_worker(worker(), do_resume, &o);
        assert_true(wait_for(&o.data));
    }
    on_worker(worker(), nothing, NULL);
    assert_int_equal(o.received, 3000);
    assert_int_equal(o.closed, 0);
    on_worker(worker(), do_abort, &o);
    SSL_free(ssl);
    close(fds[0]);
}

/* What a peer sends after its close_notify fills its socket, and nothing of ours. */
static void tls_takes_nothing_after_close_notify(void **state)
{
    (void)state;
    int fds[2];
    struct owner o;
    static const char junk[65536];
    const struct timeval moment = {.tv_usec = 300000};
    connected_pair(fds);
    owner_accept(&o, fds[1], server_tls);
    SSL *ssl = raw_client(fds[0]);
    assert_true(wait_for(&o.ready));
    assert_int_equal(SSL_write(ssl, "hello", 5), 5);
    SSL_shutdown(ssl);
    assert_true(wait_for(&o.data) && wait_for(&o.eof));
    size_t before = chunk_live_bytes(), sent = 0;
    setsockopt(fds[0], SOL_SOCKET, SO_SNDTIMEO, &moment, sizeof(moment));
    for (ssize_t n = 1; n > 0 && sent < 64 * 1024 * 1024; sent += (size_t)(n > 0 ? n : 0))
        n = send(fds[0], junk, sizeof(junk), MSG_NOSIGNAL);
    assert_true(sent < 64 * 1024 * 1024);
    on_worker(worker(), nothing, NULL);
    assert_int_equal(chunk_live_bytes(), before);
    assert_int_equal(o.received, 5);
    on_worker(worker(), do_abort, &o);
    SSL_free(ssl);
    close(fds[0]);
}

static void tls_notices_truncation(void **state)
{
    (void)state;
    struct owner server, client;
    tls_pair(&server, &client);
    on_worker(worker(), do_write_hello, &server);
    assert_true(wait_for(&client.data));
    on_worker(worker(), do_abort, &server);
    assert_true(wait_for(&client.end));
    assert_int_equal(client.eofs, 0);
    assert_int_equal(client.error, KV_ECLOSED);
}

static void tls_refuses_plain_text(void **state)
{
    (void)state;
    int fds[2];
    struct owner o;
    connected_pair(fds);
    owner_accept(&o, fds[1], server_tls);
    send_text(fds[0], "GET / HTTP/1.1\r\nHost: here.test\r\n\r\n");
    assert_true(wait_for(&o.end));
    assert_int_equal(o.error, KV_ETLS);
    assert_int_equal(o.received, 0);
    close(fds[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(speaks_tls),
        cmocka_unit_test(tls_pauses_in_the_middle),
        cmocka_unit_test(tls_keeps_input_past_its_shutdown),
        cmocka_unit_test(tls_takes_nothing_after_close_notify),
        cmocka_unit_test(tls_notices_truncation),
        cmocka_unit_test(tls_refuses_plain_text),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
