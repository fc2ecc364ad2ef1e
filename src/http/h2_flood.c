/*
 * What keeps a peer from working us for nothing. Every frame that comes in costs a token of the session's allowance,
 * and what does work earns tokens: a request, theirs or ours, a body's bytes, and the bytes that we send, which the
 * peer acknowledges with WINDOW_UPDATE. What is left over is frames for their own sake (PING, SETTINGS, PRIORITY, empty
 * DATA), and a peer that spends faster than FRAME_RATE floods us, whatever the frames are. Not counted is what nghttp2
 * skips unread, unknown types and frames for streams that are gone: it costs no more than its bytes.
 */
#include <time.h>

#include "http/h2_impl.h"

/* Streams that a peer may reset, at once and per second, before the session ends (rapid reset, CVE-2023-44487). The
 * burst is less than LIMIT_CONCURRENT: a request counts until the far end knows that it was given up, and one visitor
 * shall not fill a tunnel with such. */
#define RESET_BURST      200
#define SERVICE_RESETS   1000 /* at once, of a service that refuses uploads; from visitors nghttp2 would notice late */
#define RESET_RATE       200

/* Frames for their own sake, at once and per second. Browsers and gRPC stay under ten a second. */
#define FRAME_BURST      2000
#define FRAME_RATE       100
#define REQUEST_EARNS    8    /* its priority, windows, and a reset, which has its own limit */
#define RESET_COSTS      20   /* one that an error of the peer's makes us send: 100 of them at once (CVE-2025-8671) */
#define OVERSIZED_COSTS  50   /* a head over the limits: decoding it is the dearest thing a peer can ask for */
#define SENT_PER_TOKEN   1024 /* bytes of ours for which a peer may send one more WINDOW_UPDATE */
#define CONTINUATION_MAX 16   /* nghttp2 counts each read of a CONTINUATION's head, so twice what 8 frames take */

/* The clock is read only when the allowance seems spent. */
static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void h2_flood_start(struct h2_session *s)
{
    bucket_start(&s->allowance, FRAME_BURST, now_ms());
    bucket_start(&s->resets, RESET_BURST, now_ms());
}

void h2_flooded(struct h2_session *s)
{
    s->flooded = true;
    nghttp2_session_terminate_session(s->ng, NGHTTP2_ENHANCE_YOUR_CALM);
}

static bool spend(struct h2_session *s, struct bucket *bucket, uint32_t tokens, uint32_t rate, uint32_t burst)
{
    if (bucket_take(bucket, tokens))
        return true;
    bucket_fill(bucket, rate, burst, now_ms());
    if (bucket_take(bucket, tokens))
        return true;
    h2_flooded(s);
    return false;
}

bool h2_spend(struct h2_session *s, uint32_t tokens)
{
    return spend(s, &s->allowance, tokens, FRAME_RATE, FRAME_BURST);
}

/* nghttp2 has such a limit too, but goes on with what it has read. */
bool h2_spend_peer_reset(struct h2_session *s)
{
    return spend(s, &s->resets, 1, RESET_RATE, RESET_BURST);
}

bool h2_spend_oversized(struct h2_session *s)
{
    return h2_spend(s, OVERSIZED_COSTS);
}

/* An error of the peer's, which nghttp2 or the rules above found in a stream. */
static bool is_peers_fault(uint32_t error_code)
{
    return error_code == NGHTTP2_PROTOCOL_ERROR || error_code == NGHTTP2_FLOW_CONTROL_ERROR ||
           error_code == NGHTTP2_STREAM_CLOSED || error_code == NGHTTP2_FRAME_SIZE_ERROR;
}

void h2_spend_reset(struct h2_session *s, uint32_t error_code)
{
    if (is_peers_fault(error_code))
        h2_spend(s, RESET_COSTS);
}

void h2_earn_request(struct h2_session *s)
{
    bucket_give(&s->allowance, REQUEST_EARNS, FRAME_BURST);
}

void h2_earn_data(struct h2_session *s)
{
    bucket_give(&s->allowance, 1, FRAME_BURST);
}

void h2_earn_sent(struct h2_session *s, size_t bytes)
{
    /* a window each for stream and connection, at the least */
    bucket_give(&s->allowance, 2 + (uint32_t)(bytes / SENT_PER_TOKEN), FRAME_BURST);
}

void h2_set_flood_limits(nghttp2_option *option)
{
    nghttp2_option_set_max_continuations(option, CONTINUATION_MAX);
    nghttp2_option_set_stream_reset_rate_limit(option, SERVICE_RESETS, RESET_RATE);
}
