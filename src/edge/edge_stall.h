/*
 * When a body that does not move is given up: one rule for both codecs and both directions.
 *
 * Slow is not dead. Credit bounds what a stalled exchange holds, so that it harms nobody while there is memory.
 * Whatever moves is alive, be it a byte; what does not is given up after --stall-timeout if memory is short, and
 * otherwise after LIMIT_STALL_MAX_MS.
 */
#ifndef KV_EDGE_EDGE_STALL_H
#define KV_EDGE_EDGE_STALL_H

#include <stdbool.h>
#include <stdint.h>

#include "io/worker.h"

/* The watch over one direction of an exchange; zeroed but for look.expired, which calls edge_stall_look. On one worker.
 */
struct edge_stall {
    struct deadline look;
    uint64_t moved;    /* at the last look that found something new; UINT64_MAX: not looked yet */
    uint64_t moved_at; /* worker_now() of that */
};

/* Begins to watch, unless it does so already. timeout_ms: --stall-timeout; 0: never. */
void edge_stall_watch(struct worker *worker, struct edge_stall *stall, uint64_t timeout_ms);
/* Ends the watch. Legal when there is none. */
void edge_stall_cancel(struct edge_stall *stall);
/* A look: `moved` is a number that grows with all progress. True when it is time to give up; otherwise the next look is
 * on its way. */
bool edge_stall_look(struct worker *worker, struct edge_stall *stall, uint64_t timeout_ms, uint64_t moved);

/* The rule itself: whether silence of so long is enough, with memory short or not. */
bool edge_stall_is_over(uint64_t silent_ms, uint64_t timeout_ms, bool memory_is_short);

#endif
