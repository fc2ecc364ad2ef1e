/*
 * Rules over heads, in the order in which a request meets them: is there a body, what must not reach the service, may
 * the request be repeated, how long will the service keep the connection.
 */
#include "client/origin_head.h"

#include <openssl/evp.h>

#include "base/error.h"
#include "base/limits.h"
#include "http/forward.h"
#include "http/upgrade.h"

/* Promised idle time that is not used: the service's clock starts before ours. */
#define IDLE_MARGIN_MS 1000
#define IDLE_MIN_MS    500

/* ---- framing --------------------------------------------------------------------------------------------------- */

bool origin_head_has_usually_no_body(const struct head *head)
{
    static const char *const methods[] = {"GET", "HEAD", "OPTIONS", "TRACE", "DELETE", "CONNECT"};
    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++)
        if (slice_equals(head->method, slice_of(methods[i])))
            return true;
    return false;
}

static bool is_chunked(const struct head *head)
{
    const struct field *coding = head_find_id(head, FIELD_TRANSFER_ENCODING);
    return coding && head_has_token(head, coding->name, SLICE("chunked"));
}

int origin_head_framing(const struct head *head, struct origin_framing *out)
{
    bool upgrade = head->protocol.len > 0;
    *out = (struct origin_framing){.framing = HTTP1_NO_BODY};
    if (is_chunked(head)) {
        out->framing = HTTP1_CHUNKED;
        return upgrade ? KV_EINVAL : KV_OK;
    }
    bool found = false, told = !head_lacks(head, FIELD_CONTENT_LENGTH);
    for (size_t i = 0; told && i < head->count; i++) {
        uint64_t length;
        if (field_id(&head->fields[i]) != FIELD_CONTENT_LENGTH)
            continue;
        if (!slice_to_u64(head->fields[i].value, &length) || length > INT64_MAX || (found && length != out->length))
            return KV_EINVAL;
        found = true;
        out->length = length;
    }
    if (found)
        out->framing = HTTP1_LENGTH;
    else
        out->open = !upgrade && !origin_head_has_usually_no_body(head);
    return KV_OK;
}

/* ---- the request ----------------------------------------------------------------------------------------------- */

/* Fields that stay whatever Connection says: taking them away would change whom the request reaches or what it is. */
static bool is_protected(struct slice name)
{
    static const char *const names[] = {"host", "content-length", "transfer-encoding", "te", "upgrade", "cookie",
                                        "via",  "cdn-loop"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (slice_equals_nocase(name, slice_of(names[i])))
            return true;
    return name.len >= 12 && slice_equals_nocase((struct slice){name.data, 12}, SLICE("x-forwarded-"));
}

/* RFC 9110, 7.6.1. The text of a removed field stays where it is, so the names outlive Connection itself. */
static void remove_named_by_connection(struct head *head)
{
    struct slice names[FORWARD_OPTIONS_MAX];
    size_t count = 0;
    if (head_lacks(head, FIELD_CONNECTION))
        return;
    for (size_t i = 0; i < head->count; i++) {
        struct slice list = head->fields[i].value;
        if (field_id(&head->fields[i]) != FIELD_CONNECTION)
            continue;
        while (count < FORWARD_OPTIONS_MAX && slice_next_element(&list, &names[count]))
            count++;
    }
    for (size_t i = 0; i < count; i++)
        if (!is_protected(names[i]))
            head_remove(head, names[i]);
    head_remove_id(head, FIELD_CONNECTION);
}

static void set_host(struct head *head, struct slice host_header, struct slice authority)
{
    if (host_header.len > 0) {
        head->authority = host_header;
        head_remove_id(head, FIELD_HOST);
    } else if (head->authority.len == 0 && !head_find_id(head, FIELD_HOST)) {
        head->authority = authority;
    }
}

void origin_head_settle_upgrade(struct head *head)
{
    if (head->protocol.len == 0 || (http_upgrade_is_allowed(head->protocol) && !is_chunked(head)))
        return;
    head->protocol = (struct slice){0};
    head_remove_id(head, FIELD_UPGRADE);
}

void origin_head_prepare(struct head *head, struct slice host_header, struct slice authority)
{
    const struct field *te = head_find_id(head, FIELD_TE);
    if (te && head_has_token(head, te->name, SLICE("trailers"))) {
        for (size_t i = 0; i < head->count; i++)
            if (field_id(&head->fields[i]) == FIELD_TE)
                head_set_value(head, i, SLICE("trailers"));
    } else if (te) {
        head_remove_id(head, FIELD_TE);
    }
    remove_named_by_connection(head);
    if (head_find_id(head, FIELD_EXPECT)) /* the body comes without being asked for */
        head_remove_id(head, FIELD_EXPECT);
    set_host(head, host_header, authority);
}

/* ---- over HTTP/2 ----------------------------------------------------------------------------------------------- */

static struct slice first_protocol(const struct head *request)
{
    struct slice list = request->protocol, first = {0};
    (void)slice_next_element(&list, &first);
    return first;
}

/* Whether a field goes into the request as HTTP/2 has it. */
static bool belongs_in_h2(const struct field *field, enum http1_framing framing, bool connect)
{
    if (field_is(field, SLICE("te")))
        return true; /* "trailers", or it would not be there any more */
    if (field_is(field, SLICE("content-length")))
        return framing == HTTP1_LENGTH;
    if (connect && field_is(field, SLICE("sec-websocket-key")))
        return false;
    return !field_is(field, SLICE("host")) && !forward_is_hop_by_hop(field_id(field));
}

int origin_head_for_h2(const struct head *request, enum http1_framing framing, bool tls, bool connect, struct head *out)
{
    out->method = connect ? SLICE("CONNECT") : request->method;
    out->protocol = connect ? first_protocol(request) : (struct slice){0};
    out->target = request->target;
    out->scheme = tls ? SLICE("https") : SLICE("http");
    out->authority = request->authority.len > 0 ? request->authority : head_value(request, SLICE("host"));
    for (size_t i = 0; i < request->count; i++) {
        const struct field *field = &request->fields[i];
        bool again = field_is(field, SLICE("content-length")) && head_find(out, field->name);
        if (belongs_in_h2(field, framing, connect) && !again && head_add(out, field->name, field->value) != KV_OK)
            return KV_EINVAL;
    }
    return KV_OK;
}

#define WEBSOCKET_GUID  "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
#define SHA1_BYTES      20
#define ACCEPT_TEXT_LEN 28 /* of base64 for SHA1_BYTES */
#define KEY_BYTES_MAX   64 /* a key has 24 characters; what is no key is answered all the same, but not at any length */

static int add_websocket_accept(struct head *answer, struct slice key)
{
    char text[KEY_BYTES_MAX + sizeof(WEBSOCKET_GUID)];
    unsigned char digest[SHA1_BYTES];
    char accept[ACCEPT_TEXT_LEN + 1];
    if (key.len == 0 || key.len > KEY_BYTES_MAX)
        return KV_OK;
    memcpy(text, key.data, key.len);
    memcpy(text + key.len, WEBSOCKET_GUID, sizeof(WEBSOCKET_GUID) - 1);
    if (EVP_Digest(text, key.len + sizeof(WEBSOCKET_GUID) - 1, digest, NULL, EVP_sha1(), NULL) != 1)
        return KV_ENOMEM;
    int len = EVP_EncodeBlock((unsigned char *)accept, digest, sizeof(digest));
    return head_add(answer, SLICE("sec-websocket-accept"), (struct slice){accept, (size_t)len});
}

struct head *origin_head_switched(const struct head *request, const struct head *answer)
{
    struct slice protocol = first_protocol(request);
    struct head *switched = head_copy(answer, 1, protocol.len + sizeof("sec-websocket-accept") + ACCEPT_TEXT_LEN);
    if (!switched)
        return NULL;
    switched->status = 101;
    switched->protocol = head_intern(switched, protocol);
    head_remove(switched, SLICE("sec-websocket-accept"));
    int error = KV_OK;
    if (slice_equals_nocase(protocol, SLICE("websocket")))
        error = add_websocket_accept(switched, head_value(request, SLICE("sec-websocket-key")));
    if (!error)
        return switched;
    head_free(switched);
    return NULL;
}

/* Whether one of the challenges of a field, or the credentials, are of such a scheme. A comma inside of a parameter may
 * make one of what is none, which does no harm. */
static bool names_bound_scheme(struct slice value)
{
    static const char *const schemes[] = {"NTLM", "Negotiate", "Nego2", "Kerberos"};
    struct slice element;
    while (slice_next_element(&value, &element)) {
        struct slice scheme = {element.data, http_span(element, HTTP_CHAR_TOKEN)};
        for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++)
            if (slice_equals_nocase(scheme, slice_of(schemes[i])))
                return true;
    }
    return false;
}

bool origin_head_binds_connection(const struct head *head)
{
    struct slice name = head->method.len > 0 ? SLICE("authorization") : SLICE("www-authenticate");
    if (head_lacks(head, FIELD_MODIFIER)) /* which both are */
        return false;
    for (size_t i = 0; i < head->count; i++)
        if (field_is(&head->fields[i], name) && names_bound_scheme(head->fields[i].value))
            return true;
    return false;
}

bool origin_head_is_idempotent(const struct head *head)
{
    static const char *const methods[] = {"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"};
    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++)
        if (slice_equals(head->method, slice_of(methods[i])))
            return true;
    return false;
}

/* ---- the answer ------------------------------------------------------------------------------------------------ */

uint64_t origin_head_idle_ms(const struct head *answer)
{
    const struct field *keep_alive = head_find_id(answer, FIELD_KEEP_ALIVE);
    struct slice parameters = keep_alive ? keep_alive->value : (struct slice){0}, parameter;
    uint64_t seconds;
    while (slice_next_element(&parameters, &parameter)) {
        struct slice key = SLICE("timeout=");
        if (parameter.len <= key.len || !slice_equals_nocase((struct slice){parameter.data, key.len}, key))
            continue;
        if (!slice_to_u64((struct slice){parameter.data + key.len, parameter.len - key.len}, &seconds))
            continue;
        if (seconds * 1000 >= LIMIT_ORIGIN_IDLE_MS + IDLE_MARGIN_MS || seconds > LIMIT_ORIGIN_IDLE_MS)
            break;
        return seconds * 1000 > IDLE_MARGIN_MS + IDLE_MIN_MS ? seconds * 1000 - IDLE_MARGIN_MS : IDLE_MIN_MS;
    }
    return LIMIT_ORIGIN_IDLE_MS;
}
