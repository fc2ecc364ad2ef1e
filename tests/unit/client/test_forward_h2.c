/* Requests to a service that speaks HTTP/2, played by a session of our own on the main thread. */
#include "forwarding.h"

#include "http/h2.h"

/* ---- the service ----------------------------------------------------------------------------------------------- */

struct service {
    int fd;
    struct h2_session *session;
    struct h2_stream *stream; /* the last one */
    unsigned requests, ends, closed;
    uint32_t error_code;
    char method[16], protocol[16], body[256];
    size_t body_len;
};

static void *on_request(void *owner, struct h2_stream *stream, const struct head *head, bool end)
{
    struct service *s = owner;
    (void)end;
    s->requests++;
    s->stream = stream;
    s->body_len = 0;
    snprintf(s->method, sizeof(s->method), "%.*s", (int)head->method.len, head->method.data);
    snprintf(s->protocol, sizeof(s->protocol), "%.*s", (int)head->protocol.len, head->protocol.data);
    return s;
}

static void on_body(void *user, struct slice bytes)
{
    struct service *s = user;
    assert_true(s->body_len + bytes.len <= sizeof(s->body));
    memcpy(s->body + s->body_len, bytes.data, bytes.len);
    s->body_len += bytes.len;
}

static void on_request_end(void *user)
{
    ((struct service *)user)->ends++;
}

static void on_stream_closed(void *user, uint32_t error_code)
{
    struct service *s = user;
    s->closed++;
    s->error_code = error_code;
}

static const struct h2_events service_events = {
    .request = on_request,
    .data = on_body,
    .end = on_request_end,
    .closed = on_stream_closed,
};

static void service_start(struct fixture *f, struct service *s)
{
    const struct h2_options options = {.server = true,
                                       .extended_connect = true,
                                       .stream_window = 65535,
                                       .connection_window = 65535,
                                       .max_frame_size = 16384,
                                       .max_concurrent = 10};
    *s = (struct service){.fd = service_accept(f)};
    s->session = h2_new(&options, &service_events, s);
    assert_non_null(s->session);
}

static void service_stop(struct service *s)
{
    h2_free(s->session);
    close(s->fd);
}

static void service_put_out(struct service *s)
{
    struct chain out = {0};
    char piece[4096];
    size_t n;
    assert_int_equal(h2_output(s->session, &out, SIZE_MAX), 0);
    while ((n = chain_read(&out, piece, sizeof(piece))) > 0)
        assert_int_equal(send(s->fd, piece, n, MSG_NOSIGNAL), n);
}

/* Moves bytes until *count is `want`. */
static void service_until(struct service *s, const unsigned *count, unsigned want)
{
    char piece[4096];
    service_put_out(s);
    while (*count < want) {
        ssize_t n = recv(s->fd, piece, sizeof(piece), 0);
        assert_true(n > 0);
        assert_int_equal(h2_input(s->session, (struct slice){piece, (size_t)n}), 0);
        service_put_out(s);
    }
    assert_int_equal(*count, want);
}

static void service_answer(struct service *s, uint16_t status, const char *body, bool end)
{
    struct head head = {.status = status};
    assert_int_equal(h2_respond(s->stream, &head, false), 0);
    assert_int_equal(chain_append(h2_stream_output(s->stream), body, strlen(body)), 0);
    if (end)
        assert_int_equal(h2_end(s->stream, NULL), 0);
    service_put_out(s);
}

/* ---- tests ----------------------------------------------------------------------------------------------------- */

/* The visitor's bytes and end come before the service has said yes; both directions then end by themselves. */
static void test_upgrade_ended_early(void **state)
{
    struct visitor v = {.protocol = "echo"};
    struct service s;
    visitor_open(*state, &v);
    visitor_send(&v, "early");
    visitor_end(&v);
    service_start(*state, &s);
    service_until(&s, &s.requests, 1);
    assert_string_equal(s.method, "CONNECT");
    assert_string_equal(s.protocol, "echo");
    assert_int_equal(s.body_len, 0);
    service_answer(&s, 200, "late", false);
    service_until(&s, &s.ends, 1);
    assert_int_equal(s.body_len, 5);
    assert_int_equal(h2_end(s.stream, NULL), 0);
    service_put_out(&s);
    expect_answer(&v, 101, "late");
    service_until(&s, &s.closed, 1);
    assert_int_equal(s.error_code, H2_NO_ERROR);
    visitor_close(&v);
    service_stop(&s);
}

/* Refused twice, with all of the body there again; the third answer counts. */
static void test_refused_requests_come_again(void **state)
{
    struct visitor v = {.method = "POST", .field = "content-length", .value = "4"};
    struct service s;
    visitor_open(*state, &v);
    visitor_send(&v, "body");
    visitor_end(&v);
    service_start(*state, &s);
    for (unsigned i = 1; i <= 3; i++) {
        service_until(&s, &s.ends, i);
        assert_int_equal(s.requests, i);
        assert_int_equal(s.body_len, 4);
        assert_memory_equal(s.body, "body", 4);
        if (i < 3)
            h2_reset(s.stream, H2_REFUSED_STREAM);
    }
    service_answer(&s, 200, "done", true);
    expect_answer(&v, 200, "done");
    visitor_close(&v);
    service_stop(&s);
}

/* The stream is reset, its connection stays and carries the next request. */
static void test_a_visitor_that_leaves(void **state)
{
    struct visitor v = {0}, next = {0};
    struct service s;
    visitor_open(*state, &v);
    service_start(*state, &s);
    service_until(&s, &s.ends, 1);
    visitor_close(&v);
    service_until(&s, &s.closed, 1);
    assert_int_equal(s.error_code, H2_CANCEL);
    visitor_open(*state, &next);
    service_until(&s, &s.ends, 2);
    service_answer(&s, 200, "next", true);
    expect_answer(&next, 200, "next");
    visitor_close(&next);
    service_stop(&s);
}

/* Bytes of the answer beyond the visitor's room stay here, and the rest of it with the service. */
static void test_room(void **state)
{
    struct visitor v = {.credit = 4};
    struct service s;
    visitor_open(*state, &v);
    service_start(*state, &s);
    service_until(&s, &s.ends, 1);
    service_answer(&s, 200, "123456789", true);
    assert_true(wait_for(&v.heard_data));
    assert_int_equal(v.body_len, 4);
    assert_false(v.ended);
    on_worker(v.f->worker, do_grant, &v);
    expect_answer(&v, 200, "123456789");
    visitor_close(&v);
    service_stop(&s);
}

static int set_up_h2(void **state)
{
    set_up(state);
    struct fixture *f = *state;
    on_worker(f->worker, do_stop, f);
    f->options.target.url.h2c = true;
    on_worker(f->worker, do_start, f);
    return 0;
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up_h2, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_upgrade_ended_early),
        TEST(test_refused_requests_come_again),
        TEST(test_a_visitor_that_leaves),
        TEST(test_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
