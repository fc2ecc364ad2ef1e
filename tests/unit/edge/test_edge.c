/* The edge against visitors of the test's own and a tunnel that is played: what each side is told when the other
 * misbehaves, and that no visitor makes the server grow. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/chunk.h"
#include "base/error.h"
#include "edge/edge.h"
#include "edge/edge_visit.h"
#include "http/h2.h"
#include "io/on_worker.h"
#include "tunnel/exchange.h"
#include "tunnel/registry.h"

static struct worker_group *group;
static struct registry *registry;
static struct edge *edge;

/* ---- the tunnel, played ------------------------------------------------------------------------------------------ */

#define HALVES_MAX 16

static struct {
    struct receiver receiver;
    struct half halves[HALVES_MAX];
    size_t body_bytes[HALVES_MAX];
    bool ended[HALVES_MAX], was_reset[HALVES_MAX];
    enum close_reason reasons[HALVES_MAX];
    unsigned count;
    size_t room; /* for each request's body */
    sem_t opened, reset, ended_one;
} tunnel;

static unsigned index_of(void *owner)
{
    return (unsigned)((struct half *)owner - tunnel.halves);
}

static void on_half_head(void *owner, struct head *head)
{
    (void)owner;
    head_free(head);
}

static void on_half_data(void *owner, struct chunk *chunk)
{
    tunnel.body_bytes[index_of(owner)] += chunk->len;
    chunk_free(chunk);
}

static void on_half_credit(void *owner, size_t bytes)
{
    (void)owner;
    (void)bytes;
}

static void on_half_end(void *owner, struct head *trailers)
{
    head_free(trailers);
    tunnel.ended[index_of(owner)] = true;
    sem_post(&tunnel.ended_one);
}

static void on_half_reset(void *owner, enum close_reason reason, const char *text)
{
    (void)text;
    tunnel.was_reset[index_of(owner)] = true;
    tunnel.reasons[index_of(owner)] = reason;
    half_close(owner, REASON_NONE, NULL);
    sem_post(&tunnel.reset);
}

static const struct half_events half_events = {
    .head = on_half_head, .data = on_half_data, .credit = on_half_credit, .end = on_half_end, .reset = on_half_reset};

static void on_open(struct receiver *receiver, struct message *message)
{
    (void)receiver;
    assert_non_null(exchange_open_of(message));
    struct half *half = &tunnel.halves[tunnel.count++ % HALVES_MAX];
    assert_int_equal(
        half_accept(half, worker_current(), message, tunnel.room, (struct exchange_clock){0}, &half_events, half),
        KV_OK);
    sem_post(&tunnel.opened);
}

static void on_published(void *arg, int error)
{
    assert_int_equal(error, KV_OK);
    sem_post(arg);
}

static void claim(struct worker *worker, void *arg)
{
    struct registry_session session = {.subdomain = "app", .session = "s1", .user_id = "u"};
    enum registry_verdict verdict;
    tunnel.receiver.receive = on_open;
    assert_int_equal(receiver_attach(worker, &tunnel.receiver), KV_OK);
    session.link = tunnel.receiver.address;
    assert_int_equal(registry_claim(registry, &session, false, &verdict, on_published, arg), KV_OK);
    assert_int_equal(verdict, REGISTRY_CLAIMED);
}

/* ---- a guest, played --------------------------------------------------------------------------------------------- */

static struct {
    void (*finished)(void *arg);
    void *arg;
    sem_t opened;
} guest;

static bool guest_wants(const struct head *head)
{
    return slice_equals(head->target, SLICE("/guest"));
}

static void *guest_open(void *arg, struct h2_stream *stream, const struct head *head, const char *peer,
                        void (*finished)(void *), void *finished_arg)
{
    (void)stream;
    (void)head;
    (void)peer;
    guest.finished = finished;
    guest.arg = finished_arg;
    sem_post(&guest.opened);
    return arg;
}

static void guest_pong(void *user, uint64_t opaque)
{
    (void)user;
    (void)opaque;
}

static void ignore_data(void *user, struct slice bytes)
{
    (void)user;
    (void)bytes;
}

static void ignore_end(void *user)
{
    (void)user;
}

static void ignore_closed(void *user, uint32_t error_code)
{
    (void)user;
    (void)error_code;
}

static const struct h2_events guest_events = {.data = ignore_data, .end = ignore_end, .closed = ignore_closed};

/* ---- start and end ----------------------------------------------------------------------------------------------- */

static int start_with(const struct address_rates *rates)
{
    sem_t published;
    memset(&tunnel, 0, sizeof(tunnel));
    tunnel.room = 64 * 1024;
    sem_init(&tunnel.opened, 0, 0);
    sem_init(&tunnel.reset, 0, 0);
    sem_init(&tunnel.ended_one, 0, 0);
    sem_init(&guest.opened, 0, 0);
    sem_init(&published, 0, 0);
    assert_int_equal(worker_group_start(1, &group), KV_OK);
    registry = registry_new(group);
    edge = edge_new(&(struct edge_settings){
        .group = group,
        .registry = registry,
        .base_host = "tnl.test",
        .max_request_body = 1000 * 1000,
        .rates = *rates,
        .head_timeout_ms = 60000,
        .idle_timeout_ms = 60000,
        .stall_timeout_ms = 60000,
        .guest = {guest_wants, guest_open, guest_pong, &guest_events, &guest},
    });
    on_worker(worker_at(group, 0), claim, &published);
    return wait_for(&published) ? 0 : -1;
}

static int start(void **state)
{
    (void)state;
    return start_with(&(struct address_rates){0});
}

static int start_limited(void **state)
{
    (void)state;
    return start_with(&(struct address_rates){.requests_per_second = 1});
}

static void leave(struct worker *worker, void *arg)
{
    (void)worker;
    (void)arg;
    for (unsigned i = 0; i < HALVES_MAX; i++)
        half_close(&tunnel.halves[i], REASON_NONE, NULL);
    receiver_detach(&tunnel.receiver);
}

static int stop(void **state)
{
    (void)state;
    edge_stop(edge);
    on_worker(worker_at(group, 0), leave, NULL);
    worker_group_stop(group, 5000);
    edge_free(edge);
    registry_free(registry);
    assert_int_equal(chunk_live_count(), 0);
    return 0;
}

/* ---- visitors ---------------------------------------------------------------------------------------------------- */

static void accept_visitor(struct worker *worker, void *arg)
{
    (void)worker;
    edge_accept(edge, *(int *)arg);
}

static int visit(void)
{
    return edge_visit(worker_at(group, 0), accept_visitor);
}

/* Over TCP, which knows resets. */
static int visit_by_tcp(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, len), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &len), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, len), 0);
    int accepted = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    on_worker(worker_at(group, 0), accept_visitor, &accepted);
    close(listener);
    return fd;
}

/* Sends the same request again and again until the edge takes no more, or `most` bytes have gone. */
static size_t flood(int fd, const char *request, size_t most)
{
    char many[64 * 1024];
    size_t len = strlen(request), used = 0, total = 0;
    while (used + len <= sizeof(many)) {
        memcpy(many + used, request, len);
        used += len;
    }
    for (int refused = 0; refused < 200 && total < most;) {
        ssize_t n = send(fd, many, used, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0) {
            total += (size_t)n;
            refused = 0;
            if ((size_t)n < used) /* in the middle of a request: the rest of it */
                memmove(many, many + n, used - (size_t)n), used -= (size_t)n;
            if (used < len)
                break;
        } else {
            refused++;
            on_worker(worker_at(group, 0), nothing, NULL);
        }
    }
    return total;
}

/* Answers are larger than requests: a visitor that sends and does not read must not fill the server. */
static void pipelines_no_more_than_is_read(void **state)
{
    (void)state;
    static const char request[] = "GET / HTTP/1.1\r\nHost: nobody.tnl.test\r\nAccept: text/html\r\n\r\n";
    int fds[8];
    for (int i = 0; i < 8; i++) {
        fds[i] = visit();
        while (flood(fds[i], request, 8UL * 1024 * 1024) >= 60 * 1024)
            if (chunk_live_bytes() > 64UL * 1024 * 1024)
                break;
    }
    assert_true(chunk_live_bytes() < 8 * 2UL * 1024 * 1024);
    for (int i = 0; i < 8; i++)
        close(fds[i]);
}

/* And one that reads later gets every answer. */
static void answers_all_that_was_pipelined(void **state)
{
    (void)state;
    enum {
        REQUESTS = 400 /* their answers are several times what may wait for a visitor */
    };
    static const char request[] = "GET / HTTP/1.1\r\nHost: nobody.tnl.test\r\nAccept: text/html\r\n\r\n";
    static const char last[] = "GET / HTTP/1.1\r\nHost: nobody.tnl.test\r\nConnection: close\r\n\r\n";
    int fd = visit();
    char many[REQUESTS * sizeof(request) + sizeof(last)] = "", *at = many;
    char bytes[4096 + 1];
    size_t answers = 0;
    for (int i = 0; i < REQUESTS; i++, at += sizeof(request) - 1)
        memcpy(at, request, sizeof(request));
    memcpy(at, last, sizeof(last));
    say(fd, many);
    char window[8] = {0};
    for (ssize_t n; (n = recv(fd, bytes, sizeof(bytes) - 1, 0)) > 0;) {
        for (ssize_t i = 0; i < n; i++) {
            memmove(window, window + 1, 7);
            window[7] = bytes[i];
            answers += memcmp(window, "HTTP/1.1", 8) == 0;
        }
    }
    assert_int_equal(answers, REQUESTS + 1);
    close(fd);
}

/* ---- the end of the server --------------------------------------------------------------------------------------- */

static void draining_closes_who_said_nothing(void **state)
{
    (void)state;
    int silent = visit(), begun = visit();
    say(begun, "PRI * HT");
    edge_drain(edge);
    assert_true(has_ended(silent));
    assert_true(has_ended(begun));
    close(silent);
    close(begun);
}

/* ---- HTTP/2 ------------------------------------------------------------------------------------------------------ */

struct visitor {
    struct h2_session *session;
    int fd;
    unsigned closed;
    uint16_t status;
};

static void on_response(void *user, const struct head *head, bool end)
{
    (void)end;
    ((struct visitor *)user)->status = head->status;
}

static void on_stream_closed(void *user, uint32_t error_code)
{
    (void)error_code;
    ((struct visitor *)user)->closed++;
}

static const struct h2_events visitor_events = {
    .response = on_response, .data = ignore_data, .end = ignore_end, .closed = on_stream_closed};

static void visitor_start(struct visitor *v)
{
    *v = (struct visitor){.fd = visit()};
    v->session =
        h2_new(&(struct h2_options){.stream_window = 65535, .connection_window = 65535, .max_frame_size = 16384},
               &visitor_events, v);
    assert_non_null(v->session);
}

static void visitor_flush(struct visitor *v)
{
    struct chain out = {0};
    struct chunk *c;
    assert_int_equal(h2_output(v->session, &out, SIZE_MAX), KV_OK);
    while ((c = chain_pop(&out))) {
        assert_int_equal(send(v->fd, chunk_slice(c).data, c->len, MSG_NOSIGNAL), c->len);
        chunk_free(c);
    }
}

static struct h2_stream *visitor_ask(struct visitor *v, const char *host, const char *method, const char *path,
                                     bool end)
{
    struct head head = {
        .method = slice_of(method), .target = slice_of(path), .scheme = SLICE("http"), .authority = slice_of(host)};
    struct h2_stream *stream = h2_request(v->session, &head, end, v);
    assert_non_null(stream);
    visitor_flush(v);
    return stream;
}

static struct h2_stream *visitor_request(struct visitor *v, const char *method, const char *path, bool end)
{
    return visitor_ask(v, "app.tnl.test", method, path, end);
}

static void visitor_end(struct visitor *v)
{
    h2_free(v->session);
    close(v->fd);
}

static void finish_guest(struct worker *worker, void *arg)
{
    (void)worker;
    (void)arg;
    guest.finished(guest.arg);
}

/* Somebody opens requests and a tunnel's stream on one connection: the end of the latter ends the connection, and every
 * exchange is left before that. */
static void a_guests_end_leaves_every_exchange(void **state)
{
    (void)state;
    struct visitor v;
    visitor_start(&v);
    visitor_request(&v, "GET", "/a", true);
    visitor_request(&v, "POST", "/b", false);
    visitor_ask(&v, "tnl.test", "POST", "/guest", false);
    assert_true(wait_for(&tunnel.opened) && wait_for(&tunnel.opened) && wait_for(&guest.opened));
    on_worker(worker_at(group, 0), finish_guest, NULL);
    assert_true(wait_for(&tunnel.reset) && wait_for(&tunnel.reset));
    assert_true(has_ended(v.fd));
    assert_int_equal(tunnel.reasons[0], REASON_VISITOR_GONE);
    visitor_end(&v);
}

static void send_answer(struct worker *worker, void *arg)
{
    (void)worker;
    struct head *head = head_new(1, 32);
    head->status = 204;
    half_send_head(arg, head);
    half_send_data(arg, chunk_copy("not for a 204", 13));
    half_send_end(arg, NULL);
}

/* A request that is reset by the visitor while its answer is on the way. */
static void both_sides_reset_at_once(void **state)
{
    (void)state;
    struct visitor v;
    visitor_start(&v);
    struct h2_stream *stream = visitor_request(&v, "POST", "/a", false);
    assert_true(wait_for(&tunnel.opened));
    h2_reset(stream, H2_CANCEL);
    visitor_flush(&v);
    on_worker(worker_at(group, 0), send_answer, &tunnel.halves[0]);
    assert_true(wait_for(&tunnel.reset));
    visitor_end(&v);
}

/* Reads until so many streams have ended. */
static void visitor_hear(struct visitor *v, unsigned closed)
{
    char bytes[4096];
    while (v->closed < closed) {
        ssize_t n = recv(v->fd, bytes, sizeof(bytes), 0);
        assert_true(n > 0);
        assert_int_equal(h2_input(v->session, (struct slice){bytes, (size_t)n}), KV_OK);
        visitor_flush(v);
    }
}

static void drops_a_body_that_may_not_be(void **state)
{
    (void)state;
    struct visitor v;
    visitor_start(&v);
    visitor_request(&v, "GET", "/a", true);
    assert_true(wait_for(&tunnel.opened));
    on_worker(worker_at(group, 0), send_answer, &tunnel.halves[0]);
    visitor_hear(&v, 1);
    assert_int_equal(v.status, 204);
    visitor_end(&v);
}

/* ---- HTTP/1 ------------------------------------------------------------------------------------------------------ */

static void answer_later(struct worker *worker, void *arg)
{
    (void)worker;
    struct head *head = head_new(1, 32);
    head->status = 200;
    half_send_head(arg, head);
    half_send_data(arg, chunk_copy("whole", 5));
    half_send_end(arg, NULL);
}

static void refuse_later(struct worker *worker, void *arg)
{
    (void)worker;
    half_close(arg, REASON_ORIGIN_REFUSED, NULL);
}

/* The second of two pipelined requests waits for the first answer; an error answer to a whole request keeps the
 * connection. */
static void goes_on_after_an_error(void **state)
{
    (void)state;
    int fd = visit();
    say(fd, "GET /1 HTTP/1.1\r\nHost: app.tnl.test\r\n\r\nGET /2 HTTP/1.1\r\nHost: app.tnl.test\r\n\r\n");
    assert_true(wait_for(&tunnel.opened));
    on_worker(worker_at(group, 0), nothing, NULL);
    assert_int_equal(tunnel.count, 1);
    on_worker(worker_at(group, 0), refuse_later, &tunnel.halves[0]);
    expect(fd, "HTTP/1.1 502");
    assert_true(wait_for(&tunnel.opened));
    on_worker(worker_at(group, 0), answer_later, &tunnel.halves[1]);
    expect(fd, "whole");
    close(fd);
}

static void answer_a_part(struct worker *worker, void *arg)
{
    (void)worker;
    struct head *head = head_new(1, 32);
    head->status = 200;
    half_send_head(arg, head);
    half_send_data(arg, chunk_copy("a part", 6));
}

/* An answer without an end is cut with a reset, for HTTP/1.0 too, where an orderly end would make it complete. */
static void cuts_what_is_not_complete(void **state)
{
    (void)state;
    int fd = visit_by_tcp();
    char byte;
    say(fd, "GET /1 HTTP/1.0\r\nHost: app.tnl.test\r\n\r\n");
    assert_true(wait_for(&tunnel.opened));
    on_worker(worker_at(group, 0), answer_a_part, &tunnel.halves[0]);
    expect(fd, "a part");
    on_worker(worker_at(group, 0), refuse_later, &tunnel.halves[0]);
    assert_int_equal(recv(fd, &byte, 1, 0), -1);
    assert_int_equal(errno, ECONNRESET);
    close(fd);
}

/* The visitor asks whether to send, is told to, sends; the body over the limit is refused and the connection closed. */
static void continues_and_limits(void **state)
{
    (void)state;
    int fd = visit();
    say(fd, "POST / HTTP/1.1\r\nHost: app.tnl.test\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    expect(fd, "HTTP/1.1 100 Continue\r\n\r\n");
    say(fd, "body");
    assert_true(wait_for(&tunnel.ended_one));
    assert_int_equal(tunnel.body_bytes[0], 4);
    on_worker(worker_at(group, 0), answer_later, &tunnel.halves[0]);
    expect(fd, "whole");
    say(fd, "POST / HTTP/1.1\r\nHost: app.tnl.test\r\nContent-Length: 1000001\r\nExpect: 100-continue\r\n\r\n");
    expect(fd, "HTTP/1.1 413");
    assert_true(has_ended(fd));
    close(fd);
}

static void refuse_upgrade(struct worker *worker, void *arg)
{
    answer_later(worker, arg);
}

/* An upgrade that the service does not want: its answer is an answer, and the next request comes on the same
 * connection. */
static void goes_on_after_a_refused_upgrade(void **state)
{
    (void)state;
    int fd = visit();
    say(fd, "GET / HTTP/1.1\r\nHost: app.tnl.test\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
    assert_true(wait_for(&tunnel.opened));
    on_worker(worker_at(group, 0), refuse_upgrade, &tunnel.halves[0]);
    expect(fd, "0\r\n\r\n");
    assert_true(wait_for(&tunnel.ended_one));
    say(fd, "GET / HTTP/1.1\r\nHost: app.tnl.test\r\n\r\n");
    assert_true(wait_for(&tunnel.opened));
    close(fd);
    assert_true(wait_for(&tunnel.reset));
}

/* ---- tunnels that are on their way --------------------------------------------------------------------------------
 */

static const char for_late[] = "GET / HTTP/1.1\r\nHost: late.tnl.test\r\n\r\n";

static struct edge_counts counted(void)
{
    struct edge_counts counts;
    let_it_read(worker_at(group, 0));
    edge_count(edge, &counts);
    return counts;
}

static void claim_late(struct worker *worker, void *arg)
{
    (void)worker;
    const struct registry_session session = {
        .subdomain = "late", .session = "s2", .user_id = "u", .link = tunnel.receiver.address};
    enum registry_verdict verdict;
    assert_int_equal(registry_claim(registry, &session, false, &verdict, on_published, arg), KV_OK);
    assert_int_equal(verdict, REGISTRY_CLAIMED);
}

/* A visitor that says no more after its request waits like any other, and gets its answer. */
static void a_half_closed_visitor_waits(void **state)
{
    (void)state;
    sem_t published;
    sem_init(&published, 0, 0);
    registry_expect_until(registry, 1000 * TEST_PATIENCE_S, true);
    int fd = visit();
    say(fd, for_late);
    assert_int_equal(counted().waited, 1);
    shutdown(fd, SHUT_WR);
    let_it_read(worker_at(group, 0));
    on_worker(worker_at(group, 0), claim_late, &published);
    assert_true(wait_for(&published) && wait_for(&tunnel.opened));
    on_worker(worker_at(group, 0), answer_later, &tunnel.halves[0]);
    expect(fd, "whole");
    assert_true(has_ended(fd));
    close(fd);
}

/* A request over its visitor's rate is refused before it takes a place to wait; one that has waited counts once. */
static void who_waits_is_within_the_rate(void **state)
{
    (void)state;
    enum {
        MANY = 64 /* the burst is of five, and a second of a busy machine gives one more */
    };
    int fds[MANY];
    unsigned h1 = 0, h2 = 0;
    struct visitor v;
    registry_expect_until(registry, 1000 * TEST_PATIENCE_S, true);
    do {
        assert_true(h1 < MANY);
        fds[h1] = visit();
        say(fds[h1++], for_late);
    } while (counted().requests_limited == 0);
    expect(fds[h1 - 1], "HTTP/1.1 429");
    visitor_start(&v);
    do {
        assert_true(++h2 < MANY);
        visitor_ask(&v, "late.tnl.test", "GET", "/", true);
    } while (counted().requests_limited == 1);
    visitor_hear(&v, 1);
    assert_int_equal(v.status, 429);
    assert_int_equal(counted().waited, h1 - 1 + h2 - 1);
    registry_expect_until(registry, 0, true);
    for (unsigned i = 0; i < h1 - 1; i++)
        expect(fds[i], "HTTP/1.1 502");
    visitor_hear(&v, h2);
    assert_int_equal(counted().requests, h1 + h2);
    assert_int_equal(counted().requests_limited, 2);
    for (unsigned i = 0; i < h1; i++)
        close(fds[i]);
    visitor_end(&v);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)
    const struct CMUnitTest tests[] = {
        TEST(pipelines_no_more_than_is_read),
        TEST(answers_all_that_was_pipelined),
        TEST(draining_closes_who_said_nothing),
        TEST(a_guests_end_leaves_every_exchange),
        TEST(both_sides_reset_at_once),
        TEST(drops_a_body_that_may_not_be),
        TEST(goes_on_after_an_error),
        TEST(cuts_what_is_not_complete),
        TEST(continues_and_limits),
        TEST(goes_on_after_a_refused_upgrade),
        TEST(a_half_closed_visitor_waits),
        cmocka_unit_test_setup_teardown(who_waits_is_within_the_rate, start_limited, stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
