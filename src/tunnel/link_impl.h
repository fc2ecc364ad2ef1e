/*
 * The inside of a link, shared by link.c (life, session messages, liveness), link_in.c (from the wire to the halves),
 * link_out.c (from the halves to the wire) and link_legacy.c (peers without credit). Nobody else includes it.
 */
#ifndef KV_TUNNEL_LINK_IMPL_H
#define KV_TUNNEL_LINK_IMPL_H

/* Without memory an element stays outside the table (hh.tbl is NULL) instead of ending the process. */
#define HASH_NONFATAL_OOM             1
/* Ids count up: a multiplication spreads them over the table. */
#define HASH_FUNCTION(key, len, hash) ((hash) = (unsigned)(*(const uint64_t *)(key)*0x9e3779b97f4a7c15u >> 32))
#include <uthash.h>
#include <utlist.h>

#include "base/buffer.h"
#include "base/chunk.h"
#include "grpc/grpc.h"
#include "io/worker.h"
#include "tunnel/admission.h"
#include "tunnel/exchange.h"
#include "tunnel/link.h"

struct link {
    struct receiver receiver; /* OPEN messages (server) */
    struct worker *worker;
    struct h2_stream *stream; /* NULL when it is gone */
    enum wire_side side;
    const struct link_events *events;
    void *owner;
    struct link_terms terms;
    char session[WIRE_SESSION_LEN + 1];
    bool started, draining, ended;
    struct flush_node ending; /* takes the link apart at the end of the turn in which it ended */
    enum close_reason end_reason;
    char end_text[EXCHANGE_TEXT_LEN];

    struct grpc_reader reader;
    struct wire_arena arena;
    struct buffer encoded;

    struct link_exchange *exchanges; /* by id */
    struct link_exchange *ready;     /* with something to send, in turn */
    uint64_t next_id;
    struct admission admission; /* server */
    uint64_t looked_for_still;  /* worker_now() when that was done last; 0: not yet */

    uint64_t heard;        /* worker_now() of the last bytes, whatever they were */
    uint64_t answered;     /* of the last answer to a PING */
    uint64_t acknowledged; /* bytes of ours that had reached the peer's machine at the last look */
    uint64_t moved;        /* of the last look that found some more there, or nothing left to send */
    bool user_timeout;     /* TCP gives up by itself too */
    uint64_t look_at;      /* worker_now() when the next look is due */
    uint64_t ping_sent_at; /* 0: none outstanding */
    uint64_t ping_opaque;
    uint32_t round_trip;
    struct deadline liveness;

    /* A peer without credit (link_legacy.c) */
    size_t open_bodies;      /* requests whose body we have not ended */
    size_t abandoned_bodies; /* of these: the visitor is gone, and ending would look complete */
    size_t coalesce_bytes;   /* reserved for large chunks */
    size_t withheld;         /* stream window not given back: less than a step of it, unless `stall` is armed */
    struct deadline stall;

    struct free_node free;
};

struct link_exchange {
    struct half half; /* closed: the local end is gone, and we wait for the peer to confirm */
    struct link *link;
    uint64_t id;
    UT_hash_handle hh;

    /* to the wire */
    struct link_exchange *prev, *next; /* in link->ready */
    bool is_ready;
    struct chain backlog;
    bool end_wanted;
    struct head *trailers;
    bool breaks; /* to be reset behind the backlog, with the next two */
    enum close_reason break_reason;
    char *break_text;             /* NULL: none, or no memory for it */
    bool out_ended;               /* our last word on this exchange is said */
    struct admission_place place; /* server */
    uint64_t moved_at;            /* worker_now() when it last carried something */
    bool answered;                /* with its final head */
    size_t room;                  /* what the half may have on the way here and in the backlog */
    size_t passed_on;             /* of it: given to the half and not yet sent to the peer */
    size_t peer_room;             /* what the peer can take and the half does not know of yet */

    /* from the wire */
    bool in_ended;     /* the peer's last word is heard */
    unsigned interims; /* 1xx heads heard */
    bool upgraded;     /* a raw stream in both directions */
    size_t window;     /* what the peer may have on the way to us */
    size_t owed;       /* of it: has left here, not given back yet */
    size_t drained;    /* bytes that have left since drained_since */
    uint64_t drained_since;

    /* a peer without credit */
    bool counted_body; /* in link->open_bodies */
    bool known_length; /* of the request's body: a short one is noticed */
    bool abandoned;
    size_t target; /* bytes of the next large chunk */
    size_t held;   /* answer bytes that the visitor has not taken */
    bool moved;    /* some of it was, since the link looked */
    bool due;      /* the backlog is sent though it is short of its target */
    struct deadline trickle;
};

/* True if both sides have this addition. */
static inline bool link_has(const struct link *link, enum wire_feature feature)
{
    return (link->terms.features & feature) != 0;
}

/* ---- link.c ---------------------------------------------------------------------------------------------------- */

/* Ends the link: it is deaf at once, and taken apart and told to the owner at the end of the turn, so that no caller
 * loses the exchange it is working on. */
void link_end(struct link *link, enum close_reason reason, const char *text);
/* Encodes a message into the stream's output. On failure the link is ended, or for a head that cannot be sent
 * (KV_EINVAL, KV_ELIMIT), the error is left to the caller. */
int link_put(struct link *link, const struct wire_message *message);
struct chain *link_outbox(struct link *link);

struct link_exchange *link_find(struct link *link, uint64_t id);
/* A new exchange under this id, booked in the budget. NULL without memory or budget. */
struct link_exchange *link_exchange_new(struct link *link, uint64_t id);
/* Removes an exchange whose both ends have had their last word; its half is closed. */
void link_exchange_remove(struct link_exchange *ex);
void link_exchange_remove_if_done(struct link_exchange *ex);

/* The exchange carried something. */
static inline void link_moved(struct link_exchange *ex)
{
    ex->moved_at = worker_now(ex->link->worker);
    admission_wake(&ex->link->admission, &ex->place);
}

/* ---- link_in.c ------------------------------------------------------------------------------------------------- */

void link_receive(struct link *link, const struct wire_message *m, struct chunk *whole);
/* A decoded head was bad, as wire_decode has it: that exchange alone is reset. */
void link_receive_bad(struct link *link, const struct wire_message *m, int error);

/* ---- link_out.c ------------------------------------------------------------------------------------------------ */

extern const struct half_events link_half_events;
/* An OPEN from a visitor's worker. */
void link_open(struct link *link, struct message *message);
/* Says the last word on an exchange towards the peer: it is aborted. */
void link_send_reset(struct link_exchange *ex, enum close_reason reason, const char *text);
void link_make_ready(struct link_exchange *ex);
/* The peer can take so many more bytes. Returns what the half may be told of that now; the rest is told as bytes leave:
 * a peer with more room than memory here cannot make the backlog grow. */
size_t link_take_room(struct link_exchange *ex, size_t bytes);
/* Lets exchanges take turns until the outbox is full enough. */
void link_fill(struct link *link);

/* ---- link_legacy.c --------------------------------------------------------------------------------------------- */

/* Makes a request's head one whose body such a client passes on. 0 or KV_ENOMEM. */
int link_legacy_adapt(struct exchange_open *open);
/* Room for the request's body to start with. */
size_t link_legacy_open(struct link_exchange *ex, const struct head *head);
void link_legacy_init(struct link_exchange *ex);
void link_legacy_remove(struct link_exchange *ex);
/* True if the backlog is to be sent now. */
bool link_legacy_is_due(struct link_exchange *ex);
/* n bytes of the backlog went out as one message: more may come. */
void link_legacy_sent(struct link_exchange *ex, size_t n);
/* Our direction has ended. */
void link_legacy_ended(struct link_exchange *ex);
/* The visitor is gone before the request was complete; true if a Cancel is to be sent. */
bool link_legacy_abandon(struct link_exchange *ex);
/* Body bytes came from the peer, or left towards the visitor. */
void link_legacy_held(struct link_exchange *ex, size_t n);
void link_legacy_left(struct link_exchange *ex, size_t n);
void link_legacy_stalled(struct deadline *deadline);

#endif
