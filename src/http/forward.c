/*
 * The forwarding rules as a table from field names to what they are, and one loop per direction that reads it.
 * Removal comes first and our own fields last, so that nothing a peer writes can take away what the edge sets.
 */
#include "http/forward.h"

#include "base/error.h"

enum kind {
    KIND_PLAIN,
    KIND_HOP,  /* ends at this hop */
    KIND_EDGE, /* answered or neutralised here */
    KIND_HOST,
    KIND_LENGTH,
    KIND_COOKIE,
    KIND_ADDED,      /* forwarding fields that we set ourselves */
    KIND_FORWARDING, /* other forwarding fields */
    KIND_INTERNAL,   /* ours alone */
    KIND_MODIFIER,   /* plain in a head, not allowed in trailers (RFC 9110, 6.5.1) */
    KIND_DISGUISED,  /* one of the protected ones above, spelt with '_' */
};

struct rule {
    struct slice name;
    enum kind kind;
};

#define NAME(literal)                                                                                                  \
    {                                                                                                                  \
        (literal), sizeof(literal) - 1                                                                                 \
    }
#define RULE(name, what)                                                                                               \
    {                                                                                                                  \
        NAME(name), KIND_##what                                                                                        \
    }

/* Whole names by their length, so that a name is compared with one or two at most; a row ends with an empty rule. */
#define LONGEST_NAME 19
static const struct rule rules[LONGEST_NAME + 1][5] = {
    [2] = {RULE("te", HOP)},
    [3] = {RULE("age", MODIFIER)},
    [4] = {RULE("host", HOST), RULE("date", MODIFIER), RULE("vary", MODIFIER)},
    [5] = {RULE("proxy", EDGE), RULE("range", MODIFIER)},
    [6] = {RULE("cookie", COOKIE), RULE("expect", EDGE), RULE("pragma", MODIFIER)},
    [7] = {RULE("upgrade", HOP), RULE("expires", MODIFIER), RULE("trailer", MODIFIER), RULE("warning", MODIFIER)},
    [8] = {RULE("location", MODIFIER)},
    [9] = {RULE("forwarded", FORWARDING), RULE("x-real-ip", ADDED)},
    [10] = {RULE("connection", HOP), RULE("keep-alive", HOP), RULE("set-cookie", MODIFIER)},
    [11] = {RULE("retry-after", MODIFIER)},
    [12] = {RULE("content-type", MODIFIER), RULE("max-forwards", MODIFIER)},
    [13] = {RULE("authorization", MODIFIER), RULE("cache-control", MODIFIER), RULE("content-range", MODIFIER)},
    [14] = {RULE("content-length", LENGTH), RULE("http2-settings", HOP)},
    [15] = {RULE("x-forwarded-for", ADDED)},
    [16] = {RULE("proxy-connection", HOP), RULE("x-forwarded-host", ADDED), RULE("content-encoding", MODIFIER),
            RULE("www-authenticate", MODIFIER)},
    [17] = {RULE("transfer-encoding", HOP), RULE("x-forwarded-proto", ADDED)},
    [18] = {RULE("proxy-authenticate", HOP)},
    [19] = {RULE("proxy-authorization", HOP)},
};

/* Beginnings of names, asked after the whole names that they cover. */
static const struct rule prefixes[] = {
    RULE("x-forwarded-", FORWARDING),
    RULE("kavilo-", INTERNAL),
    RULE("if-", MODIFIER),
    {{NULL, 0}, KIND_PLAIN},
};

static char lower(char c)
{
    return (char)(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
}

/* Whether name begins with the rule's when case is ignored and '_' is '-', and what it is then. */
static bool matches(struct slice name, const struct rule *rule, enum kind *kind)
{
    bool underscore = false;
    for (size_t i = 0; i < rule->name.len; i++) {
        char c = lower(name.data[i]);
        if (c == '_') {
            underscore = true;
            c = '-';
        }
        if (c != rule->name.data[i])
            return false;
    }
    *kind = rule->kind;
    if (underscore)
        *kind = rule->kind == KIND_MODIFIER ? KIND_PLAIN : KIND_DISGUISED;
    return true;
}

static enum kind kind_of(struct slice name)
{
    enum kind kind;
    if (name.len == 0)
        return KIND_PLAIN;
    char first = lower(name.data[0]);
    if (name.len <= LONGEST_NAME)
        for (const struct rule *rule = rules[name.len]; rule->name.len > 0; rule++)
            if (rule->name.data[0] == first && matches(name, rule, &kind))
                return kind;
    for (const struct rule *rule = prefixes; rule->name.len > 0; rule++)
        if (rule->name.data[0] == first && name.len >= rule->name.len && matches(name, rule, &kind))
            return kind;
    return KIND_PLAIN;
}

bool forward_is_hop_by_hop(struct slice name)
{
    return kind_of(name) == KIND_HOP;
}

/* ---- what Connection names ------------------------------------------------------------------------------------- */

struct options {
    struct slice names[FORWARD_OPTIONS_MAX];
    size_t count;
};

static void collect_options(const struct head *head, struct options *options)
{
    options->count = 0;
    for (size_t i = 0; i < head->count; i++) {
        if (!field_is(&head->fields[i], SLICE("connection")))
            continue;
        struct slice rest = head->fields[i].value, name;
        while (options->count < FORWARD_OPTIONS_MAX && slice_next_element(&rest, &name)) {
            enum kind kind = kind_of(name);
            if (kind == KIND_PLAIN || kind == KIND_MODIFIER)
                options->names[options->count++] = name;
        }
    }
}

static bool is_named(const struct options *options, struct slice name)
{
    for (size_t i = 0; i < options->count; i++)
        if (slice_equals_nocase(options->names[i], name))
            return true;
    return false;
}

/* ---- requests -------------------------------------------------------------------------------------------------- */

/* The last field of that name: behind a trusted proxy the line it wrote itself. Empty if there is none. */
static struct slice last_value(const struct head *head, struct slice name)
{
    for (size_t i = head->count; i > 0; i--)
        if (field_is(&head->fields[i - 1], name))
            return head->fields[i - 1].value;
    return (struct slice){0};
}

/* Sets a forwarding field to what the edge knows, or to what a trusted peer said. */
static int set_forwarding(struct head *out, const struct head *request, const struct forward_facts *facts,
                          struct slice name, struct slice known)
{
    struct slice said = facts->peer_trusted ? last_value(request, name) : (struct slice){0};
    return head_add(out, name, said.len ? said : known);
}

static int add_forwarding(struct head *out, const struct head *request, const struct forward_facts *facts)
{
    const struct slice name = SLICE("x-forwarded-for");
    struct slice chain = facts->peer_address;
    if (facts->peer_trusted) {
        chain = head_intern_joined(out, request, name, SLICE(", "), facts->peer_address);
        if (!chain.data)
            return KV_ELIMIT;
    }
    int error = head_add(out, name, chain);
    if (!error)
        error = set_forwarding(out, request, facts, SLICE("x-forwarded-proto"), facts->scheme);
    if (!error)
        error = set_forwarding(out, request, facts, SLICE("x-forwarded-host"), request->authority);
    if (!error)
        error = set_forwarding(out, request, facts, SLICE("x-real-ip"), facts->peer_address);
    return error;
}

/* Crumbs as one field in the place of the first (RFC 9113, 8.2.3). */
static int add_cookie(struct head *out, const struct head *request, const struct field *field)
{
    if (head_find(out, field->name))
        return 0;
    struct slice joined = head_intern_joined(out, request, field->name, SLICE("; "), (struct slice){0});
    return joined.data ? head_add(out, field->name, joined) : KV_ELIMIT;
}

static int copy_request_fields(struct head *out, const struct head *request, bool trusted)
{
    struct options options;
    collect_options(request, &options);
    int error = 0;
    for (size_t i = 0; i < request->count && !error; i++) {
        const struct field *field = &request->fields[i];
        switch (kind_of(field->name)) {
        case KIND_PLAIN:
        case KIND_MODIFIER:
            if (!is_named(&options, field->name))
                error = head_add(out, field->name, field->value);
            break;
        case KIND_LENGTH:
            error = head_add(out, field->name, field->value);
            break;
        case KIND_COOKIE:
            error = add_cookie(out, request, field);
            break;
        case KIND_FORWARDING:
            if (trusted)
                error = head_add(out, field->name, field->value);
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

struct head *forward_request(const struct head *request, const struct forward_facts *facts)
{
    static const struct slice names = NAME("host"
                                           "te"
                                           "trailers"
                                           "x-forwarded-for"
                                           "x-forwarded-proto"
                                           "x-forwarded-host"
                                           "x-real-ip");
    size_t separators = 2 * (size_t)request->count;
    size_t added = names.len + 2 * request->authority.len + 2 * facts->scheme.len + 2 * facts->peer_address.len;
    struct head *out = head_new(request->count + FORWARD_ADDED_MAX, head_text_size(request) + separators + added);
    if (!out)
        return NULL;
    out->method = head_intern(out, request->method);
    out->target = head_intern(out, request->target);
    out->scheme = head_intern(out, facts->scheme);
    out->authority = head_intern(out, request->authority);
    out->protocol = head_intern(out, request->protocol);

    int error = head_add(out, SLICE("host"), out->authority);
    if (!error)
        error = copy_request_fields(out, request, facts->peer_trusted);
    if (!error && head_has_token(request, SLICE("te"), SLICE("trailers")))
        error = head_add(out, SLICE("te"), SLICE("trailers"));
    if (!error)
        error = add_forwarding(out, request, facts);
    if (error) {
        head_free(out);
        return NULL;
    }
    return out;
}

/* ---- responses and trailers ------------------------------------------------------------------------------------ */

struct head *forward_response(const struct head *response)
{
    bool switching = response->status == 101, has_length = response->status >= 200 && response->status != 204;
    struct slice protocol = response->protocol;
    if (switching && protocol.len == 0)
        protocol = head_value(response, SLICE("upgrade"));
    struct head *out = head_new(response->count, head_text_size(response) + protocol.len);
    if (!out)
        return NULL;
    out->status = response->status;
    if (switching)
        out->protocol = head_intern(out, protocol);

    struct options options;
    collect_options(response, &options);
    for (size_t i = 0; i < response->count; i++) {
        const struct field *field = &response->fields[i];
        enum kind kind = kind_of(field->name);
        if (kind == KIND_HOP || kind == KIND_INTERNAL || is_named(&options, field->name))
            continue;
        if (kind == KIND_LENGTH && (!has_length || head_find(out, field->name)))
            continue;
        (void)head_add(out, field->name, field->value); /* room was made for all of them */
    }
    return out;
}

struct head *forward_trailers(const struct head *trailers)
{
    struct head *out = head_new(trailers->count, head_text_size(trailers));
    if (!out)
        return NULL;
    for (size_t i = 0; i < trailers->count; i++) {
        const struct field *field = &trailers->fields[i];
        if (kind_of(field->name) == KIND_PLAIN)
            (void)head_add(out, field->name, field->value);
    }
    return out;
}
