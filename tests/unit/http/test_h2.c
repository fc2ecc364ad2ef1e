/* A client's session against a server's, joined in memory and cut at every size: what each side is told, once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "base/error.h"
#include "base/limits.h"
#include "http/h2.h"

#define WINDOW 65535

struct side {
    struct h2_session *session;
    struct h2_stream *stream; /* the last one */
    unsigned requests, responses, interims, ends, closed, trailers, fields, goaways, pongs, wakes, settings, sent;
    size_t received;
    uint32_t error_code;
    bool consumes, mutes_at_data, reset_at_request;
    char last_value[32];
};

static struct side client, server;

/* ---- events ------------------------------------------------------------------------------------------------------ */

static void *on_request(void *owner, struct h2_stream *stream, const struct head *head, bool end)
{
    struct side *s = owner;
    (void)end;
    s->requests++;
    s->stream = stream;
    s->fields = head->count;
    assert_true(slice_equals(head->authority, SLICE("here.test")));
    assert_null(head_find(head, SLICE("host")));
    if (s->reset_at_request) {
        h2_reset(stream, H2_REFUSED_STREAM);
        return NULL;
    }
    return s;
}

static void on_response(void *user, const struct head *head, bool end)
{
    struct side *s = user;
    (void)end;
    if (head->status < 200)
        s->interims++;
    else
        s->responses++;
    s->fields = head->count;
}

static void on_trailers(void *user, const struct head *trailers)
{
    struct side *s = user;
    s->trailers += trailers->count;
    snprintf(s->last_value, sizeof(s->last_value), "%.*s", (int)trailers->fields[0].value.len,
             trailers->fields[0].value.data);
}

static void on_data(void *user, struct slice bytes)
{
    struct side *s = user;
    assert_int_equal(s->closed, 0);
    s->received += bytes.len;
    if (s->consumes)
        h2_consume(s->stream, bytes.len);
    if (s->mutes_at_data)
        h2_mute(s->session);
}

static void on_end(void *user)
{
    ((struct side *)user)->ends++;
}

static void on_closed(void *user, uint32_t error_code)
{
    struct side *s = user;
    s->closed++;
    s->error_code = error_code;
}

static void on_pong(void *owner, uint64_t opaque)
{
    assert_int_equal(opaque, 0x1122334455667788);
    ((struct side *)owner)->pongs++;
}

static void on_sent(void *user)
{
    ((struct side *)user)->sent++;
}

static void on_settings(void *owner)
{
    ((struct side *)owner)->settings++;
}

static void on_goaway(void *owner, uint32_t error_code)
{
    (void)error_code;
    ((struct side *)owner)->goaways++;
}

static void on_wake(void *arg)
{
    ((struct side *)arg)->wakes++;
}

static const struct h2_events events = {.request = on_request,
                                        .response = on_response,
                                        .trailers = on_trailers,
                                        .data = on_data,
                                        .end = on_end,
                                        .closed = on_closed,
                                        .sent = on_sent,
                                        .settings = on_settings,
                                        .pong = on_pong,
                                        .goaway = on_goaway};

/* ---- the wire ---------------------------------------------------------------------------------------------------- */

static struct h2_session *make(struct side *s, bool is_server)
{
    const struct h2_options options = {.server = is_server,
                                       .stream_window = WINDOW,
                                       .connection_window = WINDOW,
                                       .max_frame_size = 16384,
                                       .max_concurrent = 100,
                                       .wake = on_wake,
                                       .wake_arg = s};
    *s = (struct side){.consumes = true};
    s->session = h2_new(&options, &events, s);
    assert_non_null(s->session);
    return s->session;
}

static int start(void **state)
{
    (void)state;
    make(&client, false);
    make(&server, true);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    h2_free(client.session);
    h2_free(server.session);
    return chunk_live_count() == 0 ? 0 : -1;
}

/* One direction's output in pieces of `size`. The input's error, or how many bytes went. */
static ssize_t carry(struct side *from, struct side *to, size_t size)
{
    struct chain out = {0};
    char piece[65536];
    ssize_t total = 0;
    int error = h2_output(from->session, &out, 256 * 1024);
    while (!error && out.bytes > 0) {
        size_t n = chain_read(&out, piece, size < sizeof(piece) ? size : sizeof(piece));
        error = h2_input(to->session, (struct slice){piece, n});
        total += (ssize_t)n;
    }
    chain_free(&out);
    return error ? error : total;
}

static void settle(size_t size)
{
    ssize_t there, back;
    do {
        there = carry(&client, &server, size);
        back = carry(&server, &client, size);
        assert_true(there >= 0 && back >= 0);
    } while (there + back > 0);
}

static struct h2_stream *request(bool end)
{
    struct head head = {.method = SLICE("POST"),
                        .target = SLICE("/path?query"),
                        .scheme = SLICE("https"),
                        .authority = SLICE("here.test")};
    client.stream = h2_request(client.session, &head, end, &client);
    return client.stream;
}

static void respond(uint16_t status, bool end)
{
    struct head head = {.status = status};
    assert_int_equal(h2_respond(server.stream, &head, end), KV_OK);
}

static void push(struct h2_stream *stream, size_t len)
{
    struct chunk *c = chunk_alloc(len);
    memset(c->data, 'x', len);
    c->len = (uint32_t)len;
    chain_push(h2_stream_output(stream), c);
    h2_resume(stream);
}

/* ---- exchanges --------------------------------------------------------------------------------------------------- */

static void carries_an_exchange_cut_anywhere(void **state)
{
    for (size_t size = 1; size <= 64; size += size < 20 ? 1 : 11) {
        struct field field = {.name = SLICE("grpc-status"), .value = SLICE("0")};
        const struct head trailers = {.fields = &field, .count = 1, .capacity = 1};
        assert_non_null(request(false));
        push(client.stream, 1000);
        assert_int_equal(h2_end(client.stream, NULL), KV_OK);
        settle(size);
        assert_int_equal(client.sent, 1);
        assert_int_equal(server.received, 1000);
        assert_int_equal(server.ends, 1);
        respond(103, false);
        respond(200, false);
        push(server.stream, 2000);
        assert_int_equal(h2_end(server.stream, &trailers), KV_OK);
        settle(size);
        assert_int_equal(client.interims, 1);
        assert_int_equal(client.responses, 1);
        assert_int_equal(client.received, 2000);
        assert_int_equal(client.trailers, 1);
        assert_string_equal(client.last_value, "0");
        assert_int_equal(client.ends, 1);
        assert_int_equal(client.closed + server.closed, 2);
        assert_int_equal(client.error_code + server.error_code, 0);
        assert_int_equal(h2_stream_count(client.session) + h2_stream_count(server.session), 0);
        stop(state);
        start(state);
    }
}

static void empty_trailers_are_an_end(void **state)
{
    (void)state;
    request(true);
    settle(SIZE_MAX);
    respond(200, false);
    assert_int_equal(h2_end(server.stream, &(struct head){0}), KV_OK);
    settle(SIZE_MAX);
    assert_int_equal(client.ends, 1);
    assert_int_equal(client.trailers, 0);
    assert_int_equal(client.closed, 1);
}

/* All fields of a head arrive; a head with more than can be sent is refused, not cut. */
static void sends_whole_heads(void **state)
{
    (void)state;
    struct field fields[LIMIT_ANSWER_HEAD_FIELDS + 33];
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
        fields[i] = (struct field){.name = SLICE("x-field"), .value = SLICE("v")};
    struct head head = {.status = 200, .fields = fields, .count = LIMIT_ANSWER_HEAD_FIELDS + 33};
    request(true);
    settle(SIZE_MAX);
    assert_int_equal(h2_respond(server.stream, &head, true), KV_ELIMIT);
    head.count = LIMIT_ANSWER_HEAD_FIELDS;
    assert_int_equal(h2_respond(server.stream, &head, true), KV_OK);
    settle(SIZE_MAX);
    assert_int_equal(client.fields, LIMIT_ANSWER_HEAD_FIELDS);
    assert_int_equal(client.closed, 1);
}

static void refuses_too_many_fields(void **state)
{
    (void)state;
    struct field fields[LIMIT_HEAD_FIELDS + 1];
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
        fields[i] = (struct field){.name = SLICE("x"), .value = SLICE("crumb")};
    struct head head = {.method = SLICE("GET"),
                        .target = SLICE("/"),
                        .scheme = SLICE("https"),
                        .authority = SLICE("here.test"),
                        .fields = fields,
                        .count = LIMIT_HEAD_FIELDS + 1};
    client.stream = h2_request(client.session, &head, true, &client);
    settle(SIZE_MAX);
    assert_int_equal(server.requests, 0);
    assert_int_equal(client.closed, 1);
    assert_int_equal(client.error_code, H2_ENHANCE_YOUR_CALM);
    request(true); /* the connection goes on */
    settle(SIZE_MAX);
    assert_int_equal(server.requests, 1);
}

/* A reset that comes behind the output leaves the peer with all of it, however long its window stays shut. */
static void resets_behind_the_output(void **state)
{
    (void)state;
    client.consumes = false;
    request(true);
    settle(SIZE_MAX);
    respond(200, false);
    push(server.stream, WINDOW + 1000);
    h2_reset_behind(server.stream, H2_INTERNAL_ERROR);
    settle(SIZE_MAX);
    assert_int_equal(client.received, WINDOW);
    assert_int_equal(client.closed, 0);
    h2_consume(client.stream, WINDOW);
    settle(SIZE_MAX);
    assert_int_equal(client.received, WINDOW + 1000);
    assert_int_equal(client.ends, 0);
    assert_int_equal(client.closed, 1);
    assert_int_equal(client.error_code, H2_INTERNAL_ERROR);
    assert_int_equal(server.closed, 1);

    stop(state);
    start(state);
    request(true);
    settle(SIZE_MAX);
    respond(200, false);
    h2_reset_behind(server.stream, H2_INTERNAL_ERROR); /* with nothing to be behind of but the head */
    settle(SIZE_MAX);
    assert_int_equal(client.responses, 1);
    assert_int_equal(client.error_code, H2_INTERNAL_ERROR);
}

/* Who drops the input hears of the end alone. */
static void drops_input(void **state)
{
    (void)state;
    request(false);
    settle(SIZE_MAX);
    respond(200, true);
    h2_drop_input(server.stream);
    push(client.stream, 3 * WINDOW);
    settle(SIZE_MAX);
    assert_int_equal(server.received, 0);
    assert_int_equal(server.closed, 1);
}

/* ---- windows ----------------------------------------------------------------------------------------------------- */

static void a_window_is_given_back_when_bytes_have_left(void **state)
{
    (void)state;
    server.consumes = false;
    request(false);
    struct h2_stream *stalled = client.stream;
    push(stalled, 200 * 1000);
    settle(SIZE_MAX);
    assert_int_equal(server.received, WINDOW);
    struct h2_stream *stalled_there = server.stream;
    /* The other stream has the connection for itself meanwhile. */
    server.consumes = true;
    request(false);
    push(client.stream, 150 * 1000);
    settle(SIZE_MAX);
    assert_int_equal(server.received, WINDOW + 150 * 1000);
    h2_consume(stalled_there, WINDOW);
    settle(SIZE_MAX);
    assert_true(server.received > WINDOW + 150 * 1000 + 60 * 1000);
}

static void output_stops_at_its_limit(void **state)
{
    (void)state;
    struct chain out = {0};
    request(false);
    settle(SIZE_MAX);
    push(client.stream, 60 * 1000);
    assert_int_equal(h2_output(client.session, &out, 20 * 1000), KV_OK);
    assert_true(out.bytes >= 20 * 1000 && out.bytes <= 20 * 1000 + 16384 + 9);
    chain_free(&out);
}

/* ---- ends -------------------------------------------------------------------------------------------------------- */

static void resets_both_ways(void **state)
{
    (void)state;
    request(false);
    settle(SIZE_MAX);
    h2_reset(client.stream, H2_CANCEL);
    settle(SIZE_MAX);
    assert_int_equal(client.closed, 1);
    assert_int_equal(server.closed, 1);
    assert_int_equal(server.error_code, H2_CANCEL);

    request(false);
    settle(SIZE_MAX);
    h2_reset(server.stream, H2_INTERNAL_ERROR); /* both, and their frames cross */
    h2_reset(client.stream, H2_CANCEL);
    settle(SIZE_MAX);
    assert_int_equal(client.closed, 2);
    assert_int_equal(server.closed, 2);
}

static void a_refused_request_has_no_events(void **state)
{
    (void)state;
    server.reset_at_request = true;
    request(false);
    push(client.stream, 1000);
    settle(SIZE_MAX);
    assert_int_equal(client.closed, 1);
    assert_int_equal(client.error_code, H2_REFUSED_STREAM);
    assert_int_equal(server.received + server.ends + server.closed, 0);
    assert_int_equal(h2_stream_count(server.session), 0);
}

/* A request that was given up, or overtaken by GOAWAY, before its first frame left. */
static void a_request_that_never_left_is_closed(void **state)
{
    (void)state;
    request(true);
    h2_reset(client.stream, H2_CANCEL);
    settle(SIZE_MAX);
    assert_int_equal(client.closed, 1);
    assert_int_equal(server.requests, 0);

    h2_goaway(server.session, H2_NO_ERROR);
    assert_true(carry(&server, &client, SIZE_MAX) > 0);
    assert_int_equal(client.goaways, 1);
    if (request(true)) {
        settle(SIZE_MAX);
        assert_int_equal(client.closed, 2);
    }
    assert_int_equal(server.requests, 0);
    assert_int_equal(h2_stream_count(client.session), 0);
}

/* What a peer has not begun with may go to another: requests above GOAWAY's last stream (RFC 9113, 6.8), and those that
 * were still here when the connection ended. */
static void unprocessed_requests_are_told_as_refused(void **state)
{
    (void)state;
    request(true);
    h2_close_streams(client.session, H2_CANCEL);
    assert_int_equal(client.closed, 1);
    assert_int_equal(client.error_code, H2_REFUSED_STREAM);
    stop(state);

    start(state);
    struct chain under_way = {0};
    request(true);
    settle(SIZE_MAX);
    request(true);
    assert_int_equal(h2_output(client.session, &under_way, SIZE_MAX), KV_OK);
    chain_free(&under_way);
    h2_goaway(server.session, H2_NO_ERROR);
    assert_true(carry(&server, &client, SIZE_MAX) > 0);
    assert_int_equal(client.closed, 1);
    assert_int_equal(client.error_code, H2_REFUSED_STREAM);
    h2_close_streams(client.session, H2_CANCEL);
    assert_int_equal(client.closed, 2);
    assert_int_equal(client.error_code, H2_CANCEL);
}

static void peers_know_each_others_settings(void **state)
{
    (void)state;
    request(true);
    settle(SIZE_MAX);
    assert_int_equal(client.settings, 1);
    assert_int_equal(h2_peer_max_streams(client.session), 100);
    assert_false(h2_peer_takes_connect(client.session));
    assert_string_equal(h2_error_name(H2_REFUSED_STREAM), "REFUSED_STREAM");
}

static void goaway_lets_streams_end(void **state)
{
    (void)state;
    request(true);
    settle(SIZE_MAX);
    h2_goaway(server.session, H2_NO_ERROR);
    settle(SIZE_MAX);
    assert_false(h2_finished(server.session));
    respond(200, true);
    settle(SIZE_MAX);
    assert_int_equal(client.responses, 1);
    assert_int_equal(client.error_code, H2_NO_ERROR);
    assert_true(h2_finished(server.session));
}

static void closing_tells_each_stream_once(void **state)
{
    (void)state;
    request(false);
    request(false);
    settle(SIZE_MAX);
    h2_close_streams(server.session, H2_CANCEL);
    h2_close_streams(server.session, H2_CANCEL);
    assert_int_equal(server.closed, 2);
    push(client.stream, 10);
    assert_true(carry(&client, &server, SIZE_MAX) >= 0);
    assert_int_equal(server.received, 0);
}

static void a_muted_session_says_nothing(void **state)
{
    (void)state;
    server.mutes_at_data = true;
    request(false);
    push(client.stream, 50 * 1000);
    h2_end(client.stream, NULL);
    assert_true(carry(&client, &server, SIZE_MAX) >= 0);
    size_t received = server.received;
    assert_true(received > 0 && received <= 16384);
    assert_int_equal(server.ends + server.closed, 0);
    assert_true(carry(&client, &server, SIZE_MAX) >= 0);
    assert_int_equal(server.received, received);
    struct chain out = {0};
    h2_goaway(server.session, H2_NO_ERROR);
    assert_int_equal(h2_output(server.session, &out, SIZE_MAX), KV_OK);
    assert_true(out.bytes > 0); /* what is queued still goes */
    chain_free(&out);
}

static void pings_are_answered(void **state)
{
    (void)state;
    h2_ping(client.session, 0x1122334455667788);
    settle(3);
    assert_int_equal(client.pongs, 1);
}

/* ---- floods ------------------------------------------------------------------------------------------------------ */

/* The answers of a peer that does not read pile up; a cap ends that. */
/* Frames for their own sake are counted whatever they are. */
static void floods_end_the_session(void **state)
{
    static const struct {
        size_t len;
        char frame[17];
    } floods[] = {
        {17, "\0\0\10\6\0\0\0\0\0"},           /* PING */
        {9, "\0\0\0\4\0\0\0\0\0"},             /* SETTINGS */
        {14, "\0\0\5\2\0\0\0\0\11\0\0\0\0\1"}, /* PRIORITY */
        {13, "\0\0\4\10\0\0\0\0\0\0\0\0\1"},   /* WINDOW_UPDATE */
        {9, "\0\0\0\0\0\0\0\0\1"},             /* empty DATA */
    };
    for (size_t i = 0; i < sizeof(floods) / sizeof(floods[0]); i++) {
        int error = KV_OK, n = 0;
        settle(SIZE_MAX);
        assert_non_null(request(false)); /* stream 1, for those that need one */
        settle(SIZE_MAX);
        for (; n < 20000 && !error; n++) {
            struct chain out = {0};
            error = h2_input(server.session, (struct slice){floods[i].frame, floods[i].len});
            if (!error)
                error = h2_output(server.session, &out, SIZE_MAX);
            chain_free(&out);
        }
        assert_int_equal(error, KV_ELIMIT);
        assert_in_range(n, 1000, 5000);
        assert_int_equal(stop(state), 0);
        start(state);
    }
}

/* Many answers with hardly anything in them are no flood, to whoever asked for them. */
static void small_answers_are_no_flood(void **state)
{
    (void)state;
    for (unsigned i = 1; i <= 3000; i++) {
        request(true);
        settle(SIZE_MAX);
        respond(204, true);
        settle(SIZE_MAX);
        assert_int_equal(client.responses, i);
    }
}

static void a_reset_flood_ends_the_session(void **state)
{
    (void)state;
    ssize_t result = 0;
    settle(SIZE_MAX);
    for (int i = 0; i < 5000 && result >= 0 && !h2_finished(server.session); i++) {
        if (!request(false))
            break;
        result = carry(&client, &server, SIZE_MAX);
        h2_reset(client.stream, H2_CANCEL);
        if (result >= 0)
            result = carry(&client, &server, SIZE_MAX);
        struct chain answers = {0};
        h2_output(server.session, &answers, SIZE_MAX); /* not read */
        chain_free(&answers);
    }
    assert_true(server.requests < 5000);
}

static void garbage_is_no_http2(void **state)
{
    (void)state;
    assert_int_equal(h2_input(server.session, SLICE("GET / HTTP/1.1\r\nHost: here.test\r\n\r\n")), KV_EPROTO);
    assert_int_equal(server.requests, 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)
    const struct CMUnitTest tests[] = {
        TEST(carries_an_exchange_cut_anywhere),
        TEST(empty_trailers_are_an_end),
        TEST(sends_whole_heads),
        TEST(resets_behind_the_output),
        TEST(drops_input),
        TEST(refuses_too_many_fields),
        TEST(a_window_is_given_back_when_bytes_have_left),
        TEST(output_stops_at_its_limit),
        TEST(resets_both_ways),
        TEST(a_refused_request_has_no_events),
        TEST(a_request_that_never_left_is_closed),
        TEST(unprocessed_requests_are_told_as_refused),
        TEST(peers_know_each_others_settings),
        TEST(goaway_lets_streams_end),
        TEST(closing_tells_each_stream_once),
        TEST(a_muted_session_says_nothing),
        TEST(pings_are_answered),
        TEST(floods_end_the_session),
        TEST(small_answers_are_no_flood),
        TEST(a_reset_flood_ends_the_session),
        TEST(garbage_is_no_http2),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
