/*
 * Heads and chunk framing as bytes. The buffer is given room once, fields are judged as they are copied, and the
 * buffer's length moves last; so a refusal leaves it as it was.
 *
 * Framing comes from the arguments alone. Fields of the head that would frame the message or steer the connection are
 * left out: nothing that an earlier hop said about its own connection can reach the next one.
 */
#include "base/error.h"
#include "http/forward.h"
#include "http/http1.h"
#include "http/syntax.h"

/* Room for everything of a head that is not its own text: version, phrase, framing and connection lines. */
#define FIXED_MAX 320

static inline char *put_field(char *to, struct slice name, struct slice value)
{
    to = slice_put(slice_put(slice_put(to, name), SLICE(": ")), value);
    return slice_put(to, SLICE("\r\n"));
}

static char *put_number(char *to, uint64_t number)
{
    char digits[20];
    size_t len = 0;
    do
        digits[len++] = (char)('0' + number % 10);
    while ((number /= 10) > 0);
    while (len > 0)
        *to++ = digits[--len];
    return to;
}

static char *put_framing(char *to, enum http1_framing framing, uint64_t length)
{
    if (framing == HTTP1_CHUNKED)
        return slice_put(to, SLICE("transfer-encoding: chunked\r\n"));
    if (framing != HTTP1_LENGTH)
        return to;
    to = put_number(slice_put(to, SLICE("content-length: ")), length);
    return slice_put(to, SLICE("\r\n"));
}

/* Room for all fields of a head, each with its ": " and CRLF. */
static size_t fields_size(const struct head *head)
{
    return head_text_size(head) + 4 * (size_t)head->count;
}

/* Fields that the writer makes itself or that end at this hop. TE stays: it is announced in Connection. */
static bool is_left_out(const struct field *field)
{
    enum field_id id = field_id(field);
    return id == FIELD_CONTENT_LENGTH || (forward_is_hop_by_hop(id) && id != FIELD_TE);
}

/* Copies the fields that cross a hop and counts Hosts. NULL for a field that could be read as something else. */
static char *put_fields(char *to, const struct head *head, unsigned *hosts)
{
    bool judged = head->judged;
    for (size_t i = 0; i < head->count; i++) {
        const struct field *field = &head->fields[i];
        if (!judged && (!http_is_token(field->name) || !http_is_field_value(field->value)))
            return NULL;
        *hosts += field_id(field) == FIELD_HOST;
        if (!is_left_out(field))
            to = put_field(to, field->name, field->value);
    }
    return to;
}

static bool is_upgrade(const struct head *head)
{
    return head->protocol.len > 0;
}

int http1_write_request(struct buffer *out, const struct head *head, enum http1_framing framing, uint64_t length)
{
    bool sound = head->judged || (http_is_token(head->method) && http_is_target(head->target));
    if (!sound || framing == HTTP1_UNTIL_CLOSE)
        return KV_EINVAL;
    if (is_upgrade(head) && !http_is_protocol_list(head->protocol))
        return KV_EINVAL;
    int error = buffer_reserve(out, FIXED_MAX + fields_size(head));
    if (error)
        return error;

    char *at = out->data + out->len;
    at = slice_put(slice_put(at, head->method), SLICE(" "));
    at = slice_put(slice_put(at, head->target), SLICE(" HTTP/1.1\r\n"));
    if (!head_find_id(head, FIELD_HOST)) {
        if (!http_is_authority(head->authority))
            return KV_EINVAL;
        at = put_field(at, SLICE("host"), head->authority);
    }
    unsigned hosts = 0;
    at = put_fields(at, head, &hosts);
    if (!at || hosts > 1)
        return KV_EINVAL;
    at = put_framing(at, framing, length);
    bool te = head_find_id(head, FIELD_TE) != NULL;
    if (is_upgrade(head)) {
        at = slice_put(at, te ? SLICE("connection: upgrade, te\r\n") : SLICE("connection: upgrade\r\n"));
        at = put_field(at, SLICE("upgrade"), head->protocol);
    } else if (te) {
        at = slice_put(at, SLICE("connection: te\r\n"));
    }
    at = slice_put(at, SLICE("\r\n"));
    out->len = (size_t)(at - out->data);
    return 0;
}

static char *put_connection(char *to, const struct head *head, enum http1_framing framing, bool keep_alive, bool http10)
{
    if (head->status == 101)
        return put_field(slice_put(to, SLICE("connection: upgrade\r\n")), SLICE("upgrade"), head->protocol);
    if (head->status < 200)
        return to;
    if (!keep_alive || framing == HTTP1_UNTIL_CLOSE)
        return slice_put(to, SLICE("connection: close\r\n"));
    return http10 ? slice_put(to, SLICE("connection: keep-alive\r\n")) : to;
}

int http1_write_response(struct buffer *out, const struct head *head, enum http1_framing framing, uint64_t length,
                         bool keep_alive, bool http10)
{
    unsigned hosts = 0, status = head->status;
    bool bodiless = status < 200 || status == 204;
    if (status < 100 || status > 999)
        return KV_EINVAL;
    if ((bodiless && framing != HTTP1_NO_BODY) || (http10 && framing == HTTP1_CHUNKED))
        return KV_EINVAL;
    if (status == 101 && !http_is_protocol_list(head->protocol))
        return KV_EINVAL;
    int error = buffer_reserve(out, FIXED_MAX + fields_size(head));
    if (error)
        return error;

    char *at = out->data + out->len;
    at = put_number(slice_put(at, SLICE("HTTP/1.1 ")), status);
    at = slice_put(slice_put(slice_put(at, SLICE(" ")), slice_of(http_status_phrase(status))), SLICE("\r\n"));
    at = put_fields(at, head, &hosts);
    if (!at)
        return KV_EINVAL;
    at = put_framing(at, framing, length);
    const struct field *described =
        framing == HTTP1_NO_BODY && !bodiless ? head_find_id(head, FIELD_CONTENT_LENGTH) : NULL;
    if (described && described->value.len > 0 && http_span(described->value, HTTP_CHAR_DIGIT) == described->value.len)
        at = put_field(at, SLICE("content-length"), described->value);
    at = put_connection(at, head, framing, keep_alive, http10);
    at = slice_put(at, SLICE("\r\n"));
    out->len = (size_t)(at - out->data);
    return 0;
}

size_t http1_chunk_prefix(uint64_t len, char out[HTTP1_CHUNK_PREFIX_LEN])
{
    static const char hex[] = "0123456789abcdef";
    int digits = 1;
    while (digits < 16 && len >> (4 * digits))
        digits++;
    for (int i = 0; i < digits; i++)
        out[i] = hex[len >> (4 * (digits - 1 - i)) & 15];
    out[digits] = '\r';
    out[digits + 1] = '\n';
    return (size_t)digits + 2;
}

int http1_write_last_chunk(struct buffer *out, const struct head *trailers)
{
    unsigned hosts = 0;
    int error = buffer_reserve(out, sizeof("0\r\n\r\n") - 1 + (trailers ? fields_size(trailers) : 0));
    if (error)
        return error;
    char *at = slice_put(out->data + out->len, SLICE("0\r\n"));
    if (trailers)
        at = put_fields(at, trailers, &hosts);
    if (!at)
        return KV_EINVAL;
    at = slice_put(at, SLICE("\r\n"));
    out->len = (size_t)(at - out->data);
    return 0;
}

/* The registry of RFC 9110, 16.2, and the few that everybody knows from elsewhere. */
const char *http_status_phrase(unsigned status)
{
    static const char *const phrases[] = {
        [100] = "Continue",
        [101] = "Switching Protocols",
        [102] = "Processing",
        [103] = "Early Hints",
        [200] = "OK",
        [201] = "Created",
        [202] = "Accepted",
        [203] = "Non-Authoritative Information",
        [204] = "No Content",
        [205] = "Reset Content",
        [206] = "Partial Content",
        [207] = "Multi-Status",
        [208] = "Already Reported",
        [226] = "IM Used",
        [300] = "Multiple Choices",
        [301] = "Moved Permanently",
        [302] = "Found",
        [303] = "See Other",
        [304] = "Not Modified",
        [305] = "Use Proxy",
        [307] = "Temporary Redirect",
        [308] = "Permanent Redirect",
        [400] = "Bad Request",
        [401] = "Unauthorized",
        [402] = "Payment Required",
        [403] = "Forbidden",
        [404] = "Not Found",
        [405] = "Method Not Allowed",
        [406] = "Not Acceptable",
        [407] = "Proxy Authentication Required",
        [408] = "Request Timeout",
        [409] = "Conflict",
        [410] = "Gone",
        [411] = "Length Required",
        [412] = "Precondition Failed",
        [413] = "Content Too Large",
        [414] = "URI Too Long",
        [415] = "Unsupported Media Type",
        [416] = "Range Not Satisfiable",
        [417] = "Expectation Failed",
        [421] = "Misdirected Request",
        [422] = "Unprocessable Content",
        [423] = "Locked",
        [424] = "Failed Dependency",
        [425] = "Too Early",
        [426] = "Upgrade Required",
        [428] = "Precondition Required",
        [429] = "Too Many Requests",
        [431] = "Request Header Fields Too Large",
        [451] = "Unavailable For Legal Reasons",
        [500] = "Internal Server Error",
        [501] = "Not Implemented",
        [502] = "Bad Gateway",
        [503] = "Service Unavailable",
        [504] = "Gateway Timeout",
        [505] = "HTTP Version Not Supported",
        [506] = "Variant Also Negotiates",
        [507] = "Insufficient Storage",
        [508] = "Loop Detected",
        [511] = "Network Authentication Required",
    };
    const char *phrase = status < sizeof(phrases) / sizeof(phrases[0]) ? phrases[status] : NULL;
    return phrase ? phrase : "Status";
}
