/* Requests and answers that go well: every kind of body, upgrades, credit, kept connections. */
#include "client/forwarding.h"

/* ---- whole exchanges ------------------------------------------------------------------------------------------- */

static void test_get(void **state)
{
    struct fixture *f = *state;
    struct visitor v = {0};
    visitor_open(f, &v);
    int fd = service_accept(f);
    service_expect(fd, GET_HEAD);
    visitor_end(&v);
    service_send(fd, "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" OK_5);
    expect_answer(&v, 200, "hello");
    assert_int_equal(v.interims, 1);
    visitor_close(&v);
    close(fd);
}

/* However the answer is cut, it is the same answer. */
static void test_answer_in_single_bytes(void **state)
{
    struct fixture *f = *state;
    struct visitor v = {0};
    const char *answer =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n";
    visitor_open(f, &v);
    int fd = service_accept(f);
    visitor_end(&v);
    service_expect(fd, GET_HEAD);
    for (const char *c = answer; *c; c++)
        service_send(fd, (char[]){*c, '\0'});
    expect_answer(&v, 200, "abcde");
    assert_string_equal(v.trailer, "5");
    visitor_close(&v);
    close(fd);
}

static void test_answer_until_close(void **state)
{
    struct fixture *f = *state;
    struct visitor v = {0};
    visitor_open(f, &v);
    int fd = service_accept(f);
    service_expect(fd, GET_HEAD);
    visitor_end(&v);
    service_send(fd, "HTTP/1.0 200 OK\r\n\r\nhello");
    close(fd);
    expect_answer(&v, 200, "hello");
    visitor_close(&v);
}

static void test_upload_with_length(void **state)
{
    struct fixture *f = *state;
    struct visitor v = {.method = "POST", .field = "content-length", .value = "6"};
    visitor_open(f, &v);
    visitor_send(&v, "abc");
    on_worker(f->worker, do_send, &(struct send){&v, "def", true});
    int fd = service_accept(f);
    service_expect(fd, "POST /x?y HTTP/1.1\r\nhost: app.test\r\ncontent-length: 6\r\n\r\nabcdef");
    service_send(fd, OK_5);
    expect_answer(&v, 200, "hello");
    visitor_close(&v);
    close(fd);
}

static void test_upload_with_trailers(void **state)
{
    struct fixture *f = *state;
    struct visitor v = {.method = "PUT", .field = "transfer-encoding", .value = "chunked"};
    visitor_open(f, &v);
    visitor_send(&v, "abc");
    on_worker(f->worker, do_send_trailers, &v);
    int fd = service_accept(f);
    service_expect(fd, "PUT /x?y HTTP/1.1\r\nhost: app.test\r\ntransfer-encoding: chunked\r\n\r\n"
                       "3\r\nabc\r\n0\r\nx-sum: 7\r\n\r\n");
    service_send(fd, OK_5);
    expect_answer(&v, 200, "hello");
    visitor_close(&v);
    close(fd);
}

/* A deployed server's POST from HTTP/2: neither length nor coding. The first frame decides. */
static void test_upload_of_unknown_kind(void **state)
{
    struct fixture *f = *state;
    struct visitor with = {.method = "POST"}, without = {.method = "POST"};
    visitor_open(f, &with);
    visitor_send(&with, "abc");
    int fd = service_accept(f);
    service_expect(fd, "POST /x?y HTTP/1.1\r\nhost: app.test\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n");
    visitor_end(&with);
    assert_int_equal(with.granted, 3); /* what has left makes room, framing not counted */
    service_expect(fd, "0\r\n\r\n");
    service_send(fd, OK_5);
    expect_answer(&with, 200, "hello");
    visitor_open(f, &without);
    visitor_end(&without);
    service_expect(fd, "POST /x?y HTTP/1.1\r\nhost: app.test\r\ncontent-length: 0\r\n\r\n");
    service_send(fd, OK_5);
    expect_answer(&without, 200, "hello");
    visitor_close(&with);
    visitor_close(&without);
    close(fd);
}

static void test_upgrade(void **state)
{
    struct fixture *f = *state;
    struct visitor v = {.protocol = "echo"};
    visitor_open(f, &v);
    visitor_send(&v, "early");
    int fd = service_accept(f);
    service_expect(fd, "GET /x?y HTTP/1.1\r\nhost: app.test\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n");
    service_send(fd, "HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nfirst");
    service_expect(fd, "early");
    visitor_send(&v, " and late");
    visitor_end(&v);
    service_expect(fd, " and late");
    service_expect_end(fd, false); /* half-closed: our words still arrive */
    service_send(fd, " and last");
    close(fd);
    expect_answer(&v, 101, "first and last");
    visitor_close(&v);
}

/* What was meant for the other protocol does not become a second request. */
static void test_refused_upgrade(void **state)
{
    struct fixture *f = *state;
    struct visitor v = {.protocol = "echo"}, next = {0};
    visitor_open(f, &v);
    visitor_send(&v, "GET /smuggled HTTP/1.1\r\n\r\n");
    int fd = service_accept(f);
    service_expect(fd, "GET /x?y HTTP/1.1\r\nhost: app.test\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n");
    service_send(fd, OK_5);
    expect_answer(&v, 200, "hello");
    visitor_open(f, &next);
    service_expect(fd, GET_HEAD);
    visitor_close(&v);
    visitor_close(&next);
    close(fd);
}

/* ---- credit ---------------------------------------------------------------------------------------------------- */

static void test_answer_within_credit(void **state)
{
    struct fixture *f = *state;
    struct visitor v = {.credit = 5};
    visitor_open(f, &v);
    int fd = service_accept(f);
    visitor_end(&v);
    service_expect(fd, GET_HEAD);
    service_send(fd, "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nabcdefghijkl");
    assert_true(wait_for(&v.heard_data));
    assert_int_equal(v.body_len, 5); /* more would have failed in on_data */
    on_worker(f->worker, do_grant, &v);
    assert_true(wait_for(&v.heard_data));
    assert_int_equal(v.body_len, 10);
    assert_false(v.ended);
    on_worker(f->worker, do_grant, &v);
    expect_answer(&v, 200, "abcdefghijkl");
    visitor_close(&v);
    close(fd);
}

/* ---- kept connections ------------------------------------------------------------------------------------------ */

static void test_connection_is_kept(void **state)
{
    struct fixture *f = *state;
    struct visitor a = {0}, b = {0};
    visitor_open(f, &a);
    int fd = service_accept(f);
    visitor_end(&a);
    service_expect(fd, GET_HEAD);
    service_send(fd, OK_5);
    expect_answer(&a, 200, "hello");
    visitor_open(f, &b);
    visitor_end(&b);
    service_expect(fd, GET_HEAD);
    service_send(fd, OK_5);
    expect_answer(&b, 200, "hello");
    visitor_close(&a);
    visitor_close(&b);
    close(fd);
}

/* Bytes behind an answer are nobody's: the connection is not used again. */
static void test_surplus_ends_the_connection(void **state)
{
    struct fixture *f = *state;
    struct visitor v = {0};
    visitor_open(f, &v);
    int fd = service_accept(f);
    visitor_end(&v);
    service_expect(fd, GET_HEAD);
    service_send(fd, OK_5 "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    expect_answer(&v, 200, "hello");
    service_expect_end(fd, false);
    visitor_close(&v);
    close(fd);
}

/* A kept connection on which the next request meets a closed service. */
static int stale_connection(struct fixture *f, struct visitor *first, struct visitor *second)
{
    visitor_open(f, first);
    int fd = service_accept(f);
    visitor_end(first);
    service_expect(fd, GET_HEAD);
    service_send(fd, OK_5);
    expect_answer(first, 200, "hello");
    visitor_open(f, second);
    return fd;
}

static void test_get_is_sent_again(void **state)
{
    struct fixture *f = *state;
    struct visitor a = {0}, b = {0};
    int fd = stale_connection(f, &a, &b);
    visitor_end(&b);
    service_expect(fd, GET_HEAD);
    close(fd);
    fd = service_accept(f);
    service_expect(fd, GET_HEAD);
    service_send(fd, OK_5);
    expect_answer(&b, 200, "hello");
    close(fd);
    visitor_close(&a);
    visitor_close(&b);
}

static void test_post_is_not_sent_again(void **state)
{
    struct fixture *f = *state;
    struct visitor a = {0}, b = {.method = "POST", .field = "content-length", .value = "0"};
    int fd = stale_connection(f, &a, &b);
    visitor_end(&b);
    service_expect(fd, "POST /x?y HTTP/1.1\r\nhost: app.test\r\ncontent-length: 0\r\n\r\n");
    close(fd);
    expect_failure(&b, REASON_ORIGIN_CLOSED);
    visitor_close(&a);
    visitor_close(&b);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_get),
        TEST(test_answer_in_single_bytes),
        TEST(test_answer_until_close),
        TEST(test_upload_with_length),
        TEST(test_upload_with_trailers),
        TEST(test_upload_of_unknown_kind),
        TEST(test_upgrade),
        TEST(test_refused_upgrade),
        TEST(test_answer_within_credit),
        TEST(test_connection_is_kept),
        TEST(test_surplus_ends_the_connection),
        TEST(test_get_is_sent_again),
        TEST(test_post_is_not_sent_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
