/* Content negotiation by media type (RFC 9110, 12.5.1). Any thread. */
#ifndef KV_HTTP_ACCEPT_H
#define KV_HTTP_ACCEPT_H

#include <stddef.h>

#include "base/slice.h"

struct head;

/*
 * The index of the offer ("text/html") that the request's Accept likes best; 0 when it says nothing, or likes none of
 * them: an answer in another form helps more than none.
 *
 * An offer's weight is that of the most specific range that it matches. The highest weight wins; among equals the one
 * that was named more specifically, then the one named first in Accept, then the first offer. All lines of the field
 * count. A range whose weight is malformed does not; other parameters of a range are not looked at.
 */
size_t accept_choose(const struct head *request, const struct slice *offers, size_t count);

#endif
