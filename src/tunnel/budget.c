/* One relaxed counter: a moment's overshoot by as many windows as there are workers does no harm. */
#include "tunnel/budget.h"

#include <stdatomic.h>

#include "base/limits.h"

static atomic_size_t used;
static size_t budget = LIMIT_BUDGET_BYTES;

void budget_set(size_t bytes)
{
    budget = bytes;
}

static bool take_below(size_t bytes, size_t bound)
{
    size_t before = atomic_fetch_add_explicit(&used, bytes, memory_order_relaxed);
    if (before + bytes <= bound)
        return true;
    budget_give(bytes);
    return false;
}

bool budget_take(size_t bytes)
{
    return take_below(bytes, budget);
}

static size_t short_from(void)
{
    return budget / 10 * 8;
}

bool budget_grow(size_t bytes)
{
    return take_below(bytes, short_from());
}

bool budget_is_short(void)
{
    return budget_used() > short_from();
}

bool budget_charge(size_t bytes)
{
    return atomic_fetch_add_explicit(&used, bytes, memory_order_relaxed) + bytes <= budget;
}

void budget_give(size_t bytes)
{
    atomic_fetch_sub_explicit(&used, bytes, memory_order_relaxed);
}

size_t budget_used(void)
{
    return atomic_load_explicit(&used, memory_order_relaxed);
}
