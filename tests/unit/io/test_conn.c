/* Connections against a plain socket and against each other over TLS: what is delivered, in which order, and how each
 * way of ending looks from the far side. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/limits.h"
#include "io/certs.h"
#include "io/conn.h"
#include "io/on_worker.h"
#include "io/tls.h"
#include "io/tls_server.h"

static struct worker_group *group;
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

static struct worker *worker(void)
{
    return worker_at(group, 0);
}

/* ---- two connected sockets, an owner on one ---------------------------------------------------------------------- */

static void connected_pair(int fds[2])
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, len), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &len), 0);
    fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int small = 4096;
    setsockopt(fds[0], SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    assert_int_equal(connect(fds[0], (struct sockaddr *)&address, len), 0);
    fds[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    assert_true(fds[1] >= 0);
    setsockopt(fds[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
    struct timeval patience = {.tv_sec = TEST_PATIENCE_S};
    setsockopt(fds[0], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    close(listener);
}

struct owner {
    struct conn *conn;
    size_t received;
    char first[64]; /* of what was received */
    atomic_size_t sent_events;
    int closed, error, eofs;
    bool ready_seen, pause_in_data;
    struct owner *pauses; /* in `data`: another connection's */
    size_t unsent_at_closed;
    size_t to_write; /* in `ready` */
    sem_t ready, data, eof, end;
    struct tls_context *tls;
    int fd;
};

static void on_ready(void *arg)
{
    struct owner *o = arg;
    o->ready_seen = true;
    sem_post(&o->ready);
}

static void on_data(void *arg, struct slice bytes)
{
    struct owner *o = arg;
    assert_int_equal(o->closed, 0);
    for (size_t i = 0; i < bytes.len && o->received + i < sizeof(o->first); i++)
        o->first[o->received + i] = bytes.data[i];
    o->received += bytes.len;
    if (o->pause_in_data)
        conn_pause(o->conn);
    if (o->pauses)
        conn_pause(o->pauses->conn);
    sem_post(&o->data);
}

static void on_eof(void *arg)
{
    struct owner *o = arg;
    o->eofs++;
    sem_post(&o->eof);
}

static void on_sent(void *arg)
{
    struct owner *o = arg;
    atomic_fetch_add(&o->sent_events, 1);
}

static void on_closed(void *arg, int error)
{
    struct owner *o = arg;
    o->closed++;
    o->error = error;
    assert_non_null(conn_error_text(o->conn));
    sem_post(&o->end);
}

static const struct conn_events events = {
    .ready = on_ready, .data = on_data, .eof = on_eof, .sent = on_sent, .closed = on_closed};

static void owner_init(struct owner *o)
{
    *o = (struct owner){0};
    sem_init(&o->ready, 0, 0);
    sem_init(&o->data, 0, 0);
    sem_init(&o->eof, 0, 0);
    sem_init(&o->end, 0, 0);
}

static void accept_it(struct worker *w, void *arg)
{
    struct owner *o = arg;
    assert_int_equal(conn_accept(w, o->fd, o->tls, &events, o, &o->conn), KV_OK);
}

static void owner_accept(struct owner *o, int fd, struct tls_context *tls)
{
    owner_init(o);
    o->fd = fd;
    o->tls = tls;
    on_worker(worker(), accept_it, o);
}

/* ---- what tests do on the worker --------------------------------------------------------------------------------- */

static void do_pause(struct worker *w, void *arg)
{
    (void)w;
    conn_pause(((struct owner *)arg)->conn);
}

static void do_resume(struct worker *w, void *arg)
{
    (void)w;
    conn_resume(((struct owner *)arg)->conn);
}

static void do_shutdown(struct worker *w, void *arg)
{
    (void)w;
    conn_shutdown(((struct owner *)arg)->conn);
}

static void do_close(struct worker *w, void *arg)
{
    (void)w;
    conn_close(((struct owner *)arg)->conn);
}

static void do_abort(struct worker *w, void *arg)
{
    (void)w;
    conn_abort(((struct owner *)arg)->conn, false);
}

static void do_reset(struct worker *w, void *arg)
{
    (void)w;
    conn_abort(((struct owner *)arg)->conn, true);
}

#define BULK_BYTES (3 * 1024 * 1024 + 17)

static char bulk_byte(size_t at)
{
    return (char)(at * 31 >> 3);
}

/* In chunks of every size, so that writes end inside them. */
static void do_write_bulk(struct worker *w, void *arg)
{
    struct owner *o = arg;
    (void)w;
    size_t at = 0;
    for (size_t size = 1; at < BULK_BYTES; size = size * 3 % 70001 + 1) {
        size_t n = size < BULK_BYTES - at ? size : BULK_BYTES - at;
        struct chunk *c = chunk_alloc(n);
        for (size_t i = 0; i < n; i++)
            c->data[i] = bulk_byte(at + i);
        c->len = (uint32_t)n;
        conn_write(o->conn, c);
        at += n;
    }
    assert_int_equal(conn_unsent(o->conn) >= BULK_BYTES, 1);
}

static void do_write_hello(struct worker *w, void *arg)
{
    (void)w;
    assert_int_equal(conn_write_copy(((struct owner *)arg)->conn, "hello", 5), KV_OK);
}

static void nothing(struct worker *w, void *arg)
{
    (void)w;
    (void)arg;
}

/* Reads until the end; -1 after a reset. */
static ssize_t read_all(int fd, bool check)
{
    char bytes[16384];
    size_t total = 0;
    for (;;) {
        ssize_t n = recv(fd, bytes, sizeof(bytes), 0);
        if (n < 0)
            return -1;
        if (n == 0)
            return (ssize_t)total;
        for (ssize_t i = 0; check && i < n; i++)
            assert_int_equal(bytes[i], bulk_byte(total + (size_t)i));
        total += (size_t)n;
    }
}

static void send_text(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

static size_t unsent;
static void ask_unsent(struct worker *w, void *arg)
{
    (void)w;
    unsent = conn_unsent(((struct owner *)arg)->conn);
}

/* ---- plain ------------------------------------------------------------------------------------------------------- */

static void writes_everything_in_order(void **state)
{
    (void)state;
    int fds[2];
    struct owner o;
    connected_pair(fds);
    owner_accept(&o, fds[1], NULL);
    on_worker(worker(), do_write_bulk, &o);
    on_worker(worker(), do_close, &o);
    assert_int_equal(read_all(fds[0], true), BULK_BYTES);
    close(fds[0]);
    assert_int_equal(o.closed, 0); /* the owner closed by itself and hears nothing */
}

/* Progress inside one large pending write can be seen, not only its end. */
static void counts_what_has_left(void **state)
{
    (void)state;
    int fds[2];
    struct owner o;
    char bytes[16384];
    connected_pair(fds);
    owner_accept(&o, fds[1], NULL);
    on_worker(worker(), do_write_bulk, &o);
    on_worker(worker(), ask_unsent, &o);
    size_t before = unsent;
    assert_true(before > 1024 * 1024);
    for (size_t got = 0; got < 256 * 1024;) {
        ssize_t n = recv(fds[0], bytes, sizeof(bytes), 0);
        assert_true(n > 0);
        got += (size_t)n;
    }
    on_worker(worker(), ask_unsent, &o);
    assert_true(unsent < before - 100 * 1024);
    on_worker(worker(), do_abort, &o);
    close(fds[0]);
}

static void ends_each_direction_alone(void **state)
{
    (void)state;
    int fds[2];
    struct owner o;
    connected_pair(fds);
    owner_accept(&o, fds[1], NULL);
    send_text(fds[0], "ping");
    shutdown(fds[0], SHUT_WR);
    assert_true(wait_for(&o.eof));
    assert_int_equal(o.received, 4);
    assert_int_equal(o.closed, 0);
    on_worker(worker(), do_write_hello, &o); /* ours goes on */
    on_worker(worker(), do_shutdown, &o);
    assert_int_equal(read_all(fds[0], false), 5);
    /* Both have ended: nothing to linger for. */
    on_worker(worker(), do_close, &o);
    close(fds[0]);

    connected_pair(fds);
    owner_accept(&o, fds[1], NULL);
    on_worker(worker(), do_shutdown, &o);
    assert_int_equal(read_all(fds[0], false), 0);
    send_text(fds[0], "still here");
    assert_true(wait_for(&o.data));
    close(fds[0]);
    assert_true(wait_for(&o.eof));
    on_worker(worker(), do_abort, &o);
}

static void pauses_reading(void **state)
{
    (void)state;
    int fds[2];
    struct owner o;
    connected_pair(fds);
    owner_accept(&o, fds[1], NULL);
    on_worker(worker(), do_pause, &o);
    send_text(fds[0], "one");
    shutdown(fds[0], SHUT_WR);
    for (int i = 0; i < 20; i++)
        on_worker(worker(), nothing, NULL);
    assert_int_equal(o.received + (size_t)o.eofs, 0);
    on_worker(worker(), do_resume, &o);
    assert_true(wait_for(&o.data) && wait_for(&o.eof));
    assert_int_equal(o.received, 3);
    on_worker(worker(), do_abort, &o);
    close(fds[0]);
}

static void send_to_two(struct worker *w, void *arg)
{
    const int *fds = arg;
    (void)w;
    send_text(fds[0], "one");
    send_text(fds[1], "two");
}

/* What was taken for a connection together with others is kept when one of those has it paused. */
static void keeps_what_came_with_a_pause(void **state)
{
    (void)state;
    int first[2], second[2];
    struct owner a, b;
    connected_pair(first);
    connected_pair(second);
    owner_accept(&a, first[1], NULL);
    owner_accept(&b, second[1], NULL);
    a.pauses = &b;
    on_worker(worker(), send_to_two, (int[]){first[0], second[0]}); /* while the loop waits: one turn finds both */
    assert_true(wait_for(&a.data));
    on_worker(worker(), nothing, NULL);
    assert_int_equal(b.received, 0);
    a.pauses = NULL;
    send_text(second[0], "three");
    on_worker(worker(), do_resume, &b);
    assert_true(wait_for(&b.data) && wait_for(&b.data));
    assert_int_equal(b.received, 8);
    assert_memory_equal(b.first, "twothree", 8);
    on_worker(worker(), do_abort, &a);
    on_worker(worker(), do_abort, &b);
    close(first[0]);
    close(second[0]);
}

static void resets(void **state)
{
    (void)state;
    int fds[2];
    struct owner o;
    connected_pair(fds);
    owner_accept(&o, fds[1], NULL);
    on_worker(worker(), do_reset, &o);
    assert_int_equal(read_all(fds[0], false), -1);
    assert_int_equal(errno, ECONNRESET);
    close(fds[0]);

    /* And hears a reset of the peer. */
    connected_pair(fds);
    owner_accept(&o, fds[1], NULL);
    const struct linger hard = {1, 0};
    setsockopt(fds[0], SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
    close(fds[0]);
    assert_true(wait_for(&o.end));
    assert_int_equal(o.closed, 1);
    assert_int_equal(o.error, KV_ECLOSED);
    assert_int_equal(o.eofs, 0);
}

/* The answer arrives though the peer is still sending when we close. */
static void lingers_for_the_peer(void **state)
{
    (void)state;
    int fds[2];
    struct owner o;
    char bytes[16];
    connected_pair(fds);
    owner_accept(&o, fds[1], NULL);
    on_worker(worker(), do_write_hello, &o);
    on_worker(worker(), do_close, &o);
    for (int i = 0; i < 50; i++)
        send_text(fds[0], "a body that nobody wants");
    assert_int_equal(recv(fds[0], bytes, sizeof(bytes), MSG_WAITALL), 5);
    close(fds[0]);
}

/* A reader that takes nothing is given up after a while; what it gets then must not look like an orderly end. */
static void gives_up_with_a_reset(void **state)
{
    (void)state;
    int fds[2];
    struct owner o;
    connected_pair(fds);
    owner_accept(&o, fds[1], NULL);
    on_worker(worker(), do_write_bulk, &o);
    on_worker(worker(), do_close, &o);
    struct pollfd hung_up = {.fd = fds[0], .events = 0};
    assert_int_equal(poll(&hung_up, 1, TEST_PATIENCE_S * 1000), 1);
    assert_true(hung_up.revents & POLLERR);
    close(fds[0]);
}

/* A reader that is slow but reads gets everything, however long it takes. */
static void waits_for_the_slow(void **state)
{
    (void)state;
    int fds[2];
    struct owner o;
    char bytes[8192];
    connected_pair(fds);
    owner_accept(&o, fds[1], NULL);
    on_worker(worker(), do_write_bulk, &o);
    on_worker(worker(), do_close, &o);
    size_t total = 0;
    for (int i = 0; i < 14; i++) { /* 7 s: several lingering times, one pending write */
        ssize_t n = 0;
        for (size_t got = 0; got < 32768; got += (size_t)n, total += (size_t)n) {
            n = recv(fds[0], bytes, sizeof(bytes), 0);
            assert_true(n > 0);
        }
        struct timespec half_second = {.tv_nsec = 500 * 1000 * 1000};
        nanosleep(&half_second, NULL);
    }
    ssize_t rest = read_all(fds[0], false);
    assert_true(rest >= 0);
    assert_int_equal(total + (size_t)rest, BULK_BYTES);
    close(fds[0]);
}

/* ---- dialling ---------------------------------------------------------------------------------------------------- */

struct call {
    struct owner *owner;
    struct dial_options options;
};

static void do_dial(struct worker *w, void *arg)
{
    struct call *call = arg;
    call->owner->conn = conn_dial(w, &call->options, &events, call->owner);
    assert_non_null(call->owner->conn);
    assert_false(call->owner->ready_seen); /* never from inside */
}

static int listening(uint16_t *port, int family)
{
    struct sockaddr_storage address = {.ss_family = (sa_family_t)family};
    if (family == AF_INET6)
        ((struct sockaddr_in6 *)&address)->sin6_addr = in6addr_loopback;
    else
        ((struct sockaddr_in *)&address)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t len = family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, len) != 0)
        return -1;
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
    *port = ntohs(((struct sockaddr_in *)&address)->sin_port);
    return fd;
}

static void tells_a_refusal(void **state)
{
    (void)state;
    struct owner o;
    uint16_t port;
    int fd = listening(&port, AF_INET); /* bound, not listening: refused, and nobody else gets the port */
    owner_init(&o);
    struct call call = {&o, {.host = SLICE("127.0.0.1"), .port = port, .timeout_ms = 10000}};
    on_worker(worker(), do_dial, &call);
    assert_true(wait_for(&o.end));
    assert_int_equal(o.error, KV_EREFUSED);
    assert_int_equal(o.closed, 1);
    close(fd);
}

/* A full backlog answers no SYN: only the time-out ends the wait. */
static void tells_a_timeout(void **state)
{
    (void)state;
    struct owner o;
    uint16_t port;
    int fd = listening(&port, AF_INET), fillers[4];
    assert_int_equal(listen(fd, 0), 0);
    for (int i = 0; i < 4; i++) {
        struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
        to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        (void)connect(fillers[i], (struct sockaddr *)&to, sizeof(to));
    }
    owner_init(&o);
    struct call call = {&o, {.host = SLICE("127.0.0.1"), .port = port, .timeout_ms = 300}};
    on_worker(worker(), do_dial, &call);
    assert_true(wait_for(&o.end));
    assert_int_equal(o.error, KV_ETIMEDOUT);

    owner_init(&o);
    call.options.timeout_ms = 10000;
    on_worker(worker(), do_dial, &call);
    on_worker(worker(), do_abort, &o); /* cancelled: nothing is told */
    on_worker(worker(), nothing, NULL);
    assert_int_equal(o.closed, 0);
    for (int i = 0; i < 4; i++)
        close(fillers[i]);
    close(fd);
}

/* localhost is both families; a service that listens on one of them is found. */
static void tries_the_second_address(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct owner o;
        uint16_t port;
        int fd = listening(&port, i ? AF_INET6 : AF_INET);
        if (fd < 0)
            continue; /* no IPv6 here */
        assert_int_equal(listen(fd, 4), 0);
        owner_init(&o);
        struct call call = {&o, {.host = SLICE("localhost"), .port = port, .timeout_ms = 10000}};
        on_worker(worker(), do_dial, &call);
        assert_true(wait_for(&o.ready));
        on_worker(worker(), do_abort, &o);
        close(fd);
    }
}

/* ---- TLS --------------------------------------------------------------------------------------------------------- */

static void tls_pair(struct owner *server, struct owner *client)
{
    uint16_t port;
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
        cmocka_unit_test(writes_everything_in_order),
        cmocka_unit_test(counts_what_has_left),
        cmocka_unit_test(ends_each_direction_alone),
        cmocka_unit_test(pauses_reading),
        cmocka_unit_test(keeps_what_came_with_a_pause),
        cmocka_unit_test(resets),
        cmocka_unit_test(lingers_for_the_peer),
        cmocka_unit_test(gives_up_with_a_reset),
        cmocka_unit_test(waits_for_the_slow),
        cmocka_unit_test(tells_a_refusal),
        cmocka_unit_test(tells_a_timeout),
        cmocka_unit_test(tries_the_second_address),
        cmocka_unit_test(speaks_tls),
        cmocka_unit_test(tls_pauses_in_the_middle),
        cmocka_unit_test(tls_notices_truncation),
        cmocka_unit_test(tls_refuses_plain_text),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
