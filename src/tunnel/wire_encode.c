/*
 * A message on its way out:
 *
 *     wire_encode ── encode_data      wire_data_prefix, the bytes, the suffix
 *                 ├─ encode_head      heads and trailers: judged if nobody has, written straight into the buffer
 *                 └─ make_body        our struct -> protobuf-c's, on the stack
 *                    pack             gRPC prefix and protobuf-c's bytes, straight into the buffer
 *
 * The link itself sends bodies with wire_data_prefix alone and never copies them.
 */
#include <stdint.h>

#include "base/error.h"
#include "grpc/grpc.h"
#include "http/syntax.h"
#include "tunnel/wire_frame.h"

#define SCRATCH_BYTES (4 * 1024) /* Hello and Welcome: a handful of short texts */

/* What a message becomes before it is packed. protobuf-c wants C strings, so text is copied here; bytes are not. Lives
 * on the stack of wire_encode and is never cleared as a whole. */
struct scratch {
    union body body;
    int error; /* the first one */
    size_t used;
    char text[SCRATCH_BYTES];
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

/* Room for a string of this length and its NUL, or NULL: the texts are too long. */
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
    out->response_timeout_ms = message->hello.response_timeout_ms;
    out->no_subdomains = message->hello.no_subdomains;
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
    case WIRE_DATA: /* wire_encode has its own way for these */
    case WIRE_REQUEST_HEAD:
    case WIRE_RESPONSE_HEAD:
    case WIRE_TRAILERS:
        return KV_EINVAL;
    case WIRE_HELLO:
        make_hello(scratch, message);
        break;
    case WIRE_WELCOME:
        make_welcome(scratch, message);
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

/* ---- varints ---------------------------------------------------------------------------------------------------- */

static inline size_t put_varint(char *out, uint64_t value)
{
    size_t n = 0;
    for (; value >= 0x80; value >>= 7)
        out[n++] = (char)(unsigned char)(value | 0x80);
    out[n++] = (char)(unsigned char)value;
    return n;
}

/* Seven bits a byte. */
static inline size_t varint_len(uint64_t value)
{
    return value < 0x80 ? 1 : (size_t)(63 - __builtin_clzll(value)) / 7 + 1;
}

/* ---- heads ------------------------------------------------------------------------------------------------------ */

/* A head as it goes on the wire: `host` among its fields, and the two fields of an upgrade, because a deployed client
 * copies fields to the local service and adds none. */
struct outgoing {
    const struct head *head;
    struct slice remote_addr;
    struct field before[1], behind[2]; /* the head's own fields */
    unsigned before_count, behind_count;
};

static struct field ours(enum field_id id, struct slice value)
{
    return (struct field){field_name(id), value, id};
}

static int assemble(const struct wire_message *message, struct outgoing *out)
{
    const struct head *head = message->kind == WIRE_TRAILERS ? &message->trailers : &message->head.head;
    bool request = message->kind == WIRE_REQUEST_HEAD;
    bool switches = message->kind == WIRE_RESPONSE_HEAD && head->status == 101;
    bool upgrades = ((request && head->protocol.len > 0) || switches) && !head_find_id(head, FIELD_UPGRADE);
    out->head = head;
    out->remote_addr = request ? message->head.remote_addr : (struct slice){0};
    out->before_count = out->behind_count = 0;
    if (upgrades && head->protocol.len == 0)
        return KV_EINVAL; /* a switch to nothing */
    if (request && head->authority.len > 0 && !head_find_id(head, FIELD_HOST))
        out->before[out->before_count++] = ours(FIELD_HOST, head->authority);
    if (upgrades) {
        out->behind[request] = ours(FIELD_UPGRADE, head->protocol);
        out->behind[!request] = ours(FIELD_CONNECTION, SLICE("Upgrade"));
        out->behind_count = 2;
    }
    return 0;
}

static bool judge_ours(const struct outgoing *out)
{
    return (out->before_count == 0 || http_is_field_value(out->before[0].value)) &&
           (out->behind_count == 0 || http_is_field_value(out->head->protocol));
}

/* Bytes of a length-delimited member with its tag; an empty one is left out (proto3). */
static size_t member_len(size_t len)
{
    return len > 0 ? 1 + varint_len(len) + len : 0;
}

static size_t visitor_len(uint64_t connection)
{
    return connection > 0 ? varint_len(TAG_VISITOR) + varint_len(connection) : 0;
}

/* Nearly all fields: every length is one byte, and nothing is left out. */
#define SHORT_TEXT_MAX (0x7f - 4)

static inline bool is_short(const struct field *field)
{
    return field->name.len + field->value.len <= SHORT_TEXT_MAX && field->name.len > 0 && field->value.len > 0;
}

static size_t header_len(const struct field *field)
{
    return member_len(field->name.len) + member_len(field->value.len);
}

/* Bytes of a field as a member of its head. */
static inline size_t field_len(const struct field *field)
{
    if (is_short(field))
        return 2 + 4 + field->name.len + field->value.len;
    size_t header = header_len(field);
    return 1 + varint_len(header) + header;
}

/* What a walk over an outgoing head finds: its size as it will be written, and as the caps count it. */
struct measure {
    size_t len;
    size_t text;
    unsigned fields, hosts;
};

static void measure_fields(const struct field *fields, unsigned count, struct measure *m)
{
    for (unsigned i = 0; i < count; i++) {
        const struct field *field = &fields[i];
        m->len += field_len(field);
        m->text += field->name.len + field->value.len;
        m->hosts += field_id(field) == FIELD_HOST;
    }
    m->fields += count;
}

static struct measure measure(const struct wire_message *message, const struct outgoing *out)
{
    const struct head *head = out->head;
    struct measure m = {.text = head->method.len + head->target.len + out->remote_addr.len};
    measure_fields(head->fields, head->count, &m);
    if (out->before_count > 0 || out->behind_count > 0) {
        measure_fields(out->before, out->before_count, &m);
        measure_fields(out->behind, out->behind_count, &m);
    }
    if (message->kind == WIRE_REQUEST_HEAD)
        m.len += member_len(head->method.len) + member_len(head->target.len) + member_len(out->remote_addr.len) +
                 (head->protocol.len > 0 ? 2 : 0) + visitor_len(message->head.visitor_connection);
    if (message->kind == WIRE_RESPONSE_HEAD)
        m.len += 1 + varint_len(head->status) + (head->status == 101 ? 2 : 0);
    return m;
}

static char *put_member(char *out, char tag, struct slice text)
{
    if (text.len == 0)
        return out;
    *out++ = tag;
    out += put_varint(out, text.len);
    return slice_put(out, text);
}

static char *put_visitor(char *out, uint64_t connection)
{
    if (connection == 0)
        return out;
    out += put_varint(out, TAG_VISITOR);
    return out + put_varint(out, connection);
}

static char *put_flag(char *out, char tag, bool value)
{
    if (!value)
        return out;
    *out++ = tag;
    *out++ = 1;
    return out;
}

static inline char *put_short_header(char *to, char tag, const struct field *field)
{
    to[0] = tag;
    to[1] = (char)(4 + field->name.len + field->value.len);
    to[2] = TAG_NAME;
    to[3] = (char)field->name.len;
    to = slice_put(to + 4, field->name);
    to[0] = TAG_VALUE;
    to[1] = (char)field->value.len;
    return slice_put(to + 2, field->value);
}

static char *put_long_header(char *to, char tag, const struct field *field)
{
    *to++ = tag;
    to += put_varint(to, header_len(field));
    to = put_member(to, TAG_NAME, field->name);
    return put_member(to, TAG_VALUE, field->value);
}

static char *put_headers(char *to, char tag, const struct field *fields, unsigned count, bool lower)
{
    for (unsigned i = 0; i < count; i++) {
        const struct field *field = &fields[i];
        char *end = is_short(field) ? put_short_header(to, tag, field) : put_long_header(to, tag, field);
        if (!lower) {
            size_t behind = member_len(field->value.len);
            slice_lower(field->name, end - behind - field->name.len);
        }
        to = end;
    }
    return to;
}

static char *put_all_headers(char *to, char tag, const struct outgoing *out)
{
    if (out->before_count > 0)
        to = put_headers(to, tag, out->before, out->before_count, true);
    to = put_headers(to, tag, out->head->fields, out->head->count, out->head->lower);
    return out->behind_count > 0 ? put_headers(to, tag, out->behind, out->behind_count, true) : to;
}

static char *put_head(char *to, const struct wire_message *message, const struct outgoing *out)
{
    const struct head *head = out->head;
    switch (message->kind) {
    case WIRE_REQUEST_HEAD:
        to = put_member(to, TAG_METHOD, head->method);
        to = put_member(to, TAG_PATH, head->target);
        to = put_all_headers(to, TAG_FIELD_OF_REQUEST, out);
        to = put_member(to, TAG_REMOTE, out->remote_addr);
        to = put_flag(to, TAG_IS_UPGRADE, head->protocol.len > 0);
        return put_visitor(to, message->head.visitor_connection);
    case WIRE_RESPONSE_HEAD:
        *to++ = TAG_STATUS;
        to += put_varint(to, head->status);
        to = put_all_headers(to, TAG_FIELD_OF_RESPONSE, out);
        return put_flag(to, TAG_UPGRADED, head->status == 101);
    default:
        return put_all_headers(to, TAG_FIELD_OF_TRAILERS, out);
    }
}

static int encode_head(unsigned number, const struct wire_message *message, struct buffer *out)
{
    struct outgoing outgoing;
    int error = assemble(message, &outgoing);
    if (error)
        return error;
    struct measure measured = measure(message, &outgoing);
    if (measured.fields > WIRE_HEAD_FIELDS || measured.text > WIRE_HEAD_BYTES)
        return KV_ELIMIT;
    const struct head *head = outgoing.head;
    if (!judge_ours(&outgoing) || (!head->judged && !wire_check_fields(head)) ||
        !wire_check_first_line(message->kind, head, outgoing.remote_addr, head->judged) ||
        (message->kind == WIRE_REQUEST_HEAD && measured.hosts > 1))
        return KV_EINVAL; /* no peer is to blame for our own head */

    uint64_t tag = number << 3 | 2;
    size_t body = measured.len;
    size_t id = message->request_id > 0 ? 1 + varint_len(message->request_id) : 0;
    size_t size = id + varint_len(tag) + varint_len(body) + body;
    error = buffer_reserve(out, GRPC_PREFIX_LEN + size);
    if (error)
        return error;
    char *to = out->data + out->len;
    grpc_prefix(size, to);
    to += GRPC_PREFIX_LEN;
    if (id > 0) {
        *to++ = TAG_REQUEST_ID;
        to += put_varint(to, message->request_id);
    }
    to += put_varint(to, tag);
    to += put_varint(to, body);
    put_head(to, message, &outgoing);
    out->len += GRPC_PREFIX_LEN + size;
    return 0;
}

/* ---- data ------------------------------------------------------------------------------------------------------- */

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
    if (number == 0)
        return KV_EINVAL;
    if (message->kind == WIRE_REQUEST_HEAD || message->kind == WIRE_RESPONSE_HEAD || message->kind == WIRE_TRAILERS)
        return encode_head(number, message, out);
    int error = make_body(&scratch, message);
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
