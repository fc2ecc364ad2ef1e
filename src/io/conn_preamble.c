/*
 * The PROXY header in front of an accepted connection. It is kept apart until it is whole, which is at once but for a
 * proxy that is cut in two by the network; then it is gone, and what came behind it goes on to TLS or to the owner.
 */
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "io/conn_impl.h"
#include "io/proxy_protocol.h"

struct conn_preamble {
    size_t len;
    char bytes[LIMIT_PROXY_HEADER_BYTES];
};

void conn_expect_proxy_header(struct conn *conn)
{
    conn->preamble = calloc(1, sizeof(*conn->preamble));
    if (!conn->preamble) {
        conn_fail(conn, KV_ENOMEM, "no memory for a PROXY header");
        return;
    }
    deadline_arm(conn->worker, &conn->deadline, LIMIT_PROXY_HEADER_MS);
}

static void finish(struct conn *c, const struct proxy_header *header)
{
    if (header->has_source)
        conn_remember_peer(c, (const struct sockaddr *)&header->source);
    free(c->preamble);
    c->preamble = NULL;
    if (c->state == CONN_HANDSHAKE)
        deadline_arm(c->worker, &c->deadline, LIMIT_HEAD_MS);
    else
        deadline_cancel(&c->deadline);
}

bool conn_preamble_read(struct conn *c, struct slice *bytes)
{
    struct conn_preamble *p = c->preamble;
    struct proxy_header header;
    size_t before = p->len, room = sizeof(p->bytes) - p->len;
    size_t taken = bytes->len < room ? bytes->len : room;
    memcpy(p->bytes + before, bytes->data, taken);
    p->len += taken;
    ssize_t n = proxy_protocol_parse((struct slice){p->bytes, p->len}, &header);
    if (n < 0) {
        conn_fail(c, KV_EPROTO, header.error);
        return false;
    }
    if (n == 0)
        return false;
    /* It was not whole before these bytes came, so it ends among them. */
    size_t own = (size_t)n - before;
    *bytes = (struct slice){bytes->data + own, bytes->len - own};
    finish(c, &header);
    return true;
}
