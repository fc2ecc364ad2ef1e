/* The messages between two halves of an exchange, and what each does to the half that gets it. */
#include "tunnel/exchange.h"

#include <string.h>

#include "base/error.h"
#include "base/pool.h"

enum exchange_kind {
    EXCHANGE_OPEN,
    EXCHANGE_OPENED,
    EXCHANGE_HEAD,
    EXCHANGE_DATA,
    EXCHANGE_CREDIT,
    EXCHANGE_END,
    EXCHANGE_RESET,
};

/* Every message of an exchange starts with this. */
struct exchange_message {
    struct message base;
    enum exchange_kind kind;
    uint16_t size; /* of the message around this */
    union {
        struct head *head;   /* HEAD; END: trailers or NULL */
        struct chunk *chunk; /* DATA */
        size_t credit;       /* CREDIT */
    };
};

struct open_message {
    struct exchange_message exchange;
    struct address from;
    struct exchange_open open;
};

struct opened_message {
    struct exchange_message exchange;
    struct address from;
    size_t credit;
    struct exchange_clock clock;
    char id[EXCHANGE_ID_LEN];
};

struct reset_message {
    struct exchange_message exchange;
    enum close_reason reason;
    char text[EXCHANGE_TEXT_LEN];
};

/* OPEN and OPENED are made with room for a RESET: each half keeps the one that brought it to life, and when it has to
 * reset its peer, perhaps for want of memory, it needs no more. */
union first_message {
    struct exchange_message exchange;
    struct open_message open;
    struct opened_message opened;
    struct reset_message reset;
};

/* ---- making and dropping --------------------------------------------------------------------------------------- */

static void copy_text(char *out, size_t size, const char *text)
{
    size_t len = text ? strnlen(text, size - 1) : 0;
    if (len > 0)
        memcpy(out, text, len);
    out[len] = '\0';
}

/* By hand: every request has one, and printf costs as much as parsing its head. */
void exchange_id(char out[EXCHANGE_ID_LEN], struct slice session, uint64_t number)
{
    char digits[20], *at = digits + sizeof(digits);
    if (session.len > EXCHANGE_ID_LEN - sizeof(digits) - 2)
        session.len = EXCHANGE_ID_LEN - sizeof(digits) - 2;
    do
        *--at = (char)('0' + number % 10);
    while ((number /= 10) > 0);
    out = slice_put(out, session);
    *out++ = '-';
    out = slice_put(out, (struct slice){at, (size_t)(digits + sizeof(digits) - at)});
    *out = '\0';
}

static void release(struct exchange_message *m)
{
    pool_free(m, m->size);
}

static void drop(struct message *message)
{
    struct exchange_message *m = (struct exchange_message *)message;
    if (m->kind == EXCHANGE_HEAD || m->kind == EXCHANGE_END)
        head_free(m->head);
    else if (m->kind == EXCHANGE_DATA)
        chunk_free(m->chunk);
    release(m);
}

/* Not cleared but for this: whoever makes one fills it. */
static void *make(enum exchange_kind kind, size_t size, void (*dropped)(struct message *))
{
    struct exchange_message *m = pool_alloc(size);
    if (!m)
        return NULL;
    *m = (struct exchange_message){.base.drop = dropped, .kind = kind, .size = (uint16_t)size};
    return m;
}

/* Sends `block`, whose content is done with, as a RESET. */
static void send_reset(union first_message *block, struct address to, enum close_reason reason, const char *text)
{
    struct reset_message *m = &block->reset;
    char copy[EXCHANGE_TEXT_LEN]; /* the text may lie in the block */
    copy_text(copy, sizeof(copy), text);
    *m = (struct reset_message){.exchange = {.base.drop = drop, .kind = EXCHANGE_RESET, .size = sizeof(*block)},
                                .reason = reason};
    memcpy(m->text, copy, sizeof(m->text));
    message_send(to, &m->exchange.base);
}

/* Nobody lives at the address any more: whoever opened must not wait. */
static void drop_open(struct message *message)
{
    exchange_refuse(message, REASON_NO_TUNNEL, "the tunnel has just gone");
}

static void drop_opened(struct message *message)
{
    union first_message *m = (union first_message *)message;
    send_reset(m, m->opened.from, REASON_VISITOR_GONE, "the request was given up before it was taken");
}

/* ---- receiving ------------------------------------------------------------------------------------------------- */

/* What was sent before the peer's address was known goes out in its order. */
static void send_waiting(struct half *half)
{
    struct message *m = half->waiting;
    half->waiting = half->waiting_last = NULL;
    while (m) {
        struct message *next = m->next;
        message_send(half->peer, m);
        m = next;
    }
}

static void drop_waiting(struct half *half)
{
    struct message *m = half->waiting;
    half->waiting = half->waiting_last = NULL;
    while (m) {
        struct message *next = m->next;
        m->drop(m);
        m = next;
    }
}

static void on_opened(struct half *half, struct opened_message *m)
{
    if (half->was_reset) { /* memory ran out while nobody could be told */
        send_reset((union first_message *)m, m->from, REASON_INTERNAL, "no memory");
        return;
    }
    half->peer = m->from;
    half->credit += m->credit;
    half->clock = m->clock;
    memcpy(half->id, m->id, sizeof(half->id));
    half->last_word = (union first_message *)m;
    send_waiting(half);
    if (half->events->opened)
        half->events->opened(half->owner);
}

static void receive(struct receiver *receiver, struct message *message)
{
    struct half *half = (struct half *)((char *)receiver - offsetof(struct half, receiver));
    struct exchange_message *m = (struct exchange_message *)message;
    switch (m->kind) {
    case EXCHANGE_OPENED:
        on_opened(half, (struct opened_message *)m);
        return; /* the half keeps it */
    case EXCHANGE_HEAD:
        half->events->head(half->owner, m->head);
        break;
    case EXCHANGE_DATA:
        half->events->data(half->owner, m->chunk);
        break;
    case EXCHANGE_CREDIT:
        half->credit += m->credit;
        half->events->credit(half->owner, m->credit);
        break;
    case EXCHANGE_END:
        half->received_end = true;
        half->events->end(half->owner, m->head);
        break;
    case EXCHANGE_RESET: {
        struct reset_message *r = (struct reset_message *)m;
        half->was_reset = true;
        half->events->reset(half->owner, r->reason, r->text);
        break;
    }
    case EXCHANGE_OPEN: /* sent to a half by mistake: nobody opens an exchange inside another */
        m->base.drop(&m->base);
        return;
    }
    release(m);
}

/* ---- want of memory -------------------------------------------------------------------------------------------- */

/* The stream has a hole now and nothing may pass for complete: the peer is reset at once, the owner at the turn's end,
 * unless it has closed the half by then. */
static int fail_memory(struct half *half)
{
    union first_message *block = half->last_word;
    half->last_word = NULL;
    if (block)
        send_reset(block, half->peer, REASON_INTERNAL, "no memory");
    half->was_reset = true;
    worker_flush_later(half->receiver.address.worker, &half->failing);
    return KV_ENOMEM;
}

static void on_failing(struct flush_node *node)
{
    struct half *half = (struct half *)((char *)node - offsetof(struct half, failing));
    half->events->reset(half->owner, REASON_INTERNAL, "no memory");
}

/* ---- opening --------------------------------------------------------------------------------------------------- */

static int attach(struct half *half, struct worker *worker, const struct half_events *events, void *owner)
{
    *half = (struct half){.receiver.receive = receive, .events = events, .owner = owner, .failing.flush = on_failing};
    return receiver_attach(worker, &half->receiver);
}

int half_open(struct half *half, struct worker *worker, struct address to, struct exchange_open *open,
              const struct half_events *events, void *owner)
{
    struct open_message *m = make(EXCHANGE_OPEN, sizeof(union first_message), drop_open);
    if (!m)
        return KV_ENOMEM;
    int error = attach(half, worker, events, owner);
    if (error) {
        release(&m->exchange);
        return error;
    }
    m->from = half->receiver.address;
    m->open = *open;
    half->sent_end = open->end;
    half->credit = open->promised;
    memcpy(half->id, open->id, sizeof(half->id));
    message_send(to, &m->exchange.base);
    return KV_OK;
}

struct exchange_open *exchange_open_of(struct message *message)
{
    struct open_message *m = (struct open_message *)message;
    if (m->exchange.kind != EXCHANGE_OPEN) {
        message->drop(message);
        return NULL;
    }
    return &m->open;
}

int half_accept(struct half *half, struct worker *worker, struct message *open, size_t credit,
                struct exchange_clock clock, const struct half_events *events, void *owner)
{
    struct open_message *m = (struct open_message *)open;
    struct opened_message *answer = make(EXCHANGE_OPENED, sizeof(union first_message), drop_opened);
    if (!answer || attach(half, worker, events, owner) != KV_OK) {
        if (answer)
            release(&answer->exchange);
        exchange_refuse(open, REASON_INTERNAL, "no memory");
        return KV_ENOMEM;
    }
    half->peer = m->from;
    half->credit = m->open.credit;
    half->received_end = m->open.end;
    memcpy(half->id, m->open.id, sizeof(half->id));
    answer->from = half->receiver.address;
    answer->credit = credit;
    answer->clock = clock;
    memcpy(answer->id, m->open.id, sizeof(answer->id));
    message_send(half->peer, &answer->exchange.base);
    head_free(m->open.head);
    half->last_word = (union first_message *)m;
    return KV_OK;
}

void exchange_refuse(struct message *open, enum close_reason reason, const char *text)
{
    union first_message *m = (union first_message *)open;
    head_free(m->open.open.head);
    send_reset(m, m->open.from, reason, text);
}

/* ---- sending --------------------------------------------------------------------------------------------------- */

static void post(struct half *half, struct message *m)
{
    if (address_is_set(half->peer)) {
        message_send(half->peer, m);
        return;
    }
    m->next = NULL;
    if (half->waiting_last)
        half->waiting_last->next = m;
    else
        half->waiting = m;
    half->waiting_last = m;
}

static bool can_send(const struct half *half)
{
    return half_is_open(half) && !half->was_reset && !half->sent_end;
}

int half_send_head(struct half *half, struct head *head)
{
    if (!can_send(half)) {
        head_free(head);
        return KV_OK;
    }
    struct exchange_message *m = make(EXCHANGE_HEAD, sizeof(*m), drop);
    if (!m) {
        head_free(head);
        return fail_memory(half);
    }
    m->head = head;
    post(half, &m->base);
    return KV_OK;
}

int half_send_data(struct half *half, struct chunk *chunk)
{
    if (!can_send(half) || chunk->len == 0) {
        chunk_free(chunk);
        return KV_OK;
    }
    struct exchange_message *m = make(EXCHANGE_DATA, sizeof(*m), drop);
    if (!m) {
        chunk_free(chunk);
        return fail_memory(half);
    }
    m->chunk = chunk;
    half->credit -= chunk->len;
    post(half, &m->base);
    return KV_OK;
}

int half_send_end(struct half *half, struct head *trailers)
{
    if (!can_send(half)) {
        head_free(trailers);
        return KV_OK;
    }
    struct exchange_message *m = make(EXCHANGE_END, sizeof(*m), drop);
    if (!m) {
        head_free(trailers);
        return fail_memory(half);
    }
    m->head = trailers;
    half->sent_end = true;
    post(half, &m->base);
    return KV_OK;
}

int half_grant(struct half *half, size_t bytes)
{
    if (bytes == 0 || !half_is_open(half) || half->was_reset || half->received_end)
        return KV_OK;
    struct exchange_message *m = make(EXCHANGE_CREDIT, sizeof(*m), drop);
    if (!m)
        return fail_memory(half);
    m->credit = bytes;
    post(half, &m->base);
    return KV_OK;
}

/* Before OPENED there is no address to reset: the OPENED will find nobody and turn round by itself. */
void half_close(struct half *half, enum close_reason reason, const char *text)
{
    if (!half_is_open(half))
        return;
    if (!half_is_done(half) && !half->was_reset && half->last_word)
        send_reset(half->last_word, half->peer, reason, text);
    else if (half->last_word)
        release(&half->last_word->exchange);
    half->last_word = NULL;
    worker_flush_cancel(half->receiver.address.worker, &half->failing);
    drop_waiting(half);
    receiver_detach(&half->receiver);
}
