/* Two halves on two workers: every order in which they can open, end and vanish, and the arithmetic of credit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/error.h"
#include "io/on_worker.h"
#include "tunnel/exchange.h"

static struct worker_group *group;

struct end {
    struct half half;
    unsigned opened, heads, ends, resets;
    size_t bytes, granted;
    bool trailers;
    enum close_reason reason;
    char text[EXCHANGE_TEXT_LEN];
};

static struct pair {
    struct receiver door; /* where OPEN goes */
    struct end near, far;
    unsigned accepted;
    size_t room; /* of the far end */
    bool refuses;
    struct message *kept; /* an OPEN that is decided later */
    bool keeps;
} pair;

/* ---- events ------------------------------------------------------------------------------------------------------ */

static const struct exchange_clock the_clock = {5000, REASON_SERVER_TIMEOUT};

static void on_opened(void *owner)
{
    ((struct end *)owner)->opened++;
}

static void on_head(void *owner, struct head *head)
{
    ((struct end *)owner)->heads++;
    head_free(head);
}

static void on_data(void *owner, struct chunk *chunk)
{
    ((struct end *)owner)->bytes += chunk->len;
    chunk_free(chunk);
}

static void on_credit(void *owner, size_t bytes)
{
    ((struct end *)owner)->granted += bytes;
}

static void on_end(void *owner, struct head *trailers)
{
    struct end *end = owner;
    end->ends++;
    end->trailers = trailers != NULL;
    head_free(trailers);
}

static void on_reset(void *owner, enum close_reason reason, const char *text)
{
    struct end *end = owner;
    end->resets++;
    end->reason = reason;
    memcpy(end->text, text, strlen(text) + 1);
    half_close(&end->half, REASON_NONE, NULL);
}

static const struct half_events events = {
    .opened = on_opened, .head = on_head, .data = on_data, .credit = on_credit, .end = on_end, .reset = on_reset};

static void on_open(struct receiver *receiver, struct message *message)
{
    (void)receiver;
    struct exchange_open *open = exchange_open_of(message);
    assert_non_null(open);
    if (pair.keeps) {
        pair.kept = message;
        return;
    }
    if (pair.refuses) {
        exchange_refuse(message, REASON_TUNNEL_BUSY, "full");
        return;
    }
    pair.accepted++;
    assert_int_equal(half_accept(&pair.far.half, worker_current(), message, pair.room, the_clock, &events, &pair.far),
                     KV_OK);
}

/* ---- steps ------------------------------------------------------------------------------------------------------- */

static void nothing(struct worker *worker, void *arg)
{
    (void)worker;
    (void)arg;
}

/* Until everything sent so far, and what it caused, has arrived. */
static void settle(void)
{
    for (int i = 0; i < 4; i++) {
        on_worker(worker_at(group, 0), nothing, NULL);
        on_worker(worker_at(group, worker_count(group) - 1), nothing, NULL);
    }
}

static void on_near(void (*run)(struct worker *, void *), void *arg)
{
    on_worker(worker_at(group, 0), run, arg);
}

static void on_far(void (*run)(struct worker *, void *), void *arg)
{
    on_worker(worker_at(group, worker_count(group) - 1), run, arg);
}

static void open_door(struct worker *worker, void *arg)
{
    (void)arg;
    pair.door.receive = on_open;
    assert_int_equal(receiver_attach(worker, &pair.door), KV_OK);
}

static void close_door(struct worker *worker, void *arg)
{
    (void)worker;
    (void)arg;
    receiver_detach(&pair.door);
}

static struct address door_address;

static void open_exchange(struct worker *worker, void *arg)
{
    struct exchange_open open = {.head = head_new(1, 16), .credit = 100, .end = arg != NULL, .id = "x-1"};
    assert_int_equal(half_open(&pair.near.half, worker, door_address, &open, &events, &pair.near), KV_OK);
}

static void send_all(struct worker *worker, void *arg)
{
    struct end *end = arg;
    (void)worker;
    assert_int_equal(half_send_head(&end->half, head_new(1, 16)), KV_OK);
    size_t n = half_credit(&end->half);
    if (n > 0)
        assert_int_equal(half_send_data(&end->half, chunk_copy("0123456789012345678901234567890123456789", n % 40)),
                         KV_OK);
    assert_int_equal(half_send_end(&end->half, head_new(1, 16)), KV_OK);
    /* After the end nothing more goes out, and nothing leaks. */
    assert_int_equal(half_send_data(&end->half, chunk_copy("x", 1)), KV_OK);
    assert_int_equal(half_send_end(&end->half, NULL), KV_OK);
}

static void grant_seven(struct worker *worker, void *arg)
{
    (void)worker;
    assert_int_equal(half_grant(&((struct end *)arg)->half, 7), KV_OK);
    assert_int_equal(half_grant(&((struct end *)arg)->half, 0), KV_OK);
}

static void leave(struct worker *worker, void *arg)
{
    (void)worker;
    half_close(&((struct end *)arg)->half, REASON_VISITOR_SLOW, "why not");
    half_close(&((struct end *)arg)->half, REASON_VISITOR_SLOW, "twice is legal");
}

static int start(void **state)
{
    memset(&pair, 0, sizeof(pair));
    pair.room = 50;
    assert_int_equal(worker_group_start(*(unsigned *)*state, &group), KV_OK);
    on_far(open_door, NULL);
    door_address = pair.door.address;
    return 0;
}

static int stop(void **state)
{
    (void)state;
    on_near(leave, &pair.near);
    on_far(leave, &pair.far);
    on_far(close_door, NULL);
    worker_group_stop(group, 1000);
    return chunk_live_count() == 0 ? 0 : -1;
}

/* ---- tests ------------------------------------------------------------------------------------------------------- */

static void carries_both_ways(void **state)
{
    (void)state;
    on_near(open_exchange, NULL);
    settle();
    assert_int_equal(pair.near.opened, 1);
    assert_int_equal(half_credit(&pair.near.half), 50);
    assert_int_equal(pair.near.half.clock.ms, the_clock.ms);
    assert_int_equal(pair.near.half.clock.reason, the_clock.reason);
    assert_int_equal(half_credit(&pair.far.half), 100);
    assert_string_equal(pair.near.half.id, "x-1");
    on_near(send_all, &pair.near);
    on_far(send_all, &pair.far);
    settle();
    assert_int_equal(pair.far.heads + pair.near.heads, 2);
    assert_int_equal(pair.far.bytes, 10);
    assert_int_equal(pair.near.bytes, 20);
    assert_int_equal(half_credit(&pair.near.half), 40);
    assert_int_equal(half_credit(&pair.far.half), 80);
    assert_true(pair.near.trailers && pair.far.trailers);
    assert_true(half_is_done(&pair.near.half) && half_is_done(&pair.far.half));
    on_near(leave, &pair.near); /* silently */
    settle();
    assert_int_equal(pair.far.resets, 0);
}

static void open_and_send(struct worker *worker, void *arg)
{
    (void)arg;
    open_exchange(worker, NULL);
    grant_seven(worker, &pair.near);
    send_all(worker, &pair.near);
}

/* What is said before OPENED waits for the address, in its order. */
static void speaks_before_it_is_opened(void **state)
{
    (void)state;
    on_near(open_and_send, NULL);
    settle();
    assert_int_equal(pair.far.granted, 7);
    assert_int_equal(half_credit(&pair.far.half), 107);
    assert_int_equal(pair.far.heads, 1);
    assert_int_equal(pair.far.ends, 1);
    assert_int_equal(pair.far.bytes, 0); /* there was no room yet */
}

static void grants_add_up(void **state)
{
    (void)state;
    on_near(open_exchange, NULL);
    settle();
    on_far(grant_seven, &pair.far);
    settle();
    assert_int_equal(pair.near.granted, 7);
    assert_int_equal(half_credit(&pair.near.half), 57);
    on_near(send_all, &pair.near);
    settle();
    on_far(grant_seven, &pair.far); /* nobody needs it any more */
    settle();
    assert_int_equal(pair.near.granted, 7);
}

static void resets_the_other(void **state)
{
    (void)state;
    on_near(open_exchange, NULL);
    settle();
    on_far(leave, &pair.far);
    settle();
    assert_int_equal(pair.near.resets, 1);
    assert_int_equal(pair.near.reason, REASON_VISITOR_SLOW);
    assert_string_equal(pair.near.text, "why not");
    on_near(send_all, &pair.near); /* no-ops */
    settle();
    assert_int_equal(pair.far.resets, 0);
}

static void both_leave_at_once(void **state)
{
    (void)state;
    on_near(open_exchange, NULL);
    settle();
    on_near(leave, &pair.near);
    on_far(leave, &pair.far);
    settle();
    assert_true(pair.near.resets + pair.far.resets <= 1); /* whoever was first */
}

static void refusals_reach_the_opener(void **state)
{
    (void)state;
    pair.refuses = true;
    on_near(open_and_send, NULL);
    settle();
    assert_int_equal(pair.near.opened, 0);
    assert_int_equal(pair.near.resets, 1);
    assert_int_equal(pair.near.reason, REASON_TUNNEL_BUSY);
}

/* An OPEN that finds nobody turns round. */
static void nobody_at_the_door(void **state)
{
    (void)state;
    on_far(close_door, NULL);
    on_near(open_exchange, NULL);
    settle();
    assert_int_equal(pair.near.resets, 1);
    assert_int_equal(pair.near.reason, REASON_NO_TUNNEL);
    on_far(open_door, NULL);
    pair.near = (struct end){0};
    door_address = (struct address){0};
    on_near(open_exchange, NULL);
    settle();
    assert_int_equal(pair.near.reason, REASON_NO_TUNNEL);
}

static void accept_kept(struct worker *worker, void *arg)
{
    (void)worker;
    (void)arg;
    pair.keeps = false;
    on_open(&pair.door, pair.kept);
}

/* The opener leaves before it is answered: its OPENED turns round. */
static void left_before_it_was_opened(void **state)
{
    (void)state;
    pair.keeps = true;
    on_near(open_and_send, NULL);
    settle();
    on_near(leave, &pair.near);
    on_far(accept_kept, NULL);
    settle();
    assert_int_equal(pair.accepted, 1);
    assert_int_equal(pair.far.resets, 1);
    assert_int_equal(pair.far.reason, REASON_VISITOR_GONE);
    assert_int_equal(pair.near.opened, 0);
}

static void a_request_without_a_body_is_half_done(void **state)
{
    (void)state;
    on_near(open_exchange, &pair);
    settle();
    assert_true(pair.near.half.sent_end && pair.far.half.received_end);
    on_far(send_all, &pair.far);
    settle();
    assert_true(half_is_done(&pair.near.half) && half_is_done(&pair.far.half));
}

int main(void)
{
    static unsigned one = 1, two = 2;
#define BOTH(name)                                                                                                     \
    {#name " (one worker)", name, start, stop, &one},                                                                  \
    {                                                                                                                  \
#name " (two workers)", name, start, stop, &two                                                                \
    }
    const struct CMUnitTest tests[] = {
        BOTH(carries_both_ways),  BOTH(speaks_before_it_is_opened), BOTH(grants_add_up),
        BOTH(resets_the_other),   BOTH(both_leave_at_once),         BOTH(refusals_reach_the_opener),
        BOTH(nobody_at_the_door), BOTH(left_before_it_was_opened),  BOTH(a_request_without_a_body_is_half_done),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
