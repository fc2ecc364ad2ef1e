/*
 * One block an owning head: the struct, its field array, then the string space. Text is only ever added, so slices into
 * it stay valid until head_free; removing a field leaves its text where it is.
 */
#include "http/head.h"

#include <stdlib.h>

#include "base/error.h"

/* method, target, scheme, authority and protocol: each may be interned, each with a NUL. */
#define PLAIN_TEXTS 5

struct head *head_new(size_t fields, size_t bytes)
{
    if (fields > UINT16_MAX)
        return NULL;
    size_t room = bytes + 2 * fields + PLAIN_TEXTS;
    if (room < bytes)
        return NULL;
    size_t fixed = sizeof(struct head) + fields * sizeof(struct field);
    struct head *h = room > SIZE_MAX - fixed ? NULL : malloc(fixed + room);
    if (!h)
        return NULL;
    struct field *storage = (struct field *)(h + 1);
    head_borrow(h, storage, (uint16_t)fields);
    h->bytes = (char *)(storage + fields);
    h->room = room;
    return h;
}

struct head *head_copy(const struct head *h, size_t more_fields, size_t more_bytes)
{
    struct head *copy = head_new(h->count + more_fields, head_text_size(h) + more_bytes);
    if (!copy)
        return NULL;
    copy->method = head_intern(copy, h->method);
    copy->target = head_intern(copy, h->target);
    copy->scheme = head_intern(copy, h->scheme);
    copy->authority = head_intern(copy, h->authority);
    copy->protocol = head_intern(copy, h->protocol);
    copy->status = h->status;
    for (size_t i = 0; i < h->count; i++)
        (void)head_add(copy, h->fields[i].name, h->fields[i].value); /* room was made for all of them */
    return copy;
}

void head_free(struct head *h)
{
    free(h);
}

size_t head_text_size(const struct head *h)
{
    size_t size = h->method.len + h->target.len + h->scheme.len + h->authority.len + h->protocol.len;
    for (size_t i = 0; i < h->count; i++)
        size += h->fields[i].name.len + h->fields[i].value.len;
    return size;
}

/* Text of this length and its NUL at the end of the string space, or NULL. */
static char *take_room(struct head *h, size_t len)
{
    if (len >= h->room - h->used)
        return NULL;
    char *text = h->bytes + h->used;
    text[len] = '\0';
    h->used += len + 1;
    return text;
}

struct slice head_intern(struct head *h, struct slice text)
{
    char *copy = take_room(h, text.len);
    if (!copy)
        return (struct slice){0};
    if (text.len)
        memcpy(copy, text.data, text.len);
    return (struct slice){copy, text.len};
}

static char *append(char *to, struct slice text)
{
    if (text.len)
        memcpy(to, text.data, text.len);
    return to + text.len;
}

static bool is_part(const struct field *field, struct slice name)
{
    return field->value.len > 0 && field_is(field, name);
}

struct slice head_intern_joined(struct head *h, const struct head *from, struct slice name, struct slice separator,
                                struct slice last)
{
    size_t len = last.len, parts = last.len > 0;
    for (size_t i = 0; i < from->count; i++)
        if (is_part(&from->fields[i], name)) {
            len += from->fields[i].value.len;
            parts++;
        }
    len += parts > 1 ? (parts - 1) * separator.len : 0;
    char *text = take_room(h, len), *at = text;
    if (!text)
        return (struct slice){0};
    for (size_t i = 0; i < from->count; i++)
        if (is_part(&from->fields[i], name)) {
            at = append(at, from->fields[i].value);
            at = append(at, --parts > 0 ? separator : (struct slice){0});
        }
    append(at, last);
    return (struct slice){text, len};
}

/* Without branches: names are copied for every field of every head. */
static void copy_lower_case(char *to, struct slice text)
{
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.data[i];
        unsigned upper = (unsigned char)(c - 'A') < 26;
        to[i] = (char)(c | upper << 5);
    }
}

static bool lives_in(const struct head *h, struct slice text)
{
    uintptr_t start = (uintptr_t)h->bytes, at = (uintptr_t)text.data;
    return text.data && at >= start && at - start < h->used;
}

int head_add(struct head *h, struct slice name, struct slice value)
{
    if (h->count == h->capacity)
        return KV_ELIMIT;
    if (h->bytes) {
        size_t used = h->used;
        char *lower = take_room(h, name.len);
        if (lower) {
            copy_lower_case(lower, name);
            name.data = lower;
            value = lives_in(h, value) ? value : head_intern(h, value);
        }
        if (!lower || !value.data) {
            h->used = used;
            return KV_ELIMIT;
        }
    }
    h->fields[h->count++] = (struct field){name, value};
    return 0;
}

const struct field *head_find(const struct head *h, struct slice name)
{
    for (size_t i = 0; i < h->count; i++)
        if (field_is(&h->fields[i], name))
            return &h->fields[i];
    return NULL;
}

struct slice head_value(const struct head *h, struct slice name)
{
    const struct field *field = head_find(h, name);
    return field ? field->value : (struct slice){0};
}

bool head_has_token(const struct head *h, struct slice name, struct slice token)
{
    for (size_t i = 0; i < h->count; i++) {
        if (!field_is(&h->fields[i], name))
            continue;
        struct slice rest = h->fields[i].value, element;
        while (slice_next_element(&rest, &element))
            if (slice_equals_nocase(element, token))
                return true;
    }
    return false;
}

void head_remove(struct head *h, struct slice name)
{
    uint16_t kept = 0;
    for (uint16_t i = 0; i < h->count; i++)
        if (!field_is(&h->fields[i], name))
            h->fields[kept++] = h->fields[i];
    h->count = kept;
}
