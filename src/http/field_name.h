/*
 * The field names that some rule of this program speaks of. A name is told apart once, when its head is read; what
 * comes after (framing, forwarding, writing) compares numbers. Any thread.
 */
#ifndef KV_HTTP_FIELD_NAME_H
#define KV_HTTP_FIELD_NAME_H

#include <stdbool.h>
#include <stdint.h>

#include "base/slice.h"

enum field_id {
    FIELD_UNREAD, /* nobody has looked at the name yet; field_id() of http/head.h does */
    FIELD_PLAIN,  /* no rule speaks of it */

    /* From here to FIELD_FORWARDED one name each. */
    FIELD_HOST,
    FIELD_CONTENT_LENGTH,
    FIELD_COOKIE,
    FIELD_EXPECT,
    FIELD_ACCEPT,
    FIELD_PROXY, /* CGI programs take it for their own setting */
    FIELD_VIA,
    FIELD_CDN_LOOP,

    /* These end at a hop whatever Connection says (RFC 9110, 7.6.1). */
    FIELD_CONNECTION,
    FIELD_KEEP_ALIVE,
    FIELD_PROXY_CONNECTION,
    FIELD_PROXY_AUTHENTICATE,
    FIELD_PROXY_AUTHORIZATION,
    FIELD_TE,
    FIELD_TRANSFER_ENCODING,
    FIELD_UPGRADE,
    FIELD_HTTP2_SETTINGS,

    FIELD_X_FORWARDED_FOR,
    FIELD_X_FORWARDED_PROTO,
    FIELD_X_FORWARDED_HOST,
    FIELD_X_REAL_IP,
    FIELD_FORWARDED,
    FIELD_X_FORWARDED_OTHER, /* x-forwarded-* */

    FIELD_KAVILO,    /* kavilo-*: ours alone */
    FIELD_MODIFIER,  /* any other that may not stand in trailers (RFC 9110, 6.5.1) */
    FIELD_DISGUISED, /* one of the above but FIELD_ACCEPT and FIELD_MODIFIER, spelt with '_': CGI and its heirs cannot
                        tell them apart */

    FIELD_ID_COUNT
};

/* Whether there is one name of this kind and no other: whatever was told to be of it is that text, a token. */
static inline bool field_is_one_name(enum field_id id)
{
    return id >= FIELD_HOST && id <= FIELD_FORWARDED;
}

/* One bit for each of them, for sets. */
static inline uint32_t field_bit(enum field_id id)
{
    return (uint32_t)1 << id;
}

/* What a name is, compared without case. Never FIELD_UNREAD. */
enum field_id field_id_of(struct slice name);

/* The same for a name without capital letters. */
enum field_id field_id_of_lower(struct slice name);

/* The lower-case name of a field that this program writes itself; static text. */
struct slice field_name(enum field_id id);

#endif
