/* Connections against a plain socket: what is delivered, in which order, and how each way of ending looks from the far
 * side. test_conn_tls.c has them over TLS. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <poll.h>
#include <stdlib.h>

#include "io/conn_stage.h"

static int start(void **state)
{
    (void)state;
    return worker_group_start(1, &group);
}

static int stop(void **state)
{
    (void)state;
    worker_group_stop(group, 5000);
    return (int)chunk_live_count();
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

/* Progress inside a large piece of output can be seen, not only its end. */
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

struct departure {
    struct owner *o;
    int fd;
    bool ends_first; /* its direction, before it breaks off ours */
};

/* After this turn's receives and before its sends: it is a send that learns of it. */
static void have_peer_leave(struct worker *w, void *arg)
{
    const struct departure *d = arg;
    (void)w;
    send_text(d->fd, "sorry");
    if (d->ends_first)
        shutdown(d->fd, SHUT_WR);
    close(d->fd); /* "hello" is unread: a reset */
    assert_int_equal(conn_write_copy(d->o->conn, "more", 4), KV_OK);
}

static void accept_greeted(struct owner *o, struct departure *d)
{
    int fds[2];
    connected_pair(fds);
    owner_accept(o, fds[1], NULL);
    on_worker(worker(), do_write_hello, o);
    *d = (struct departure){.o = o, .fd = fds[0], .ends_first = d->ends_first};
    char byte;
    assert_int_equal(recv(fds[0], &byte, 1, MSG_PEEK), 1);
}

static void hears_a_peer_that_takes_no_more(void **state)
{
    (void)state;
    for (int ends_first = 0; ends_first <= 1; ends_first++) {
        struct owner o;
        struct departure d = {.ends_first = ends_first};
        accept_greeted(&o, &d);
        on_worker(worker(), have_peer_leave, &d);
        assert_true(wait_for(&o.end));
        assert_int_equal(o.received, 5);
        assert_memory_equal(o.first, "sorry", 5);
        assert_int_equal(o.eofs, ends_first); /* a reset alone is no end to rely on */
        assert_int_equal(o.closed, 1);
        assert_int_equal(o.error, KV_ECLOSED);
    }
}

/* Nothing to wait for. */
static void hears_no_more_of_a_peer_that_ended(void **state)
{
    (void)state;
    struct owner o;
    struct departure d = {0};
    accept_greeted(&o, &d);
    send_text(d.fd, "bye");
    shutdown(d.fd, SHUT_WR);
    assert_true(wait_for(&o.eof));
    close(d.fd);
    on_worker(worker(), do_write_hello, &o);
    assert_true(wait_for(&o.end));
    assert_int_equal(o.received, 3);
    assert_int_equal(o.eofs, 1);
    assert_int_equal(o.closed, 1);
}

static unsigned unsendables;

static void on_unsendable(void *arg)
{
    assert_int_equal(((struct owner *)arg)->closed, 0);
    unsendables++;
}

static const struct conn_events patient_events = {
    .data = on_data, .eof = on_eof, .closed = on_closed, .unsendable = on_unsendable};

static void be_patient(struct worker *w, void *arg)
{
    struct owner *o = arg;
    (void)w;
    conn_set_owner(o->conn, &patient_events, o);
}

/* A peer that leaves while its patient owner has paused. */
static void leave_while_paused(struct owner *o, struct departure *d)
{
    accept_greeted(o, d);
    on_worker(worker(), be_patient, o);
    on_worker(worker(), do_pause, o);
    on_worker(worker(), have_peer_leave, d);
}

/* Whether a pause is waited for is the owner's to say. */
static void hears_out_after_a_pause_or_not(void **state)
{
    (void)state;
    struct owner o;
    struct departure d = {.ends_first = true};
    accept_greeted(&o, &d);
    on_worker(worker(), do_pause, &o);
    on_worker(worker(), have_peer_leave, &d);
    assert_true(wait_for(&o.end));
    assert_int_equal(o.received + (size_t)o.eofs, 0);

    leave_while_paused(&o, &d);
    for (int i = 0; i < 20; i++)
        on_worker(worker(), nothing, NULL);
    assert_int_equal(o.received + (size_t)(o.eofs + o.closed), 0);
    assert_int_equal(unsendables, 1);
    on_worker(worker(), do_resume, &o);
    assert_true(wait_for(&o.end));
    assert_int_equal(o.received, 5);
    assert_int_equal(o.eofs, 1);

    /* And one that pauses when it has heard something. */
    accept_greeted(&o, &d);
    o.pause_in_data = true;
    on_worker(worker(), have_peer_leave, &d);
    assert_true(wait_for(&o.end));
    assert_int_equal(o.received, 5);
    assert_int_equal(o.eofs, 0);

    /* The owner's own end needs no more of it. */
    accept_greeted(&o, &d);
    o.pause_in_data = false;
    on_worker(worker(), be_patient, &o);
    on_worker(worker(), do_pause, &o);
    on_worker(worker(), have_peer_leave, &d);
    on_worker(worker(), do_close, &o);
    assert_int_equal(o.closed, 0);
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
    for (int i = 0; i < 14; i++) { /* 7 s: several lingering times, one piece of output */
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

static bool never_spent(const struct conn_patience *patience, uint64_t silent_ms)
{
    (void)patience;
    (void)silent_ms;
    return false;
}

static struct conn_patience endless = {.is_spent = never_spent};

static void do_be_endless(struct worker *w, void *arg)
{
    (void)w;
    struct owner *o = arg;
    conn_set_patience(o->conn, &endless);
}

static void do_break(struct worker *w, void *arg)
{
    (void)w;
    struct owner *o = arg;
    conn_break(o->conn);
}

/* With patience a reader may pause for as long as it likes; meanwhile it counts as one that is sent to. */
static void waits_for_whoever_pauses(void **state)
{
    (void)state;
    int fds[2];
    struct owner o;
    connected_pair(fds);
    owner_accept(&o, fds[1], NULL);
    on_worker(worker(), do_be_endless, &o);
    on_worker(worker(), do_write_bulk, &o);
    on_worker(worker(), do_close, &o);
    struct pollfd hung_up = {.fd = fds[0], .events = 0};
    assert_int_equal(poll(&hung_up, 1, 3 * LIMIT_LINGER_MS), 0);
    assert_int_equal(atomic_load(&endless.sending), 1);
    assert_int_equal(read_all(fds[0], false), BULK_BYTES);
    close(fds[0]);
    for (int i = 0; i < 100 * TEST_PATIENCE_S && atomic_load(&endless.sending) > 0; i++)
        nanosleep(&(struct timespec){.tv_nsec = 10 * 1000 * 1000}, NULL);
    assert_int_equal(atomic_load(&endless.sending), 0);
}

/* What was written arrives, and then a reset, not an end. */
static void breaks_behind_the_output(void **state)
{
    (void)state;
    int fds[2];
    struct owner o;
    connected_pair(fds);
    owner_accept(&o, fds[1], NULL);
    on_worker(worker(), do_write_bulk, &o);
    on_worker(worker(), do_break, &o);
    static char bytes[65536];
    size_t total = 0;
    ssize_t n;
    while ((n = recv(fds[0], bytes, sizeof(bytes), 0)) > 0)
        total += (size_t)n;
    assert_int_equal(n, -1);
    assert_int_equal(errno, ECONNRESET);
    assert_int_equal(total, BULK_BYTES);
    close(fds[0]);
}

/* ---- dialling ---------------------------------------------------------------------------------------------------- */

static void tells_a_refusal(void **state)
{
    (void)state;
    struct owner o;
    uint16_t port = 0;
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
    uint16_t port = 0;
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_everything_in_order),
        cmocka_unit_test(counts_what_has_left),
        cmocka_unit_test(ends_each_direction_alone),
        cmocka_unit_test(pauses_reading),
        cmocka_unit_test(keeps_what_came_with_a_pause),
        cmocka_unit_test(resets),
        cmocka_unit_test(hears_a_peer_that_takes_no_more),
        cmocka_unit_test(hears_no_more_of_a_peer_that_ended),
        cmocka_unit_test(hears_out_after_a_pause_or_not),
        cmocka_unit_test(lingers_for_the_peer),
        cmocka_unit_test(gives_up_with_a_reset),
        cmocka_unit_test(waits_for_the_slow),
        cmocka_unit_test(waits_for_whoever_pauses),
        cmocka_unit_test(breaks_behind_the_output),
        cmocka_unit_test(tells_a_refusal),
        cmocka_unit_test(tells_a_timeout),
        cmocka_unit_test(tries_the_second_address),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
