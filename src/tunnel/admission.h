/*
 * Who may have a request in flight in a tunnel. Requests are of two classes, each with a cap: those that are at work,
 * and those that are answered and have been still for a while (event streams, long polls, idle WebSockets), which cost
 * memory and nothing else.
 *
 *     enter ── working ── rest ── still ── wake ── working ── leave
 *
 * Under pressure places are shared out as switches share their buffers (Choudhury and Hahne, Dynamic Queue Length
 * Thresholds, 1998): a visitor may hold at most three times as many places of a class as are free. One alone gets three
 * quarters of them, several get less each, and a newcomer always finds room.
 *
 * One a link; all functions run on its worker. Nothing here takes memory but a few bytes for each visitor who holds a
 * place.
 */
#ifndef KV_TUNNEL_ADMISSION_H
#define KV_TUNNEL_ADMISSION_H

#include <stdbool.h>
#include <stdint.h>

#include "base/reason.h"

enum admission_class {
    ADMISSION_WORKING,
    ADMISSION_STILL,
    ADMISSION_CLASSES
};

struct admission_visitor;

/* Zeroed but for its caps. */
struct admission {
    uint32_t caps[ADMISSION_CLASSES];
    uint32_t held[ADMISSION_CLASSES];
    struct admission_visitor *visitors; /* who hold places, by site */
};

/* A request's place, embedded in it. */
struct admission_place {
    struct admission_visitor *visitor; /* NULL: one that is not counted by visitor */
    enum admission_class class;
    bool held;
};

/* Takes a working place for a visitor of this site (ip_site); 0 stands for those that share with no one: proxies, which
 * speak for many, and the machine itself. REASON_NONE, or why not: REASON_TUNNEL_BUSY, REASON_VISITOR_BUSY when only
 * this visitor has too many, REASON_SERVER_BUSY without memory. */
enum close_reason admission_enter(struct admission *a, struct admission_place *place, uint64_t site);
/* Moves a working place to the still ones. False if there is no room for it, and then nothing has changed. */
bool admission_rest(struct admission *a, struct admission_place *place);
/* The way back, above the cap if need be: what is there goes on. */
void admission_wake(struct admission *a, struct admission_place *place);
/* Legal on one that is not held. */
void admission_leave(struct admission *a, struct admission_place *place);

#endif
