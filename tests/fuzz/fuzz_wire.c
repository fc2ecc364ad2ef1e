/*
 * The wire under hostile bytes. The first byte says which side sent the rest. Whatever is decoded must agree with what
 * protobuf-c makes of the same bytes; whatever was accepted can be encoded, and is the same after another round.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "base/error.h"
#include "grpc/grpc.h"
#include "http/syntax.h"
#include "tunnel.pb-c.h"
#include "tunnel/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int condition)
{
    if (!condition)
        abort();
}

/* The framing of bodies is read by hand: held against protobuf-c here. Both frames have `data` at one number and one
 * place of the union, so the server's serves for both sides as far as that goes. */
static void check_against_protobuf(enum wire_side side, struct slice bytes, int error, const struct wire_message *got)
{
    const uint8_t *data = (const uint8_t *)bytes.data;
    if (side == WIRE_FROM_SERVER) {
        Kavilo__Tunnel__V1__ServerFrame *frame = kavilo__tunnel__v1__server_frame__unpack(NULL, bytes.len, data);
        require((frame != NULL) == (error == 0 || got->kind != WIRE_UNKNOWN || error == KV_ELIMIT));
        if (frame && error == 0) {
            require(frame->request_id == got->request_id);
            require((frame->kind_case == KAVILO__TUNNEL__V1__SERVER_FRAME__KIND_DATA) == (got->kind == WIRE_DATA));
            if (got->kind == WIRE_DATA) {
                struct slice body = {(const char *)frame->data->data.data, frame->data->data.len};
                require(slice_equals(body, got->data.bytes) && !frame->data->end_stream == !got->data.end);
            }
        }
        kavilo__tunnel__v1__server_frame__free_unpacked(frame, NULL);
        return;
    }
    Kavilo__Tunnel__V1__ClientFrame *frame = kavilo__tunnel__v1__client_frame__unpack(NULL, bytes.len, data);
    require((frame != NULL) == (error == 0 || got->kind != WIRE_UNKNOWN || error == KV_ELIMIT));
    if (frame && error == 0) {
        require(frame->request_id == got->request_id);
        require((frame->kind_case == KAVILO__TUNNEL__V1__CLIENT_FRAME__KIND_DATA) == (got->kind == WIRE_DATA));
        if (got->kind == WIRE_DATA) {
            struct slice body = {(const char *)frame->data->data.data, frame->data->data.len};
            require(slice_equals(body, got->data.bytes) && !frame->data->end_stream == !got->data.end);
        }
    }
    kavilo__tunnel__v1__client_frame__free_unpacked(frame, NULL);
}

static void check_head(const struct head *head)
{
    require(head->count <= WIRE_HEAD_FIELDS);
    for (uint16_t i = 0; i < head->count; i++) {
        struct slice name = head->fields[i].name, value = head->fields[i].value;
        require(name.len > 0);
        for (size_t j = 0; j < name.len; j++)
            require(name.data[j] > ' ' && name.data[j] < 0x7f && !(name.data[j] >= 'A' && name.data[j] <= 'Z'));
        for (size_t j = 0; j < value.len; j++)
            require(value.data[j] != '\r' && value.data[j] != '\n' && value.data[j] != '\0');
    }
}

static int heads_equal(const struct head *a, const struct head *b)
{
    if (!slice_equals(a->method, b->method) || !slice_equals(a->target, b->target) || a->status != b->status ||
        !slice_equals(a->authority, b->authority) || !slice_equals(a->protocol, b->protocol) || a->count != b->count)
        return 0;
    for (uint16_t i = 0; i < a->count; i++) {
        if (!slice_equals(a->fields[i].name, b->fields[i].name) ||
            !slice_equals(a->fields[i].value, b->fields[i].value))
            return 0;
    }
    return 1;
}

/* What the decoder calls judged passes the encoder's own look. */
static void check_judged(const struct head *head)
{
    require(head->judged);
    for (size_t i = 0; i < head->count; i++) {
        require(http_is_token(head->fields[i].name) && http_is_field_value(head->fields[i].value));
        require(field_id(&head->fields[i]) == field_id_of(head->fields[i].name));
        require(!head_lacks(head, head->fields[i].id));
    }
}

/* Encodes an accepted message and decodes it with an arena of its own; the parts of a head that somebody may act on are
 * the same. Text of handshakes need not be UTF-8 on the way in, but has to be on the way out. */
static void check_round(enum wire_side side, const struct wire_message *first)
{
    struct wire_arena arena = {0};
    struct wire_message second;
    struct buffer out = BUFFER_INIT(LIMIT_MESSAGE_BYTES + GRPC_PREFIX_LEN);
    bool has_head =
        first->kind == WIRE_REQUEST_HEAD || first->kind == WIRE_RESPONSE_HEAD || first->kind == WIRE_TRAILERS;
    if (has_head)
        check_judged(first->kind == WIRE_TRAILERS ? &first->trailers : &first->head.head);
    int error = wire_encode(side, first, &out);
    if (error == KV_EINVAL || error == KV_ELIMIT) {
        require(first->kind == WIRE_HELLO || first->kind == WIRE_WELCOME);
        buffer_free(&out);
        return;
    }
    require(error == 0);
    struct slice bytes = {out.data + GRPC_PREFIX_LEN, out.len - GRPC_PREFIX_LEN};
    require(wire_decode(side, bytes, &arena, &second) == 0);
    require(second.kind == first->kind && second.request_id == first->request_id);
    if (first->kind == WIRE_REQUEST_HEAD || first->kind == WIRE_RESPONSE_HEAD)
        require(heads_equal(&first->head.head, &second.head.head) && first->head.is_upgrade == second.head.is_upgrade &&
                first->head.upgraded == second.head.upgraded && first->head.interim == second.head.interim);
    if (first->kind == WIRE_TRAILERS)
        require(heads_equal(&first->trailers, &second.trailers));
    if (first->kind == WIRE_DATA)
        require(slice_equals(first->data.bytes, second.data.bytes) && first->data.end == second.data.end);
    buffer_free(&out);
    wire_arena_free(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    enum wire_side side = data[0] & 1 ? WIRE_FROM_CLIENT : WIRE_FROM_SERVER;
    struct slice bytes = {(const char *)data + 1, size - 1};
    struct wire_arena arena = {0};
    struct wire_message message;

    for (int round = 0; round < 2; round++) { /* the second finds the arena of the first */
        int error = wire_decode(side, bytes, &arena, &message);
        require(error == 0 || error == KV_EPROTO || error == KV_ELIMIT);
        check_against_protobuf(side, bytes, error, &message);
        if (error == 0 && (message.kind == WIRE_REQUEST_HEAD || message.kind == WIRE_RESPONSE_HEAD))
            check_head(&message.head.head);
        if (error == 0 && message.kind == WIRE_TRAILERS)
            check_head(&message.trailers);
        if (error == 0 && message.kind != WIRE_UNKNOWN)
            check_round(side, &message);
    }
    wire_arena_free(&arena);
    return 0;
}
