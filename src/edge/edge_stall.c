/* Looks are taken a few times in each time-out, because memory may become short at any time. */
#include "edge/edge_stall.h"

#include "base/limits.h"
#include "tunnel/budget.h"

#define LOOKS 4 /* in a time-out */

bool edge_stall_is_over(uint64_t silent_ms, uint64_t timeout_ms, bool memory_is_short)
{
    if (timeout_ms == 0 || silent_ms < timeout_ms)
        return false;
    return memory_is_short || silent_ms >= LIMIT_STALL_MAX_MS;
}

static void look_later(struct worker *worker, struct edge_stall *stall, uint64_t timeout_ms)
{
    deadline_arm(worker, &stall->look, timeout_ms / LOOKS + 1);
}

void edge_stall_watch(struct worker *worker, struct edge_stall *stall, uint64_t timeout_ms)
{
    if (deadline_armed(&stall->look) || timeout_ms == 0)
        return;
    stall->moved = UINT64_MAX;
    look_later(worker, stall, timeout_ms);
}

void edge_stall_cancel(struct edge_stall *stall)
{
    deadline_cancel(&stall->look);
}

bool edge_stall_look(struct worker *worker, struct edge_stall *stall, uint64_t timeout_ms, uint64_t moved)
{
    uint64_t now = worker_now(worker);
    if (moved != stall->moved) {
        stall->moved = moved;
        stall->moved_at = now;
    } else if (edge_stall_is_over(now - stall->moved_at, timeout_ms, budget_is_short())) {
        return true;
    }
    look_later(worker, stall, timeout_ms);
    return false;
}
