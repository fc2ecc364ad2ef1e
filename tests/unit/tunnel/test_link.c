/*
 * The server's link against a peer that the test plays frame by frame: what crosses in each direction, when an exchange
 * is over, and what a peer that is old, hostile or broken can do.
 *
 * Everything lives on one worker; two HTTP/2 sessions are joined in memory and settled at the end of each turn, so a
 * step of a test is one call on the worker and all its consequences.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "grpc/grpc.h"
#include "http/h2.h"
#include "io/on_worker.h"
#include "tunnel/budget.h"
#include "tunnel/exchange.h"
#include "tunnel/link.h"

#define FRAMES_MAX  4096
#define VISITS_MAX  40
#define MAX_AT_ONCE 32

static struct worker_group *group;

/* ---- the stage --------------------------------------------------------------------------------------------------- */

struct frame {
    enum wire_kind kind;
    uint64_t id;
    size_t len; /* data */
    bool end;
    uint32_t number; /* credit, code of an error */
};

/* A visitor's half. */
struct visit {
    struct half half;
    bool opened, ended, was_reset;
    enum close_reason reason;
    unsigned heads, interims, trailers;
    size_t received;
    bool keeps; /* gives no room back */
};

static struct stage {
    struct worker *worker;
    struct h2_session *server, *client;
    struct h2_stream *server_stream, *client_stream;
    struct flush_node pump;
    struct link *link;
    bool link_ended, idle;
    enum close_reason end_reason;
    struct grpc_reader reader;
    struct wire_arena arena;
    struct frame frames[FRAMES_MAX];
    unsigned frame_count;
    struct visit visits[VISITS_MAX];
    unsigned visit_count;
} stage;

static void wake(void *arg)
{
    (void)arg;
    worker_flush_later(stage.worker, &stage.pump);
}

static bool carry(struct h2_session *from, struct h2_session *to)
{
    struct chain out = {0};
    struct chunk *c;
    assert_int_equal(h2_output(from, &out, 64 * 1024), KV_OK);
    bool any = out.head != NULL;
    while ((c = chain_pop(&out))) {
        assert_int_equal(h2_input(to, chunk_slice(c)), KV_OK);
        chunk_free(c);
    }
    return any;
}

static void pump(struct flush_node *node)
{
    (void)node;
    while (carry(stage.server, stage.client) | carry(stage.client, stage.server))
        continue;
}

/* ---- the client, played ------------------------------------------------------------------------------------------ */

static void on_client_data(void *user, struct slice bytes)
{
    (void)user;
    struct slice message;
    struct chunk *whole;
    size_t received = bytes.len;
    while (grpc_read(&stage.reader, &bytes, &message, &whole) == 1) {
        struct wire_message m;
        assert_int_equal(wire_decode(WIRE_FROM_SERVER, message, &stage.arena, &m), KV_OK);
        assert_true(stage.frame_count < FRAMES_MAX);
        struct frame *f = &stage.frames[stage.frame_count++];
        *f = (struct frame){.kind = m.kind, .id = m.request_id};
        if (m.kind == WIRE_DATA) {
            f->len = m.data.bytes.len;
            f->end = m.data.end;
        } else if (m.kind == WIRE_CREDIT) {
            f->number = m.credit;
        } else if (m.kind == WIRE_RESET) {
            f->number = m.error.code;
        }
        chunk_free(whole);
    }
    h2_consume(stage.client_stream, received);
}

static void on_client_response(void *user, const struct head *head, bool end)
{
    (void)user;
    (void)end;
    assert_int_equal(head->status, 200);
}

static void on_end(void *user)
{
    (void)user;
}

static void on_closed(void *user, uint32_t error_code)
{
    (void)user;
    (void)error_code;
}

static const struct h2_events client_events = {
    .response = on_client_response, .data = on_client_data, .end = on_end, .closed = on_closed};

static void say(const struct wire_message *m)
{
    struct buffer out = BUFFER_INIT(8 * 1024 * 1024);
    assert_int_equal(wire_encode(WIRE_FROM_CLIENT, m, &out), KV_OK);
    assert_int_equal(chain_append(h2_stream_output(stage.client_stream), out.data, out.len), KV_OK);
    buffer_free(&out);
    h2_resume(stage.client_stream);
}

static void say_head(uint64_t id, uint16_t status)
{
    struct wire_message m = {.kind = WIRE_RESPONSE_HEAD, .request_id = id};
    m.head.head.status = status;
    say(&m);
}

static void say_data(uint64_t id, size_t len, bool end)
{
    static char bytes[1024 * 1024];
    assert_true(len <= sizeof(bytes));
    struct wire_message m = {.kind = WIRE_DATA, .request_id = id};
    m.data.bytes = (struct slice){bytes, len};
    m.data.end = end;
    say(&m);
}

static void say_credit(uint64_t id, uint32_t bytes)
{
    say(&(struct wire_message){.kind = WIRE_CREDIT, .request_id = id, .credit = bytes});
}

static void say_reset(uint64_t id)
{
    struct wire_message m = {.kind = WIRE_RESET, .request_id = id};
    m.error.code = wire_reason_code(REASON_ORIGIN_CLOSED, true);
    say(&m);
}

/* Frames of this kind that came for this id; bytes and ends are summed. */
static struct frame heard(enum wire_kind kind, uint64_t id, unsigned *count)
{
    struct frame sum = {.kind = kind, .id = id};
    unsigned n = 0;
    for (unsigned i = 0; i < stage.frame_count; i++) {
        const struct frame *f = &stage.frames[i];
        if (f->kind != kind || f->id != id)
            continue;
        n++;
        sum.len += f->len;
        sum.end |= f->end;
        sum.number += f->number;
    }
    if (count)
        *count = n;
    return sum;
}

static unsigned count_of(enum wire_kind kind, uint64_t id)
{
    unsigned count;
    heard(kind, id, &count);
    return count;
}

/* ---- the server's side ------------------------------------------------------------------------------------------- */

static void on_message(void *owner, const struct wire_message *m)
{
    (void)owner;
    (void)m;
}

static void on_link_ended(void *owner, enum close_reason reason, const char *text)
{
    (void)owner;
    (void)text;
    assert_false(stage.link_ended);
    stage.link_ended = true;
    stage.end_reason = reason;
}

static void on_idle(void *owner)
{
    (void)owner;
    stage.idle = true;
}

static const struct link_events link_events = {.message = on_message, .ended = on_link_ended, .idle = on_idle};

static void *on_request(void *owner, struct h2_stream *stream, const struct head *head, bool end)
{
    (void)head;
    (void)end;
    stage.server_stream = stream;
    return owner;
}

static void on_server_data(void *user, struct slice bytes)
{
    (void)user;
    if (stage.link)
        link_data(stage.link, bytes);
}

static void on_server_writable(void *user)
{
    (void)user;
    if (stage.link)
        link_writable(stage.link);
}

static const struct h2_events server_events = {
    .request = on_request, .data = on_server_data, .end = on_end, .closed = on_closed, .writable = on_server_writable};

struct terms {
    uint32_t features, credit;
};

static void set_stage(struct worker *worker, void *arg)
{
    const struct terms *terms = arg;
    memset(&stage, 0, sizeof(stage));
    stage.worker = worker;
    stage.pump.flush = pump;
    stage.reader.limit = LIMIT_MESSAGE_BYTES;
    struct h2_options options = {.stream_window = 16 << 20,
                                 .connection_window = 16 << 20,
                                 .max_frame_size = 1 << 20,
                                 .max_concurrent = 8,
                                 .wake = wake};
    stage.client = h2_new(&options, &client_events, &stage);
    options.server = true;
    stage.server = h2_new(&options, &server_events, &stage);
    struct head head = {
        .method = SLICE("POST"), .target = SLICE("/x"), .scheme = SLICE("http"), .authority = SLICE("here.test")};
    stage.client_stream = h2_request(stage.client, &head, false, &stage);
    pump(NULL);
    assert_non_null(stage.server_stream);
    stage.link = link_new(worker, stage.server_stream, WIRE_FROM_SERVER, &link_events, &stage);
    assert_int_equal(link_start(stage.link, &(struct link_terms){.features = terms->features,
                                                                 .peer_credit = terms->credit,
                                                                 .max_concurrent = MAX_AT_ONCE,
                                                                 .session = SLICE("s")}),
                     KV_OK);
    struct head answer = {.status = 200};
    assert_int_equal(h2_respond(stage.server_stream, &answer, false), KV_OK);
}

static void clear_stage(struct worker *worker, void *arg)
{
    (void)worker;
    (void)arg;
    link_free(stage.link, REASON_CLIENT_GONE, NULL);
    stage.link = NULL;
    for (unsigned i = 0; i < VISITS_MAX; i++)
        half_close(&stage.visits[i].half, REASON_NONE, NULL);
    worker_flush_cancel(worker, &stage.pump);
    h2_free(stage.client);
    h2_free(stage.server);
    grpc_reader_free(&stage.reader);
    wire_arena_free(&stage.arena);
}

static void nothing(struct worker *worker, void *arg)
{
    (void)worker;
    (void)arg;
}

static void step(void (*run)(struct worker *, void *), void *arg)
{
    on_worker(worker_at(group, 0), run, arg);
    on_worker(worker_at(group, 0), nothing, NULL); /* the turn of the first call is over when this one runs */
}

static int start(void **state)
{
    (void)state;
    struct terms terms = {WIRE_FEATURES, LIMIT_WINDOW_BYTES};
    assert_int_equal(worker_group_start(1, &group), KV_OK);
    step(set_stage, &terms);
    return 0;
}

static int start_old(void **state)
{
    (void)state;
    struct terms terms = {0, 0};
    assert_int_equal(worker_group_start(1, &group), KV_OK);
    step(set_stage, &terms);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    step(clear_stage, NULL);
    worker_group_stop(group, 1000);
    assert_int_equal(chunk_live_count(), 0);
    assert_int_equal(budget_used(), 0);
    return 0;
}

/* ---- visitors, played -------------------------------------------------------------------------------------------- */

static void on_opened(void *owner)
{
    ((struct visit *)owner)->opened = true;
}

static void on_head(void *owner, struct head *head)
{
    struct visit *v = owner;
    if (head->status < 200 && head->status != 101)
        v->interims++;
    else
        v->heads++;
    head_free(head);
}

static void on_data(void *owner, struct chunk *chunk)
{
    struct visit *v = owner;
    v->received += chunk->len;
    if (!v->keeps)
        half_grant(&v->half, chunk->len);
    chunk_free(chunk);
}

static void on_credit(void *owner, size_t bytes)
{
    (void)owner;
    (void)bytes;
}

static void on_visit_end(void *owner, struct head *trailers)
{
    struct visit *v = owner;
    assert_false(v->ended);
    v->ended = true;
    v->trailers = trailers ? trailers->count : 0;
    head_free(trailers);
}

static void on_reset(void *owner, enum close_reason reason, const char *text)
{
    struct visit *v = owner;
    (void)text;
    assert_false(v->was_reset);
    v->was_reset = true;
    v->reason = reason;
    half_close(&v->half, REASON_NONE, NULL);
}

static const struct half_events visit_events = {
    .opened = on_opened, .head = on_head, .data = on_data, .credit = on_credit, .end = on_visit_end, .reset = on_reset};

static struct visit *visit(const char *length, bool upgrade, bool end)
{
    struct visit *v = &stage.visits[stage.visit_count++];
    struct exchange_open open = {.head = head_new(4, 256), .credit = LIMIT_WINDOW_BYTES, .end = end};
    open.head->method = SLICE("POST");
    open.head->target = SLICE("/");
    open.head->authority = SLICE("app.tnl.test");
    open.head->protocol = upgrade ? SLICE("echo") : (struct slice){0};
    head_add(open.head, SLICE("host"), open.head->authority);
    if (length)
        head_add(open.head, SLICE("content-length"), slice_of(length));
    assert_int_equal(half_open(&v->half, stage.worker, link_address(stage.link), &open, &visit_events, v), KV_OK);
    return v;
}

static void visit_get(struct worker *worker, void *arg)
{
    (void)worker;
    (void)arg;
    visit(NULL, false, true);
}

static void visit_post(struct worker *worker, void *arg)
{
    (void)worker;
    visit(arg, false, false);
}

static void visit_upgrade(struct worker *worker, void *arg)
{
    (void)worker;
    (void)arg;
    visit(NULL, true, false);
}

/* Sends as much as there is room for, in pieces. */
static void upload(struct worker *worker, void *arg)
{
    struct visit *v = arg;
    (void)worker;
    while (half_credit(&v->half) > 0) {
        size_t n = half_credit(&v->half) < 16384 ? half_credit(&v->half) : 16384;
        struct chunk *c = chunk_alloc(n);
        c->len = (uint32_t)n;
        assert_int_equal(half_send_data(&v->half, c), KV_OK);
    }
}

static void end_upload(struct worker *worker, void *arg)
{
    (void)worker;
    half_send_end(&((struct visit *)arg)->half, NULL);
}

static void leave(struct worker *worker, void *arg)
{
    (void)worker;
    half_close(&((struct visit *)arg)->half, REASON_VISITOR_GONE, NULL);
}

/* ---- whole exchanges --------------------------------------------------------------------------------------------- */

static void answer_whole(struct worker *worker, void *arg)
{
    (void)worker;
    (void)arg;
    say_head(1, 103);
    say_head(1, 200);
    say_data(1, 1000, false);
    struct field field = {SLICE("grpc-status"), SLICE("0")};
    struct wire_message m = {.kind = WIRE_TRAILERS, .request_id = 1};
    m.trailers = (struct head){.fields = &field, .count = 1, .capacity = 1};
    say(&m);
}

static void carries_a_whole_exchange(void **state)
{
    (void)state;
    step(visit_post, NULL);
    struct visit *v = &stage.visits[0];
    assert_true(v->opened);
    assert_int_equal(half_credit(&v->half), LIMIT_WINDOW_BYTES);
    assert_string_equal(v->half.id, "s-1");
    assert_int_equal(count_of(WIRE_REQUEST_HEAD, 1), 1);
    step(upload, v);
    step(end_upload, v);
    struct frame body = heard(WIRE_DATA, 1, NULL);
    assert_int_equal(body.len, LIMIT_WINDOW_BYTES);
    assert_true(body.end);
    assert_int_equal(link_exchanges(stage.link), 1);
    step(answer_whole, NULL);
    assert_int_equal(v->interims, 1);
    assert_int_equal(v->heads, 1);
    assert_int_equal(v->received, 1000);
    assert_int_equal(v->trailers, 1);
    assert_true(v->ended);
    assert_false(v->was_reset);
    assert_int_equal(link_exchanges(stage.link), 0);
}

static void answer_first(struct worker *worker, void *arg)
{
    (void)worker;
    (void)arg;
    say_head(1, 200);
    say_data(1, 10, true);
}

/* The answer ends before the request: the exchange is over when both have. */
static void waits_for_both_last_words(void **state)
{
    (void)state;
    step(visit_post, NULL);
    step(answer_first, NULL);
    assert_true(stage.visits[0].ended);
    assert_int_equal(link_exchanges(stage.link), 1);
    step(upload, &stage.visits[0]);
    step(end_upload, &stage.visits[0]);
    assert_int_equal(link_exchanges(stage.link), 0);
}

static void confirm_reset(struct worker *worker, void *arg)
{
    (void)worker;
    say_reset(*(uint64_t *)arg);
}

static void a_visitor_who_leaves_is_told_and_confirmed(void **state)
{
    (void)state;
    uint64_t id = 1;
    step(visit_get, NULL);
    step(leave, &stage.visits[0]);
    assert_int_equal(count_of(WIRE_RESET, 1), 1);
    assert_int_equal(link_exchanges(stage.link), 1); /* it counts until the far end has let go */
    step(confirm_reset, &id);
    assert_int_equal(link_exchanges(stage.link), 0);
    step(confirm_reset, &id); /* unknown now: dropped, and not answered */
    assert_int_equal(count_of(WIRE_RESET, 1), 1);
    assert_false(stage.link_ended);
}

static void a_reset_is_confirmed(void **state)
{
    (void)state;
    uint64_t id = 1;
    step(visit_post, NULL);
    step(confirm_reset, &id);
    assert_true(stage.visits[0].was_reset);
    assert_int_equal(stage.visits[0].reason, REASON_ORIGIN_CLOSED);
    assert_int_equal(count_of(WIRE_RESET, 1), 1);
    assert_int_equal(link_exchanges(stage.link), 0);
}

static void end_upgrade(struct worker *worker, void *arg)
{
    (void)worker;
    (void)arg;
    struct wire_message m = {.kind = WIRE_RESPONSE_HEAD, .request_id = 1};
    m.head.head = (struct head){.status = 101, .protocol = SLICE("echo")};
    m.head.upgraded = true;
    say(&m);
    say_data(1, 5, true);
}

static void an_upgrade_closes_by_halves(void **state)
{
    (void)state;
    step(visit_upgrade, NULL);
    step(end_upgrade, NULL);
    assert_true(stage.visits[0].ended);
    assert_false(stage.visits[0].was_reset);
    step(upload, &stage.visits[0]);
    assert_int_equal(heard(WIRE_DATA, 1, NULL).len, LIMIT_WINDOW_BYTES);
    step(end_upload, &stage.visits[0]);
    assert_int_equal(link_exchanges(stage.link), 0);
}

static void an_old_upgrade_ends_whole(void **state)
{
    (void)state;
    step(visit_upgrade, NULL);
    step(end_upgrade, NULL);
    assert_true(stage.visits[0].ended);
    assert_true(stage.visits[0].was_reset);
    assert_int_equal(stage.visits[0].reason, REASON_NONE);
    assert_int_equal(link_exchanges(stage.link), 0);
}

/* ---- credit ------------------------------------------------------------------------------------------------------ */

static void over_credit(struct worker *worker, void *arg)
{
    (void)worker;
    (void)arg;
    say_head(1, 200);
    for (int i = 0; i < 5; i++)
        say_data(1, 16 * 1024, false);
}

static void a_peer_over_credit_loses_the_exchange(void **state)
{
    (void)state;
    step(visit_get, NULL);
    step(visit_get, NULL);
    stage.visits[0].keeps = true;
    step(over_credit, NULL);
    assert_int_equal(stage.visits[0].received, LIMIT_WINDOW_BYTES);
    assert_true(stage.visits[0].was_reset);
    assert_int_equal(stage.visits[0].reason, REASON_PROTOCOL);
    assert_int_equal(count_of(WIRE_RESET, 1), 1);
    assert_false(stage.visits[1].was_reset);
    assert_false(stage.link_ended);
}

static void answer_16k(struct worker *worker, void *arg)
{
    (void)worker;
    if (stage.visits[0].heads == 0)
        say_head(1, 200);
    say_data(1, *(size_t *)arg, false);
}

/* What has left is given back, and a window that is drained fast grows, up to its cap. */
static void credit_comes_back_and_grows(void **state)
{
    (void)state;
    size_t n = 16 * 1024, sent = 0, credit = LIMIT_WINDOW_BYTES, most = 0;
    step(visit_get, NULL);
    while (sent < 8UL * 1024 * 1024) {
        assert_true(credit >= n); /* never a deadlock */
        step(answer_16k, &n);
        sent += n;
        credit = LIMIT_WINDOW_BYTES + heard(WIRE_CREDIT, 1, NULL).number - sent;
        most = credit > most ? credit : most;
    }
    assert_int_equal(stage.visits[0].received, sent);
    assert_true(most > LIMIT_WINDOW_BYTES);
    assert_true(most <= LIMIT_WINDOW_MAX_BYTES);
    assert_true(budget_used() <= LIMIT_WINDOW_BYTES + LIMIT_WINDOW_MAX_BYTES);
}

static void give_endless_credit(struct worker *worker, void *arg)
{
    (void)worker;
    (void)arg;
    for (int i = 0; i < 100; i++)
        say_credit(1, UINT32_MAX);
}

static size_t backlog_seen;

/* Everything there is room for, again and again, without a turn's end in between: nothing leaves. */
static void upload_without_reader(struct worker *worker, void *arg)
{
    upload(worker, arg);
    backlog_seen = chunk_live_bytes();
}

/* A peer that promises more room than there is memory here: the visitor is not let loose on it. */
static void endless_credit_is_not_believed(void **state)
{
    (void)state;
    step(visit_post, NULL);
    step(give_endless_credit, NULL);
    struct visit *v = &stage.visits[0];
    assert_true(half_credit(&v->half) <= LIMIT_WINDOW_MAX_BYTES);
    on_worker(worker_at(group, 0), upload_without_reader, v);
    step(nothing, NULL);
    assert_true(backlog_seen <= 2 * LIMIT_WINDOW_MAX_BYTES);
    /* And none of it is lost: as bytes leave, room comes. */
    size_t before = heard(WIRE_DATA, 1, NULL).len;
    for (int i = 0; i < 4; i++)
        step(upload, v);
    assert_true(heard(WIRE_DATA, 1, NULL).len >= before + 1024 * 1024);
}

/* ---- many at once ------------------------------------------------------------------------------------------------ */

static void visit_many(struct worker *worker, void *arg)
{
    (void)worker;
    (void)arg;
    for (int i = 0; i < MAX_AT_ONCE + 1; i++)
        visit(NULL, false, true);
}

static void refuses_over_capacity(void **state)
{
    (void)state;
    step(visit_many, NULL);
    assert_int_equal(link_exchanges(stage.link), MAX_AT_ONCE);
    assert_true(stage.visits[MAX_AT_ONCE].was_reset);
    assert_int_equal(stage.visits[MAX_AT_ONCE].reason, REASON_TUNNEL_BUSY);
    assert_false(stage.visits[0].was_reset);
}

static void upload_two(struct worker *worker, void *arg)
{
    (void)arg;
    upload(worker, &stage.visits[0]);
    upload(worker, &stage.visits[1]);
}

/* Two uploads that wait together share the link in turns. */
static void takes_turns(void **state)
{
    (void)state;
    step(visit_post, NULL);
    step(visit_post, NULL);
    step(upload_two, NULL);
    unsigned changes = 0;
    uint64_t last = 0;
    for (unsigned i = 0; i < stage.frame_count; i++) {
        if (stage.frames[i].kind != WIRE_DATA)
            continue;
        changes += stage.frames[i].id != last;
        last = stage.frames[i].id;
    }
    assert_true(changes >= 4);
    assert_int_equal(heard(WIRE_DATA, 1, NULL).len, LIMIT_WINDOW_BYTES);
    assert_int_equal(heard(WIRE_DATA, 2, NULL).len, LIMIT_WINDOW_BYTES);
}

static void drain(struct worker *worker, void *arg)
{
    (void)worker;
    (void)arg;
    link_drain(stage.link);
}

static void drains(void **state)
{
    (void)state;
    step(visit_get, NULL);
    step(drain, NULL);
    step(visit_get, NULL);
    assert_int_equal(stage.visits[1].reason, REASON_DRAINING);
    assert_false(stage.idle);
    step(answer_first, NULL);
    assert_true(stage.idle);
}

/* ---- broken peers ------------------------------------------------------------------------------------------------ */

static void say_bytes(const char *bytes, size_t len)
{
    char prefix[GRPC_PREFIX_LEN];
    grpc_prefix(len, prefix);
    assert_int_equal(chain_append(h2_stream_output(stage.client_stream), prefix, sizeof(prefix)), KV_OK);
    assert_int_equal(chain_append(h2_stream_output(stage.client_stream), bytes, len), KV_OK);
    h2_resume(stage.client_stream);
}

static void say_garbage(struct worker *worker, void *arg)
{
    (void)worker;
    (void)arg;
    say_bytes("\xff\xff\xff\xff", 4);
}

static void garbage_ends_the_link(void **state)
{
    (void)state;
    step(visit_get, NULL);
    step(say_garbage, NULL);
    assert_true(stage.link_ended);
    assert_int_equal(stage.end_reason, REASON_PROTOCOL);
    assert_int_equal(stage.visits[0].reason, REASON_CLIENT_GONE);
    assert_int_equal(link_exchanges(stage.link), 0);
}

static void garbage_then_visit(struct worker *worker, void *arg)
{
    say_garbage(worker, arg);
    pump(NULL);
    visit(NULL, false, true); /* the link is ending, and still at its address */
}

/* A request that meets a tunnel in its last turn is not a bad request. */
static void an_ending_link_blames_no_visitor(void **state)
{
    (void)state;
    step(garbage_then_visit, NULL);
    assert_true(stage.visits[0].was_reset);
    assert_true(stage.visits[0].reason == REASON_CLIENT_GONE || stage.visits[0].reason == REASON_NO_TUNNEL);
}

/* Status 42: a head, and none of HTTP. */
static void say_bad_head(struct worker *worker, void *arg)
{
    (void)worker;
    (void)arg;
    say_bytes("\x08\x01\x1a\x02\x08\x2a", 6);
}

static void a_bad_head_resets_its_exchange(void **state)
{
    (void)state;
    uint64_t id = 1;
    step(visit_get, NULL); /* the request is whole: our direction has ended */
    step(say_bad_head, NULL);
    assert_int_equal(stage.visits[0].reason, REASON_ORIGIN_BAD_RESPONSE);
    assert_int_equal(count_of(WIRE_RESET, 1), 1); /* or the peer would wait for credit for ever */
    assert_false(stage.link_ended);
    step(say_bad_head, NULL);
    assert_int_equal(count_of(WIRE_RESET, 1), 1);
    step(confirm_reset, &id);
    assert_int_equal(link_exchanges(stage.link), 0);
}

static void say_many_interims(struct worker *worker, void *arg)
{
    (void)worker;
    (void)arg;
    for (int i = 0; i < 1000; i++)
        say_head(1, 103);
}

static void interim_heads_are_counted(void **state)
{
    (void)state;
    step(visit_get, NULL);
    step(say_many_interims, NULL);
    assert_true(stage.visits[0].was_reset);
    assert_int_equal(stage.visits[0].reason, REASON_ORIGIN_BAD_RESPONSE);
    assert_true(stage.visits[0].interims < 100);
}

/* ---- old peers --------------------------------------------------------------------------------------------------- */

static void end_old(struct worker *worker, void *arg)
{
    (void)worker;
    (void)arg;
    say_head(1, 200);
    say_data(1, 10, false);
    say_data(1, 0, true);
}

static void an_old_peer_is_sent_few_large_chunks(void **state)
{
    (void)state;
    enum {
        BODY = 28 * 100 * 1000
    };
    char length[16];
    snprintf(length, sizeof(length), "%d", BODY);
    step(visit_post, length);
    struct visit *v = &stage.visits[0];
    while (heard(WIRE_DATA, 1, NULL).len < BODY - 200 * 1000)
        step(upload, v);
    step(end_upload, v);
    unsigned chunks;
    struct frame body = heard(WIRE_DATA, 1, &chunks);
    assert_true(body.end);
    assert_true(chunks <= 31);
    assert_int_equal(count_of(WIRE_CREDIT, 1), 0);
    step(end_old, NULL);
    assert_int_equal(link_exchanges(stage.link), 0);
}

static void a_known_length_is_cancelled(void **state)
{
    (void)state;
    char length[] = "1000000";
    step(visit_post, length);
    step(leave, &stage.visits[0]);
    assert_int_equal(count_of(WIRE_CANCEL, 1), 1);
    assert_int_equal(link_exchanges(stage.link), 1);
    step(end_old, NULL);
    assert_int_equal(link_exchanges(stage.link), 0);
}

/* Cancel would make a body of unknown length look complete: it stays open until the answer has ended. */
static void an_unknown_length_stays_open(void **state)
{
    (void)state;
    step(visit_post, NULL);
    step(leave, &stage.visits[0]);
    assert_int_equal(count_of(WIRE_CANCEL, 1), 0);
    assert_false(heard(WIRE_DATA, 1, NULL).end);
    assert_int_equal(link_exchanges(stage.link), 1);
    step(end_old, NULL);
    assert_int_equal(link_exchanges(stage.link), 0);
}

static void flood_answer(struct worker *worker, void *arg)
{
    (void)worker;
    (void)arg;
    say_head(1, 200);
    for (int i = 0; i < 20; i++)
        say_data(1, 1024 * 1024, false);
}

static void answer_second(struct worker *worker, void *arg)
{
    (void)worker;
    (void)arg;
    say_head(2, 200);
    say_data(2, 1000, false);
}

/* A visitor that lags makes the link wait; when it leaves, the link does not wait any longer. */
static void a_lagging_visitor_who_leaves_holds_nobody(void **state)
{
    (void)state;
    step(visit_get, NULL);
    step(visit_get, NULL);
    stage.visits[0].keeps = true;
    step(flood_answer, NULL);
    step(answer_second, NULL);
    assert_true(stage.visits[0].received <= 17UL * 1024 * 1024); /* one stream window */
    assert_int_equal(stage.visits[1].received, 0);
    step(leave, &stage.visits[0]);
    assert_int_equal(stage.visits[1].received, 1000);
}

int main(void)
{
#define NEW(name) cmocka_unit_test_setup_teardown(name, start, stop)
#define OLD(name) cmocka_unit_test_setup_teardown(name, start_old, stop)
    const struct CMUnitTest tests[] = {
        NEW(carries_a_whole_exchange),
        NEW(waits_for_both_last_words),
        NEW(a_visitor_who_leaves_is_told_and_confirmed),
        NEW(a_reset_is_confirmed),
        NEW(an_upgrade_closes_by_halves),
        OLD(an_old_upgrade_ends_whole),
        NEW(a_peer_over_credit_loses_the_exchange),
        NEW(credit_comes_back_and_grows),
        NEW(endless_credit_is_not_believed),
        NEW(refuses_over_capacity),
        NEW(takes_turns),
        NEW(drains),
        NEW(garbage_ends_the_link),
        NEW(an_ending_link_blames_no_visitor),
        NEW(a_bad_head_resets_its_exchange),
        NEW(interim_heads_are_counted),
        OLD(an_old_peer_is_sent_few_large_chunks),
        OLD(a_known_length_is_cancelled),
        OLD(an_unknown_length_stays_open),
        OLD(a_lagging_visitor_who_leaves_holds_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
