/* Turns, messages and slots: what arrives where and in which order, and what happens to messages that nobody gets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include "base/error.h"
#include "io/on_worker.h"
#include "io/ring.h"
#include "io/transfer.h"

static struct worker_group *group;

static int start_group(void **state)
{
    (void)state;
    return worker_group_start(2, &group);
}

static int stop_group(void **state)
{
    (void)state;
    worker_group_stop(group, 1000);
    return 0;
}

/* ---- a receiver that writes down what it gets ------------------------------------------------------------------ */

static atomic_int dropped;

struct note {
    struct message message;
    int number;
};

static void drop_note(struct message *message)
{
    atomic_fetch_add(&dropped, 1);
    free(message);
}

static struct message *make_note(int number)
{
    struct note *note = calloc(1, sizeof(*note));
    note->message.drop = drop_note;
    note->number = number;
    return &note->message;
}

#define NOTES_MAX 20000

struct book {
    struct receiver receiver;
    int notes[NOTES_MAX];
    int count;
    int expected; /* `full` is posted at this count */
    bool detach_at_first;
    sem_t full;
};

static void receive_note(struct receiver *receiver, struct message *message)
{
    struct book *book = (struct book *)receiver;
    assert_true(book->count < NOTES_MAX);
    book->notes[book->count++] = ((struct note *)message)->number;
    free(message);
    if (book->detach_at_first)
        receiver_detach(receiver);
    if (book->count == book->expected)
        sem_post(&book->full);
}

static struct book *book_new(void)
{
    struct book *book = calloc(1, sizeof(*book));
    assert_non_null(book);
    book->receiver.receive = receive_note;
    sem_init(&book->full, 0, 0);
    return book;
}

static void attach(struct worker *worker, void *arg)
{
    struct book *book = arg;
    assert_int_equal(receiver_attach(worker, &book->receiver), KV_OK);
}

static void detach(struct worker *worker, void *arg)
{
    (void)worker;
    receiver_detach(&((struct book *)arg)->receiver);
}

/* ---- messages -------------------------------------------------------------------------------------------------- */

static void send_three(struct worker *worker, void *arg)
{
    struct book *book = arg;
    (void)worker;
    for (int i = 1; i <= 3; i++)
        message_send(book->receiver.address, make_note(i));
    assert_int_equal(book->count, 0); /* never from inside a send */
}

static void delivers_in_order_on_one_worker(void **state)
{
    (void)state;
    struct book *book = book_new();
    book->expected = 3;
    on_worker(worker_at(group, 0), attach, book);
    on_worker(worker_at(group, 0), send_three, book);
    assert_true(wait_for(&book->full));
    for (int i = 0; i < 3; i++)
        assert_int_equal(book->notes[i], i + 1);
    on_worker(worker_at(group, 0), detach, book);
    free(book);
}

struct sender {
    struct address to;
    int first, count;
};

static void *send_many(void *arg)
{
    const struct sender *sender = arg;
    for (int i = 0; i < sender->count; i++)
        message_send(sender->to, make_note(sender->first + i));
    return NULL;
}

/* Two foreign threads and a worker send at once: nothing is lost, and each sender's own order is kept. */
static void delivers_from_many_threads(void **state)
{
    (void)state;
    struct book *book = book_new();
    book->expected = 2 * 5000;
    on_worker(worker_at(group, 1), attach, book);
    struct sender senders[2] = {{book->receiver.address, 0, 5000}, {book->receiver.address, 100000, 5000}};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, send_many, &senders[i]), 0);
    assert_true(wait_for(&book->full));
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    int next[2] = {0, 100000};
    for (int i = 0; i < book->count; i++)
        assert_int_equal(book->notes[i], next[book->notes[i] >= 100000]++);
    on_worker(worker_at(group, 1), detach, book);
    free(book);
}

static void nothing(struct worker *worker, void *arg)
{
    (void)worker;
    (void)arg;
}

static void drops_what_comes_too_late(void **state)
{
    (void)state;
    struct book *first = book_new(), *second = book_new();
    on_worker(worker_at(group, 0), attach, first);
    struct address old = first->receiver.address;
    on_worker(worker_at(group, 0), detach, first);
    on_worker(worker_at(group, 0), attach, second);
    assert_int_equal(second->receiver.address.slot, old.slot); /* reused, under another generation */
    assert_false(address_equals(second->receiver.address, old));

    int before = atomic_load(&dropped);
    message_send(old, make_note(1));
    message_send((struct address){0}, make_note(2)); /* nowhere: at once */
    on_worker(worker_at(group, 0), nothing, NULL);
    on_worker(worker_at(group, 0), nothing, NULL);
    assert_int_equal(atomic_load(&dropped) - before, 2);
    assert_int_equal(second->count, 0);
    on_worker(worker_at(group, 0), detach, second);
    on_worker(worker_at(group, 0), detach, second); /* twice is legal */
    free(first);
    free(second);
}

static void a_receiver_may_detach_itself(void **state)
{
    (void)state;
    struct book *book = book_new();
    book->detach_at_first = true;
    on_worker(worker_at(group, 0), attach, book);
    int before = atomic_load(&dropped);
    on_worker(worker_at(group, 0), send_three, book);
    on_worker(worker_at(group, 0), nothing, NULL);
    assert_int_equal(book->count, 1);
    assert_int_equal(atomic_load(&dropped) - before, 2);
    free(book);
}

static void attach_many(struct worker *worker, void *arg)
{
    (void)arg;
    enum {
        MANY = 1000
    };
    struct receiver *receivers = calloc(MANY, sizeof(*receivers));
    for (int i = 0; i < MANY; i++)
        assert_int_equal(receiver_attach(worker, &receivers[i]), KV_OK);
    for (int i = 0; i < MANY; i++)
        for (int j = i - 1; j >= 0 && j > i - 3; j--)
            assert_int_not_equal(receivers[i].address.slot, receivers[j].address.slot);
    for (int i = 0; i < MANY; i++)
        receiver_detach(&receivers[i]);
    free(receivers);
}

static void slots_grow(void **state)
{
    (void)state;
    on_worker(worker_at(group, 0), attach_many, NULL);
}

/* ---- flushes and frees ----------------------------------------------------------------------------------------- */

struct step {
    struct flush_node flush;
    struct free_node free;
    struct worker *worker;
    struct step *flush_next, *free_next;
    struct address message_to;
    int *log, *count;
    int id;
};

static void flush_step(struct flush_node *node)
{
    struct step *step = (struct step *)node;
    step->log[(*step->count)++] = step->id;
    if (step->flush_next)
        worker_flush_later(step->worker, &step->flush_next->flush);
    if (step->message_to.worker)
        message_send(step->message_to, make_note(1));
    worker_free_later(step->worker, &step->free);
}

static void free_step(struct free_node *node)
{
    struct step *step = (struct step *)((char *)node - offsetof(struct step, free));
    step->log[(*step->count)++] = 100 + step->id;
}

struct turn {
    struct step steps[4];
    int log[16], count;
};

static void queue_steps(struct worker *worker, void *arg)
{
    struct turn *turn = arg;
    for (int i = 0; i < 4; i++) {
        turn->steps[i] = (struct step){.flush.flush = flush_step,
                                       .free.free = free_step,
                                       .worker = worker,
                                       .log = turn->log,
                                       .count = &turn->count,
                                       .id = i};
    }
    turn->steps[0].flush_next = &turn->steps[3];
    worker_flush_later(worker, &turn->steps[0].flush);
    worker_flush_later(worker, &turn->steps[1].flush);
    worker_flush_later(worker, &turn->steps[0].flush); /* asking twice is asking once */
    worker_flush_later(worker, &turn->steps[2].flush);
    worker_flush_cancel(worker, &turn->steps[2].flush); /* the tail */
    worker_flush_cancel(worker, &turn->steps[2].flush);
    assert_int_equal(turn->count, 0);
}

/* Flushes run in the order they were asked for, those asked for by flushes too; frees only after the last of them. */
static void frees_after_the_last_flush(void **state)
{
    (void)state;
    struct turn turn = {0};
    on_worker(worker_at(group, 0), queue_steps, &turn);
    on_worker(worker_at(group, 0), nothing, NULL);
    assert_int_equal(turn.count, 6);
    assert_int_equal(turn.log[0], 0);
    assert_int_equal(turn.log[1], 1);
    assert_int_equal(turn.log[2], 3);
    for (int i = 3; i < 6; i++)
        assert_true(turn.log[i] >= 100);
}

/* A message sent by a flush is received in the same turn. */
struct late_send {
    struct turn turn;
    struct book *book;
};

static void queue_sender(struct worker *worker, void *arg)
{
    struct late_send *late = arg;
    late->turn.steps[0] = (struct step){.flush.flush = flush_step,
                                        .free.free = free_step,
                                        .worker = worker,
                                        .log = late->turn.log,
                                        .count = &late->turn.count,
                                        .message_to = late->book->receiver.address};
    worker_flush_later(worker, &late->turn.steps[0].flush);
}

static void flushes_may_send(void **state)
{
    (void)state;
    struct late_send late = {.book = book_new()};
    late.book->expected = 1;
    on_worker(worker_at(group, 0), attach, late.book);
    on_worker(worker_at(group, 0), queue_sender, &late);
    assert_true(wait_for(&late.book->full));
    on_worker(worker_at(group, 0), detach, late.book);
    free(late.book);
}

/* ---- the end --------------------------------------------------------------------------------------------------- */

/* Dropped by the end of its receiver's worker, it answers to the other one, which has ended as well. */
struct echo {
    struct message message;
    struct address back;
};

static void drop_echo(struct message *message)
{
    struct echo *echo = (struct echo *)message;
    message_send(echo->back, make_note(9));
    free(echo);
}

static void send_to_the_dead(struct worker_group *dying, unsigned to, unsigned back)
{
    struct echo *echo = calloc(1, sizeof(*echo));
    echo->message.drop = drop_echo;
    echo->back = (struct address){worker_at(dying, back), 7, 7};
    message_send((struct address){worker_at(dying, to), 7, 7}, &echo->message);
}

static void hold_until_told(struct worker *worker, void *arg)
{
    (void)worker;
    wait_for(arg);
}

struct held_task {
    struct task task;
    sem_t *go;
};

static void run_held(struct task *task)
{
    hold_until_told(NULL, ((struct held_task *)task)->go);
}

static void *stop_it(void *arg)
{
    worker_group_stop(arg, 1000);
    return NULL;
}

/* Messages that are in flight when the workers end are dropped, whatever dropping them sends; no thread is woken that
 * is no more. A worker is kept busy so that the messages are still on their way when it is told to stop. */
static void ends_with_messages_in_flight(void **state)
{
    (void)state;
    for (unsigned back = 0; back < 2; back++) {
        struct worker_group *dying;
        sem_t go;
        pthread_t stopper;
        int before = atomic_load(&dropped);
        sem_init(&go, 0, 0);
        assert_int_equal(worker_group_start(2, &dying), KV_OK);
        struct held_task held[2] = {{.task.run = run_held, .go = &go}, {.task.run = run_held, .go = &go}};
        for (unsigned i = 0; i < 2; i++)
            worker_run(worker_at(dying, i), &held[i].task);
        for (unsigned i = 0; i < 100; i++)
            send_to_the_dead(dying, 1 - back, back);
        assert_int_equal(pthread_create(&stopper, NULL, stop_it, dying), 0);
        sem_post(&go);
        sem_post(&go);
        pthread_join(stopper, NULL);
        assert_int_equal(atomic_load(&dropped) - before, 100);
    }
}

static void open_a_timer(struct worker *worker, void *arg)
{
    uv_timer_init(worker_loop(worker), arg);
    uv_timer_start(arg, (uv_timer_cb)abort, 3600 * 1000, 0);
}

/* What somebody left open delays the end for the patience that was given, and is not closed under its owner. */
static void ends_though_something_is_open(void **state)
{
    (void)state;
    static struct worker *kept; /* its memory stays, which is no leak */
    struct worker_group *dying;
    static uv_timer_t timer;
    assert_int_equal(worker_group_start(1, &dying), KV_OK);
    kept = worker_at(dying, 0);
    on_worker(worker_at(dying, 0), open_a_timer, &timer);
    uint64_t before = uv_hrtime();
    worker_group_stop(dying, 100);
    assert_true(uv_hrtime() - before >= 100 * 1000 * 1000UL);
    assert_false(uv_is_closing((uv_handle_t *)&timer));
    assert_non_null(kept);
}

static unsigned receives;

static bool count_receive(struct receive *receive, char *bytes, ssize_t n)
{
    (void)receive;
    (void)bytes;
    (void)n;
    receives++;
    return false;
}

/* The last of them does not wait for the turn's end, and takes the others along. */
static void queue_many_receives(struct worker *worker, void *arg)
{
    (void)arg;
    static struct receive nodes[512];
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    receives = 0;
    for (unsigned i = 0; i < 512; i++) {
        assert_int_equal(receives, 0);
        nodes[i] = (struct receive){.fd = fds[0], .received = count_receive};
        worker_receive_later(worker, &nodes[i]);
    }
    assert_int_equal(receives, 512);
    close(fds[0]);
    close(fds[1]);
}

static void receives_when_very_many_wait(void **state)
{
    (void)state;
    on_worker(worker_at(group, 0), queue_many_receives, NULL);
}

/* ---- bursts ---------------------------------------------------------------------------------------------------- */

#define LONG_TURN (RING_OPS + 6)

static unsigned received_at_flush, received_at_free;

static void note_flush(struct flush_node *node)
{
    (void)node;
    received_at_flush = receives;
}

static void note_free(struct free_node *node)
{
    (void)node;
    received_at_free = receives;
}

static struct flush_node burst_flush = {.flush = note_flush};
static struct free_node burst_free = {.free = note_free};

static bool pass_the_first_on(struct receive *receive, char *bytes, ssize_t n)
{
    if (receives == 0) {
        worker_flush_later(worker_current(), &burst_flush);
        worker_free_later(worker_current(), &burst_free);
    }
    return count_receive(receive, bytes, n);
}

static void queue_a_long_turn(struct worker *worker, void *arg)
{
    static struct receive nodes[LONG_TURN];
    receives = received_at_flush = received_at_free = 0;
    for (unsigned i = 0; i < LONG_TURN; i++) {
        nodes[i] = (struct receive){.fd = *(int *)arg, .received = pass_the_first_on};
        worker_receive_later(worker, &nodes[i]);
    }
}

static void ask_freed(struct worker *worker, void *arg)
{
    (void)worker;
    *(unsigned *)arg = received_at_free;
}

/* The first of many do not wait for the last, and the dead are kept until all have been received from. */
static void passes_on_after_each_burst(void **state)
{
    (void)state;
    int fds[2];
    unsigned freed_after = 0;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    on_worker(worker_at(group, 0), queue_a_long_turn, &fds[0]);
    while (freed_after == 0)
        on_worker(worker_at(group, 0), ask_freed, &freed_after);
    assert_int_equal(received_at_flush, LONG_TURN / 2); /* two bursts alike */
    assert_int_equal(freed_after, LONG_TURN);
    close(fds[0]);
    close(fds[1]);
}

/* ---- giving way ------------------------------------------------------------------------------------------------ */

static struct receive sockets[40];

static void queue_receives(struct worker *worker, void *arg)
{
    for (unsigned i = 0; i < *(unsigned *)arg; i++)
        worker_receive_later(worker, &sockets[i]);
}

static unsigned yields;

static void ask_yields(struct worker *worker, void *arg)
{
    (void)arg;
    yields = worker_yields(worker);
}

/* `many` sockets at once and then a few of them, again and again. */
static void be_busy(struct worker *worker, unsigned many)
{
    for (unsigned i = 0; i < 10; i++)
        on_worker(worker, queue_receives, &many);
    for (unsigned i = 0; i < 20; i++)
        on_worker(worker, queue_receives, &(unsigned){4});
    on_worker(worker, ask_yields, NULL);
}

static void gives_way_between_turns_of_many(void **state)
{
    (void)state;
    struct worker *worker = worker_at(group, 1); /* no other test has sockets there */
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    for (unsigned i = 0; i < 40; i++)
        sockets[i] = (struct receive){.fd = fds[0], .received = count_receive};
    for (unsigned i = 0; i < 100; i++) {
        be_busy(worker, 6);
        assert_int_equal(yields, 0); /* not with so few */
    }
    uint64_t begin = uv_hrtime();
    while (yields == 0 && uv_hrtime() - begin < TEST_PATIENCE_S * 1000000000UL)
        be_busy(worker, 40);
    assert_true(yields > 0);
    close(fds[0]);
    close(fds[1]);
}

static void knows_where_it_is(struct worker *worker, void *arg)
{
    assert_ptr_equal(worker_current(), worker);
    assert_ptr_equal(worker_group_of(worker), group);
    assert_ptr_equal(worker_at(group, worker_index(worker)), worker);
    assert_int_equal(worker_index(worker), *(unsigned *)arg);
}

static void tells_small_facts(void **state)
{
    (void)state;
    assert_int_equal(worker_count(group), 2);
    assert_null(worker_current());
    for (unsigned i = 0; i < 2; i++)
        on_worker(worker_at(group, i), knows_where_it_is, &i);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(receives_when_very_many_wait),
        cmocka_unit_test(passes_on_after_each_burst),
        cmocka_unit_test(gives_way_between_turns_of_many),
        cmocka_unit_test(tells_small_facts),
        cmocka_unit_test(delivers_in_order_on_one_worker),
        cmocka_unit_test(delivers_from_many_threads),
        cmocka_unit_test(drops_what_comes_too_late),
        cmocka_unit_test(a_receiver_may_detach_itself),
        cmocka_unit_test(slots_grow),
        cmocka_unit_test(frees_after_the_last_flush),
        cmocka_unit_test(flushes_may_send),
        cmocka_unit_test(ends_with_messages_in_flight),
        cmocka_unit_test(ends_though_something_is_open),
    };
    return cmocka_run_group_tests(tests, start_group, stop_group);
}
