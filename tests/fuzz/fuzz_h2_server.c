/*
 * The server's HTTP/2 session under hostile bytes, and under a program that answers, resets and ends streams between
 * them. nghttp2 is not instrumented, so frames are made here from the input: most of it then gets past the framing.
 *
 * The first byte says in what parts the bytes arrive and whether they are frames of our making or raw. Each record
 * behind it is a frame (type, flags, stream, length, payload; a header block may be made of a table's fields) or a deed
 * of ours. Cutting changes nothing: whatever arrives byte by byte gives the same events as what arrives at once.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/chunk.h"
#include "base/error.h"
#include "base/limits.h"
#include "http/h2.h"
#include "http/syntax.h"

#define WINDOW      4096
#define STREAMS_MAX 8
#define RAW         0x80
#define DEED        0x80 /* of a record's first byte: something that our side does */
#define MADE_BLOCK  0x10 /* of a frame's: its payload's bytes choose fields of the table */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct visit {
    struct h2_stream *stream; /* NULL: not in use, or gone */
    struct visit *self;       /* set while events may come */
    size_t unconsumed;
    uint64_t body; /* FNV-1a; counts once it is complete, for one that is cut short may be cut anywhere */
    bool answered, ended;
};

struct run {
    struct h2_session *session;
    struct visit visits[STREAMS_MAX];
    uint64_t log; /* FNV-1a over the events */
    bool over;
    bool in_block; /* a header block goes on. nghttp2 1.52 counts the reads of a CONTINUATION's head as so many frames
                    * of the at most eight, so these are not cut */
};

struct input {
    const uint8_t *at;
    size_t left;
};

static const struct {
    const char *name, *value;
} table[] = {
    {":method", "GET"},
    {":method", "POST"},
    {":method", "CONNECT"},
    {":scheme", "http"},
    {":path", "/"},
    {":path", "*"},
    {":path", "a b"},
    {":path", ""},
    {":authority", "a.test"},
    {":authority", "b.test:80"},
    {":authority", "u@a.test"},
    {":protocol", "websocket"},
    {"host", "a.test"},
    {"host", "b.test"},
    {"content-length", "3"},
    {"content-length", "0"},
    {"te", "trailers"},
    {"te", "gzip"},
    {"connection", "close"},
    {"X-Upper", "1"},
    {"cookie", "a=b"},
    {"transfer-encoding", "chunked"},
    {"x", "a\r\nb"},
    {"x", "\x00"},
    {":status", "200"},
    {"expect", "100-continue"},
    {"", "empty"},
    {"x", "1"},
};
#define TABLE_LEN (sizeof(table) / sizeof(table[0]))

static void require(int condition)
{
    if (!condition)
        abort();
}

/* ---- events ---------------------------------------------------------------------------------------------------- */

static void hash(uint64_t *into, struct slice text)
{
    for (size_t i = 0; i < text.len; i++)
        *into = (*into ^ (uint8_t)text.data[i]) * 0x100000001b3;
}

static void note_event(struct run *run, char what, const struct visit *visit)
{
    char event[2] = {what, (char)(visit ? visit - run->visits : -1)};
    hash(&run->log, (struct slice){event, sizeof(event)});
}

static struct run *the_run;

static void *on_request(void *owner, struct h2_stream *stream, const struct head *head, bool end)
{
    struct run *run = owner;
    require(head->count <= LIMIT_HEAD_FIELDS && head->method.len > 0 && head->status == 0);
    require(http_is_target(head->target) && http_is_authority(head->authority) && !head_find(head, SLICE("host")));
    for (size_t i = 0; i < head->count; i++)
        require(http_is_token(head->fields[i].name) && http_is_field_value(head->fields[i].value));
    for (struct visit *v = run->visits; v < run->visits + STREAMS_MAX; v++) {
        if (v->self)
            continue;
        *v = (struct visit){.stream = stream, .self = v};
        note_event(run, end ? 'Q' : 'q', v);
        hash(&run->log, head->target);
        return v;
    }
    h2_reset(stream, H2_REFUSED_STREAM);
    return NULL;
}

static void on_oversized(void *owner, struct h2_stream *stream, const struct head *head, bool target_too_long)
{
    struct head *answer = head_new(0, 0);
    require(answer != NULL && head->count <= LIMIT_HEAD_FIELDS);
    answer->status = target_too_long ? 414 : 431;
    require(h2_respond(stream, answer, true) == KV_OK);
    head_free(answer);
    note_event(owner, 'o', NULL);
}

static void on_trailers(void *user, const struct head *trailers)
{
    struct visit *v = user;
    require(v->self == v && !v->ended && trailers->count <= LIMIT_HEAD_FIELDS);
    note_event(the_run, 't', v);
}

static void on_data(void *user, struct slice bytes)
{
    struct visit *v = user;
    require(v->self == v && !v->ended);
    v->unconsumed += bytes.len;
    require(v->unconsumed <= WINDOW);
    hash(&v->body, bytes);
}

static void on_end(void *user)
{
    struct visit *v = user;
    require(v->self == v && !v->ended);
    v->ended = true;
    note_event(the_run, 'e', v);
    hash(&the_run->log, (struct slice){(const char *)&v->body, sizeof(v->body)});
}

static void on_closed(void *user, uint32_t error_code)
{
    struct visit *v = user;
    require(v->self == v);
    note_event(the_run, error_code ? 'C' : 'c', v);
    *v = (struct visit){0};
}

static void on_pong(void *owner, uint64_t opaque)
{
    (void)opaque;
    note_event(owner, 'p', NULL);
}

static void on_goaway(void *owner, uint32_t error_code)
{
    (void)error_code;
    note_event(owner, 'g', NULL);
}

static const struct h2_events events = {
    .request = on_request,
    .oversized = on_oversized,
    .trailers = on_trailers,
    .data = on_data,
    .end = on_end,
    .closed = on_closed,
    .pong = on_pong,
    .goaway = on_goaway,
};

/* ---- what our side does ---------------------------------------------------------------------------------------- */

static void answer(struct visit *v, bool end)
{
    struct head *head = head_new(2, 64);
    require(head != NULL);
    head->status = 200;
    head_add(head, SLICE("content-type"), SLICE("text/plain"));
    if (!v->answered)
        require(h2_respond(v->stream, head, end) == KV_OK);
    v->answered = true;
    head_free(head);
}

static void end_with_trailers(struct visit *v)
{
    struct head *head = head_new(1, 32);
    require(head != NULL);
    head_add(head, SLICE("grpc-status"), SLICE("0"));
    require(h2_end(v->stream, head) == KV_OK);
    head_free(head);
}

/* From here on the program wants no events of the stream, as after an answer that came before the request's end. */
static void forget(struct visit *v)
{
    h2_set_stream_user(v->stream, NULL);
    *v = (struct visit){0};
}

static void act(struct run *run, uint8_t deed, uint8_t which)
{
    struct visit *v = &run->visits[which % STREAMS_MAX];
    switch (deed & 15) {
    case 0:
        h2_goaway(run->session, H2_NO_ERROR);
        return;
    case 9:
        h2_shutdown_notice(run->session);
        return;
    case 1:
        h2_ping(run->session, which);
        return;
    default:
        break;
    }
    if (!v->self)
        return;
    switch (deed & 15) {
    case 2:
        answer(v, false);
        break;
    case 3:
        answer(v, true);
        forget(v);
        break;
    case 4:
        if (v->answered && chain_append(h2_stream_output(v->stream), "0123456789", 10) == KV_OK)
            h2_resume(v->stream);
        break;
    case 5:
        if (v->answered) {
            require(h2_end(v->stream, NULL) == KV_OK);
            forget(v);
        }
        break;
    case 6:
        if (v->answered) {
            end_with_trailers(v);
            forget(v);
        }
        break;
    case 7:
        h2_reset(v->stream, H2_CANCEL);
        forget(v);
        break;
    default:
        h2_consume(v->stream, v->unconsumed);
        v->unconsumed = 0;
        break;
    }
}

/* ---- what the peer sends --------------------------------------------------------------------------------------- */

/* Whole frames come out, whatever the limit. */
static void put_out(struct run *run, size_t limit)
{
    struct chain out = {0};
    int error = h2_output(run->session, &out, limit);
    while (!error && out.bytes > 0) {
        unsigned char head[9];
        require(chain_read(&out, head, sizeof(head)) == sizeof(head));
        size_t len = (size_t)head[0] << 16 | (size_t)head[1] << 8 | head[2];
        require(len <= 16384 && len <= out.bytes);
        chain_consume(&out, len);
    }
    chain_free(&out);
    run->over = run->over || error || h2_finished(run->session);
}

static void send(struct run *run, struct slice bytes, size_t part)
{
    while (bytes.len > 0 && !run->over) {
        size_t len = part < bytes.len ? part : bytes.len;
        char *copy = malloc(len); /* so that a read behind the part is seen */
        require(copy != NULL);
        memcpy(copy, bytes.data, len);
        run->over = h2_input(run->session, (struct slice){copy, len}) != KV_OK;
        free(copy);
        bytes = (struct slice){bytes.data + len, bytes.len - len};
    }
}

static uint8_t next(struct input *in)
{
    if (in->left == 0)
        return 0;
    in->left--;
    return *in->at++;
}

/* Each byte is a field of the table as a literal without indexing (RFC 7541, 6.2.2). */
static size_t make_block(char *out, struct input *in, size_t count)
{
    size_t len = 0;
    for (; count > 0 && in->left > 0; count--) {
        size_t row = next(in) % TABLE_LEN;
        size_t name = strlen(table[row].name), value = strlen(table[row].value);
        value += value == 0 && table[row].name[0] == 'x'; /* the NUL itself */
        out[len++] = 0;
        out[len++] = (char)name;
        memcpy(out + len, table[row].name, name);
        len += name;
        out[len++] = (char)value;
        memcpy(out + len, table[row].value, value);
        len += value;
    }
    return len;
}

static void send_frame(struct run *run, uint8_t what, struct input *in, size_t part)
{
    char frame[9 + 255 * 48];
    uint8_t flags = next(in), stream = next(in);
    size_t len = next(in);
    if (what & MADE_BLOCK) {
        flags &= (uint8_t)~0x28; /* neither padding nor priority in front of the block */
        len = make_block(frame + 9, in, len);
    } else {
        len = len < in->left ? len : in->left;
        memcpy(frame + 9, in->at, len);
        in->at += len;
        in->left -= len;
    }
    const uint8_t head[9] = {(uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len, what & 15, flags, 0, 0, 0,
                             stream & 31};
    memcpy(frame, head, sizeof(head));
    send(run, (struct slice){frame, 9 + len}, run->in_block ? SIZE_MAX : part);
    if ((what & 15) == 1 || (what & 15) == 9)
        run->in_block = !(flags & 4);
}

static uint64_t play(uint8_t mode, struct input in, size_t part)
{
    static const char hello[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
    const struct h2_options options = {
        .server = true,
        .extended_connect = true,
        .stream_window = WINDOW,
        .connection_window = 65536,
        .max_frame_size = 16384,
        .max_concurrent = 5,
    };
    struct run run = {.log = 0xcbf29ce484222325};
    the_run = &run;
    run.session = h2_new(&options, &events, &run);
    require(run.session != NULL);
    if (mode & RAW) {
        send(&run, (struct slice){(const char *)in.at, in.left}, part);
    } else {
        send(&run, (struct slice){hello, sizeof(hello) - 1}, part);
        while (in.left > 0 && !run.over) {
            uint8_t what = next(&in);
            if (what & DEED)
                act(&run, what, next(&in));
            else
                send_frame(&run, what, &in, part);
            if (!(mode & 0x40)) /* otherwise our output is stuck for a while */
                put_out(&run, 512);
        }
    }
    put_out(&run, 1 << 20);
    h2_close_streams(run.session, H2_CANCEL);
    for (size_t i = 0; i < STREAMS_MAX; i++)
        require(!run.visits[i].self);
    h2_free(run.session);
    require(chunk_live_count() == 0);
    return run.log;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    const struct input in = {data + 1, size - 1};
    size_t part = data[0] & RAW ? SIZE_MAX : (size_t)(data[0] & 15) + 1;
    uint64_t at_once = play(data[0], in, SIZE_MAX), in_parts = play(data[0], in, part);
    require(at_once == in_parts);
    return 0;
}
