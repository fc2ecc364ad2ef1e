/*
 * An exchange is one HTTP request and its answer on the way between two ends: a visitor's connection and a tunnel's
 * link on the server, a link and the local service on the client. It has two halves, one at each end, each owned by one
 * worker and known to the other as an address only; they talk by messages. Neither knows whether the other lives on the
 * same thread.
 *
 *     half A (opens)                                   half B (accepts)
 *       half_open ──────────── OPEN: head ──────────────► half_accept
 *       `opened`  ◄─────────── OPENED: credit ──────────
 *                 ◄─── HEAD, DATA, CREDIT, END, RESET ──►
 *
 * Both directions carry bytes under credit: a half sends only as many as its peer has room for, and the receiver gives
 * room back (half_grant) when the bytes have left its own end. Nothing is ever queued without such room, so a stalled
 * end stalls its own exchange and nothing else.
 *
 * A half that is closed before both directions have ended resets its peer. Messages to a half that is gone vanish; an
 * OPEN or OPENED that finds nobody turns round as a RESET, so no half waits for ever.
 * None of this takes memory.
 */
#ifndef KV_TUNNEL_EXCHANGE_H
#define KV_TUNNEL_EXCHANGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/chunk.h"
#include "base/reason.h"
#include "http/head.h"
#include "io/worker.h"

/* "<session>-<number>", the same in the logs of both programs. */
#define EXCHANGE_ID_LEN     40
/* A visitor's "address:port". */
#define EXCHANGE_REMOTE_LEN 64
/* What went wrong in a few words, for the log of the other side. */
#define EXCHANGE_TEXT_LEN   160

struct half_events {
    /* The other end took the exchange (after half_open): id and credit are set. May be NULL. */
    void (*opened)(void *owner);
    /* A head: the answer's, or an interim (1xx) one before it. Now the callee's. */
    void (*head)(void *owner, struct head *head);
    /* Body bytes, now the callee's, who grants as many back when they have left. */
    void (*data)(void *owner, struct chunk *chunk);
    /* half_credit() grew. */
    void (*credit)(void *owner, size_t bytes);
    /* The peer's direction ended in order; trailers (may be NULL) are now the callee's. */
    void (*end)(void *owner, struct head *trailers);
    /* The other end is gone and nothing more comes: close. */
    void (*reset)(void *owner, enum close_reason reason, const char *text);
};

union first_message;

/* How long the opener is to wait from the request's end to the answer's head. */
struct exchange_clock {
    uint64_t ms;              /* 0: for ever */
    enum close_reason reason; /* whose clock it is */
};

/* Embedded in its owner; zeroed when unused. */
struct half {
    struct receiver receiver;
    struct address peer; /* unset until OPENED */
    const struct half_events *events;
    void *owner;
    struct message *waiting, *waiting_last; /* sent before OPENED */
    union first_message *last_word;         /* what a reset is made of; set from OPENED on */
    struct flush_node failing;              /* tells the owner that memory ran out */
    size_t credit;                          /* bytes that may be sent */
    struct exchange_clock clock;            /* the opener's, from OPENED on */
    bool sent_end, received_end;
    bool was_reset; /* by the peer: no reset goes back */
    char id[EXCHANGE_ID_LEN];
};

/* Writes "<session>-<number>"; longer session ids are cut. */
void exchange_id(char out[EXCHANGE_ID_LEN], struct slice session, uint64_t number);

/* What an OPEN says. */
struct exchange_open {
    struct head *head; /* owned by the message until taken (set to NULL) */
    size_t credit;     /* room of the opener for the answer's body */
    size_t promised; /* room of the accepter that the opener may use before OPENED: a link's peer was told of it in the
                        greeting and does not wait */
    bool end;        /* the request has no body */
    uint64_t visitor_site;       /* whom it counts for (ip_site); 0: for no one in particular */
    uint64_t visitor_connection; /* the same for all exchanges of one connection of one visitor; 0: not known */
    char remote[EXCHANGE_REMOTE_LEN];
    char id[EXCHANGE_ID_LEN]; /* given by the opener, or empty: the accepter names it */
};

/* Starts an exchange with whoever receives at `to`; takes open->head. The worker's thread. 0 or KV_ENOMEM, and then
 * the half is unused and the head still the caller's. */
int half_open(struct half *half, struct worker *worker, struct address to, struct exchange_open *open,
              const struct half_events *events, void *owner);

/* ---- for receivers of OPEN ------------------------------------------------------------------------------------- */

/* The OPEN in a message that came to a receiver for exchanges; NULL, and the message is dropped, if it is none. The
 * message still has to be accepted or refused. */
struct exchange_open *exchange_open_of(struct message *message);

/* Takes the exchange: attaches the half, answers OPENED with `credit` (room for the request's body beyond what was
 * promised) and the clock (all zeros: none), and frees the message; the head has to be taken before. 0 or KV_ENOMEM,
 * and then the exchange was refused.
 */
int half_accept(struct half *half, struct worker *worker, struct message *open, size_t credit,
                struct exchange_clock clock, const struct half_events *events, void *owner);

/* Refuses: the opener gets a reset with this reason. Frees the message. */
void exchange_refuse(struct message *open, enum close_reason reason, const char *text);

/* ---- both ------------------------------------------------------------------------------------------------------ */

/* Bytes that half_send_data may carry now. */
static inline size_t half_credit(const struct half *half)
{
    return half->credit;
}

/* Each takes ownership of what it is given, also on failure. Without memory the exchange is over: the
 * peer gets a reset, the caller KV_ENOMEM, and the owner `reset` at the turn's end if he has not closed by then, so
 * that nobody has to look at what comes back. No-ops on a half that was reset or has ended. */
int half_send_head(struct half *half, struct head *head);
int half_send_data(struct half *half, struct chunk *chunk); /* chunk->len <= half_credit() */
int half_send_end(struct half *half, struct head *trailers);
/* Gives room back. */
int half_grant(struct half *half, size_t bytes);

/* Leaves the exchange: with both directions ended silently, otherwise with a reset. Legal on an unused half. */
void half_close(struct half *half, enum close_reason reason, const char *text);

static inline bool half_is_open(const struct half *half)
{
    return half->receiver.address.worker != NULL;
}

static inline bool half_is_done(const struct half *half)
{
    return half->sent_end && half->received_end;
}

#endif
