/*
 * What the two directions of the wire share, for wire.c, wire_decode.c and wire_encode.c alone: protobuf-c's structs
 * under short names, the numbers of the frames and the rules for heads.
 */
#ifndef KV_TUNNEL_WIRE_FRAME_H
#define KV_TUNNEL_WIRE_FRAME_H

#include "tunnel.pb-c.h"
#include "tunnel/wire.h"

/* The generated names without their package. */
typedef Kavilo__Tunnel__V1__ServerFrame ServerFrame;
typedef Kavilo__Tunnel__V1__ClientFrame ClientFrame;
typedef Kavilo__Tunnel__V1__Header Header;

/* Everything a frame can carry. `base` is the first member of each of them. */
union body {
    ProtobufCMessage base;
    Kavilo__Tunnel__V1__Hello hello;
    Kavilo__Tunnel__V1__Welcome welcome;
    Kavilo__Tunnel__V1__RequestHead request_head;
    Kavilo__Tunnel__V1__ResponseHead response_head;
    Kavilo__Tunnel__V1__DataChunk data;
    Kavilo__Tunnel__V1__Cancel cancel;
    Kavilo__Tunnel__V1__Ping ping;
    Kavilo__Tunnel__V1__Pong pong;
    Kavilo__Tunnel__V1__Error error;
    Kavilo__Tunnel__V1__Credit credit;
    Kavilo__Tunnel__V1__Trailers trailers;
    Kavilo__Tunnel__V1__Reset reset;
    Kavilo__Tunnel__V1__Drain drain;
};

/* The kind behind a field number of this side's frame; WIRE_UNKNOWN for a number that it does not have. */
enum wire_kind wire_kind_at(enum wire_side side, unsigned number);

/* The field number of a kind in this side's frame; 0 for a kind that the side does not send. */
unsigned wire_kind_number(enum wire_side side, enum wire_kind kind);

/* Whether every name is a token and every value a field value. */
bool wire_check_fields(const struct head *head);

/* Whether what stands outside the fields is sound: a request's method, target and visitor's address, an answer's
 * status. With `judged`, the characters of method and target are known to be. */
bool wire_check_first_line(enum wire_kind kind, const struct head *head, struct slice remote_addr, bool judged);

/* Tags: field number << 3 | wire type (0 varint, 2 length-delimited). */
#define TAG_REQUEST_ID        (1 << 3 | 0)
#define TAG_DATA              (4 << 3 | 2) /* of both frames */
#define TAG_BYTES             (1 << 3 | 2) /* of a DataChunk */
#define TAG_END_STREAM        (2 << 3 | 0)

#define TAG_HEAD              (3 << 3 | 2) /* the RequestHead of a ServerFrame, the ResponseHead of a ClientFrame */
#define TAG_METHOD            (1 << 3 | 2)
#define TAG_PATH              (2 << 3 | 2)
#define TAG_FIELD_OF_REQUEST  (3 << 3 | 2)
#define TAG_REMOTE            (4 << 3 | 2)
#define TAG_IS_UPGRADE        (5 << 3 | 0)
#define TAG_VISITOR           (19 << 3 | 0) /* two bytes as a varint */
#define TAG_STATUS            (1 << 3 | 0)
#define TAG_FIELD_OF_RESPONSE (2 << 3 | 2)
#define TAG_UPGRADED          (3 << 3 | 0)
#define TAG_FIELD_OF_TRAILERS (1 << 3 | 2)
#define TAG_NAME              (1 << 3 | 2) /* of a Header */
#define TAG_VALUE             (2 << 3 | 2)

#endif
