/* The server's link and its exchanges: whole ones, when one is over, credit, turns, draining. */
#include "tunnel/link_stage.h"

/* ---- whole exchanges --------------------------------------------------------------------------------------------- */

static void answer_whole(struct worker *worker, void *arg)
{
    (void)worker;
    (void)arg;
    say_head(1, 103);
    say_head(1, 200);
    say_data(1, 1000, false);
    struct field field = {.name = SLICE("grpc-status"), .value = SLICE("0")};
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

int main(void)
{
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
