/*
 * A server's link and the peer that the tests play against it: two HTTP/2 sessions joined in memory on one worker and
 * settled at the end of each turn, so a step of a test is one call on the worker and all its consequences. Each test
 * program that includes this has a stage of its own.
 */
#ifndef KV_TESTS_TUNNEL_LINK_STAGE_H
#define KV_TESTS_TUNNEL_LINK_STAGE_H

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

static inline void wake(void *arg)
{
    (void)arg;
    worker_flush_later(stage.worker, &stage.pump);
}

static inline bool carry(struct h2_session *from, struct h2_session *to)
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

static inline void pump(struct flush_node *node)
{
    (void)node;
    while (carry(stage.server, stage.client) | carry(stage.client, stage.server))
        continue;
}

/* ---- the client, played ------------------------------------------------------------------------------------------ */

static inline void on_client_data(void *user, struct slice bytes)
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

static inline void on_client_response(void *user, const struct head *head, bool end)
{
    (void)user;
    (void)end;
    assert_int_equal(head->status, 200);
}

static inline void on_end(void *user)
{
    (void)user;
}

static inline void on_closed(void *user, uint32_t error_code)
{
    (void)user;
    (void)error_code;
}

static const struct h2_events client_events = {
    .response = on_client_response, .data = on_client_data, .end = on_end, .closed = on_closed};

static inline void say(const struct wire_message *m)
{
    struct buffer out = BUFFER_INIT(8 * 1024 * 1024);
    assert_int_equal(wire_encode(WIRE_FROM_CLIENT, m, &out), KV_OK);
    assert_int_equal(chain_append(h2_stream_output(stage.client_stream), out.data, out.len), KV_OK);
    buffer_free(&out);
    h2_resume(stage.client_stream);
}

static inline void say_head(uint64_t id, uint16_t status)
{
    struct wire_message m = {.kind = WIRE_RESPONSE_HEAD, .request_id = id};
    m.head.head.status = status;
    say(&m);
}

static inline void say_data(uint64_t id, size_t len, bool end)
{
    static char bytes[1024 * 1024];
    assert_true(len <= sizeof(bytes));
    struct wire_message m = {.kind = WIRE_DATA, .request_id = id};
    m.data.bytes = (struct slice){bytes, len};
    m.data.end = end;
    say(&m);
}

static inline void say_credit(uint64_t id, uint32_t bytes)
{
    say(&(struct wire_message){.kind = WIRE_CREDIT, .request_id = id, .credit = bytes});
}

static inline void say_reset(uint64_t id)
{
    struct wire_message m = {.kind = WIRE_RESET, .request_id = id};
    m.error.code = wire_reason_code(REASON_ORIGIN_CLOSED, true);
    say(&m);
}

/* Frames of this kind that came for this id; bytes and ends are summed. */
static inline struct frame heard(enum wire_kind kind, uint64_t id, unsigned *count)
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

static inline unsigned count_of(enum wire_kind kind, uint64_t id)
{
    unsigned count;
    heard(kind, id, &count);
    return count;
}

/* ---- the server's side ------------------------------------------------------------------------------------------- */

static inline void on_message(void *owner, const struct wire_message *m)
{
    (void)owner;
    (void)m;
}

static inline void on_link_ended(void *owner, enum close_reason reason, const char *text)
{
    (void)owner;
    (void)text;
    assert_false(stage.link_ended);
    stage.link_ended = true;
    stage.end_reason = reason;
}

static inline void on_idle(void *owner)
{
    (void)owner;
    stage.idle = true;
}

static const struct link_events link_events = {.message = on_message, .ended = on_link_ended, .idle = on_idle};

static inline void *on_request(void *owner, struct h2_stream *stream, const struct head *head, bool end)
{
    (void)head;
    (void)end;
    stage.server_stream = stream;
    return owner;
}

static inline void on_server_data(void *user, struct slice bytes)
{
    (void)user;
    if (stage.link)
        link_data(stage.link, bytes);
}

static inline void on_server_fill(void *user)
{
    (void)user;
    if (stage.link)
        link_top_up(stage.link);
}

static const struct h2_events server_events = {
    .request = on_request, .data = on_server_data, .end = on_end, .closed = on_closed, .fill = on_server_fill};

struct terms {
    uint32_t features, credit;
};

static inline void set_stage(struct worker *worker, void *arg)
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

static inline void clear_stage(struct worker *worker, void *arg)
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

static inline void nothing(struct worker *worker, void *arg)
{
    (void)worker;
    (void)arg;
}

static inline void step(void (*run)(struct worker *, void *), void *arg)
{
    on_worker(worker_at(group, 0), run, arg);
    on_worker(worker_at(group, 0), nothing, NULL); /* the turn of the first call is over when this one runs */
}

static inline int start(void **state)
{
    (void)state;
    struct terms terms = {WIRE_FEATURES, LIMIT_WINDOW_BYTES};
    assert_int_equal(worker_group_start(1, &group), KV_OK);
    step(set_stage, &terms);
    return 0;
}

static inline int start_old(void **state)
{
    (void)state;
    struct terms terms = {0, 0};
    assert_int_equal(worker_group_start(1, &group), KV_OK);
    step(set_stage, &terms);
    return 0;
}

static inline int stop(void **state)
{
    (void)state;
    step(clear_stage, NULL);
    worker_group_stop(group, 1000);
    assert_int_equal(chunk_live_count(), 0);
    assert_int_equal(budget_used(), 0);
    return 0;
}

/* ---- visitors, played -------------------------------------------------------------------------------------------- */

static inline void on_opened(void *owner)
{
    ((struct visit *)owner)->opened = true;
}

static inline void on_head(void *owner, struct head *head)
{
    struct visit *v = owner;
    if (head->status < 200 && head->status != 101)
        v->interims++;
    else
        v->heads++;
    head_free(head);
}

static inline void on_data(void *owner, struct chunk *chunk)
{
    struct visit *v = owner;
    v->received += chunk->len;
    if (!v->keeps)
        half_grant(&v->half, chunk->len);
    chunk_free(chunk);
}

static inline void on_credit(void *owner, size_t bytes)
{
    (void)owner;
    (void)bytes;
}

static inline void on_visit_end(void *owner, struct head *trailers)
{
    struct visit *v = owner;
    assert_false(v->ended);
    v->ended = true;
    v->trailers = trailers ? trailers->count : 0;
    head_free(trailers);
}

static inline void on_reset(void *owner, enum close_reason reason, const char *text)
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

static inline struct visit *visit(const char *length, bool upgrade, bool end)
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

static inline void visit_get(struct worker *worker, void *arg)
{
    (void)worker;
    (void)arg;
    visit(NULL, false, true);
}

static inline void visit_post(struct worker *worker, void *arg)
{
    (void)worker;
    visit(arg, false, false);
}

static inline void visit_upgrade(struct worker *worker, void *arg)
{
    (void)worker;
    (void)arg;
    visit(NULL, true, false);
}

/* Sends as much as there is room for, in pieces. */
static inline void upload(struct worker *worker, void *arg)
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

static inline void end_upload(struct worker *worker, void *arg)
{
    (void)worker;
    half_send_end(&((struct visit *)arg)->half, NULL);
}

static inline void leave(struct worker *worker, void *arg)
{
    (void)worker;
    half_close(&((struct visit *)arg)->half, REASON_VISITOR_GONE, NULL);
}

static inline void confirm_reset(struct worker *worker, void *arg)
{
    (void)worker;
    say_reset(*(uint64_t *)arg);
}

#define NEW(name) cmocka_unit_test_setup_teardown(name, start, stop)
#define OLD(name) cmocka_unit_test_setup_teardown(name, start_old, stop)

#endif
