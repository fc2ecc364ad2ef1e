/*
 * The names of tunnels: DNS labels, random names, and what a user may ask for.
 */
#ifndef KV_TUNNEL_NAMES_H
#define KV_TUNNEL_NAMES_H

#include <stdbool.h>

#include "base/limits.h"
#include "base/slice.h"

/* <adjective>-<animal>-<NNNN>, NNNN from 1000 to 9999, from the built-in lists of 24 and 24. Any thread. */
void names_random(char out[LIMIT_LABEL_BYTES + 1]);

#endif
