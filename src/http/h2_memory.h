/*
 * The memory of one nghttp2 session. Made, it holds 26 KiB: itself, a table of streams, a frame buffer of 16 KiB of
 * which the first hundred bytes are all that a session without large heads ever uses, and small things. The large ones
 * lie behind each other in a block of which untouched pages cost nothing (base/sparse.h), the frame buffer last, so
 * that its beginning shares a page with the table: two pages for the three. The small ones, and all that a session asks
 * for later, come from the heap; and so does everything when there is no block, or a sanitizer watches.
 */
#ifndef KV_HTTP_H2_MEMORY_H
#define KV_HTTP_H2_MEMORY_H

#include <stddef.h>

#include <nghttp2/nghttp2.h>

#include "base/sparse.h"

struct h2_memory {
    struct sparse_block block;
    size_t used; /* of the block, from its beginning */
};

/* Begins, and describes itself in *mem for nghttp2_session_server_new3 and its like; it must stay where it is. On the
 * session's one thread, as all of these. */
void h2_memory_begin(struct h2_memory *memory, nghttp2_mem *mem);
/* The session is made: what it asks for from here on comes and goes, and is the heap's. */
void h2_memory_settle(struct h2_memory *memory);
/* After the session has been deleted. Zeroed is legal. */
void h2_memory_end(struct h2_memory *memory);

#endif
