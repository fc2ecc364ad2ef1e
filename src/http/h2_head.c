/*
 * A header block as it comes in, field by field, until it is a head. It is collected in the session's `incoming`;
 * blocks of one connection never interleave (RFC 9113, 4.3), so one is enough.
 *
 * Browsers split Cookie into as many fields as they like, for HPACK's sake (8.2.3). Crumbs become one field again while
 * they come, in the place of the first, and do not count against the limit of fields.
 */
#include <string.h>

#include "base/error.h"
#include "base/limits.h"
#include "http/h2_impl.h"
#include "http/syntax.h"

/* A block that grows far beyond its limit is no mistake of somebody with many cookies: it is reset, and the rest of it
 * decoded without being looked at. */
#define BOMB_FACTOR 4

static size_t bytes_max(const struct h2_session *s)
{
    return s->server ? LIMIT_HEAD_BYTES : LIMIT_ANSWER_HEAD_BYTES;
}

int h2_head_begin(struct h2_session *s)
{
    h2_head_end(s);
    s->incoming = head_new(s->server ? LIMIT_HEAD_FIELDS : LIMIT_ANSWER_HEAD_FIELDS, bytes_max(s));
    s->incoming_too_large = s->target_too_long = false;
    s->incoming_bytes = 0;
    return s->incoming ? KV_OK : KV_ENOMEM;
}

void h2_head_end(struct h2_session *s)
{
    head_free(s->incoming);
    s->incoming = NULL;
    buffer_free(&s->cookie);
    s->crumbs = 0;
}

static struct slice *pseudo_field(struct head *h, struct slice name)
{
    if (slice_equals(name, SLICE(":method")))
        return &h->method;
    if (slice_equals(name, SLICE(":path")))
        return &h->target;
    if (slice_equals(name, SLICE(":scheme")))
        return &h->scheme;
    if (slice_equals(name, SLICE(":authority")))
        return &h->authority;
    if (slice_equals(name, SLICE(":protocol")))
        return &h->protocol;
    return NULL;
}

static void take_pseudo(struct h2_session *s, struct slice name, struct slice value)
{
    struct head *h = s->incoming;
    struct slice *pseudo = pseudo_field(h, name);
    uint64_t status;
    if (pseudo) {
        s->target_too_long = pseudo == &h->target && value.len > LIMIT_TARGET_BYTES;
        struct slice copy = s->target_too_long ? (struct slice){0} : head_intern(h, value);
        s->incoming_too_large = copy.data == NULL;
        *pseudo = copy;
    } else if (slice_equals(name, SLICE(":status")) && slice_to_u64(value, &status) && status >= 100 && status <= 999) {
        h->status = (uint16_t)status;
    }
}

/* The first crumb stands in the head as any field does; from the second on they are joined beside it. */
static void take_crumb(struct h2_session *s, struct slice value)
{
    const struct field *first = head_find_id(s->incoming, FIELD_COOKIE);
    if (s->crumbs == 1) {
        s->cookie.limit = bytes_max(s);
        s->incoming_too_large = buffer_append_slice(&s->cookie, first->value) != KV_OK;
    }
    if (++s->crumbs > LIMIT_COOKIE_CRUMBS || s->incoming_too_large || buffer_append(&s->cookie, "; ", 2) != KV_OK ||
        buffer_append_slice(&s->cookie, value) != KV_OK)
        s->incoming_too_large = true;
}

bool h2_head_take(struct h2_session *s, struct slice name, struct slice value)
{
    s->incoming_bytes += name.len + value.len;
    if (s->incoming_bytes > BOMB_FACTOR * bytes_max(s))
        return false;
    if (!s->incoming || s->incoming_too_large)
        return true;
    bool crumb = slice_equals(name, SLICE("cookie"));
    if (name.len > 0 && name.data[0] == ':') {
        take_pseudo(s, name, value);
    } else if (crumb && s->crumbs > 0) {
        take_crumb(s, value);
    } else {
        s->crumbs += crumb;
        s->incoming_too_large = head_add(s->incoming, name, value) != KV_OK;
    }
    return true;
}

void h2_head_finish(struct h2_session *s)
{
    struct head *h = s->incoming;
    if (s->cookie.len == 0 || s->incoming_too_large)
        return;
    size_t at = (size_t)(head_find_id(h, FIELD_COOKIE) - h->fields);
    struct slice joined = head_intern(h, buffer_slice(&s->cookie));
    s->incoming_too_large = joined.data == NULL;
    h->fields[at].value = joined;
}

/* ---- what a head has to be ------------------------------------------------------------------------------------- */

/* A request needs its Host where the others look for it; one that disagrees with :authority is refused (RFC 9113,
 * 8.3.1). */
static bool settle_authority(struct head *h)
{
    const struct field *host = head_find_id(h, FIELD_HOST);
    if (host && h->authority.len == 0)
        h->authority = host->value;
    else if (host && !slice_equals_nocase(h->authority, host->value))
        return false;
    head_remove_id(h, FIELD_HOST);
    struct slice name;
    if (!http_split_authority(h->authority, &name))
        return false;
    h->host_len = (uint16_t)name.len;
    return true;
}

bool h2_head_is_request(struct head *h)
{
    bool known_scheme = slice_equals(h->scheme, SLICE("http")) || slice_equals(h->scheme, SLICE("https"));
    bool asterisk = slice_equals(h->target, SLICE("*")) && slice_equals(h->method, SLICE("OPTIONS"));
    return settle_authority(h) && http_is_target(h->target) && http_is_token(h->method) && known_scheme &&
           (h->target.data[0] == '/' || asterisk);
}
