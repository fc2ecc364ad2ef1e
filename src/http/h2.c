/*
 * One HTTP/2 session: nghttp2 does the protocol, this file turns what comes in into the events of h2.h.
 *
 * Header blocks are collected by h2_head.c.
 */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/limits.h"
#include "http/h2_impl.h"
#include "http/syntax.h"

/* ---- streams --------------------------------------------------------------------------------------------------- */

struct h2_stream *h2_stream_new(struct h2_session *s)
{
    struct h2_stream *stream = calloc(1, sizeof(*stream));
    if (!stream)
        return NULL;
    stream->session = s;
    stream->events = s->events;
    stream->next = s->streams;
    stream->link = &s->streams;
    if (stream->next)
        stream->next->link = &stream->next;
    s->streams = stream;
    s->stream_count++;
    return stream;
}

void h2_stream_free(struct h2_stream *stream)
{
    *stream->link = stream->next;
    if (stream->next)
        stream->next->link = stream->link;
    stream->session->stream_count--;
    chain_free(&stream->out);
    head_free(stream->trailers);
    free(stream);
}

static struct h2_stream *find_stream(struct h2_session *s, int32_t id)
{
    return nghttp2_session_get_stream_user_data(s->ng, id);
}

void h2_wake(struct h2_session *s)
{
    if (!s->muted && s->wake)
        s->wake(s->wake_arg);
}

/* ---- heads coming in ------------------------------------------------------------------------------------------- */

/* A stream that was skipped is closed and cannot be opened any more (RFC 9113, 5.1.1). nghttp2 takes it for one that it
 * has forgotten, and skips the frame; the last gap is as much memory as that needs in practice. */
static bool opens_in_order(struct h2_session *s, const nghttp2_frame_hd *hd)
{
    if (!s->server || hd->type != NGHTTP2_HEADERS || hd->stream_id % 2 == 0)
        return true;
    if (hd->stream_id > s->newest) {
        if (hd->stream_id > s->newest + 2) {
            s->gap_from = s->newest;
            s->gap_to = hd->stream_id;
        }
        s->newest = hd->stream_id;
        return true;
    }
    return hd->stream_id <= s->gap_from || hd->stream_id >= s->gap_to;
}

static int on_begin_frame(nghttp2_session *ng, const nghttp2_frame_hd *hd, void *arg)
{
    struct h2_session *s = arg;
    if (!h2_spend(s, 1))
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    if (opens_in_order(s, hd))
        return 0;
    nghttp2_session_terminate_session(ng, NGHTTP2_PROTOCOL_ERROR);
    return NGHTTP2_ERR_CALLBACK_FAILURE;
}

static int on_begin_headers(nghttp2_session *ng, const nghttp2_frame *frame, void *arg)
{
    (void)ng;
    (void)frame;
    return h2_head_begin(arg) == KV_OK ? 0 : NGHTTP2_ERR_CALLBACK_FAILURE;
}

static int on_header(nghttp2_session *ng, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
                     const uint8_t *value, size_t value_len, uint8_t flags, void *arg)
{
    (void)ng;
    (void)frame;
    (void)flags;
    struct h2_session *s = arg;
    if (h2_head_take(s, (struct slice){(const char *)name, name_len}, (struct slice){(const char *)value, value_len}))
        return 0;
    return h2_spend_oversized(s) ? NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE : NGHTTP2_ERR_CALLBACK_FAILURE;
}

static struct h2_stream *peer_stream(struct h2_session *s, int32_t id)
{
    struct h2_stream *stream = h2_stream_new(s);
    if (!stream)
        return NULL;
    stream->id = id;
    stream->begun = true;
    nghttp2_session_set_stream_user_data(s->ng, id, stream);
    return stream;
}

/* Whether somebody wants what comes in. */
static bool hears(const struct h2_stream *stream)
{
    return stream && stream->user && !stream->deaf;
}

/* Its head is over the limits: the stream has its answer, or its reset, and goes on without a user. */
static int on_oversized(struct h2_session *s, const nghttp2_frame *frame)
{
    int32_t id = frame->hd.stream_id;
    if (!h2_spend_oversized(s))
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    if (frame->headers.cat != NGHTTP2_HCAT_REQUEST || !s->events->oversized) {
        struct h2_stream *stream = find_stream(s, id);
        if (hears(stream) && stream->events->oversized_answer)
            stream->events->oversized_answer(stream->user);
        nghttp2_submit_rst_stream(s->ng, NGHTTP2_FLAG_NONE, id, NGHTTP2_ENHANCE_YOUR_CALM);
        return 0;
    }
    struct h2_stream *stream = peer_stream(s, id);
    if (!stream)
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    s->events->oversized(s->owner, stream, s->incoming, s->target_too_long);
    return 0;
}

static int on_request(struct h2_session *s, int32_t id, bool end)
{
    if (!h2_head_is_request(s->incoming)) {
        nghttp2_submit_rst_stream(s->ng, NGHTTP2_FLAG_NONE, id, NGHTTP2_PROTOCOL_ERROR);
        return 0;
    }
    struct h2_stream *stream = peer_stream(s, id);
    if (!stream)
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    h2_earn_request(s);
    stream->user = s->events->request(s->owner, stream, s->incoming, end);
    return 0;
}

static int on_headers_frame(struct h2_session *s, const nghttp2_frame *frame)
{
    struct h2_stream *stream = find_stream(s, frame->hd.stream_id);
    bool end = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    int result = 0;
    if (!s->incoming)
        return 0;
    h2_head_finish(s);
    if (s->incoming_too_large) {
        result = on_oversized(s, frame);
        goto done;
    }
    if (frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
        result = on_request(s, frame->hd.stream_id, end);
        stream = find_stream(s, frame->hd.stream_id);
    } else if (hears(stream)) {
        if (s->incoming->status)
            stream->events->response(stream->user, s->incoming, end);
        else
            stream->events->trailers(stream->user, s->incoming);
    }
    if (end && hears(stream) && !s->muted)
        stream->events->end(stream->user);

done:
    h2_head_end(s);
    return result;
}

/* ---- other frames coming in ------------------------------------------------------------------------------------ */

static int on_frame(nghttp2_session *ng, const nghttp2_frame *frame, void *arg)
{
    (void)ng;
    struct h2_session *s = arg;
    int result = 0;
    if (s->muted)
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
        result = on_headers_frame(s, frame);
        break;
    case NGHTTP2_DATA: {
        bool end = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
        struct h2_stream *stream = end ? find_stream(s, frame->hd.stream_id) : NULL;
        if (frame->hd.length > frame->data.padlen)
            h2_earn_data(s);
        if (hears(stream))
            stream->events->end(stream->user);
        break;
    }
    case NGHTTP2_SETTINGS:
        if (!(frame->hd.flags & NGHTTP2_FLAG_ACK) && s->events->settings)
            s->events->settings(s->owner);
        break;
    case NGHTTP2_RST_STREAM:
        if (s->server && !h2_spend_peer_reset(s))
            return NGHTTP2_ERR_CALLBACK_FAILURE;
        break;
    case NGHTTP2_PING:
        if ((frame->hd.flags & NGHTTP2_FLAG_ACK) && s->events->pong) {
            uint64_t opaque;
            memcpy(&opaque, frame->ping.opaque_data, sizeof(opaque));
            s->events->pong(s->owner, opaque);
        }
        break;
    case NGHTTP2_GOAWAY:
        s->parting = true;
        if (s->events->goaway)
            s->events->goaway(s->owner, frame->goaway.error_code);
        break;
    default:
        break;
    }
    return s->muted ? NGHTTP2_ERR_CALLBACK_FAILURE : result;
}

static int on_data(nghttp2_session *ng, uint8_t flags, int32_t id, const uint8_t *data, size_t len, void *arg)
{
    (void)flags;
    struct h2_session *s = arg;
    struct h2_stream *stream = find_stream(s, id);
    nghttp2_session_consume_connection(ng, len);
    if (hears(stream))
        stream->events->data(stream->user, (struct slice){(const char *)data, len});
    else
        nghttp2_session_consume_stream(ng, id, len);
    return s->muted ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static int on_stream_close(nghttp2_session *ng, int32_t id, uint32_t error_code, void *arg)
{
    struct h2_session *s = arg;
    struct h2_stream *stream = find_stream(s, id);
    if (!stream)
        return 0;
    nghttp2_session_set_stream_user_data(ng, id, NULL);
    void *user = stream->user;
    stream->user = NULL; /* who hears of this may have all streams closed */
    if (user && !s->muted)
        stream->events->closed(user, stream->begun ? error_code : H2_REFUSED_STREAM);
    h2_stream_free(stream);
    return 0;
}

int h2_input(struct h2_session *s, struct slice bytes)
{
    if (s->muted)
        return KV_OK;
    ssize_t taken = nghttp2_session_mem_recv(s->ng, (const uint8_t *)bytes.data, bytes.len);
    h2_wake(s);
    if (s->muted)
        return KV_OK;
    if (taken == NGHTTP2_ERR_NOMEM)
        return KV_ENOMEM;
    if (taken == NGHTTP2_ERR_FLOODED || taken == NGHTTP2_ERR_TOO_MANY_CONTINUATIONS)
        h2_flooded(s);
    if (s->flooded)
        return KV_ELIMIT;
    return taken < 0 ? KV_EPROTO : KV_OK;
}

/* ---- streams, for their users ---------------------------------------------------------------------------------- */

struct chain *h2_stream_output(struct h2_stream *stream)
{
    return &stream->out;
}

void h2_resume(struct h2_stream *stream)
{
    if (stream->deferred) {
        stream->deferred = false;
        nghttp2_session_resume_data(stream->session->ng, stream->id);
    }
    h2_wake(stream->session);
}

int h2_end(struct h2_stream *stream, const struct head *trailers)
{
    if (trailers && trailers->count > SENT_FIELDS_MAX)
        return KV_ELIMIT;
    if (trailers && trailers->count > 0) {
        stream->trailers = head_copy(trailers, 0, 0);
        if (!stream->trailers)
            return KV_ENOMEM;
    }
    stream->end_wanted = true;
    h2_resume(stream);
    return KV_OK;
}

void h2_reset(struct h2_stream *stream, uint32_t error_code)
{
    nghttp2_submit_rst_stream(stream->session->ng, NGHTTP2_FLAG_NONE, stream->id, error_code);
    h2_wake(stream->session);
}

void h2_reset_behind(struct h2_stream *stream, uint32_t error_code)
{
    stream->broken = true;
    stream->reset_code = error_code;
    h2_settle_broken(stream);
    h2_resume(stream);
}

void h2_settle_broken(struct h2_stream *stream)
{
    if (stream->broken && stream->heads == 0 && stream->out.bytes == 0)
        h2_reset(stream, stream->reset_code);
}

void h2_drop_input(struct h2_stream *stream)
{
    stream->deaf = true;
}

bool h2_charge(struct h2_stream *stream, uint32_t tokens)
{
    return h2_spend(stream->session, tokens);
}

void h2_consume(struct h2_stream *stream, size_t n)
{
    nghttp2_session_consume_stream(stream->session->ng, stream->id, n);
    h2_wake(stream->session);
}

void *h2_stream_user(struct h2_stream *stream)
{
    return stream->user;
}

void h2_hand_over(struct h2_stream *stream, const struct h2_events *events)
{
    stream->events = events;
}

void h2_widen(struct h2_stream *stream, uint32_t window)
{
    nghttp2_session *ng = stream->session->ng;
    nghttp2_session_set_local_window_size(ng, NGHTTP2_FLAG_NONE, stream->id, (int32_t)window);
    nghttp2_session_set_local_window_size(ng, NGHTTP2_FLAG_NONE, 0, (int32_t)window);
    h2_wake(stream->session);
}

void h2_set_stream_user(struct h2_stream *stream, void *user)
{
    stream->user = user;
}

struct h2_session *h2_stream_session(struct h2_stream *stream)
{
    return stream->session;
}

/* ---- the session ----------------------------------------------------------------------------------------------- */

void h2_ping(struct h2_session *s, uint64_t opaque)
{
    uint8_t data[8];
    memcpy(data, &opaque, sizeof(data));
    nghttp2_submit_ping(s->ng, NGHTTP2_FLAG_NONE, data);
    h2_wake(s);
}

void h2_goaway(struct h2_session *s, uint32_t error_code)
{
    if (error_code)
        nghttp2_session_terminate_session(s->ng, error_code);
    else
        nghttp2_submit_goaway(s->ng, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(s->ng), 0, NULL, 0);
    h2_wake(s);
}

void h2_signs(const struct h2_session *s, struct h2_signs *out)
{
    if (s->signs)
        s->signs(s->wake_arg, out);
}

void h2_set_user_timeout(struct h2_session *s, unsigned ms)
{
    if (s->user_timeout)
        s->user_timeout(s->wake_arg, ms);
}

void h2_shutdown_notice(struct h2_session *s)
{
    nghttp2_submit_shutdown_notice(s->ng);
    h2_wake(s);
}

size_t h2_stream_count(const struct h2_session *s)
{
    return s->stream_count;
}

uint32_t h2_peer_max_streams(const struct h2_session *s)
{
    return nghttp2_session_get_remote_settings(s->ng, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
}

bool h2_peer_takes_connect(const struct h2_session *s)
{
    return nghttp2_session_get_remote_settings(s->ng, NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL) != 0;
}

const char *h2_error_name(uint32_t error_code)
{
    return nghttp2_http2_strerror(error_code);
}

static int make_session(struct h2_session *s, bool server)
{
    nghttp2_session_callbacks *callbacks = NULL;
    nghttp2_option *option = NULL;
    int error = KV_ENOMEM;
    if (nghttp2_session_callbacks_new(&callbacks) != 0 || nghttp2_option_new(&option) != 0)
        goto done;
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks, on_begin_frame);
    h2_set_output_callbacks(callbacks);
    h2_set_flood_limits(option);
    nghttp2_option_set_max_send_header_block_length(option, SENT_BLOCK_MAX);
    nghttp2_option_set_no_auto_window_update(option, 1);
    nghttp2_option_set_no_closed_streams(option, 1);
    nghttp2_mem mem;
    h2_memory_begin(&s->memory, &mem);
    int made = server ? nghttp2_session_server_new3(&s->ng, callbacks, s, option, &mem)
                      : nghttp2_session_client_new3(&s->ng, callbacks, s, option, &mem);
    h2_memory_settle(&s->memory);
    error = made == 0 ? KV_OK : KV_ENOMEM;

done:
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(callbacks);
    return error;
}

/* Octets that a field counts for in a header list besides its text (RFC 9113, 6.5.2). */
#define LIST_FIELD_BYTES 32

static int announce(struct h2_session *s, const struct h2_options *o)
{
    nghttp2_settings_entry settings[6];
    size_t n = 0;
    settings[n++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, o->stream_window};
    settings[n++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_MAX_FRAME_SIZE, o->max_frame_size};
    uint32_t list =
        o->server ? LIMIT_HEAD_BYTES : LIMIT_ANSWER_HEAD_BYTES + LIST_FIELD_BYTES * LIMIT_ANSWER_HEAD_FIELDS;
    settings[n++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, list};
    if (o->server) {
        settings[n++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, o->max_concurrent};
        if (o->extended_connect)
            settings[n++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 1};
    } else {
        settings[n++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_ENABLE_PUSH, 0};
    }
    if (nghttp2_submit_settings(s->ng, NGHTTP2_FLAG_NONE, settings, n) != 0 ||
        nghttp2_session_set_local_window_size(s->ng, NGHTTP2_FLAG_NONE, 0, (int32_t)o->connection_window) != 0)
        return KV_ENOMEM;
    return KV_OK;
}

struct h2_session *h2_new(const struct h2_options *options, const struct h2_events *events, void *owner)
{
    struct h2_session *s = calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    s->events = events;
    s->owner = owner;
    s->wake = options->wake;
    s->signs = options->signs;
    s->user_timeout = options->user_timeout;
    s->wake_arg = options->wake_arg;
    s->server = options->server;
    s->newest = s->gap_from = s->gap_to = -1;
    h2_flood_start(s);
    if (make_session(s, options->server) != KV_OK || announce(s, options) != KV_OK) {
        h2_free(s);
        return NULL;
    }
    h2_wake(s);
    return s;
}

void h2_mute(struct h2_session *s)
{
    s->muted = true;
}

void h2_close_streams(struct h2_session *s, uint32_t error_code)
{
    s->muted = true;
    struct h2_stream *next;
    for (struct h2_stream *stream = s->streams; stream; stream = next) {
        void *user = stream->user;
        next = stream->next;
        stream->user = NULL;
        if (user)
            stream->events->closed(user, stream->begun ? error_code : H2_REFUSED_STREAM);
    }
}

void h2_free(struct h2_session *s)
{
    if (!s)
        return;
    s->muted = true;
    nghttp2_session_del(s->ng);
    h2_memory_end(&s->memory);
    while (s->streams)
        h2_stream_free(s->streams);
    h2_head_end(s);
    free(s);
}
