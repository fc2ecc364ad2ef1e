/*
 * Heads, in the order of events: lines are found and checked one by one (parse_head), then the head as a whole is
 * judged (finish_request, finish_response), and only then believed.
 *
 * A head that arrives at once is parsed in one pass. One that arrives in pieces leaves only *scanned behind; the next
 * call checks the new lines from there and, when the empty line is found, reads the head once more from its start to
 * fill the message: every byte is looked at twice at most, and a message needs no memory while it is incomplete.
 *
 * Both ways give the same answer because every rule is judged at the same place: control bytes and over-long lines
 * where they stand, a line's grammar at its end, the rest at the end of the head.
 */
#include "base/error.h"
#include "http/http1.h"
#include "http/http1_line.h"
#include "http/syntax.h"
#include "http/upgrade.h"

enum side {
    REQUEST,
    RESPONSE
};

#define VERSION_LEN    8 /* "HTTP/1.1" */
/* The longest first line that can be right; a reason phrase may be as long as a target. */
#define FIRST_LINE_MAX (HTTP1_METHOD_MAX + 1 + LIMIT_TARGET_BYTES + 1 + VERSION_LEN)

static enum http1_reading reading_of(enum side side)
{
    return side == REQUEST ? HTTP1_STRICT : HTTP1_TOLERANT;
}

static size_t bytes_max(enum side side)
{
    return side == REQUEST ? LIMIT_HEAD_BYTES : LIMIT_ANSWER_HEAD_BYTES;
}

static uint16_t fields_max(enum side side)
{
    return side == REQUEST ? HTTP1_FIELDS_MAX : HTTP1_ANSWER_FIELDS_MAX;
}

static ssize_t refuse(struct http1_message *m, enum side side, const char *error)
{
    m->error = error;
    m->reason = side == REQUEST ? REASON_BAD_REQUEST : REASON_ORIGIN_BAD_RESPONSE;
    return KV_EINVAL;
}

static ssize_t refuse_size(struct http1_message *m, enum side side, enum close_reason reason, const char *error)
{
    m->error = error;
    m->reason = side == REQUEST ? reason : REASON_ORIGIN_HEAD_TOO_LARGE;
    return KV_ELIMIT;
}

/* Everything but the field array, which is as large as the rest of a request's work and is filled by count. */
static void message_clear(struct http1_message *m, enum side side)
{
    head_borrow(&m->head, m->fields, fields_max(side));
    m->framing = HTTP1_NO_BODY;
    m->length = 0;
    m->http10 = m->keep_alive = m->expect_continue = m->upgrade = false;
    m->error = NULL;
    m->reason = REASON_NONE;
}

/* ---- first lines; these return what is wrong, or NULL ---------------------------------------------------------- */

/* What can be said about a first line before its end is there, so that a TLS hello or a banner is refused at once. */
static const char *check_request_start(struct slice s)
{
    struct slice method = {s.data, s.len < HTTP1_METHOD_MAX + 1 ? s.len : HTTP1_METHOD_MAX + 1};
    size_t len = http_span(method, HTTP_CHAR_TOKEN);
    if (len > HTTP1_METHOD_MAX)
        return "method is too long";
    if (len == s.len || (s.data[len] == ' ' && len > 0))
        return NULL;
    if (s.data[len] == '\n')
        return "bare LF";
    if (s.data[len] == '\r') {
        if (len + 1 == s.len || s.data[len + 1] != '\n')
            return NULL; /* http1_line_find waits or refuses */
        return len ? "request line without a target" : "empty line before the request";
    }
    return "method is not a token";
}

static const char *check_response_start(struct slice s)
{
    struct slice version = SLICE("HTTP/1.");
    if (s.len < version.len)
        version.len = s.len;
    return slice_starts_with(s, version) ? NULL : "not an HTTP/1 status line";
}

/* HTTP/1 in upper case; a minor version that is not known yet is the highest that is (RFC 9110, 2.5). */
static bool parse_version(struct slice s, struct http1_message *m)
{
    if (s.len != VERSION_LEN || !slice_starts_with(s, SLICE("HTTP/1.")) || !http_char_is(s.data[7], HTTP_CHAR_DIGIT))
        return false;
    m->http10 = s.data[7] == '0';
    return true;
}

/* method SP request-target SP HTTP-version (RFC 9112, 3). */
static const char *parse_request_line(struct slice line, struct http1_message *m)
{
    size_t method = http_span(line, HTTP_CHAR_TOKEN);
    struct slice rest = {line.data + method + 1, line.len - method - 1};
    const char *space = rest.len ? memchr(rest.data, ' ', rest.len) : NULL;
    if (!space)
        return rest.len ? "request line without a version (HTTP/0.9)" : "request line without a target";
    struct slice target = {rest.data, (size_t)(space - rest.data)};
    if (target.len == 0)
        return "empty target";
    if (http_span(target, HTTP_CHAR_TARGET) != target.len)
        return memchr(target.data, '#', target.len) ? "fragment in the target" : "target is not visible ASCII";
    if (!parse_version((struct slice){space + 1, rest.len - target.len - 1}, m))
        return "version is not HTTP/1";
    m->head.method = (struct slice){line.data, method};
    m->head.target = target;
    return NULL;
}

/* HTTP-version SP status-code [SP reason-phrase] (RFC 9112, 4); the phrase may be left out with its space, as many
 * servers do. */
static const char *parse_status_line(struct slice line, struct http1_message *m)
{
    const size_t code_at = VERSION_LEN + 1, end = code_at + 3;
    if (line.len < VERSION_LEN || !parse_version((struct slice){line.data, VERSION_LEN}, m))
        return "version is not HTTP/1";
    if (line.len < end || line.data[VERSION_LEN] != ' ' || (line.len > end && line.data[end] != ' '))
        return "malformed status line";
    uint64_t status;
    if (!slice_to_u64((struct slice){line.data + code_at, 3}, &status) || status < 100)
        return "status is not a number from 100 to 999";
    m->head.status = (uint16_t)status;
    return NULL;
}

/* ---- lines ----------------------------------------------------------------------------------------------------- */

/* Where parsing stands: the start of the line that is being looked at, and how far it was looked at. This is what
 * *scanned carries from call to call. */
struct place {
    size_t line, at;
};

/* Heads that reach their limit are refused, so that a place to go on from is below it. */
_Static_assert(LIMIT_HEAD_BYTES <= 0x10000 && LIMIT_ANSWER_HEAD_BYTES <= 0x10000, "a place has to fit into 32 bits");

static size_t place_pack(struct place p)
{
    return p.line << 16 | p.at;
}

static struct place place_unpack(size_t scanned)
{
    return (struct place){scanned >> 16, scanned & 0xffff};
}

/* Finds and checks the first line. 1 and *p is behind it; otherwise as parse_lines. */
static ssize_t parse_first_line(enum side side, struct slice in, size_t start, struct place *p, struct http1_message *m)
{
    struct slice rest = {in.data + start, in.len - start};
    const char *error = NULL;
    if (rest.len)
        error = side == REQUEST ? check_request_start(rest) : check_response_start(rest);
    if (error)
        return refuse(m, side, error);
    bool cut = rest.len > FIRST_LINE_MAX + 2;
    if (cut)
        in.len = start + FIRST_LINE_MAX + 2;
    enum http1_line found = http1_line_find(in, &p->at, reading_of(side), &error);
    if (found == HTTP1_LINE_PART)
        return cut ? refuse_size(m, side, REASON_TARGET_TOO_LONG, "first line is too long") : 0;
    if (found == HTTP1_LINE_BAD)
        return refuse(m, side, error);
    struct slice text = {in.data + start, p->at - start};
    error = side == REQUEST ? parse_request_line(text, m) : parse_status_line(text, m);
    if (error)
        return refuse(m, side, error);
    p->line = p->at += http1_line_end(in, p->at);
    return 1;
}

/* Finds the head's end from *p on and checks the lines before it; start is where the first line begins. Lines are
 * stored in *m on the way, which is of use only when *p was the start. Returns as http1_parse_request does. */
static ssize_t parse_lines(enum side side, struct slice in, size_t start, struct place *p, struct http1_message *m)
{
    if (p->line == start) {
        ssize_t found = parse_first_line(side, in, start, p, m);
        if (found <= 0)
            return found;
    }
    size_t at = p->at, fields = 0;
    for (size_t line = p->line;; line = at) {
        const char *error = NULL;
        enum http1_line found = http1_line_find(in, &at, reading_of(side), &error);
        if (found == HTTP1_LINE_BAD)
            return refuse(m, side, error);
        if (found == HTTP1_LINE_PART) {
            *p = (struct place){line, at};
            return 0;
        }
        struct slice text = {in.data + line, at - line};
        at += http1_line_end(in, at);
        if (text.len == 0)
            return fields > fields_max(side) ? refuse_size(m, side, REASON_HEAD_TOO_LARGE, "too many fields")
                                             : (ssize_t)at;
        struct field field;
        if (!http1_field_split(text, reading_of(side), &field, &error))
            return refuse(m, side, error);
        if (++fields <= fields_max(side))
            head_push(&m->head, field.name, field.value, field.id);
    }
}

static ssize_t parse_head(enum side side, struct slice input, size_t *scanned, struct http1_message *m)
{
    message_clear(m, side);
    struct slice in = input;
    if (in.len > bytes_max(side))
        in.len = bytes_max(side);
    size_t start = side == REQUEST && slice_starts_with(in, SLICE("\r\n")) ? 2 : 0;
    struct place begin = {start, start}, place = place_unpack(*scanned);
    bool resumed = place.at > start;
    if (!resumed)
        place = begin;
    ssize_t len = parse_lines(side, in, start, &place, m);
    if (len > 0 && resumed) {
        message_clear(m, side);
        place = begin;
        len = parse_lines(side, in, start, &place, m);
    }
    if (len > 0) {
        m->head.block = (struct slice){input.data, (size_t)len};
        m->head.judged = true; /* believed once the head as a whole is */
    }
    if (len != 0)
        return len;
    if (input.len >= bytes_max(side))
        return refuse_size(m, side, REASON_HEAD_TOO_LARGE, "head is too large");
    *scanned = place_pack(place);
    return 0;
}

/* ---- the head as a whole --------------------------------------------------------------------------------------- */

/* The fields that decide about framing, routing and the connection, gathered in one pass. */
struct control {
    unsigned hosts, lengths, codings, expects, upgrades;
    struct slice host, length, coding, expect, upgrade; /* the first of each */
    bool close, keep_alive, upgrade_wanted;             /* tokens of Connection */
};

static void read_connection(struct slice value, struct control *c)
{
    struct slice option;
    while (slice_next_element(&value, &option)) {
        c->close |= slice_equals_nocase(option, SLICE("close"));
        c->keep_alive |= slice_equals_nocase(option, SLICE("keep-alive"));
        c->upgrade_wanted |= slice_equals_nocase(option, SLICE("upgrade"));
    }
}

static void note(struct slice value, unsigned *count, struct slice *first)
{
    if ((*count)++ == 0)
        *first = value;
}

static void gather(const struct head *head, struct control *c)
{
    *c = (struct control){0};
    for (size_t i = 0; i < head->count; i++) {
        const struct field *field = &head->fields[i];
        switch (field->id) {
        case FIELD_HOST:
            note(field->value, &c->hosts, &c->host);
            break;
        case FIELD_CONTENT_LENGTH:
            note(field->value, &c->lengths, &c->length);
            break;
        case FIELD_TRANSFER_ENCODING:
            note(field->value, &c->codings, &c->coding);
            break;
        case FIELD_CONNECTION:
            read_connection(field->value, c);
            break;
        case FIELD_UPGRADE:
            note(field->value, &c->upgrades, &c->upgrade);
            break;
        case FIELD_EXPECT:
            note(field->value, &c->expects, &c->expect);
            break;
        default:
            break;
        }
    }
}

static const char *parse_length(struct slice value, uint64_t *length)
{
    if (value.len == 0)
        return "empty Content-Length";
    if (http_span(value, HTTP_CHAR_DIGIT) != value.len)
        return "Content-Length is not a number";
    uint64_t number;
    if (!slice_to_u64(value, &number) || number > INT64_MAX)
        return "Content-Length is too large";
    *length = number;
    return NULL;
}

/* Whether white space around a value is anything but spaces before it. Allowed elsewhere, but in fields that frame a
 * message parsers are known to differ about the rest. The value lies in a line, between its colon and its CR. */
static bool is_oddly_spaced(struct slice value)
{
    const char *before = value.data - 1;
    while (*before == ' ')
        before--;
    return *before != ':' || value.data[value.len] != '\r';
}

#define OTHER_CODING "Transfer-Encoding that is not known, with chunked behind it"

/* What is wrong with a Transfer-Encoding that is not chunked alone: a body that ends as everybody agrees, in a coding
 * that is not taken apart here (RFC 9112, 6.1), or a framing that is none. */
static const char *check_other_coding(struct slice list)
{
    struct slice coding = {0};
    bool tokens = true;
    unsigned chunked = 0, others = 0;
    while (slice_next_element(&list, &coding)) {
        tokens = tokens && http_is_token(coding);
        *(slice_equals_nocase(coding, SLICE("chunked")) ? &chunked : &others) += 1;
    }
    bool framed = tokens && others > 0 && chunked == 1 && slice_equals_nocase(coding, SLICE("chunked"));
    return framed ? OTHER_CODING : "Transfer-Encoding other than chunked";
}

/* Chunked once and alone, and never beside a length (RFC 9112, 6.1 to 6.3). */
static const char *check_request_coding(const struct http1_message *m, const struct control *c)
{
    if (c->codings == 0)
        return NULL;
    if (c->lengths > 0)
        return "both Transfer-Encoding and Content-Length";
    if (m->http10)
        return "Transfer-Encoding in HTTP/1.0";
    if (c->codings > 1)
        return "more than one Transfer-Encoding";
    if (!slice_equals_nocase(c->coding, SLICE("chunked")))
        return check_other_coding(c->coding);
    return is_oddly_spaced(c->coding) ? "odd white space around Transfer-Encoding" : NULL;
}

static const char *settle_request_framing(struct http1_message *m, const struct control *c)
{
    const char *error = check_request_coding(m, c);
    if (error)
        return error;
    if (c->lengths > 1)
        return "more than one Content-Length";
    if (c->lengths > 0) {
        m->framing = HTTP1_LENGTH;
        error = parse_length(c->length, &m->length);
        return !error && is_oddly_spaced(c->length) ? "odd white space around Content-Length" : error;
    }
    m->framing = c->codings ? HTTP1_CHUNKED : HTTP1_NO_BODY;
    return NULL;
}

static const char *settle_host(struct http1_message *m, const struct control *c)
{
    if (c->hosts == 0)
        return m->http10 ? "HTTP/1.0 request without Host" : "no Host";
    if (c->hosts > 1)
        return "more than one Host";
    struct slice host;
    if (!http_split_authority(c->host, &host))
        return "Host is not a host";
    m->head.authority = c->host;
    m->head.host_len = (uint16_t)host.len;
    return NULL;
}

/* Length of "http://" or "https://" at the start, or 0. */
static size_t scheme_len(struct slice target)
{
    const struct slice schemes[] = {SLICE("http://"), SLICE("https://")};
    for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
        struct slice start = {target.data, schemes[i].len};
        if (target.len >= start.len && slice_equals_nocase(start, schemes[i]))
            return start.len;
    }
    return 0;
}

/* Leaves a path or "*" (RFC 9112, 3.2). The host of an absolute target wins over Host (3.2.2) and takes its place: it
 * is the one that is routed by, authorised and passed on. */
static const char *settle_target(struct http1_message *m)
{
    struct slice target = m->head.target;
    bool options = slice_equals(m->head.method, SLICE("OPTIONS"));
    if (slice_equals(m->head.method, SLICE("CONNECT")))
        return "CONNECT is not offered";
    if (target.data[0] == '/')
        return NULL;
    if (slice_equals(target, SLICE("*")))
        return options ? NULL : "target * without OPTIONS";
    size_t scheme = scheme_len(target);
    if (scheme == 0)
        return "target is neither a path nor an http URL";

    struct slice rest = {target.data + scheme, target.len - scheme};
    size_t len = 0;
    while (len < rest.len && rest.data[len] != '/' && rest.data[len] != '?')
        len++;
    struct slice authority = {rest.data, len}, path = {rest.data + len, rest.len - len};
    if (len > 0 && memchr(authority.data, '@', len))
        return "user info in the target";
    struct slice host;
    if (!http_split_authority(authority, &host))
        return "target's host is not a host";
    if (path.len > 0 && path.data[0] == '?')
        return "URL as target without a path";
    if (path.len == 0) {
        path = options ? SLICE("*") : SLICE("/");
    } else { /* which begins right behind the authority: one block cannot hold both (head_carry) */
        m->head.block.len -= (size_t)(path.data - m->head.block.data);
        m->head.block.data = path.data;
    }
    m->head.target = path;
    m->head.authority = authority;
    m->head.host_len = (uint16_t)host.len;
    for (size_t i = 0; i < m->head.count; i++)
        if (m->fields[i].id == FIELD_HOST)
            m->fields[i].value = authority;
    m->head.loose += authority.len;
    return NULL;
}

static const char *settle_expect(struct http1_message *m, const struct control *c)
{
    if (c->expects == 0)
        return NULL;
    if (c->expects > 1)
        return "more than one Expect";
    if (!slice_equals_nocase(c->expect, SLICE("100-continue")))
        return "Expect other than 100-continue";
    bool body = m->framing == HTTP1_CHUNKED || m->length > 0;
    m->expect_continue = body && !m->http10; /* RFC 9110, 10.1.1: ignored in HTTP/1.0 */
    return NULL;
}

/* A wish that is not understood is not heard (RFC 9110, 7.8): what is not passed on misleads nobody. */
static void settle_upgrade(struct http1_message *m, const struct control *c)
{
    if (c->upgrades == 0 || !c->upgrade_wanted || m->http10)
        return;
    if (c->upgrades > 1 || !http_upgrade_is_allowed(c->upgrade) || m->framing == HTTP1_CHUNKED)
        return;
    m->upgrade = true;
    m->head.protocol = c->upgrade;
}

static bool wants_keep_alive(const struct http1_message *m, const struct control *c)
{
    return !c->close && (c->keep_alive || !m->http10);
}

static const char *finish_request(struct http1_message *m)
{
    struct control c;
    gather(&m->head, &c);
    m->keep_alive = wants_keep_alive(m, &c);
    const char *error = settle_request_framing(m, &c);
    if (!error)
        error = settle_host(m, &c);
    if (!error)
        error = settle_target(m);
    if (!error)
        error = settle_expect(m, &c);
    if (!error)
        settle_upgrade(m, &c);
    return error;
}

ssize_t http1_parse_request(struct slice input, size_t *scanned, struct http1_message *m)
{
    ssize_t len = parse_head(REQUEST, input, scanned, m);
    if (len <= 0)
        return len;
    if (m->head.target.len > LIMIT_TARGET_BYTES)
        return refuse_size(m, REQUEST, REASON_TARGET_TOO_LONG, "target is too long");
    const char *error = finish_request(m);
    if (!error)
        return len;
    refuse(m, REQUEST, error);
    if (strcmp(error, OTHER_CODING) == 0)
        m->reason = REASON_NOT_IMPLEMENTED;
    return KV_EINVAL;
}

/* ---- responses ------------------------------------------------------------------------------------------------- */

/* One number from all Content-Length lines and their list elements (RFC 9110, 8.6, allows it if all are equal); the
 * head keeps the first alone. */
static const char *merge_lengths(struct http1_message *m)
{
    struct field *kept = NULL;
    uint16_t count = 0;
    for (uint16_t i = 0; i < m->head.count; i++) {
        struct field *field = &m->fields[i];
        if (field->id != FIELD_CONTENT_LENGTH) {
            m->fields[count++] = *field;
            continue;
        }
        struct slice rest = field->value, element;
        bool more = true;
        while (more) {
            const char *comma = rest.len ? memchr(rest.data, ',', rest.len) : NULL;
            more = comma != NULL;
            element = (struct slice){rest.data, more ? (size_t)(comma - rest.data) : rest.len};
            rest = (struct slice){element.data + element.len + more, rest.len - element.len - more};
            element = slice_trim(element);
            uint64_t length;
            const char *error = parse_length(element, &length);
            if (error)
                return error;
            if (kept && length != m->length)
                return "differing Content-Length";
            if (kept)
                continue;
            kept = &m->fields[count++];
            *kept = (struct field){field->name, element, field->id};
            m->length = length;
        }
    }
    m->head.count = count;
    return NULL;
}

/* An answer that ends with its head whatever its fields say (RFC 9112, 6.3, rules 1 and 2). */
static bool has_no_body(unsigned status, struct slice to_method)
{
    return status < 200 || status == 204 || status == 304 || slice_equals(to_method, SLICE("HEAD")) ||
           (status < 300 && slice_equals(to_method, SLICE("CONNECT")));
}

static const char *settle_switch(struct http1_message *m, const struct control *c)
{
    if (c->upgrades != 1 || !http_is_protocol_list(c->upgrade))
        return "101 without one Upgrade";
    m->upgrade = true;
    m->keep_alive = false;
    m->head.protocol = c->upgrade;
    return NULL;
}

static void drop_lengths(struct http1_message *m)
{
    uint16_t count = 0;
    for (uint16_t i = 0; i < m->head.count; i++)
        if (m->fields[i].id != FIELD_CONTENT_LENGTH)
            m->fields[count++] = m->fields[i];
    m->head.count = count;
}

/* Chunks win over a length and over the version (RFC 9112, 6.3 and 6.1), on a connection that carries nothing further
 * then; "identity" is what old servers call no coding at all. */
static const char *settle_response_coding(struct http1_message *m, struct control *c)
{
    if (c->codings == 1 && slice_equals_nocase(c->coding, SLICE("identity")))
        c->codings = 0;
    if (c->codings == 0)
        return NULL;
    if (c->codings > 1)
        return "more than one Transfer-Encoding";
    if (!slice_equals_nocase(c->coding, SLICE("chunked")))
        return check_other_coding(c->coding);
    if (c->lengths > 0)
        drop_lengths(m);
    if (c->lengths > 0 || m->http10)
        m->keep_alive = false;
    c->lengths = 0;
    return NULL;
}

static const char *finish_response(struct http1_message *m, struct slice to_method)
{
    struct control c;
    gather(&m->head, &c);
    m->keep_alive = wants_keep_alive(m, &c);
    const char *error = settle_response_coding(m, &c);
    if (!error && c.lengths)
        error = merge_lengths(m);
    if (error)
        return error;

    unsigned status = m->head.status;
    bool announced = c.codings || m->length > 0;
    if (status < 200 && announced)
        return "interim response with a body";
    if (status == 101)
        return settle_switch(m, &c);
    if (has_no_body(status, to_method)) {
        m->framing = HTTP1_NO_BODY;
        if (status == 204 && announced)
            m->keep_alive = false; /* whether bytes follow is anybody's guess */
    } else if (c.codings) {
        m->framing = HTTP1_CHUNKED;
    } else if (c.lengths) {
        m->framing = HTTP1_LENGTH;
    } else {
        m->framing = HTTP1_UNTIL_CLOSE;
        m->keep_alive = false;
    }
    return NULL;
}

ssize_t http1_parse_response(struct slice input, size_t *scanned, struct slice to_method, struct http1_message *m)
{
    ssize_t len = parse_head(RESPONSE, input, scanned, m);
    if (len <= 0)
        return len;
    const char *error = finish_response(m, to_method);
    if (error)
        return refuse(m, RESPONSE, error);
    if (m->framing != HTTP1_LENGTH)
        m->length = 0;
    return len;
}
