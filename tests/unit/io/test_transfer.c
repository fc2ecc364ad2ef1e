/* Transfers of many sockets, made together by a ring where there is one and one by one: the same bytes, the same ends,
 * and nothing for those that are ended in between. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/chunk.h"
#include "base/limits.h"
#include "io/ring.h"
#include "io/transfer.h"

#define SOCKETS (2 * RING_OPS + 3) /* more than one burst */

/* A socket under test and its far end. */
struct side {
    struct receive receive;
    struct send send;
    struct chain out;
    int far;
    size_t calls, bytes, offered;
    ssize_t last;
    uint32_t sum; /* of all bytes received, by place */
    struct side *ends;
};

static struct side sides[SOCKETS];
static struct transfers transfers;

static bool on_received(struct receive *receive, char *bytes, ssize_t n)
{
    struct side *s = (struct side *)((char *)receive - offsetof(struct side, receive));
    s->calls++;
    s->last = n;
    for (ssize_t i = 0; i < n; i++)
        s->sum = s->sum * 31 + (unsigned char)bytes[i];
    if (n > 0)
        s->bytes += (size_t)n;
    if (s->ends)
        s->ends->receive.fd = s->ends->send.fd = -1;
    return n > 0;
}

static void on_sent(struct send *send, ssize_t n, size_t offered)
{
    struct side *s = (struct side *)((char *)send - offsetof(struct side, send));
    s->calls++;
    s->last = n;
    s->offered = offered;
    if (n > 0)
        chain_consume(&s->out, (size_t)n);
    if (s->ends)
        s->ends->receive.fd = s->ends->send.fd = -1;
}

static int begin(void **state)
{
    assert_int_equal(transfers_init(&transfers), 0);
    transfers_begin(&transfers);
    if (*state) { /* without */
        transfers_end(&transfers);
        assert_null(transfers.ring);
    }
    for (size_t i = 0; i < SOCKETS; i++) {
        int fds[2];
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
        sides[i] = (struct side){
            .receive = {.fd = fds[0], .received = on_received}, .send = {.fd = fds[0], .sent = on_sent}, .far = fds[1]};
        sides[i].send.chain = &sides[i].out;
    }
    return 0;
}

static int end(void **state)
{
    (void)state;
    for (size_t i = 0; i < SOCKETS; i++) {
        if (sides[i].receive.fd >= 0)
            close(sides[i].receive.fd);
        close(sides[i].far);
        chain_free(&sides[i].out);
    }
    transfers_end(&transfers);
    transfers_free(&transfers);
    return (int)chunk_live_count();
}

static uint32_t fill(char *bytes, size_t len, size_t seed)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < len; i++) {
        bytes[i] = (char)(i * 7 + seed);
        sum = sum * 31 + (unsigned char)bytes[i];
    }
    return sum;
}

static void receive_all(void)
{
    for (size_t i = 0; i < SOCKETS; i++)
        transfers_receive_later(&transfers, &sides[i].receive);
    while (transfers_want_receive(&transfers))
        transfers_receive(&transfers);
}

/* ---- receiving ------------------------------------------------------------------------------------------------- */

static void gives_each_its_own(void **state)
{
    (void)state;
    char bytes[512];
    uint32_t sums[SOCKETS];
    for (size_t i = 0; i < SOCKETS; i++) {
        sums[i] = fill(bytes, 1 + i, i);
        assert_int_equal(send(sides[i].far, bytes, 1 + i, 0), 1 + i);
    }
    receive_all();
    for (size_t i = 0; i < SOCKETS; i++) {
        assert_int_equal(sides[i].calls, 1);
        assert_int_equal(sides[i].bytes, 1 + i);
        assert_int_equal(sides[i].sum, sums[i]);
        assert_false(sides[i].receive.queued);
    }
}

/* What is more than a small buffer takes comes in the same turn, in order, and the next turn begins with the large one;
 * when little comes, the small one is good enough again. */
static void reads_on_where_there_is_more(void **state)
{
    (void)state;
    static char bytes[100000];
    uint32_t sum = fill(bytes, sizeof(bytes), 5);
    struct side *s = &sides[RING_OPS / 2];
    assert_int_equal(send(s->far, bytes, sizeof(bytes), 0), sizeof(bytes));
    assert_int_equal(send(sides[0].far, "x", 1, 0), 1);
    receive_all();
    assert_int_equal(s->bytes, sizeof(bytes));
    assert_int_equal(s->sum, sum);
    assert_int_equal(sides[0].bytes, 1);
    assert_int_equal(send(s->far, "y", 1, 0), 1);
    receive_all();
    assert_int_equal(s->bytes, sizeof(bytes) + 1);
    assert_false(s->receive.large);
}

static void tells_ends_and_silence(void **state)
{
    (void)state;
    shutdown(sides[1].far, SHUT_WR);
    assert_int_equal(send(sides[2].far, "last", 4, 0), 4);
    shutdown(sides[2].far, SHUT_WR);
    receive_all();
    assert_int_equal(sides[0].last, -EAGAIN);
    assert_int_equal(sides[1].last, 0);
    assert_int_equal(sides[2].last, 4);
    transfers_receive_later(&transfers, &sides[2].receive);
    transfers_receive(&transfers);
    assert_int_equal(sides[2].last, 0);
    assert_int_equal(sides[2].calls, 2);
}

static void queues_once(void **state)
{
    (void)state;
    assert_int_equal(send(sides[0].far, "ab", 2, 0), 2);
    transfers_receive_later(&transfers, &sides[0].receive);
    transfers_receive_later(&transfers, &sides[0].receive);
    transfers_receive(&transfers);
    assert_int_equal(sides[0].calls, 1);
}

/* Whose owner has gone hears nothing, whether it was before the burst or by another of the same one. */
static void passes_the_ended_by(void **state)
{
    (void)state;
    int fds[3];
    for (size_t i = 0; i < 3; i++) {
        fds[i] = sides[i].receive.fd;
        assert_int_equal(send(sides[i].far, "x", 1, 0), 1);
        transfers_receive_later(&transfers, &sides[i].receive);
    }
    sides[0].receive.fd = -1;
    sides[1].ends = &sides[2];
    transfers_receive(&transfers);
    assert_int_equal(sides[0].calls, 0);
    assert_int_equal(sides[1].calls, 1);
    assert_int_equal(sides[2].calls, 0);
    close(fds[0]);
    close(fds[2]);
}

/* ---- sending --------------------------------------------------------------------------------------------------- */

static void put(struct side *s, size_t len, size_t seed)
{
    struct chunk *c = chunk_alloc(len);
    assert_non_null(c);
    fill(c->data, len, seed);
    c->len = (uint32_t)len;
    chain_push(&s->out, c);
}

static void sends_chains_of_all_lengths(void **state)
{
    (void)state;
    for (size_t i = 0; i < SOCKETS; i++) {
        for (size_t pieces = 0; pieces <= i % 90; pieces++) /* some are longer than one call takes */
            put(&sides[i], 10 + pieces, pieces);
        transfers_send_later(&transfers, &sides[i].send);
    }
    assert_true(transfers_want_send(&transfers));
    transfers_send(&transfers);
    assert_false(transfers_want_send(&transfers));
    for (size_t i = 0; i < SOCKETS; i++) {
        char got[16384], expected[128];
        assert_int_equal(sides[i].last, sides[i].offered);
        while (sides[i].out.head) {
            transfers_send_later(&transfers, &sides[i].send);
            transfers_send(&transfers);
        }
        ssize_t n = recv(sides[i].far, got, sizeof(got), 0);
        size_t at = 0;
        for (size_t pieces = 0; pieces <= i % 90; pieces++, at += 9 + pieces) {
            fill(expected, 10 + pieces, pieces);
            assert_memory_equal(got + at, expected, 10 + pieces);
        }
        assert_int_equal(n, at);
    }
}

static void tells_full_sockets_and_dead_ones(void **state)
{
    (void)state;
    close(sides[1].far);
    sides[1].far = -1;
    put(&sides[0], 8 * 1024 * 1024, 0);
    put(&sides[1], 10, 0);
    put(&sides[2], 10, 0);
    for (size_t i = 0; i < 3; i++)
        transfers_send_later(&transfers, &sides[i].send);
    transfers_send(&transfers);
    assert_true(sides[0].last > 0);
    assert_true((size_t)sides[0].last < sides[0].offered);
    assert_int_equal(sides[1].last, -EPIPE); /* and no signal */
    assert_int_equal(sides[2].last, 10);
    transfers_send_later(&transfers, &sides[0].send);
    put(&sides[2], 10, 0);
    transfers_send_later(&transfers, &sides[2].send);
    transfers_send(&transfers);
    assert_int_equal(sides[0].last, -EAGAIN);
}

static void sends_nothing_for_the_ended(void **state)
{
    (void)state;
    int fd = sides[0].send.fd;
    char byte;
    for (size_t i = 0; i < 3; i++) {
        put(&sides[i], 1, 0);
        transfers_send_later(&transfers, &sides[i].send);
    }
    sides[0].send.fd = sides[0].receive.fd = -1;
    transfers_send(&transfers);
    assert_int_equal(sides[0].calls, 0);
    assert_int_equal(recv(sides[0].far, &byte, 1, MSG_DONTWAIT), -1);
    assert_int_equal(recv(sides[1].far, &byte, 1, MSG_DONTWAIT), 1);
    close(fd);
}

static void wipes(void **state)
{
    (void)state;
    assert_int_equal(send(sides[0].far, "secret", 6, 0), 6);
    assert_int_equal(send(sides[1].far, "secret", 6, 0), 6);
    receive_all();
    assert_non_null(memmem(transfers.buffers, LIMIT_READ_BYTES, "secret", 6));
    transfers_wipe(&transfers);
    assert_null(memmem(transfers.buffers, LIMIT_READ_BYTES, "secret", 6));
}

/* ---- the ring by itself ---------------------------------------------------------------------------------------- */

static void runs_mixed_operations(void **state)
{
    (void)state;
    struct ring *ring = ring_open();
    if (!ring)
        skip(); /* this kernel has none, or none for us */
    char in[8];
    char first[] = "ab", second[] = "cd";
    const struct iovec into = {in, sizeof(in)}, pieces[2] = {{first, 2}, {second, 2}};
    for (int turn = 0; turn < 1000; turn++) {
        struct ring_op ops[] = {
            {.fd = sides[0].far, .is_send = true, .slices = pieces, .count = 2},
            {.fd = sides[1].far, .slices = &into, .count = 1},
            {.fd = -1, .slices = &into, .count = 1},
        };
        assert_true(ring_run(ring, ops, 3));
        assert_int_equal(ops[0].result, 4);
        assert_int_equal(ops[1].result, -EAGAIN);
        assert_int_equal(ops[2].result, -EBADF);
        assert_int_equal(recv(sides[0].receive.fd, in, sizeof(in), 0), 4);
        assert_memory_equal(in, "abcd", 4);
    }
    ring_close(ring);
}

static void opens_no_ring_when_forbidden(void **state)
{
    (void)state;
    ring_forbid();
    assert_null(ring_open());
    ring_close(NULL);
}

#define BOTH_WAYS(test)                                                                                                \
    {#test ", together", test, begin, end, NULL},                                                                      \
    {                                                                                                                  \
#test ", one by one", test, begin, end, &one_by_one                                                            \
    }

int main(void)
{
    static int one_by_one;
    const struct CMUnitTest tests[] = {
        BOTH_WAYS(gives_each_its_own),
        BOTH_WAYS(reads_on_where_there_is_more),
        BOTH_WAYS(tells_ends_and_silence),
        BOTH_WAYS(queues_once),
        BOTH_WAYS(passes_the_ended_by),
        BOTH_WAYS(sends_chains_of_all_lengths),
        BOTH_WAYS(tells_full_sockets_and_dead_ones),
        BOTH_WAYS(sends_nothing_for_the_ended),
        BOTH_WAYS(wipes),
        cmocka_unit_test_setup_teardown(runs_mixed_operations, begin, end),
        cmocka_unit_test(opens_no_ring_when_forbidden),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
