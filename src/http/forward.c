/*
 * The forwarding rules as a table from field names to what they are, and one loop per direction that reads it.
 * Removal comes first and our own fields last, so that nothing a peer writes can take away what the edge sets.
 */
#include "http/forward.h"

#include "base/error.h"
#include "base/limits.h"

enum kind {
    KIND_PLAIN,
    KIND_HOP,  /* ends at this hop */
    KIND_EDGE, /* answered or neutralised here */
    KIND_HOST,
    KIND_LENGTH,
    KIND_COOKIE,
    KIND_PASSES,     /* who has forwarded it: passes whatever Connection says (RFC 8586, 2) */
    KIND_ADDED,      /* forwarding fields that we set ourselves */
    KIND_FORWARDING, /* other forwarding fields */
    KIND_INTERNAL,   /* ours alone */
    KIND_MODIFIER,   /* plain in a head, not allowed in trailers (RFC 9110, 6.5.1) */
    KIND_DISGUISED,  /* one of the protected ones above, spelt with '_' */
};

/* KIND_HOP is forward_is_hop_by_hop once more. */
static const uint8_t kinds[FIELD_ID_COUNT] = {
    [FIELD_PLAIN] = KIND_PLAIN,
    [FIELD_ACCEPT] = KIND_PLAIN,
    [FIELD_HOST] = KIND_HOST,
    [FIELD_CONTENT_LENGTH] = KIND_LENGTH,
    [FIELD_COOKIE] = KIND_COOKIE,
    [FIELD_EXPECT] = KIND_EDGE,
    [FIELD_PROXY] = KIND_EDGE,
    [FIELD_VIA] = KIND_PASSES,
    [FIELD_CDN_LOOP] = KIND_PASSES,
    [FIELD_CONNECTION] = KIND_HOP,
    [FIELD_KEEP_ALIVE] = KIND_HOP,
    [FIELD_PROXY_CONNECTION] = KIND_HOP,
    [FIELD_PROXY_AUTHENTICATE] = KIND_HOP,
    [FIELD_PROXY_AUTHORIZATION] = KIND_HOP,
    [FIELD_TE] = KIND_HOP,
    [FIELD_TRANSFER_ENCODING] = KIND_HOP,
    [FIELD_UPGRADE] = KIND_HOP,
    [FIELD_HTTP2_SETTINGS] = KIND_HOP,
    [FIELD_X_FORWARDED_FOR] = KIND_ADDED,
    [FIELD_X_FORWARDED_PROTO] = KIND_ADDED,
    [FIELD_X_FORWARDED_HOST] = KIND_ADDED,
    [FIELD_X_REAL_IP] = KIND_ADDED,
    [FIELD_FORWARDED] = KIND_ADDED,
    [FIELD_X_FORWARDED_OTHER] = KIND_FORWARDING,
    [FIELD_KAVILO] = KIND_INTERNAL,
    [FIELD_MODIFIER] = KIND_MODIFIER,
    [FIELD_DISGUISED] = KIND_DISGUISED,
};

static enum kind kind_of(const struct field *field)
{
    return (enum kind)kinds[field_id(field)];
}

/* ---- what Connection names ------------------------------------------------------------------------------------- */

struct options {
    struct slice names[FORWARD_OPTIONS_MAX];
    size_t count;
};

static void collect_options(const struct head *head, struct options *options)
{
    options->count = 0;
    if (head_lacks(head, FIELD_CONNECTION))
        return;
    for (size_t i = 0; i < head->count; i++) {
        if (field_id(&head->fields[i]) != FIELD_CONNECTION)
            continue;
        struct slice rest = head->fields[i].value, name;
        while (options->count < FORWARD_OPTIONS_MAX && slice_next_element(&rest, &name)) {
            enum kind kind = (enum kind)kinds[field_id_of(name)];
            if (kind == KIND_PLAIN || kind == KIND_MODIFIER)
                options->names[options->count++] = name;
        }
    }
}

static inline bool is_named(const struct options *options, struct slice name)
{
    for (size_t i = 0; i < options->count; i++)
        if (slice_equals_nocase(options->names[i], name))
            return true;
    return false;
}

/* ---- requests -------------------------------------------------------------------------------------------------- */

/* The last field of that kind: behind a trusted proxy the line it wrote itself. Empty if there is none. */
static struct slice last_value(const struct head *head, enum field_id id)
{
    if (head_lacks(head, id))
        return (struct slice){0};
    for (size_t i = head->count; i > 0; i--)
        if (field_id(&head->fields[i - 1]) == id)
            return head->fields[i - 1].value;
    return (struct slice){0};
}

/* What a trusted peer said in a forwarding field, carried, or what the edge knows. */
static struct slice told(struct head *out, const struct head *request, const struct forward_facts *facts,
                         enum field_id id, struct slice known)
{
    struct slice said = facts->peer_trusted ? last_value(request, id) : (struct slice){0};
    return said.len ? head_carry(out, said) : known;
}

/* The visitor's element of what may be a list, one element a proxy. */
static struct slice first_element(struct slice value)
{
    struct slice element;
    return slice_next_element(&value, &element) ? element : value;
}

static int add_forwarded(struct head *out, const struct forward_path *path, struct slice host, struct slice scheme)
{
    char value[FORWARDED_MAX];
    size_t len = forwarded_format(path, first_element(host), first_element(scheme), value);
    return head_add_id(out, FIELD_FORWARDED, (struct slice){value, len});
}

static int add_forwarding(struct head *out, const struct head *request, const struct forward_facts *facts)
{
    struct slice visitor = head_intern(out, facts->visitor_address), chain = visitor;
    if (facts->peer_trusted)
        chain = head_intern_joined(out, request, FIELD_X_FORWARDED_FOR, SLICE(", "), facts->peer_address);
    else if (!slice_equals(facts->peer_address, facts->visitor_address))
        chain = head_intern(out, facts->peer_address);
    struct slice scheme = told(out, request, facts, FIELD_X_FORWARDED_PROTO, out->scheme);
    struct slice host = told(out, request, facts, FIELD_X_FORWARDED_HOST, out->authority);
    int error = head_push_id(out, FIELD_X_FORWARDED_FOR, chain);
    if (!error)
        error = head_push_id(out, FIELD_X_FORWARDED_PROTO, scheme);
    if (!error)
        error = head_push_id(out, FIELD_X_FORWARDED_HOST, host);
    if (!error)
        error = head_push_id(out, FIELD_X_REAL_IP, visitor);
    if (!error && facts->path)
        error = add_forwarded(out, facts->path, host, scheme);
    return error;
}

/* This pass, behind those that are there (RFC 9110, 7.6.3; RFC 8586, 2). Both are written from one text: every request
 * has them. */
static int add_pass(struct head *out, const struct forward_facts *facts)
{
    char text[8 + LIMIT_HOST_BYTES];
    char *end = slice_put(text, facts->version);
    *end++ = ' ';
    end = slice_put(end, facts->host);
    struct slice via = head_intern(out, (struct slice){text, (size_t)(end - text)});
    struct slice loop = {via.data ? via.data + via.len - facts->host.len : NULL, facts->host.len};
    int error = head_push_id(out, FIELD_VIA, via);
    return error ? error : head_push_id(out, FIELD_CDN_LOOP, loop);
}

static bool is_only(const struct head *head, const struct field *field)
{
    for (size_t i = 0; i < head->count; i++)
        if (field_id(&head->fields[i]) == field_id(field) && &head->fields[i] != field)
            return false;
    return true;
}

/* Crumbs as one field in the place of the first (RFC 9113, 8.2.3). */
static int add_cookie(struct head *out, const struct head *request, const struct field *field)
{
    if (is_only(request, field)) {
        head_carry_field(out, field);
        return 0;
    }
    if (head_find_id(out, FIELD_COOKIE))
        return 0;
    struct slice joined = head_intern_joined(out, request, FIELD_COOKIE, SLICE("; "), (struct slice){0});
    return head_push_id(out, FIELD_COOKIE, joined);
}

static int copy_request_fields(struct head *out, const struct head *request, bool trusted)
{
    struct options options;
    collect_options(request, &options);
    int error = 0;
    for (size_t i = 0; i < request->count && !error; i++) {
        const struct field *field = &request->fields[i];
        switch (kind_of(field)) {
        case KIND_PLAIN:
        case KIND_MODIFIER:
            if (!is_named(&options, field->name))
                head_carry_field(out, field);
            break;
        case KIND_LENGTH:
        case KIND_PASSES:
            head_carry_field(out, field);
            break;
        case KIND_COOKIE:
            error = add_cookie(out, request, field);
            break;
        case KIND_FORWARDING:
            if (trusted)
                head_carry_field(out, field);
            break;
        case KIND_HOP:
        case KIND_EDGE:
        case KIND_HOST:
        case KIND_ADDED:
        case KIND_INTERNAL:
        case KIND_DISGUISED:
            break;
        }
    }
    return error;
}

/* Text that forward_request adds to what it carries: its own fields, and lines joined into one. */
static size_t added_text(const struct head *request, const struct forward_facts *facts)
{
    size_t joined = 0, separators = 2 * (size_t)request->count;
    bool joins = facts->peer_trusted || !head_lacks(request, FIELD_COOKIE);
    for (size_t i = 0; joins && i < request->count; i++)
        if (facts->peer_trusted || field_id(&request->fields[i]) == FIELD_COOKIE)
            joined += request->fields[i].value.len;
    size_t addresses = facts->peer_address.len + facts->visitor_address.len + (facts->path ? FORWARDED_MAX : 0);
    size_t passes = facts->version.len + 1 + facts->host.len;
    return facts->scheme.len + addresses + passes + sizeof("trailers") + joined + separators;
}

struct head *forward_request(const struct head *request, const struct forward_facts *facts)
{
    struct head *out = head_derive(request, FORWARD_ADDED_MAX, added_text(request, facts));
    if (!out)
        return NULL;
    out->method = head_carry(out, request->method);
    out->target = head_carry(out, request->target);
    out->scheme = head_intern(out, facts->scheme);
    out->authority = head_carry(out, request->authority);
    out->protocol = head_carry(out, request->protocol);

    int error = head_push_id(out, FIELD_HOST, out->authority);
    if (!error)
        error = copy_request_fields(out, request, facts->peer_trusted);
    const struct field *te = head_find_id(request, FIELD_TE);
    if (!error && te && head_has_token(request, te->name, SLICE("trailers")))
        error = head_add_id(out, FIELD_TE, SLICE("trailers"));
    if (!error)
        error = add_forwarding(out, request, facts);
    if (!error && facts->version.len > 0)
        error = add_pass(out, facts);
    if (error) {
        head_free(out);
        return NULL;
    }
    out->judged = request->judged; /* what was added is ours, or was judged with the rest */
    return out;
}

/* ---- responses and trailers ------------------------------------------------------------------------------------ */

struct head *forward_response(const struct head *response)
{
    bool switching = response->status == 101,
         has_length = response->status >= 200 && response->status != 204 && response->status != 205;
    const struct field *upgrade = switching ? head_find_id(response, FIELD_UPGRADE) : NULL;
    struct head *out = head_derive(response, 0, 0);
    if (!out)
        return NULL;
    out->status = response->status;
    out->judged = response->judged;
    if (switching && response->protocol.len > 0)
        out->protocol = head_carry(out, response->protocol);
    else if (upgrade)
        out->protocol = head_carry(out, upgrade->value);

    struct options options;
    collect_options(response, &options);
    for (size_t i = 0; i < response->count; i++) {
        const struct field *field = &response->fields[i];
        enum kind kind = kind_of(field);
        if (kind == KIND_HOP || kind == KIND_INTERNAL || is_named(&options, field->name))
            continue;
        if (kind == KIND_LENGTH && (!has_length || head_find_id(out, FIELD_CONTENT_LENGTH)))
            continue;
        head_carry_field(out, field);
    }
    return out;
}

struct head *forward_trailers(const struct head *trailers)
{
    struct head *out = head_derive(trailers, 0, 0);
    if (!out)
        return NULL;
    for (size_t i = 0; i < trailers->count; i++) {
        const struct field *field = &trailers->fields[i];
        if (kind_of(field) == KIND_PLAIN)
            head_carry_field(out, field);
    }
    out->judged = trailers->judged;
    return out;
}
