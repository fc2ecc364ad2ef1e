/* The server's link against peers that are broken, hostile or old. */
#include <time.h>

#include "tunnel/link_stage.h"

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
    assert_true(budget_used() >= stage.visits[0].received);      /* what is held here is booked */
    assert_int_equal(stage.visits[1].received, 0);
    step(leave, &stage.visits[0]);
    assert_int_equal(stage.visits[1].received, 1000);
    assert_true(budget_used() <= 4UL * LIMIT_WINDOW_BYTES);
}

static void see_reset(struct worker *worker, void *seen)
{
    (void)worker;
    *(bool *)seen = stage.visits[0].was_reset;
}

/* Without budget nobody waits for a visitor that lags. */
static void a_lagging_visitor_is_let_go_when_memory_is_spent(void **state)
{
    (void)state;
    step(visit_get, NULL);
    step(visit_get, NULL);
    stage.visits[0].keeps = true;
    budget_set(2UL * 1024 * 1024);
    step(flood_answer, NULL);
    const struct timespec tick = {.tv_nsec = 20 * 1000 * 1000};
    bool reset = false;
    for (int i = 0; i < 100 && !reset; i++) { /* 2 s of the 5 for which it would be waited for */
        nanosleep(&tick, NULL);
        step(see_reset, &reset);
    }
    budget_set(LIMIT_BUDGET_BYTES);
    assert_true(reset);
    assert_int_equal(stage.visits[0].reason, REASON_VISITOR_SLOW);
    step(answer_second, NULL);
    assert_int_equal(stage.visits[1].received, 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        NEW(garbage_ends_the_link),
        NEW(an_ending_link_blames_no_visitor),
        NEW(a_bad_head_resets_its_exchange),
        NEW(interim_heads_are_counted),
        OLD(an_old_peer_is_sent_few_large_chunks),
        OLD(a_known_length_is_cancelled),
        OLD(an_unknown_length_stays_open),
        OLD(a_lagging_visitor_who_leaves_holds_nobody),
        OLD(a_lagging_visitor_is_let_go_when_memory_is_spent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
