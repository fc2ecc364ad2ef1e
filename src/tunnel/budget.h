/*
 * The process's promise to take bytes: every window granted to an exchange is booked here, so that memory has one bound
 * for all tunnels together. Any thread.
 */
#ifndef KV_TUNNEL_BUDGET_H
#define KV_TUNNEL_BUDGET_H

#include <stdbool.h>
#include <stddef.h>

/* The bound, LIMIT_BUDGET_BYTES unless told. Before other threads start. */
void budget_set(size_t bytes);

/* Books bytes for a new exchange; false when the budget is spent, and then nothing is booked. */
bool budget_take(size_t bytes);
/* Books bytes for the growth of a running one; false already above 80 %. */
bool budget_grow(size_t bytes);
/* Books bytes that are here already, because their sender asks nobody; false when that is over the budget. */
bool budget_charge(size_t bytes);
void budget_give(size_t bytes);

/* Whether it is short: above 80 %. */
bool budget_is_short(void);

/* Bytes booked at the moment. */
size_t budget_used(void);

#endif
