/*
 * A message on its way out:
 *
 *     wire_encode ── encode_data      wire_data_prefix, the bytes, the suffix
 *                 └─ make_body        our struct -> protobuf-c's, on the stack; wire_check_head judges heads
 *                    pack             gRPC prefix and protobuf-c's bytes, straight into the buffer
 *
 * The link itself sends bodies with wire_data_prefix alone and never copies them.
 */
#include <stdint.h>

#include "base/error.h"
#include "grpc/grpc.h"
#include "tunnel/wire_frame.h"

/* What a message becomes before it is packed. protobuf-c wants C strings, so text is copied here; bytes are not. Lives
 * on the stack of wire_encode and is never cleared as a whole. */
struct scratch {
    union body body;
    int error; /* the first one */
    struct field fields[WIRE_HEAD_FIELDS];
    Header headers[WIRE_HEAD_FIELDS];
    Header *header_list[WIRE_HEAD_FIELDS];
    size_t used;
    char text[WIRE_HEAD_BYTES + WIRE_HEAD_FIELDS + 8]; /* a head at its caps, with a NUL after each string */
};

/* UTF-8 as of RFC 3629, without NUL. */
static bool is_text(struct slice s)
{
    static const uint32_t smallest[] = {0, 0x80, 0x800, 0x10000};
    for (size_t i = 0; i < s.len;) {
        unsigned char lead = (unsigned char)s.data[i++];
        if (lead > 0 && lead < 0x80)
            continue;
        size_t more = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : 1;
        if (lead < 0xc2 || lead > 0xf4 || s.len - i < more)
            return false;
        uint32_t code = lead & (0x3fu >> more);
        for (size_t end = i + more; i < end; i++) {
            if (((unsigned char)s.data[i] & 0xc0) != 0x80)
                return false;
            code = code << 6 | ((unsigned char)s.data[i] & 0x3f);
        }
        if (code < smallest[more] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
            return false;
    }
    return true;
}

/* Room for a string of this length and its NUL, or NULL: the head is over its caps. */
static char *scratch_room(struct scratch *scratch, size_t len)
{
    char *room = scratch->text + scratch->used;
    if (len >= sizeof scratch->text - scratch->used) {
        if (!scratch->error)
            scratch->error = KV_ELIMIT;
        return NULL;
    }
    scratch->used += len + 1;
    room[len] = '\0';
    return room;
}

/* A copy of s; after a failure an empty one, so that callers need not look each time. */
static char *scratch_text(struct scratch *scratch, struct slice s)
{
    if (!is_text(s)) {
        if (!scratch->error)
            scratch->error = KV_EINVAL;
        s.len = 0;
    }
    char *copy = scratch_room(scratch, s.len);
    if (!copy)
        return (char *)protobuf_c_empty_string;
    if (s.len > 0)
        memcpy(copy, s.data, s.len);
    return copy;
}

/* A copy of a token in lower case. */
static char *scratch_name(struct scratch *scratch, struct slice s)
{
    char *copy = scratch_room(scratch, s.len);
    if (!copy)
        return (char *)protobuf_c_empty_string;
    for (size_t i = 0; i < s.len; i++)
        copy[i] = wire_lower(s.data[i]);
    return copy;
}

/* Words for the other side's log: cut and made ASCII rather than refused, because an error has to arrive. */
static char *scratch_words(struct scratch *scratch, struct slice s)
{
    char words[WIRE_ERROR_BYTES];
    size_t len = s.len < sizeof words ? s.len : sizeof words;
    for (size_t i = 0; i < len; i++)
        words[i] = s.data[i] >= ' ' && s.data[i] <= '~' ? s.data[i] : '?';
    return scratch_text(scratch, (struct slice){words, len});
}

static ProtobufCBinaryData borrowed_bytes(struct slice s)
{
    return (ProtobufCBinaryData){s.len, (uint8_t *)(uintptr_t)s.data}; /* not written to: packing only reads */
}

/* Appends a field to a head that borrows scratch->fields. */
static void scratch_add(struct scratch *scratch, struct head *head, struct slice name, struct slice value)
{
    if (head_add(head, name, value) != 0 && !scratch->error)
        scratch->error = KV_ELIMIT;
}

/* Judges the head as it will be sent and turns its fields into Headers. */
static void scratch_headers(struct scratch *scratch, enum wire_kind kind, const struct head *head,
                            struct slice remote_addr, Header ***headers, size_t *count)
{
    int error = wire_check_head(kind, head, remote_addr);
    if (error && !scratch->error)
        scratch->error = error == KV_EPROTO ? KV_EINVAL : error; /* no peer is to blame for our own head */
    if (scratch->error)
        return;
    for (uint16_t i = 0; i < head->count; i++) {
        Header *header = &scratch->headers[i];
        kavilo__tunnel__v1__header__init(header);
        header->name = scratch_name(scratch, head->fields[i].name);
        header->value = borrowed_bytes(head->fields[i].value);
        scratch->header_list[i] = header;
    }
    *headers = scratch->header_list;
    *count = head->count;
}

static void make_request(struct scratch *scratch, const struct wire_message *message)
{
    const struct head *from = &message->head.head;
    Kavilo__Tunnel__V1__RequestHead *out = &scratch->body.request_head;
    struct head head;

    head_borrow(&head, scratch->fields, WIRE_HEAD_FIELDS);
    head.method = from->method;
    head.target = from->target;
    head.protocol = from->protocol;
    if (from->authority.len > 0 && !head_find(from, SLICE("host")))
        scratch_add(scratch, &head, SLICE("host"), from->authority);
    for (uint16_t i = 0; i < from->count; i++)
        scratch_add(scratch, &head, from->fields[i].name, from->fields[i].value);
    /* A deployed client copies fields to the local service and adds none: the two of an upgrade have to be there. */
    if (from->protocol.len > 0 && !head_find(from, SLICE("upgrade"))) {
        scratch_add(scratch, &head, SLICE("connection"), SLICE("Upgrade"));
        scratch_add(scratch, &head, SLICE("upgrade"), from->protocol);
    }

    kavilo__tunnel__v1__request_head__init(out);
    scratch_headers(scratch, message->kind, &head, message->head.remote_addr, &out->headers, &out->n_headers);
    out->method = scratch_text(scratch, from->method);
    out->path = scratch_text(scratch, from->target);
    out->remote_addr = scratch_text(scratch, message->head.remote_addr);
    out->is_upgrade = from->protocol.len > 0;
}

static void make_response(struct scratch *scratch, const struct wire_message *message)
{
    const struct head *from = &message->head.head;
    Kavilo__Tunnel__V1__ResponseHead *out = &scratch->body.response_head;
    struct head head;

    head_borrow(&head, scratch->fields, WIRE_HEAD_FIELDS);
    head.status = from->status;
    head.protocol = from->protocol;
    for (uint16_t i = 0; i < from->count; i++)
        scratch_add(scratch, &head, from->fields[i].name, from->fields[i].value);
    if (from->status == 101 && !head_find(from, SLICE("upgrade"))) {
        if (from->protocol.len == 0)
            scratch->error = KV_EINVAL; /* a switch to nothing */
        scratch_add(scratch, &head, SLICE("upgrade"), from->protocol);
        scratch_add(scratch, &head, SLICE("connection"), SLICE("Upgrade"));
    }

    kavilo__tunnel__v1__response_head__init(out);
    scratch_headers(scratch, message->kind, &head, (struct slice){0}, &out->headers, &out->n_headers);
    out->status = from->status;
    out->upgraded = from->status == 101;
}

static void make_trailers(struct scratch *scratch, const struct wire_message *message)
{
    Kavilo__Tunnel__V1__Trailers *out = &scratch->body.trailers;
    kavilo__tunnel__v1__trailers__init(out);
    scratch_headers(scratch, message->kind, &message->trailers, (struct slice){0}, &out->headers, &out->n_headers);
}

static void make_hello(struct scratch *scratch, const struct wire_message *message)
{
    Kavilo__Tunnel__V1__Hello *out = &scratch->body.hello;
    kavilo__tunnel__v1__hello__init(out);
    out->token = scratch_text(scratch, message->hello.token);
    if (message->hello.has_name) {
        out->wanted_case = KAVILO__TUNNEL__V1__HELLO__WANTED_NAME;
        out->name = scratch_text(scratch, message->hello.name);
    }
    out->client_version = scratch_text(scratch, message->hello.client_version);
    out->takeover = message->hello.takeover;
    out->features = message->hello.features;
    out->initial_credit = message->hello.initial_credit;
    out->instance_id = borrowed_bytes(message->hello.instance_id);
}

static void make_welcome(struct scratch *scratch, const struct wire_message *message)
{
    Kavilo__Tunnel__V1__Welcome *out = &scratch->body.welcome;
    kavilo__tunnel__v1__welcome__init(out);
    out->subdomain = scratch_text(scratch, message->welcome.subdomain);
    out->public_url = scratch_text(scratch, message->welcome.public_url);
    out->max_concurrent_requests = message->welcome.max_concurrent;
    out->features = message->welcome.features;
    out->initial_credit = message->welcome.initial_credit;
    out->session_id = scratch_text(scratch, message->welcome.session_id);
    out->server_name = scratch_text(scratch, message->welcome.server_name);
}

/* Fills scratch->body. 0, KV_EINVAL or KV_ELIMIT. */
static int make_body(struct scratch *scratch, const struct wire_message *message)
{
    union body *out = &scratch->body;
    scratch->error = 0;
    scratch->used = 0;
    switch (message->kind) {
    case WIRE_UNKNOWN:
    case WIRE_DATA: /* wire_encode has its own way */
        return KV_EINVAL;
    case WIRE_HELLO:
        make_hello(scratch, message);
        break;
    case WIRE_WELCOME:
        make_welcome(scratch, message);
        break;
    case WIRE_REQUEST_HEAD:
        make_request(scratch, message);
        break;
    case WIRE_RESPONSE_HEAD:
        make_response(scratch, message);
        break;
    case WIRE_TRAILERS:
        make_trailers(scratch, message);
        break;
    case WIRE_CANCEL:
        kavilo__tunnel__v1__cancel__init(&out->cancel);
        out->cancel.reason = message->cancel_reason;
        break;
    case WIRE_PING:
        kavilo__tunnel__v1__ping__init(&out->ping);
        out->ping.nonce = message->nonce;
        break;
    case WIRE_PONG:
        kavilo__tunnel__v1__pong__init(&out->pong);
        out->pong.nonce = message->nonce;
        break;
    case WIRE_CREDIT:
        kavilo__tunnel__v1__credit__init(&out->credit);
        out->credit.bytes = message->credit;
        break;
    case WIRE_ERROR:
        kavilo__tunnel__v1__error__init(&out->error);
        out->error.code = message->error.code;
        out->error.message = scratch_words(scratch, message->error.text);
        break;
    case WIRE_RESET:
        kavilo__tunnel__v1__reset__init(&out->reset);
        out->reset.code = message->error.code;
        out->reset.message = scratch_words(scratch, message->error.text);
        break;
    case WIRE_DRAIN:
        kavilo__tunnel__v1__drain__init(&out->drain);
        out->drain.grace_ms = message->drain_grace_ms;
        break;
    }
    return scratch->error;
}

static int pack(const ProtobufCMessage *frame, struct buffer *out)
{
    size_t size = protobuf_c_message_get_packed_size(frame);
    if (size > LIMIT_MESSAGE_BYTES)
        return KV_ELIMIT;
    int error = buffer_reserve(out, GRPC_PREFIX_LEN + size);
    if (error)
        return error;
    grpc_prefix(size, out->data + out->len);
    protobuf_c_message_pack(frame, (uint8_t *)out->data + out->len + GRPC_PREFIX_LEN);
    out->len += GRPC_PREFIX_LEN + size;
    return 0;
}

static int encode_data(enum wire_side side, const struct wire_message *message, struct buffer *out)
{
    char prefix[WIRE_DATA_PREFIX_LEN], suffix[WIRE_DATA_SUFFIX_LEN];
    size_t suffix_len, len = message->data.bytes.len;
    if (len > LIMIT_MESSAGE_BYTES - WIRE_DATA_PREFIX_LEN)
        return KV_ELIMIT;
    size_t prefix_len =
        wire_data_prefix(side, message->request_id, len, message->data.end, prefix, suffix, &suffix_len);
    int error = buffer_reserve(out, prefix_len + len + suffix_len);
    if (error)
        return error;
    buffer_append(out, prefix, prefix_len);
    buffer_append_slice(out, message->data.bytes);
    return buffer_append(out, suffix, suffix_len);
}

int wire_encode(enum wire_side side, const struct wire_message *message, struct buffer *out)
{
    struct scratch scratch;
    if (message->kind == WIRE_DATA)
        return encode_data(side, message, out);
    unsigned number = wire_kind_number(side, message->kind);
    int error = number > 0 ? make_body(&scratch, message) : KV_EINVAL;
    if (error)
        return error;

    if (side == WIRE_FROM_SERVER) {
        ServerFrame frame;
        kavilo__tunnel__v1__server_frame__init(&frame);
        frame.request_id = message->request_id;
        frame.kind_case = (Kavilo__Tunnel__V1__ServerFrame__KindCase)number;
        frame.data = (void *)&scratch.body;
        return pack(&frame.base, out);
    }
    ClientFrame frame;
    kavilo__tunnel__v1__client_frame__init(&frame);
    frame.request_id = message->request_id;
    frame.kind_case = (Kavilo__Tunnel__V1__ClientFrame__KindCase)number;
    frame.data = (void *)&scratch.body;
    return pack(&frame.base, out);
}

static size_t put_varint(char *out, uint64_t value)
{
    size_t n = 0;
    for (; value >= 0x80; value >>= 7)
        out[n++] = (char)(unsigned char)(value | 0x80);
    out[n++] = (char)(unsigned char)value;
    return n;
}

static size_t varint_len(uint64_t value)
{
    size_t n = 1;
    while (value >>= 7)
        n++;
    return n;
}

size_t wire_data_prefix(enum wire_side side, uint64_t request_id, size_t len, bool end,
                        char prefix[WIRE_DATA_PREFIX_LEN], char suffix[WIRE_DATA_SUFFIX_LEN], size_t *suffix_len)
{
    (void)side; /* `data` has one number in both frames */
    size_t used = GRPC_PREFIX_LEN;
    size_t chunk_len = (len > 0 ? 1 + varint_len(len) + len : 0) + (end ? WIRE_DATA_SUFFIX_LEN : 0);
    if (request_id > 0) {
        prefix[used++] = TAG_REQUEST_ID;
        used += put_varint(prefix + used, request_id);
    }
    prefix[used++] = TAG_DATA;
    used += put_varint(prefix + used, chunk_len);
    grpc_prefix(used - GRPC_PREFIX_LEN + chunk_len, prefix);
    if (len > 0) {
        prefix[used++] = TAG_BYTES;
        used += put_varint(prefix + used, len);
    }
    *suffix_len = end ? WIRE_DATA_SUFFIX_LEN : 0;
    if (end) {
        suffix[0] = TAG_END_STREAM;
        suffix[1] = 1;
    }
    return used;
}
