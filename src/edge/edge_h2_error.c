/*
 * Failures over HTTP/2: an error page for most, and what gRPC's callers can read for them. Their libraries show no HTTP
 * status but gRPC's own, so a call that is refused gets a trailers-only answer, and one that breaks off behind its head
 * gets trailers: UNAVAILABLE where waiting may help, the sentence as its message, and the fields of every error answer
 * as metadata.
 */
#include "base/error.h"
#include "base/log.h"
#include "edge/edge_impl.h"
#include "grpc/grpc.h"
#include "http/date.h"
#include "http/h2.h"

#define MESSAGE_MAX 256

/* ---- whom it is for -------------------------------------------------------------------------------------------- */

/* "application/grpc", with a "+proto" or a parameter behind it; grpc-web is another protocol, over any HTTP. */
static bool is_grpc(const struct head *request)
{
    static const struct slice type = {"application/grpc", 16};
    struct slice value = head_value(request, SLICE("content-type"));
    if (value.len < type.len || !slice_equals_nocase((struct slice){value.data, type.len}, type))
        return false;
    return value.len == type.len || strchr("+; \t", value.data[type.len]) != NULL;
}

struct edge_manner edge_manner_of(const struct head *request)
{
    return (struct edge_manner){
        .type = edge_wanted_type(request),
        .is_head = slice_equals(request->method, SLICE("HEAD")),
        .is_grpc = is_grpc(request),
    };
}

/* ---- gRPC ------------------------------------------------------------------------------------------------------ */

bool edge_is_trailers_only(const struct head *answer)
{
    return head_find(answer, SLICE("grpc-status")) != NULL;
}

/* As gRPC's own table from HTTP statuses has it, and closer where that knows no better than UNKNOWN. */
static enum grpc_status status_of(unsigned http)
{
    switch (http) {
    case 502:
    case 503:
    case 504:
        return GRPC_UNAVAILABLE;
    case 413:
    case 414:
    case 429:
    case 431:
        return GRPC_RESOURCE_EXHAUSTED;
    case 408:
        return GRPC_DEADLINE_EXCEEDED;
    case 400:
    case 500:
        return GRPC_INTERNAL;
    default:
        return GRPC_UNKNOWN;
    }
}

static struct head *grpc_failure(enum close_reason reason, const char *request_id, bool answered)
{
    const struct reason_text *row = reason_text(reason);
    char message[MESSAGE_MAX];
    enum grpc_status status = status_of(row->status);
    char digits[3] = {(char)('0' + status / 10), (char)('0' + status % 10), 0};
    char date[HTTP_DATE_LEN];
    struct head *h = head_new(7, 512 + MESSAGE_MAX);
    if (!h)
        return NULL;
    if (!answered) {
        h->status = 200;
        head_add(h, SLICE("date"), http_date(time(NULL), date));
        head_add(h, SLICE("content-type"), SLICE("application/grpc"));
    }
    grpc_encode_message(row->sentence, message, sizeof(message));
    head_add(h, SLICE("grpc-status"), slice_of(status < 10 ? digits + 1 : digits));
    head_add(h, SLICE("grpc-message"), slice_of(message));
    head_add(h, SLICE("kavilo-error"), slice_of(row->code));
    head_add(h, SLICE("kavilo-error-side"), slice_of(reason_side_name(row->side)));
    head_add(h, SLICE("kavilo-request-id"), slice_of(request_id));
    return h;
}

bool edge_h2_end_grpc(struct h2_stream *stream, enum close_reason reason, const char *request_id)
{
    struct head *trailers = grpc_failure(reason, request_id, true);
    bool told = trailers && h2_end(stream, trailers) == KV_OK;
    head_free(trailers);
    return told;
}

/* ---- refusals -------------------------------------------------------------------------------------------------- */

static bool respond_grpc_error(struct h2_stream *stream, enum close_reason reason, const char *request_id)
{
    struct head *head = grpc_failure(reason, request_id, false);
    bool sent = head && h2_respond(stream, head, true) == KV_OK;
    head_free(head);
    return sent;
}

static bool respond_page(const struct edge *edge, struct h2_stream *stream, enum close_reason reason,
                         enum edge_body_type type, bool is_head, const char *request_id)
{
    struct head *head = NULL;
    struct buffer body = {0};
    if (edge_error_make(reason, type, request_id, &head, &body) != KV_OK)
        return false;
    bool has_body = !is_head && body.len > 0;
    bool sent = edge_add_hsts(edge, &head) == KV_OK && h2_respond(stream, head, !has_body) == KV_OK;
    if (sent && has_body)
        sent = chain_append(h2_stream_output(stream), body.data, body.len) == KV_OK && h2_end(stream, NULL) == KV_OK;
    head_free(head);
    buffer_free(&body);
    return sent;
}

bool edge_h2_refuse(struct edge *edge, struct h2_stream *stream, enum close_reason reason, struct edge_manner manner,
                    const char *request_id)
{
    char id[EXCHANGE_ID_LEN];
    if (reason_text(reason)->status == 0)
        return false;
    if (!request_id || !request_id[0]) {
        edge_request_id(edge, id);
        request_id = id;
    }
    bool sent = manner.is_grpc ? respond_grpc_error(stream, reason, request_id)
                               : respond_page(edge, stream, reason, manner.type, manner.is_head, request_id);
    if (sent)
        edge_count_response(edge_local(edge), reason_text(reason)->status);
    log_debug("answered with an error", log_str("request", request_id), log_uint("status", reason_text(reason)->status),
              log_str("code", reason_text(reason)->code));
    return sent;
}
