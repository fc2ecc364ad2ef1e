/*
 * What both directions of the wire share: which number of which frame is which kind, what a head may be, and the
 * numbers of reasons. wire_decode.c and wire_encode.c are the directions.
 *
 * Heads are judged on their way in because nobody trusts a peer, and on their way out because a deployed peer answers
 * one string that is no UTF-8 by ending the session with all its exchanges.
 */
#include "tunnel/wire_frame.h"

#include "base/error.h"
#include "http/syntax.h"

#define SIZE(array)  (sizeof(array) / sizeof((array)[0]))

#define SERVER(name) KAVILO__TUNNEL__V1__SERVER_FRAME__KIND_##name
#define CLIENT(name) KAVILO__TUNNEL__V1__CLIENT_FRAME__KIND_##name

/* kinds[side][number of the frame's field]; what is not named is WIRE_UNKNOWN. */
static const uint8_t kinds[2][SERVER(PONG) + 1] = {
    [WIRE_FROM_SERVER] = {[SERVER(WELCOME)] = WIRE_WELCOME,
                          [SERVER(REQUEST_HEAD)] = WIRE_REQUEST_HEAD,
                          [SERVER(DATA)] = WIRE_DATA,
                          [SERVER(CANCEL)] = WIRE_CANCEL,
                          [SERVER(PING)] = WIRE_PING,
                          [SERVER(CREDIT)] = WIRE_CREDIT,
                          [SERVER(TRAILERS)] = WIRE_TRAILERS,
                          [SERVER(RESET)] = WIRE_RESET,
                          [SERVER(DRAIN)] = WIRE_DRAIN,
                          [SERVER(PONG)] = WIRE_PONG},
    [WIRE_FROM_CLIENT] = {[CLIENT(HELLO)] = WIRE_HELLO,
                          [CLIENT(RESPONSE_HEAD)] = WIRE_RESPONSE_HEAD,
                          [CLIENT(DATA)] = WIRE_DATA,
                          [CLIENT(CANCEL)] = WIRE_CANCEL,
                          [CLIENT(PING)] = WIRE_PING,
                          [CLIENT(PONG)] = WIRE_PONG,
                          [CLIENT(ERROR)] = WIRE_ERROR,
                          [CLIENT(CREDIT)] = WIRE_CREDIT,
                          [CLIENT(TRAILERS)] = WIRE_TRAILERS,
                          [CLIENT(RESET)] = WIRE_RESET},
};

enum wire_kind wire_kind_at(enum wire_side side, unsigned number)
{
    return number < SIZE(kinds[side]) ? kinds[side][number] : WIRE_UNKNOWN;
}

unsigned wire_kind_number(enum wire_side side, enum wire_kind kind)
{
    for (unsigned number = 1; number < SIZE(kinds[side]); number++) {
        if (kinds[side][number] == kind && kind != WIRE_UNKNOWN)
            return number;
    }
    return 0;
}

/* ---- heads ----------------------------------------------------------------------------------------------------- */

/* Origin-form, or OPTIONS' asterisk (RFC 9112, 3.2.1 and 3.2.4); the other forms never enter a tunnel. */
static bool is_target_of(struct slice method, struct slice target)
{
    if (target.len > 0 && target.data[0] == '/')
        return true;
    return slice_equals(target, SLICE("*")) && slice_equals(method, SLICE("OPTIONS"));
}

bool wire_check_fields(const struct head *head)
{
    for (uint16_t i = 0; i < head->count; i++)
        if (!http_is_token(head->fields[i].name) || !http_is_field_value(head->fields[i].value))
            return false;
    return true;
}

bool wire_check_first_line(enum wire_kind kind, const struct head *head, struct slice remote_addr, bool judged)
{
    if (kind == WIRE_REQUEST_HEAD)
        return (judged || (http_is_token(head->method) && http_is_target(head->target))) &&
               is_target_of(head->method, head->target) &&
               http_is_visible(remote_addr); /* it goes into fields and logs */
    return kind != WIRE_RESPONSE_HEAD || (head->status >= 100 && head->status <= 999);
}

/* ---- reasons --------------------------------------------------------------------------------------------------- */

/* From 16 on the local service's, from 32 on the visitor's, from 48 on the tunnel's own. The table of docs/PROTOCOL.md;
 * a number keeps its meaning for ever. A client speaks of its service and of itself. What it cannot know, about
 * visitors and the server, it may not say in the server's voice: that is read as a failure of the tunnel. */
static const struct {
    enum close_reason reason;
    uint8_t code;
    uint8_t deployed; /* the nearest that a deployed server knows */
} codes[] = {
    {REASON_ORIGIN_OTHER, 0, 0},
    {REASON_ORIGIN_REFUSED, 1, 1},
    {REASON_ORIGIN_CONNECT_TIMEOUT, 2, 2},
    {REASON_ORIGIN_UNREACHABLE, 16, 1},
    {REASON_ORIGIN_TIMEOUT, 17, 2},
    {REASON_ORIGIN_CLOSED, 18, 0},
    {REASON_ORIGIN_BAD_RESPONSE, 19, 0},
    {REASON_ORIGIN_TLS, 20, 1},
    {REASON_ORIGIN_HEAD_TOO_LARGE, 21, 0},
    {REASON_VISITOR_GONE, 32, 0},
    {REASON_VISITOR_SLOW, 33, 0},
    {REASON_BAD_REQUEST, 34, 0},
    {REASON_HEAD_TOO_LARGE, 35, 0},
    {REASON_BODY_TOO_LARGE, 36, 0},
    {REASON_NO_TUNNEL, 37, 0},
    {REASON_IDLE, 38, 0},
    {REASON_TARGET_TOO_LONG, 39, 0},
    {REASON_RATE_LIMITED, 40, 0},
    {REASON_VISITOR_BUSY, 41, 0},
    {REASON_NOT_IMPLEMENTED, 42, 0},
    {REASON_INTERNAL, 48, 0},
    {REASON_PROTOCOL, 49, 0},
    {REASON_TUNNEL_BUSY, 50, 0},
    {REASON_SERVER_BUSY, 51, 0},
    {REASON_DRAINING, 52, 0},
    {REASON_CLIENT_GONE, 53, 0},
    {REASON_CLIENT_TIMEOUT, 54, 0},
    {REASON_TAKEN_OVER, 55, 0},
    {REASON_REPLACED, 56, 0},
    {REASON_REVOKED, 57, 0},
    {REASON_KICKED, 58, 0},
    {REASON_LOOP, 59, 0},
    {REASON_SERVER_TIMEOUT, 60, 0},
};
_Static_assert(SIZE(codes) == REASON_COUNT - 1, "every reason but REASON_NONE has a number");

uint32_t wire_reason_code(enum close_reason reason, bool detailed)
{
    for (size_t i = 0; i < SIZE(codes); i++) {
        if (codes[i].reason == reason)
            return detailed ? codes[i].code : codes[i].deployed;
    }
    return 0;
}

/* What a client's reason is to the visitor of its tunnel. */
static enum close_reason as_clients(enum close_reason reason)
{
    switch (reason_text(reason)->side) {
    case SIDE_SERVICE:
        return reason;
    case SIDE_TUNNEL:
        return reason == REASON_CLIENT_GONE ? reason : REASON_PROTOCOL;
    case SIDE_SERVER: /* it is short of memory as well, or was stopped */
        return reason == REASON_SERVER_BUSY ? REASON_TUNNEL_BUSY : REASON_PROTOCOL;
    case SIDE_VISITOR: /* a request that it could not pass on */
    case SIDE_NOBODY:
        break;
    }
    return REASON_PROTOCOL;
}

enum close_reason wire_reason_of(enum wire_side side, uint32_t code)
{
    for (size_t i = 0; i < SIZE(codes); i++) {
        if (codes[i].code == code)
            return side == WIRE_FROM_CLIENT ? as_clients(codes[i].reason) : codes[i].reason;
    }
    return REASON_ORIGIN_OTHER;
}
