/* What a service, a visitor or an old server does wrong, and who is told what. */
#include "client/forwarding.h"

/* ---- failures -------------------------------------------------------------------------------------------------- */

static void test_refused(void **state)
{
    struct fixture *f = *state;
    struct visitor v = {0};
    close(f->listener);
    f->listener = -1;
    visitor_open(f, &v);
    expect_failure(&v, REASON_ORIGIN_REFUSED);
    visitor_close(&v);
}

static void service_answers(struct fixture *f, const char *answer, enum close_reason reason)
{
    struct visitor v = {0};
    visitor_open(f, &v);
    int fd = service_accept(f);
    visitor_end(&v);
    service_expect(fd, GET_HEAD);
    service_send(fd, answer);
    shutdown(fd, SHUT_WR);
    expect_failure(&v, reason);
    close(fd);
    visitor_close(&v);
}

static void test_bad_answers(void **state)
{
    struct fixture *f = *state;
    service_answers(f, "", REASON_ORIGIN_CLOSED);
    service_answers(f, "HTTP/1.1 200 OK\r\nContent-Le", REASON_ORIGIN_CLOSED);
    service_answers(f, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", REASON_ORIGIN_CLOSED);
    service_answers(f, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", REASON_ORIGIN_CLOSED);
    service_answers(f, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", REASON_ORIGIN_BAD_RESPONSE);
    service_answers(f, "SSH-2.0-OpenSSH\r\n", REASON_ORIGIN_BAD_RESPONSE);
    service_answers(f, "HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", REASON_ORIGIN_BAD_RESPONSE);
}

static void test_interims_have_an_end(void **state)
{
    struct fixture *f = *state;
    struct visitor v = {0};
    visitor_open(f, &v);
    int fd = service_accept(f);
    visitor_end(&v);
    service_expect(fd, GET_HEAD);
    for (unsigned i = 0; i < 65; i++)
        service_send(fd, "HTTP/1.1 102 Processing\r\n\r\n");
    expect_failure(&v, REASON_ORIGIN_BAD_RESPONSE);
    visitor_close(&v);
    close(fd);
}

static int set_up_hasty(void **state)
{
    set_up(state);
    struct fixture *f = *state;
    on_worker(f->worker, do_stop, f);
    f->options.response_ms = 100;
    on_worker(f->worker, do_start, f);
    return 0;
}

static void test_no_answer_in_time(void **state)
{
    struct fixture *f = *state;
    struct visitor v = {0};
    visitor_open(f, &v);
    int fd = service_accept(f);
    service_expect(fd, GET_HEAD);
    visitor_end(&v);
    expect_failure(&v, REASON_ORIGIN_TIMEOUT);
    visitor_close(&v);
    close(fd);
}

/* More or less body than announced never looks like a request to the service. */
static void test_dishonest_lengths(void **state)
{
    struct fixture *f = *state;
    struct visitor more = {.method = "POST", .field = "content-length", .value = "2"};
    struct visitor less = {.method = "POST", .field = "content-length", .value = "4"};
    visitor_open(f, &more);
    visitor_send(&more, "abc");
    expect_failure(&more, REASON_BAD_REQUEST);
    visitor_open(f, &less);
    visitor_send(&less, "abc");
    visitor_end(&less);
    expect_failure(&less, REASON_BAD_REQUEST);
    visitor_close(&more);
    visitor_close(&less);
}

/* ---- one side early -------------------------------------------------------------------------------------------- */

static void test_answer_before_the_request_ends(void **state)
{
    struct fixture *f = *state;
    struct visitor v = {.method = "POST", .field = "content-length", .value = "1000"};
    visitor_open(f, &v);
    visitor_send(&v, "abc");
    int fd = service_accept(f);
    service_expect(fd, "POST /x?y HTTP/1.1\r\nhost: app.test\r\ncontent-length: 1000\r\n\r\nabc");
    service_send(fd, "HTTP/1.1 413 No\r\nContent-Length: 5\r\n\r\nhello");
    expect_answer(&v, 413, "hello");
    size_t before = v.granted;
    visitor_send(&v, "dropped, but granted back");
    visitor_end(&v);
    assert_int_equal(v.reason, REASON_NONE);
    assert_int_equal(v.granted - before, strlen("dropped, but granted back"));
    visitor_close(&v);
    close(fd);
}

static void test_visitor_leaves(void **state)
{
    struct fixture *f = *state;
    struct visitor v = {0};
    visitor_open(f, &v);
    int fd = service_accept(f);
    service_expect(fd, GET_HEAD);
    visitor_end(&v);
    visitor_close(&v);
    service_expect_end(fd, true);
    close(fd);
}

static void do_refuse_new(struct worker *worker, void *arg)
{
    struct fixture *f = arg;
    (void)worker;
    forwarder_stop(f->forwarder);
}

static void test_stopping(void **state)
{
    struct fixture *f = *state;
    struct visitor running = {0}, late = {0};
    visitor_open(f, &running);
    int fd = service_accept(f);
    visitor_end(&running);
    service_expect(fd, GET_HEAD);
    on_worker(f->worker, do_refuse_new, f);
    visitor_open(f, &late);
    expect_failure(&late, REASON_CLIENT_GONE);
    service_send(fd, OK_5);
    expect_answer(&running, 200, "hello");
    visitor_close(&running);
    visitor_close(&late);
    close(fd);
}

/* The forwarder goes while an exchange runs: both ends are told. */
static void test_freed_in_the_middle(void **state)
{
    struct fixture *f = *state;
    struct visitor v = {0};
    visitor_open(f, &v);
    int fd = service_accept(f);
    service_expect(fd, GET_HEAD);
    on_worker(f->worker, do_stop, f);
    expect_failure(&v, REASON_CLIENT_GONE);
    service_expect_end(fd, true);
    on_worker(f->worker, do_start, f);
    visitor_close(&v);
    close(fd);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_refused),
        TEST(test_bad_answers),
        TEST(test_interims_have_an_end),
        cmocka_unit_test_setup_teardown(test_no_answer_in_time, set_up_hasty, tear_down),
        TEST(test_dishonest_lengths),
        TEST(test_answer_before_the_request_ends),
        TEST(test_visitor_leaves),
        TEST(test_stopping),
        TEST(test_freed_in_the_middle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
