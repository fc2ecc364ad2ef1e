/* URLs are taken apart no further than their authority: what stands behind it is passed on byte by byte. */
#include "client/rewrite.h"

#include <string.h>

#include "base/buffer.h"
#include "base/error.h"
#include "base/limits.h"
#include "http/syntax.h"

/* ---- URLs ------------------------------------------------------------------------------------------------------ */

struct absolute {
    struct slice scheme; /* empty in "//host/path" */
    struct slice authority;
    struct slice rest; /* path, query, fragment */
};

/* True for http and https URLs, and such as leave the scheme out. */
static bool split_url(struct slice url, struct absolute *out)
{
    static const struct slice schemes[] = {{"http:", 5}, {"https:", 6}, {"", 0}};
    size_t scheme = 0;
    for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]) && scheme == 0; i++)
        if (url.len > schemes[i].len && slice_equals_nocase((struct slice){url.data, schemes[i].len}, schemes[i]))
            scheme = schemes[i].len;
    out->scheme = (struct slice){url.data, scheme ? scheme - 1 : 0};
    struct slice behind = {url.data + scheme, url.len - scheme};
    if (!slice_starts_with(behind, SLICE("//")))
        return false;
    size_t end = 2;
    while (end < behind.len && !strchr("/?#", behind.data[end]))
        end++;
    out->authority = (struct slice){behind.data + 2, end - 2};
    out->rest = (struct slice){behind.data + end, behind.len - end};
    return true;
}

/* The port in an authority; empty if it is the scheme's own. */
static struct slice port_of(struct slice authority, struct slice host, struct slice scheme)
{
    const char *end = authority.data + authority.len, *at = host.data + host.len;
    if (at < end && *at == '.')
        at++;
    struct slice port = at < end ? (struct slice){at + 1, (size_t)(end - at) - 1} : (struct slice){0};
    bool own = slice_equals(port, slice_equals_nocase(scheme, SLICE("https")) ? SLICE("443") : SLICE("80"));
    return own ? (struct slice){0} : port;
}

/* Whether two authorities are one place, each with its scheme. */
static bool is_same(struct slice a, struct slice a_scheme, struct slice b, struct slice b_scheme)
{
    struct slice host_a, host_b;
    if (!http_split_authority(a, &host_a) || !http_split_authority(b, &host_b) || !slice_equals_nocase(host_a, host_b))
        return false;
    return slice_equals(port_of(a, host_a, a_scheme), port_of(b, host_b, b_scheme));
}

/* ---- changing a field ------------------------------------------------------------------------------------------ */

/* Gives a field the text as its value, in a copy that takes the head's place. */
static int replace(struct head **head, size_t field, const struct buffer *text)
{
    struct head *copy = head_copy(*head, 0, text->len + 1);
    if (!copy)
        return KV_ENOMEM;
    struct slice value = head_intern(copy, buffer_slice(text));
    head_set_value(copy, field, value);
    head_free(*head);
    *head = copy;
    return KV_OK;
}

static int put_url(struct buffer *out, const struct absolute *url, struct slice scheme, struct slice authority)
{
    int error = KV_OK;
    if (url->scheme.len > 0)
        error = buffer_append_slice(out, scheme);
    if (!error && url->scheme.len > 0)
        error = buffer_append(out, ":", 1);
    if (!error)
        error = buffer_append(out, "//", 2);
    if (!error)
        error = buffer_append_slice(out, authority);
    return error ? error : buffer_append_slice(out, url->rest);
}

/* ---- up -------------------------------------------------------------------------------------------------------- */

int rewrite_request(const struct rewrite *rewrite, struct head **head)
{
    struct absolute url;
    struct buffer text = BUFFER_INIT(LIMIT_HEAD_BYTES);
    bool moves = slice_equals((*head)->method, SLICE("MOVE")) || slice_equals((*head)->method, SLICE("COPY"));
    const struct field *destination = moves ? head_find(*head, SLICE("destination")) : NULL;
    if (!destination || !split_url(destination->value, &url))
        return KV_OK;
    struct slice scheme = url.scheme.len > 0 ? url.scheme : rewrite->public_scheme;
    if (!is_same(url.authority, scheme, rewrite->public_authority, rewrite->public_scheme) &&
        !is_same(url.authority, scheme, rewrite->public_authority, scheme))
        return KV_OK;
    int error = put_url(&text, &url, rewrite->service_scheme, rewrite->service_authority);
    if (!error)
        error = replace(head, (size_t)(destination - (*head)->fields), &text);
    buffer_free(&text);
    return error;
}

/* ---- down ------------------------------------------------------------------------------------------------------ */

static bool is_service(const struct rewrite *rewrite, const struct absolute *url)
{
    struct slice scheme = url->scheme.len > 0 ? url->scheme : rewrite->service_scheme, host, service;
    if (is_same(url->authority, scheme, rewrite->service_authority, rewrite->service_scheme) ||
        is_same(url->authority, scheme, rewrite->service_authority, scheme) ||
        is_same(url->authority, scheme, rewrite->dialled, rewrite->service_scheme))
        return true;
    /* The host that it is sent, and the port that it listens on. */
    struct slice dialled;
    return http_split_authority(url->authority, &host) && http_split_authority(rewrite->service_authority, &service) &&
           http_split_authority(rewrite->dialled, &dialled) && slice_equals_nocase(host, service) &&
           slice_equals(port_of(url->authority, host, scheme),
                        port_of(rewrite->dialled, dialled, rewrite->service_scheme));
}

/* Where the URL begins in a Refresh ("5; url=https://…", perhaps in quotes), or its length. */
static size_t refresh_url_at(struct slice value)
{
    struct slice key = SLICE("url=");
    for (size_t at = 0; at + key.len < value.len; at++) {
        if (!slice_equals_nocase((struct slice){value.data + at, key.len}, key))
            continue;
        at += key.len;
        return value.data[at] == '"' || value.data[at] == '\'' ? at + 1 : at;
    }
    return value.len;
}

/* The value with its URL, which begins at `at`, made public. False if it stays. */
static bool make_public(const struct rewrite *rewrite, struct slice value, size_t at, struct buffer *out, int *error)
{
    struct absolute url;
    if (!split_url((struct slice){value.data + at, value.len - at}, &url) || !is_service(rewrite, &url))
        return false;
    *error = buffer_append(out, value.data, at);
    if (!*error)
        *error = put_url(out, &url, rewrite->public_scheme, rewrite->public_authority);
    return true;
}

/* Whether a cookie of this Domain would reach the host that the service is sent (RFC 6265, 5.1.3). */
static bool covers(struct slice domain, struct slice host)
{
    while (domain.len > 0 && domain.data[0] == '.')
        domain = (struct slice){domain.data + 1, domain.len - 1};
    if (domain.len == 0 || domain.len > host.len)
        return false;
    struct slice end = {host.data + host.len - domain.len, domain.len};
    return slice_equals_nocase(end, domain) && (domain.len == host.len || end.data[-1] == '.');
}

/* The cookie with the public host in place of each Domain that is the service's. False if there is none. */
static bool move_cookie(const struct rewrite *rewrite, struct slice value, struct buffer *out, int *error)
{
    struct slice service, visible;
    bool changed = false;
    if (!http_split_authority(rewrite->service_authority, &service) ||
        !http_split_authority(rewrite->public_authority, &visible))
        return false;
    *error = KV_OK;
    for (size_t at = 0; at < value.len && !*error;) {
        const char *semicolon = memchr(value.data + at, ';', value.len - at);
        size_t end = semicolon ? (size_t)(semicolon - value.data) + 1 : value.len;
        struct slice attribute = {value.data + at, end - at - (semicolon ? 1 : 0)};
        const char *equals = at > 0 && attribute.len > 0 ? memchr(attribute.data, '=', attribute.len) : NULL;
        size_t name = equals ? (size_t)(equals - attribute.data) : attribute.len;
        struct slice domain = {attribute.data + name + 1, attribute.len - name - (equals ? 1 : 0)};
        if (equals && slice_equals_nocase(slice_trim((struct slice){attribute.data, name}), SLICE("domain")) &&
            covers(slice_trim(domain), service)) {
            changed = true;
            *error = buffer_append(out, attribute.data, name + 1);
            if (!*error)
                *error = buffer_append_slice(out, visible);
            if (!*error && semicolon)
                *error = buffer_append(out, ";", 1);
        } else {
            *error = buffer_append(out, value.data + at, end - at);
        }
        at = end;
    }
    return changed;
}

static bool change(const struct rewrite *rewrite, const struct field *field, struct buffer *out, int *error)
{
    if (field_is(field, SLICE("location")) || field_is(field, SLICE("content-location")))
        return make_public(rewrite, field->value, 0, out, error);
    if (field_is(field, SLICE("refresh")))
        return make_public(rewrite, field->value, refresh_url_at(field->value), out, error);
    return field_is(field, SLICE("set-cookie")) && move_cookie(rewrite, field->value, out, error);
}

int rewrite_answer(const struct rewrite *rewrite, struct head **head)
{
    int error = KV_OK;
    struct buffer text = BUFFER_INIT(LIMIT_ANSWER_HEAD_BYTES);
    for (size_t i = 0; i < (*head)->count && !error; i++) {
        text.len = 0;
        if (change(rewrite, &(*head)->fields[i], &text, &error) && !error)
            error = replace(head, i, &text);
    }
    buffer_free(&text);
    return error;
}
