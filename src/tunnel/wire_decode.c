/*
 * A message on its way in:
 *
 *     wire_decode ── read_plain
 *                 │  ├─ read_data        the framing that our own peers write around a body: cut off in place
 *                 │  └─ read_plain_head  a request's or response's head without surprises: read in place
 *                 └─ unpack              anything else: protobuf-c, into the arena
 *                    └─ read_body        protobuf-c's struct -> ours, by kind
 *                       └─ read_head     field lines; `judge` looks at what nobody judged yet
 *
 * The arena is a short list of blocks that grow; nothing in it is freed before the next message. While a link has
 * messages to read it is one block and one table of fields; then the link gives both back.
 */
#include <assert.h>
#include <stdlib.h>

#include "base/blake3.h"
#include "base/error.h"
#include "http/syntax.h"
#include "tunnel/wire_frame.h"

/* ---- the arena ------------------------------------------------------------------------------------------------- */

/* One message in memory: its own bytes once more at most, and what its fields and our structs need around them. Without
 * a cap a message of nothing but empty fields would grow thirtyfold. */
#define ARENA_MESSAGE_BYTES (LIMIT_MESSAGE_BYTES + 256 * 1024)
#define ARENA_FIRST_BYTES   1024
#define ARENA_KEEP_BYTES    (64 * 1024) /* kept between messages at most: a head at its caps fits */

struct wire_block {
    struct wire_block *next;
    size_t used, capacity;
    char bytes[];
};

/* Every piece is preceded by its size: protobuf-c hands out text as C strings, and a NUL in one must not hide what
 * stands behind it. */
struct piece {
    uint64_t size;
    char bytes[];
};

static void *arena_alloc(void *data, size_t size)
{
    struct wire_arena *arena = data;
    size_t need = (sizeof(struct piece) + size + 7) & ~(size_t)7;
    if (size > ARENA_MESSAGE_BYTES || arena->total + need > ARENA_MESSAGE_BYTES) {
        arena->error = KV_ELIMIT;
        return NULL;
    }
    struct wire_block *block = arena->blocks;
    if (!block || block->capacity - block->used < need) {
        size_t capacity = block ? 2 * block->capacity : arena->first > 0 ? arena->first : ARENA_FIRST_BYTES;
        if (capacity < need)
            capacity = need;
        block = malloc(sizeof *block + capacity);
        if (!block) {
            arena->error = KV_ENOMEM;
            return NULL;
        }
        *block = (struct wire_block){.next = arena->blocks, .capacity = capacity};
        arena->blocks = block;
    }
    struct piece *piece = (struct piece *)(void *)(block->bytes + block->used);
    piece->size = size;
    block->used += need;
    arena->total += need;
    return piece->bytes;
}

/* Pieces go with their arena. */
static void arena_ignore_free(void *data, void *pointer)
{
    (void)data;
    (void)pointer;
}

static void free_blocks(struct wire_arena *arena)
{
    struct wire_block *next;
    for (struct wire_block *block = arena->blocks; block; block = next) {
        next = block->next;
        secret_wipe(block->bytes, block->used); /* a Hello's token may be in it */
        free(block);
    }
    arena->blocks = NULL;
}

void wire_arena_free(struct wire_arena *arena)
{
    free_blocks(arena);
    free(arena->fields);
    arena->fields = NULL;
}

/* Makes the field table the head's. 0 or KV_ENOMEM. */
static int lend_fields(struct wire_arena *arena, struct head *head)
{
    if (!arena->fields)
        arena->fields = malloc(WIRE_HEAD_FIELDS * sizeof(*arena->fields));
    if (!arena->fields)
        return KV_ENOMEM;
    head_borrow(head, arena->fields, WIRE_HEAD_FIELDS);
    return KV_OK;
}

/* Forgets the message before. A link that needed several blocks gets one of their common size the next time, so that a
 * run of heads that were read at once allocates once. */
static void arena_reset(struct wire_arena *arena)
{
    struct wire_block *block = arena->blocks;
    if (block && (block->next || block->capacity > ARENA_KEEP_BYTES)) {
        if (arena->first < arena->total)
            arena->first = arena->total < ARENA_KEEP_BYTES ? arena->total : ARENA_KEEP_BYTES;
        free_blocks(arena);
    } else if (block) {
        block->used = 0;
    }
    arena->total = 0;
    arena->error = 0;
}

/* The whole text behind a string that protobuf-c decoded into an arena: it allocates its length and one for the NUL. */
static struct slice arena_text(const char *string)
{
    struct piece piece;
    if (string == protobuf_c_empty_string)
        return (struct slice){0};
    memcpy(&piece, string - sizeof piece, sizeof piece);
    assert(piece.size > 0 && string[piece.size - 1] == '\0');
    return (struct slice){string, piece.size - 1};
}

static struct slice arena_bytes(const ProtobufCBinaryData *bytes)
{
    return (struct slice){(const char *)bytes->data, bytes->len};
}

/* ---- data ------------------------------------------------------------------------------------------------------ */

/* Reads a varint of at most `most` bytes (nine, 63 bits). Its length, or 0 if there is none. */
static size_t long_varint(struct slice in, size_t most, uint64_t *out)
{
    uint64_t value = 0;
    for (size_t i = 0; i < in.len && i < most; i++) {
        unsigned char byte = (unsigned char)in.data[i];
        value |= (uint64_t)(byte & 0x7f) << (7 * i);
        if (byte < 0x80) {
            *out = value;
            return i + 1;
        }
    }
    return 0;
}

/* Takes one from the front of *in. Nearly all of them have one byte, or two. */
static inline bool take_varint(struct slice *in, size_t most, uint64_t *out)
{
    const unsigned char *bytes = (const unsigned char *)in->data;
    uint64_t value;
    size_t len;
    if (in->len > 0 && bytes[0] < 0x80) {
        value = bytes[0];
        len = 1;
    } else if (most >= 2 && in->len >= 2 && bytes[1] < 0x80) {
        value = (bytes[0] & 0x7fu) | (uint64_t)bytes[1] << 7;
        len = 2;
    } else if ((len = long_varint(*in, most, &value)) == 0) {
        return false;
    }
    *in = (struct slice){in->data + len, in->len - len};
    *out = value;
    return true;
}

/* True, and the byte is taken, if the next byte is this tag. */
static inline bool take_tag(struct slice *in, unsigned char tag)
{
    if (in->len == 0 || (unsigned char)in->data[0] != tag)
        return false;
    *in = (struct slice){in->data + 1, in->len - 1};
    return true;
}

/* Varints longer than these are left to protobuf-c, which has its own opinion of them. */
#define ID_BYTES     9
#define LENGTH_BYTES 4

/* Reads a DataChunk behind its tag if it is exactly what wire_data_prefix writes, and leaves the bytes of the body
 * where they are. False for anything else, which may still be one in another order or with more fields. */
static bool read_data(struct slice in, struct wire_message *out)
{
    uint64_t len, end = 0;
    struct slice bytes = {0};
    if (!take_varint(&in, LENGTH_BYTES, &len) || len != in.len)
        return false;
    if (take_tag(&in, TAG_BYTES)) {
        if (!take_varint(&in, LENGTH_BYTES, &len) || len > in.len)
            return false;
        bytes = (struct slice){in.data, (size_t)len};
        in = (struct slice){in.data + bytes.len, in.len - bytes.len};
    }
    if (take_tag(&in, TAG_END_STREAM) && (!take_varint(&in, 1, &end) || end > 1))
        return false;
    if (in.len > 0)
        return false;
    out->kind = WIRE_DATA;
    out->data.bytes = bytes;
    out->data.end = end;
    return true;
}

/* ---- heads ------------------------------------------------------------------------------------------------------ */

static bool is_interim(unsigned status)
{
    return status >= 100 && status < 200 && status != 101;
}

/* Appends a field, and notes what a head has of its own among its fields: the authority and the protocol. */
static inline void push_field(struct head *head, struct slice name, struct slice value, enum field_id id)
{
    head_push(head, name, value, id);
    if (id == FIELD_HOST)
        head->authority = value;
    else if (id == FIELD_UPGRADE && head->protocol.len == 0)
        head->protocol = value;
}

/* Judges a head as it stands on the wire; 0, and nobody behind us has to look again, or what wire_decode says. */
static int judge(enum wire_kind kind, struct head *head, struct slice remote_addr)
{
    size_t text = head->method.len + head->target.len + remote_addr.len;
    unsigned hosts = 0;
    for (uint16_t i = 0; i < head->count; i++) {
        text += head->fields[i].name.len + head->fields[i].value.len;
        hosts += head->fields[i].id == FIELD_HOST;
    }
    if (text > WIRE_HEAD_BYTES)
        return KV_ELIMIT;
    head->judged = head->judged || wire_check_fields(head);
    /* Two hosts are two opinions about where a request goes (RFC 9112, 3.2). */
    bool sound = head->judged && wire_check_first_line(kind, head, remote_addr, false) &&
                 !(kind == WIRE_REQUEST_HEAD && hosts > 1);
    return sound ? 0 : KV_EPROTO;
}

static int finish_request(struct wire_message *out)
{
    struct head *head = &out->head.head;
    if (!out->head.is_upgrade)
        head->protocol = (struct slice){0};
    else if (head->protocol.len == 0)
        return KV_EPROTO;
    return judge(out->kind, head, out->head.remote_addr);
}

static int finish_response(struct wire_message *out, uint64_t status)
{
    struct head *head = &out->head.head;
    head->status = (uint16_t)(status <= 999 ? status : 0);
    out->head.interim = is_interim(head->status);
    /* A 101 that switched nothing, or a switch without a 101 or a protocol, leaves no two ends with one idea. */
    if (out->head.upgraded != (status == 101) || (out->head.upgraded && head->protocol.len == 0))
        return KV_EPROTO;
    if (!out->head.upgraded)
        head->protocol = (struct slice){0};
    return judge(out->kind, head, (struct slice){0});
}

/* A length-delimited value of at most the input's length. */
static inline bool take_bytes(struct slice *in, struct slice *out)
{
    uint64_t len;
    if (!take_varint(in, LENGTH_BYTES, &len) || len > in->len)
        return false;
    *out = (struct slice){in->data, (size_t)len};
    *in = (struct slice){in->data + len, in->len - (size_t)len};
    return true;
}

/* Splits a Header into name and value, each once and in order; a value that is not there is empty. */
static bool split_header(struct slice header, struct slice *name, struct slice *value)
{
    if (!take_tag(&header, TAG_NAME) || !take_bytes(&header, name))
        return false;
    *value = (struct slice){header.data, 0};
    return header.len == 0 || (take_tag(&header, TAG_VALUE) && take_bytes(&header, value) && header.len == 0);
}

/* The same for a Header as most are: all its lengths have one byte, and there is a value. */
static inline bool split_short_header(struct slice header, struct slice *name, struct slice *value)
{
    const char *in = header.data;
    if (header.len < 4 || header.len > 0x7f || in[0] != TAG_NAME)
        return false;
    size_t name_len = (unsigned char)in[1];
    if (name_len > header.len - 4)
        return false;
    *name = (struct slice){in + 2, name_len};
    *value = (struct slice){in + 4 + name_len, header.len - 4 - name_len};
    return in[2 + name_len] == TAG_VALUE && (unsigned char)in[3 + name_len] == value->len;
}

/* Takes the fields that follow a tag that was taken: one behind it, and all behind the same tag right after. Names are
 * in lower case; what is no field at all is left to the slow way, which has the words for it. */
static bool take_fields(struct slice *rest, unsigned char tag, struct head *head)
{
    struct slice in = *rest, header, name, value;
    do {
        if (head->count == WIRE_HEAD_FIELDS || !take_bytes(&in, &header))
            return false;
        if (!split_short_header(header, &name, &value) && !split_header(header, &name, &value))
            return false;
        enum field_id id = field_id_of_lower(name);
        if ((!field_is_one_name(id) && !http_is_lower_token(name)) || !http_is_field_value(value))
            return false;
        push_field(head, name, slice_trim(value), id);
    } while (take_tag(&in, tag));
    *rest = in;
    return true;
}

static bool take_flag(struct slice *in, bool *out)
{
    uint64_t value;
    if (!take_varint(in, 1, &value) || value > 1)
        return false;
    *out = value == 1;
    return true;
}

/* A tag of two bytes. */
static inline bool take_long_tag(struct slice *in, unsigned tag)
{
    if (in->len < 2 || (unsigned char)in->data[0] != (0x80 | (tag & 0x7f)) || (unsigned char)in->data[1] != tag >> 7)
        return false;
    *in = (struct slice){in->data + 2, in->len - 2};
    return true;
}

static bool take_request(struct slice in, struct wire_message *out)
{
    struct head *head = &out->head.head;
    while (in.len > 0) {
        bool taken = take_tag(&in, TAG_FIELD_OF_REQUEST) ? take_fields(&in, TAG_FIELD_OF_REQUEST, head)
                     : take_tag(&in, TAG_METHOD)         ? take_bytes(&in, &head->method)
                     : take_tag(&in, TAG_PATH)           ? take_bytes(&in, &head->target)
                     : take_tag(&in, TAG_REMOTE)         ? take_bytes(&in, &out->head.remote_addr)
                     : take_long_tag(&in, TAG_VISITOR)   ? take_varint(&in, ID_BYTES, &out->head.visitor_connection)
                     : take_tag(&in, TAG_IS_UPGRADE)     ? take_flag(&in, &out->head.is_upgrade)
                                                         : false;
        if (!taken)
            return false;
    }
    return true;
}

static bool take_response(struct slice in, struct wire_message *out, uint64_t *status)
{
    while (in.len > 0) {
        bool taken = take_tag(&in, TAG_FIELD_OF_RESPONSE) ? take_fields(&in, TAG_FIELD_OF_RESPONSE, &out->head.head)
                     : take_tag(&in, TAG_STATUS)          ? take_varint(&in, 2, status)
                     : take_tag(&in, TAG_UPGRADED)        ? take_flag(&in, &out->head.upgraded)
                                                          : false;
        if (!taken)
            return false;
    }
    return true;
}

/* Reads a head of known fields behind its tag, where it lies; its slices borrow from the input. False for anything that
 * is not so plain, and then protobuf-c decides. *error is the judgement on a head that was read. */
static bool read_plain_head(enum wire_side side, struct slice in, struct wire_arena *arena, struct wire_message *out,
                            int *error)
{
    struct slice body;
    uint64_t status = 0;
    if (!take_bytes(&in, &body) || in.len > 0)
        return false;
    out->head.remote_addr = (struct slice){0};
    out->head.visitor_connection = 0;
    out->head.is_upgrade = out->head.upgraded = out->head.interim = false;
    out->kind = side == WIRE_FROM_SERVER ? WIRE_REQUEST_HEAD : WIRE_RESPONSE_HEAD;
    *error = lend_fields(arena, &out->head.head);
    if (*error)
        return true;
    out->head.head.block = body;
    out->head.head.lower = true;
    if (side == WIRE_FROM_SERVER ? !take_request(body, out) : !take_response(body, out, &status))
        return false;
    out->head.head.judged = true; /* its fields; the rest is judged now */
    *error = side == WIRE_FROM_SERVER ? finish_request(out) : finish_response(out, status);
    return true;
}

/* ---- everything else ------------------------------------------------------------------------------------------- */

/* Moves field lines into the arena's field table and finds what else a head has of its own: the authority and, for an
 * upgrade, the protocol. */
static int read_head(Header *const *headers, size_t count, struct wire_arena *arena, struct head *head)
{
    if (count > WIRE_HEAD_FIELDS)
        return KV_ELIMIT;
    int error = lend_fields(arena, head);
    if (error)
        return error;
    for (size_t i = 0; i < count; i++) {
        struct slice name = arena_text(headers[i]->name);
        slice_lower(name, headers[i]->name);
        push_field(head, name, slice_trim(arena_bytes(&headers[i]->value)), field_id_of_lower(name));
    }
    return 0;
}

static int read_request(const Kavilo__Tunnel__V1__RequestHead *in, struct wire_arena *arena, struct wire_message *out)
{
    struct head *head = &out->head.head;
    int error = read_head(in->headers, in->n_headers, arena, head);
    if (error)
        return error;
    head->method = arena_text(in->method);
    head->target = arena_text(in->path);
    out->head.remote_addr = arena_text(in->remote_addr);
    out->head.is_upgrade = in->is_upgrade;
    out->head.visitor_connection = in->visitor_connection;
    return finish_request(out);
}

static int read_response(const Kavilo__Tunnel__V1__ResponseHead *in, struct wire_arena *arena, struct wire_message *out)
{
    int error = read_head(in->headers, in->n_headers, arena, &out->head.head);
    out->head.upgraded = in->upgraded;
    return error ? error : finish_response(out, in->status);
}

static int read_trailers(const Kavilo__Tunnel__V1__Trailers *in, struct wire_arena *arena, struct wire_message *out)
{
    int error = read_head(in->headers, in->n_headers, arena, &out->trailers);
    out->trailers.authority = out->trailers.protocol = (struct slice){0};
    return error ? error : judge(out->kind, &out->trailers, (struct slice){0});
}

static void read_hello(const Kavilo__Tunnel__V1__Hello *in, struct wire_message *out)
{
    out->hello.token = arena_text(in->token);
    out->hello.has_name = in->wanted_case == KAVILO__TUNNEL__V1__HELLO__WANTED_NAME;
    if (out->hello.has_name)
        out->hello.name = arena_text(in->name);
    out->hello.client_version = arena_text(in->client_version);
    out->hello.takeover = in->takeover;
    out->hello.features = in->features;
    out->hello.initial_credit = in->initial_credit;
    out->hello.instance_id = arena_bytes(&in->instance_id);
    out->hello.response_timeout_ms = in->response_timeout_ms;
    out->hello.no_subdomains = in->no_subdomains;
}

static void read_welcome(const Kavilo__Tunnel__V1__Welcome *in, struct wire_message *out)
{
    out->welcome.subdomain = arena_text(in->subdomain);
    out->welcome.public_url = arena_text(in->public_url);
    out->welcome.max_concurrent = in->max_concurrent_requests;
    out->welcome.features = in->features;
    out->welcome.initial_credit = in->initial_credit;
    out->welcome.session_id = arena_text(in->session_id);
    out->welcome.server_name = arena_text(in->server_name);
}

static int read_body(enum wire_side side, const union body *in, struct wire_arena *arena, struct wire_message *out)
{
    switch (out->kind) {
    case WIRE_UNKNOWN:
        break;
    case WIRE_HELLO:
        read_hello(&in->hello, out);
        break;
    case WIRE_WELCOME:
        read_welcome(&in->welcome, out);
        break;
    case WIRE_REQUEST_HEAD:
        return read_request(&in->request_head, arena, out);
    case WIRE_RESPONSE_HEAD:
        return read_response(&in->response_head, arena, out);
    case WIRE_TRAILERS:
        return read_trailers(&in->trailers, arena, out);
    case WIRE_DATA:
        out->data.bytes = arena_bytes(&in->data.data);
        out->data.end = in->data.end_stream;
        break;
    case WIRE_CANCEL:
        out->cancel_reason = in->cancel.reason;
        break;
    case WIRE_PING:
        out->nonce = in->ping.nonce;
        break;
    case WIRE_PONG:
        out->nonce = in->pong.nonce;
        break;
    case WIRE_CREDIT:
        out->credit = in->credit.bytes;
        break;
    case WIRE_ERROR:
        out->error.code = in->error.code;
        out->error.reason = wire_reason_of(side, in->error.code);
        out->error.text = arena_text(in->error.message);
        break;
    case WIRE_RESET:
        out->error.code = in->reset.code;
        out->error.reason = wire_reason_of(side, in->reset.code);
        out->error.text = arena_text(in->reset.message);
        break;
    case WIRE_DRAIN:
        out->drain_grace_ms = in->drain.grace_ms;
        break;
    }
    return 0;
}

/* Sets the request id and the kind, and *body to what protobuf-c made of the rest. */
static int unpack(enum wire_side side, struct slice bytes, struct wire_arena *arena, struct wire_message *out,
                  const union body **body)
{
    ProtobufCAllocator allocator = {arena_alloc, arena_ignore_free, arena};
    const uint8_t *data = (const uint8_t *)bytes.data;
    unsigned number;
    /* Whatever a frame carries starts with a ProtobufCMessage, so one pointer of its union is as good as another. */
    if (side == WIRE_FROM_SERVER) {
        const ServerFrame *frame = kavilo__tunnel__v1__server_frame__unpack(&allocator, bytes.len, data);
        if (!frame)
            return arena->error ? arena->error : KV_EPROTO;
        out->request_id = frame->request_id;
        number = (unsigned)frame->kind_case;
        *body = (const union body *)(const void *)frame->data;
    } else {
        const ClientFrame *frame = kavilo__tunnel__v1__client_frame__unpack(&allocator, bytes.len, data);
        if (!frame)
            return arena->error ? arena->error : KV_EPROTO;
        out->request_id = frame->request_id;
        number = (unsigned)frame->kind_case;
        *body = (const union body *)(const void *)frame->data;
    }
    out->kind = wire_kind_at(side, number);
    return 0;
}

/* Reads what every request has, and sets *error. False for anything else. */
static bool read_plain(enum wire_side side, struct slice in, struct wire_arena *arena, struct wire_message *out,
                       int *error)
{
    *error = 0;
    out->request_id = 0;
    if (take_tag(&in, TAG_REQUEST_ID) && !take_varint(&in, ID_BYTES, &out->request_id))
        return false;
    if (take_tag(&in, TAG_DATA))
        return read_data(in, out);
    return take_tag(&in, TAG_HEAD) && read_plain_head(side, in, arena, out, error);
}

int wire_decode(enum wire_side side, struct slice bytes, struct wire_arena *arena, struct wire_message *out)
{
    const union body *body;
    int error;
    if (!read_plain(side, bytes, arena, out, &error)) {
        arena_reset(arena);
        memset(out, 0, sizeof *out);
        error = unpack(side, bytes, arena, out, &body);
        if (!error)
            error = read_body(side, body, arena, out);
    }
    if (error == KV_ENOMEM)
        out->kind = WIRE_UNKNOWN;
    return error;
}
