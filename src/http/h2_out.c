/*
 * What an HTTP/2 session sends: heads, and our chains as DATA frames.
 *
 * Bodies are not copied: nghttp2 is told how many bytes of a stream's chain the next DATA frame takes (read_body) and
 * then, with NO_COPY, asks for exactly those to be moved behind the frame's header (send_body).
 */
#include "base/error.h"
#include "base/limits.h"
#include "http/h2_impl.h"

#define DATA_FRAME_BYTES (64 * 1024) /* at most, if the peer's MAX_FRAME_SIZE allows: fewer frames for bulk */
#define PSEUDO_FIELDS    5

/* ---- output ---------------------------------------------------------------------------------------------------- */

/* Decides how much of the stream's chain the next DATA frame carries. */
static ssize_t read_body(nghttp2_session *ng, int32_t id, uint8_t *buffer, size_t length, uint32_t *flags,
                         nghttp2_data_source *source, void *arg)
{
    (void)buffer;
    struct h2_session *s = arg;
    struct h2_stream *stream = source->ptr;
    if (stream->out.bytes < length && !stream->end_wanted && stream->events->fill && stream->user && !s->muted)
        stream->events->fill(stream->user);
    if (stream->out.bytes == 0 && !stream->end_wanted && stream->events->writable && stream->user && !s->muted)
        stream->events->writable(stream->user);
    if (stream->out.bytes == 0 && !stream->end_wanted) {
        stream->deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    size_t n = stream->out.bytes < length ? stream->out.bytes : length;
    if (n > 0)
        *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (n == stream->out.bytes && stream->end_wanted) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
        if (stream->trailers) {
            nghttp2_nv fields[SENT_FIELDS_MAX];
            size_t count = 0;
            for (size_t i = 0; i < stream->trailers->count; i++) {
                const struct field *f = &stream->trailers->fields[i];
                fields[count++] = (nghttp2_nv){(uint8_t *)(uintptr_t)f->name.data, (uint8_t *)(uintptr_t)f->value.data,
                                               f->name.len, f->value.len, NGHTTP2_NV_FLAG_NONE};
            }
            *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
            if (nghttp2_submit_trailer(ng, id, fields, count) != 0)
                return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
        }
    }
    return (ssize_t)n;
}

static int send_body(nghttp2_session *ng, nghttp2_frame *frame, const uint8_t *frame_head, size_t length,
                     nghttp2_data_source *source, void *arg)
{
    (void)ng;
    (void)frame;
    struct h2_session *s = arg;
    struct h2_stream *stream = source->ptr;
    if (chain_append(s->out, frame_head, 9) != KV_OK || chain_move(s->out, &stream->out, length) != KV_OK)
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    h2_earn_sent(s, length);
    h2_settle_broken(stream);
    if (stream->events->sent && stream->user && !s->muted)
        stream->events->sent(stream->user);
    return s->out->bytes >= s->out_limit ? NGHTTP2_ERR_PAUSE : 0;
}

static ssize_t choose_frame_size(nghttp2_session *ng, uint8_t type, int32_t id, int32_t session_window,
                                 int32_t stream_window, uint32_t peer_max, void *arg)
{
    (void)ng;
    (void)type;
    (void)id;
    (void)arg;
    ssize_t n = DATA_FRAME_BYTES;
    if (n > session_window)
        n = session_window;
    if (n > stream_window)
        n = stream_window;
    if (n > (ssize_t)peer_max)
        n = (ssize_t)peer_max;
    return n;
}

/* Our direction of a stream has ended. If the peer's has not, and nobody waits for the rest of it, the peer is to be
 * told that it can stop, and that nothing went wrong (RFC 9113, 8.1), but not before it has read the answer. */
static void end_unread(struct h2_session *s, struct h2_stream *stream)
{
    if (nghttp2_session_get_stream_remote_close(s->ng, stream->id) != 0)
        return;
    stream->leftover = s->events->leftover != NULL;
    if (stream->leftover)
        s->events->leftover(s->owner);
    else
        nghttp2_submit_rst_stream(s->ng, NGHTTP2_FLAG_NONE, stream->id, NGHTTP2_NO_ERROR);
}

bool h2_end_leftovers(struct h2_session *s)
{
    bool more = false;
    for (struct h2_stream *stream = s->streams; stream; stream = stream->next) {
        if (stream->leftover && stream->stale)
            nghttp2_submit_rst_stream(s->ng, NGHTTP2_FLAG_NONE, stream->id, NGHTTP2_NO_ERROR);
        more |= stream->leftover && !stream->stale;
        stream->stale = stream->leftover;
    }
    h2_wake(s);
    return more;
}

/* A head, or the end of our direction. */
static void on_stream_frame_sent(struct h2_session *s, struct h2_stream *stream, const nghttp2_frame *frame)
{
    if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
        stream->begun = true;
    } else if (frame->hd.type == NGHTTP2_HEADERS && stream->heads > 0) {
        stream->heads--;
        h2_settle_broken(stream);
    }
    if ((frame->hd.flags & NGHTTP2_FLAG_END_STREAM) && (!stream->user || stream->deaf) && !s->muted)
        end_unread(s, stream);
}

static int on_frame_sent(nghttp2_session *ng, const nghttp2_frame *frame, void *arg)
{
    struct h2_session *s = arg;
    if (frame->hd.type == NGHTTP2_GOAWAY)
        s->parting = true;
    if (frame->hd.type == NGHTTP2_RST_STREAM)
        h2_spend_reset(s, frame->rst_stream.error_code);
    bool ends = frame->hd.type == NGHTTP2_DATA && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM);
    struct h2_stream *stream = NULL;
    if (ends || frame->hd.type == NGHTTP2_HEADERS)
        stream = nghttp2_session_get_stream_user_data(ng, frame->hd.stream_id);
    if (stream)
        on_stream_frame_sent(s, stream, frame);
    return 0;
}

void h2_set_output_callbacks(nghttp2_session_callbacks *callbacks)
{
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_sent);
    nghttp2_session_callbacks_set_send_data_callback(callbacks, send_body);
    nghttp2_session_callbacks_set_data_source_read_length_callback(callbacks, choose_frame_size);
}

int h2_output(struct h2_session *s, struct chain *out, size_t limit)
{
    s->out = out;
    s->out_limit = limit;
    int result = KV_OK;
    while (out->bytes < limit) {
        const uint8_t *data;
        ssize_t n = nghttp2_session_mem_send(s->ng, &data);
        if (n < 0) {
            result = n == NGHTTP2_ERR_NOMEM ? KV_ENOMEM : KV_EPROTO;
            break;
        }
        if (n == 0)
            break;
        result = chain_append(out, data, (size_t)n);
        if (result)
            break;
    }
    s->out = NULL;
    return !result && s->flooded ? KV_ELIMIT : result;
}

bool h2_finished(struct h2_session *s)
{
    return s->parting && !nghttp2_session_want_read(s->ng) && !nghttp2_session_want_write(s->ng);
}

/* ---- heads going out ------------------------------------------------------------------------------------------- */

static void put(nghttp2_nv *fields, size_t *count, struct slice name, struct slice value)
{
    fields[(*count)++] = (nghttp2_nv){(uint8_t *)(uintptr_t)name.data, (uint8_t *)(uintptr_t)value.data, name.len,
                                      value.len, NGHTTP2_NV_FLAG_NONE};
}

static void put_fields(nghttp2_nv *fields, size_t *count, const struct head *head)
{
    for (size_t i = 0; i < head->count; i++)
        put(fields, count, head->fields[i].name, head->fields[i].value);
}

struct h2_stream *h2_request(struct h2_session *s, const struct head *head, bool end, void *user)
{
    nghttp2_nv fields[SENT_FIELDS_MAX + PSEUDO_FIELDS];
    size_t count = 0;
    struct h2_stream *stream = head->count <= SENT_FIELDS_MAX ? h2_stream_new(s) : NULL;
    if (!stream)
        return NULL;
    stream->user = user;
    put(fields, &count, SLICE(":method"), head->method);
    put(fields, &count, SLICE(":scheme"), head->scheme);
    put(fields, &count, SLICE(":authority"), head->authority);
    put(fields, &count, SLICE(":path"), head->target);
    if (head->protocol.len > 0)
        put(fields, &count, SLICE(":protocol"), head->protocol);
    put_fields(fields, &count, head);
    nghttp2_data_provider body = {.source.ptr = stream, .read_callback = read_body};
    stream->id = nghttp2_submit_request(s->ng, NULL, fields, count, end ? NULL : &body, stream);
    if (stream->id < 0) {
        h2_stream_free(stream);
        return NULL;
    }
    h2_earn_request(s); /* its answer's frames are work that we asked for */
    h2_wake(s);
    return stream;
}

int h2_respond(struct h2_stream *stream, const struct head *head, bool end)
{
    struct h2_session *s = stream->session;
    nghttp2_nv fields[SENT_FIELDS_MAX + 1];
    size_t count = 0;
    if (head->count > SENT_FIELDS_MAX)
        return KV_ELIMIT;
    char status[4] = {(char)('0' + head->status / 100 % 10), (char)('0' + head->status / 10 % 10),
                      (char)('0' + head->status % 10), 0};
    put(fields, &count, SLICE(":status"), (struct slice){status, 3});
    put_fields(fields, &count, head);
    nghttp2_data_provider body = {.source.ptr = stream, .read_callback = read_body};
    int error;
    if (head->status < 200)
        error = nghttp2_submit_headers(s->ng, NGHTTP2_FLAG_NONE, stream->id, NULL, fields, count, NULL);
    else
        error = nghttp2_submit_response(s->ng, stream->id, fields, count, end ? NULL : &body);
    stream->heads += !error;
    h2_wake(s);
    return error ? KV_ENOMEM : KV_OK;
}
