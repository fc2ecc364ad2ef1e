/* Addresses as text, ports that are shared and ports that are busy, and accepting when descriptors run out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/error.h"
#include "io/descriptors.h"
#include "io/listener.h"
#include "io/on_worker.h"

/* ---- addresses ------------------------------------------------------------------------------------------------- */

static const struct {
    const char *text;
    const char *formatted; /* NULL: refused */
} parses[] = {
    {"127.0.0.1:8080", "127.0.0.1:8080"},
    {"0.0.0.0:1", "0.0.0.0:1"},
    {"[::1]:443", "[::1]:443"},
    {"[2001:db8::1]:65535", "[2001:db8::1]:65535"},
    {":8080", "[::]:8080"},
    {"*:8080", "[::]:8080"},
    {"8080", "[::]:8080"},
    {"[::]:0", "[::]:0"},
    {"localhost:7777", "127.0.0.1:7777"},
    {"LOCALHOST:7777", "127.0.0.1:7777"},
    {"[::ffff:192.0.2.1]:80", "192.0.2.1:80"},
    {"", NULL},
    {":", NULL},
    {"127.0.0.1", NULL},
    {"127.0.0.1:", NULL},
    {"127.0.0.1:65536", NULL},
    {"127.0.0.1:-1", NULL},
    {"127.0.0.1:+80", NULL},
    {"127.0.0.1: 80", NULL},
    {"127.0.0.1:80x", NULL},
    {"127.0.0.256:80", NULL},
    {"::1:80", NULL},
    {"::1", NULL},
    {"[::1]", NULL},
    {"[::1]80", NULL},
    {"[]:80", NULL},
    {"[127.0.0.1]:80", NULL},
    {"[localhost]:80", NULL},
    {"example.com:80", NULL},
    {"http://127.0.0.1:80", NULL},
    {"1.2.3.4.5.6.7.8.1.2.3.4.5.6.7.8.1.2.3.4.5.6.7.8.1.2.3.4.5.6.7.8.1.2.3.4.5.6.7.8:80", NULL},
};

static void parses_addresses(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(parses) / sizeof(parses[0]); i++) {
        struct sockaddr_storage address, before;
        memset(&address, 0x5a, sizeof(address));
        before = address;
        int result = sockaddr_parse(slice_of(parses[i].text), &address);
        if (!parses[i].formatted) {
            if (result != KV_EINVAL)
                fail_msg("'%s' was taken", parses[i].text);
            assert_memory_equal(&address, &before, sizeof(address));
            continue;
        }
        if (result != 0)
            fail_msg("'%s' was refused", parses[i].text);
        char text[SOCKADDR_TEXT_LEN];
        sockaddr_format((struct sockaddr *)&address, text);
        assert_string_equal(text, parses[i].formatted);
    }
    struct sockaddr_storage address;
    assert_int_equal(sockaddr_parse((struct slice){0}, &address), KV_EINVAL);
    assert_int_equal(sockaddr_parse((struct slice){"1\0:80", 5}, &address), KV_EINVAL);
}

static void formats_hosts(void **state)
{
    (void)state;
    char text[SOCKADDR_TEXT_LEN];
    struct sockaddr_storage address;
    assert_int_equal(sockaddr_parse(SLICE("[2001:db8::1]:443"), &address), 0);
    sockaddr_format_host((struct sockaddr *)&address, text);
    assert_string_equal(text, "2001:db8::1");
    assert_int_equal(sockaddr_port((struct sockaddr *)&address), 443);
    assert_int_equal(sockaddr_len((struct sockaddr *)&address), sizeof(struct sockaddr_in6));
    assert_int_equal(sockaddr_parse(SLICE("[::ffff:203.0.113.7]:4567"), &address), 0);
    sockaddr_format_host((struct sockaddr *)&address, text);
    assert_string_equal(text, "203.0.113.7");
    address = (struct sockaddr_storage){.ss_family = AF_UNIX};
    sockaddr_format((struct sockaddr *)&address, text);
    assert_string_equal(text, "unknown:0");
}

/* ---- binding --------------------------------------------------------------------------------------------------- */

static struct sockaddr_storage parsed(const char *text)
{
    struct sockaddr_storage address;
    assert_int_equal(sockaddr_parse(slice_of(text), &address), 0);
    return address;
}

/* A connected client socket, or -1. */
static int dial(const char *host, uint16_t port)
{
    struct sockaddr_storage address = parsed(host);
    if (address.ss_family == AF_INET6)
        ((struct sockaddr_in6 *)&address)->sin6_port = htons(port);
    else
        ((struct sockaddr_in *)&address)->sin_port = htons(port);
    int fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (struct sockaddr *)&address, sockaddr_len((struct sockaddr *)&address)) == 0)
        return fd;
    close(fd);
    return -1;
}

static void one_port_for_all_workers(void **state)
{
    (void)state;
    struct sockaddr_storage address = parsed("127.0.0.1:0");
    int fds[4];
    assert_int_equal(listener_bind(&address, fds, 4), 0);
    uint16_t port = sockaddr_port((struct sockaddr *)&address);
    assert_int_not_equal(port, 0);
    for (int i = 0; i < 4; i++) {
        struct sockaddr_storage bound;
        socklen_t len = sizeof(bound);
        assert_int_equal(getsockname(fds[i], (struct sockaddr *)&bound, &len), 0);
        assert_int_equal(sockaddr_port((struct sockaddr *)&bound), port);
        assert_int_equal(fcntl(fds[i], F_GETFL) & O_NONBLOCK, O_NONBLOCK);
        assert_int_equal(fcntl(fds[i], F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    }

    /* The kernel gives each of the four its share, the first one, which was opened late, included. */
    int clients[200];
    for (int i = 0; i < 200; i++) {
        clients[i] = dial("127.0.0.1:0", port);
        assert_true(clients[i] >= 0);
    }
    int total = 0;
    for (int i = 0; i < 4; i++) {
        int fd, taken = 0;
        while ((fd = accept(fds[i], NULL, NULL)) >= 0) {
            taken++;
            close(fd);
        }
        assert_int_equal(errno, EAGAIN);
        assert_true(taken > 0);
        total += taken;
    }
    assert_int_equal(total, 200);
    for (int i = 0; i < 200; i++)
        close(clients[i]);
    for (int i = 0; i < 4; i++)
        close(fds[i]);
}

/* A port that nobody has on any address: on another one than the test's it may be a neighbour's connection. */
static uint16_t free_port(void)
{
    struct sockaddr_storage address = parsed("[::]:0");
    int fd;
    assert_int_equal(listener_bind(&address, &fd, 1), 0);
    close(fd);
    return sockaddr_port((struct sockaddr *)&address);
}

/* How a port can be somebody else's. */
static void a_busy_port_is_an_error(void **state)
{
    (void)state;
    static const char *const ours[] = {"127.0.0.1:0", "0.0.0.0:0", "[::]:0"};
    for (size_t i = 0; i < 3; i++) {
        for (int shared = 0; shared < 2; shared++) {
            int other = socket(AF_INET, SOCK_STREAM, 0), on = 1;
            uint16_t port = free_port();
            struct sockaddr_storage address = parsed("127.0.0.1:0");
            ((struct sockaddr_in *)&address)->sin_port = htons(port);
            setsockopt(other, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
            if (shared)
                setsockopt(other, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
            assert_int_equal(bind(other, (struct sockaddr *)&address, sizeof(struct sockaddr_in)), 0);
            assert_int_equal(listen(other, 1), 0);

            struct sockaddr_storage wanted = parsed(ours[i]);
            if (wanted.ss_family == AF_INET6)
                ((struct sockaddr_in6 *)&wanted)->sin6_port = htons(port);
            else
                ((struct sockaddr_in *)&wanted)->sin_port = htons(port);
            int fds[2];
            assert_int_equal(listener_bind(&wanted, fds, 2), KV_EIO);
            assert_int_equal(errno, EADDRINUSE);
            close(other);
            assert_int_equal(listener_bind(&wanted, fds, 2), 0); /* and free again */

            /* A second server of ours finds it busy too, although each of our sockets would share it. */
            int more[2];
            assert_int_equal(listener_bind(&wanted, more, 2), KV_EIO);
            assert_int_equal(errno, EADDRINUSE);
            close(fds[0]);
            close(fds[1]);
        }
    }
}

static void an_address_of_another_host_is_an_error(void **state)
{
    (void)state;
    struct sockaddr_storage address = parsed("203.0.113.1:0"); /* RFC 5737: nobody's */
    int fd;
    assert_int_equal(listener_bind(&address, &fd, 1), KV_EIO);
    assert_int_equal(errno, EADDRNOTAVAIL);
}

/* ---- accepting ------------------------------------------------------------------------------------------------- */

struct acceptor {
    struct listener *listener;
    int listening;
    int fds[512];
    atomic_int count;
    bool stop_after_first;
    sem_t came;
};

static void take(void *arg, int fd)
{
    struct acceptor *acceptor = arg;
    acceptor->fds[acceptor->count++] = fd;
    if (acceptor->stop_after_first) {
        listener_stop(acceptor->listener);
        acceptor->listener = NULL;
    }
    sem_post(&acceptor->came);
}

static void start(struct worker *worker, void *arg)
{
    struct acceptor *acceptor = arg;
    acceptor->listener = listener_new(worker, acceptor->listening, DESCRIPTOR_UNSHARED, take, acceptor);
    if (acceptor->listener)
        listener_start(acceptor->listener);
}

static void stop(struct worker *worker, void *arg)
{
    (void)worker;
    struct acceptor *acceptor = arg;
    listener_stop(acceptor->listener);
}

struct fixture {
    struct worker_group *group;
    struct acceptor acceptor;
    struct sockaddr_storage address;
    uint16_t port;
};

static int set_up(void **state)
{
    struct fixture *f = test_calloc(1, sizeof(*f));
    assert_int_equal(worker_group_start(1, &f->group), 0);
    f->address = parsed(":0");
    assert_int_equal(listener_bind(&f->address, &f->acceptor.listening, 1), 0);
    f->port = sockaddr_port((struct sockaddr *)&f->address);
    sem_init(&f->acceptor.came, 0, 0);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    on_worker(worker_at(f->group, 0), stop, &f->acceptor);
    worker_group_stop(f->group, 5000);
    for (int i = 0; i < f->acceptor.count; i++)
        close(f->acceptor.fds[i]);
    sem_destroy(&f->acceptor.came);
    test_free(f);
    return 0;
}

static void accepts_both_families(void **state)
{
    struct fixture *f = *state;
    on_worker(worker_at(f->group, 0), start, &f->acceptor);
    assert_non_null(f->acceptor.listener);
    static const char *const from[] = {"127.0.0.1:0", "[::1]:0"};
    static const char *const seen[] = {"127.0.0.1", "::1"};
    int families = f->address.ss_family == AF_INET6 ? 2 : 1; /* a machine without IPv6 has the first only */
    for (int i = 0; i < families; i++) {
        int client = dial(from[i], f->port);
        assert_true(client >= 0);
        assert_true(wait_for(&f->acceptor.came));
        int fd = f->acceptor.fds[i];
        assert_int_equal(fcntl(fd, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
        assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
        struct sockaddr_storage peer;
        socklen_t len = sizeof(peer);
        char text[SOCKADDR_TEXT_LEN];
        assert_int_equal(getpeername(fd, (struct sockaddr *)&peer, &len), 0);
        sockaddr_format_host((struct sockaddr *)&peer, text);
        assert_string_equal(text, seen[i]);
        close(client);
    }
}

/* More than one turn's share waits before the listener starts. */
static void accepts_a_crowd(void **state)
{
    struct fixture *f = *state;
    int clients[150];
    for (int i = 0; i < 150; i++) {
        clients[i] = dial("127.0.0.1:0", f->port);
        assert_true(clients[i] >= 0);
    }
    on_worker(worker_at(f->group, 0), start, &f->acceptor);
    for (int i = 0; i < 150; i++)
        assert_true(wait_for(&f->acceptor.came));
    for (int i = 0; i < 150; i++)
        close(clients[i]);
}

static void stops_from_inside_accepted(void **state)
{
    struct fixture *f = *state;
    f->acceptor.stop_after_first = true;
    int first = dial("127.0.0.1:0", f->port), second = dial("127.0.0.1:0", f->port);
    assert_true(first >= 0 && second >= 0);
    on_worker(worker_at(f->group, 0), start, &f->acceptor);
    assert_true(wait_for(&f->acceptor.came));
    char byte;
    assert_true(read(second, &byte, 1) <= 0); /* the queue went with the socket */
    assert_int_equal(dial("127.0.0.1:0", f->port), -1);
    assert_int_equal(f->acceptor.count, 1);
    close(first);
    close(second);
}

static void rests_without_descriptors(void **state)
{
    struct fixture *f = *state;
    on_worker(worker_at(f->group, 0), start, &f->acceptor);
    int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    /* Standard error becomes a pipe: the listener's own line says when it has met the shortage. */
    int log[2], standard_error = dup(STDERR_FILENO);
    assert_int_equal(pipe(log), 0);
    dup2(log[1], STDERR_FILENO);
    struct rlimit normal, low;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &normal), 0);
    low = normal;
    low.rlim_cur = 128;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    int used[128], count = 0;
    while (count < 128 && (used[count] = dup(client)) >= 0)
        count++;

    struct sockaddr_storage address = parsed("127.0.0.1:0");
    ((struct sockaddr_in *)&address)->sin_port = htons(f->port);
    int connected = connect(client, (struct sockaddr *)&address, sizeof(struct sockaddr_in));
    char line[512] = "";
    ssize_t len = read(log[0], line, sizeof(line) - 1);
    int taken_in_shortage = f->acceptor.count;

    for (int i = 0; i < count; i++)
        close(used[i]);
    setrlimit(RLIMIT_NOFILE, &normal);
    dup2(standard_error, STDERR_FILENO);
    close(standard_error);
    close(log[0]);
    close(log[1]);
    assert_int_equal(connected, 0);
    assert_true(len > 0);
    assert_non_null(strstr(line, "cannot accept connections"));
    assert_non_null(strstr(line, strerror(EMFILE)));
    assert_int_equal(taken_in_shortage, 0);
    assert_true(wait_for(&f->acceptor.came)); /* the one that waited is taken once there is room */
    close(client);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parses_addresses),
        cmocka_unit_test(formats_hosts),
        cmocka_unit_test(one_port_for_all_workers),
        cmocka_unit_test(a_busy_port_is_an_error),
        cmocka_unit_test(an_address_of_another_host_is_an_error),
        cmocka_unit_test_setup_teardown(accepts_both_families, set_up, tear_down),
        cmocka_unit_test_setup_teardown(accepts_a_crowd, set_up, tear_down),
        cmocka_unit_test_setup_teardown(stops_from_inside_accepted, set_up, tear_down),
        cmocka_unit_test_setup_teardown(rests_without_descriptors, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
