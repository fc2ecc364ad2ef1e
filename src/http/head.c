/*
 * One block an owning head: the struct, its field array, then the string space. Text is only ever added, so slices into
 * it stay valid until head_free; removing a field leaves its text where it is.
 */
#include "http/head.h"

#include "base/error.h"
#include "base/pool.h"

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
    struct head *h = room > SIZE_MAX - fixed ? NULL : pool_alloc(fixed + room);
    if (!h)
        return NULL;
    struct field *storage = (struct field *)(h + 1);
    head_borrow(h, storage, (uint16_t)fields);
    h->bytes = (char *)(storage + fields);
    h->room = room;
    h->size = fixed + room;
    h->lower = true;
    return h;
}

/* ---- from one head to another ---------------------------------------------------------------------------------- */

static struct slice block_of(const struct head *h)
{
    return h->bytes ? (struct slice){h->bytes, h->used} : h->block;
}

static bool lies_in(struct slice block, struct slice text)
{
    uintptr_t start = (uintptr_t)block.data, at = (uintptr_t)text.data;
    return text.data && at >= start && at - start <= block.len && text.len <= block.len - (at - start);
}

static size_t loose_size(struct slice block, struct slice text)
{
    return lies_in(block, text) ? 0 : text.len;
}

/* Text that does not lie in the block: constants, and what was added to a borrowing head. */
static size_t loose_text(const struct head *h, struct slice block)
{
    if (block.len == 0)
        return head_text_size(h);
    return loose_size(block, h->method) + loose_size(block, h->target) + loose_size(block, h->scheme) +
           loose_size(block, h->authority) + loose_size(block, h->protocol) + h->loose;
}

struct head *head_derive(const struct head *from, size_t more_fields, size_t more_bytes)
{
    struct slice block = block_of(from);
    size_t with_nul = block.len + 1;
    struct head *h = head_new(from->count + more_fields, with_nul + loose_text(from, block) + more_bytes);
    if (!h)
        return NULL;
    if (block.len > 0)
        memcpy(h->bytes, block.data, block.len);
    h->used = with_nul;
    h->origin = block;
    h->folds = !from->lower;
    return h;
}

/* All fields of a head whose text lies in its block, in lower case: they lie in the copy as they did there. */
static void copy_fields(struct head *copy, const struct head *h)
{
    char *bytes = copy->bytes;
    const char *origin = copy->origin.data;
    for (size_t i = 0; i < h->count; i++) {
        const struct field *field = &h->fields[i];
        char *name = bytes + (field->name.data - origin), *value = bytes + (field->value.data - origin);
        copy->fields[i] = (struct field){{name, field->name.len}, {value, field->value.len}, field->id};
        name[field->name.len] = value[field->value.len] = '\0';
    }
    copy->count = h->count;
    copy->lacks = h->lacks;
}

struct head *head_copy(const struct head *h, size_t more_fields, size_t more_bytes)
{
    struct head *copy = head_derive(h, more_fields, more_bytes);
    if (!copy)
        return NULL;
    copy->method = head_carry(copy, h->method);
    copy->target = head_carry(copy, h->target);
    copy->scheme = head_carry(copy, h->scheme);
    copy->authority = head_carry(copy, h->authority);
    copy->protocol = head_carry(copy, h->protocol);
    copy->host_len = h->host_len;
    copy->status = h->status;
    copy->judged = h->judged;
    if (h->block.len > 0 && h->lower && h->loose == 0)
        copy_fields(copy, h);
    else
        for (size_t i = 0; i < h->count; i++)
            head_carry_field(copy, &h->fields[i]);
    return copy;
}

void head_free(struct head *h)
{
    if (h)
        pool_free(h, h->size);
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

static bool is_part(const struct field *field, enum field_id id)
{
    return field->value.len > 0 && field_id(field) == id;
}

struct slice head_intern_joined(struct head *h, const struct head *from, enum field_id id, struct slice separator,
                                struct slice last)
{
    size_t len = last.len, parts = last.len > 0;
    for (size_t i = 0; i < from->count; i++)
        if (is_part(&from->fields[i], id)) {
            len += from->fields[i].value.len;
            parts++;
        }
    len += parts > 1 ? (parts - 1) * separator.len : 0;
    char *text = take_room(h, len), *at = text;
    if (!text)
        return (struct slice){0};
    for (size_t i = 0; i < from->count; i++)
        if (is_part(&from->fields[i], id)) {
            at = append(at, from->fields[i].value);
            at = append(at, --parts > 0 ? separator : (struct slice){0});
        }
    append(at, last);
    return (struct slice){text, len};
}

/* The value as an owning head holds it; data is NULL when the room is spent. A borrowing head holds what it is given.
 */
static struct slice hold(struct head *h, struct slice value)
{
    return h->bytes && !lies_in(block_of(h), value) ? head_intern(h, value) : value;
}

/* Books what of a new field's text lies elsewhere: in an owning head it is the names that head_add_id gives. */
static void book_loose(struct head *h, struct slice name, struct slice value, bool interned)
{
    if (!h->bytes)
        h->loose += loose_size(h->block, name) + loose_size(h->block, value);
    else if (!interned)
        h->loose += name.len;
}

int head_add(struct head *h, struct slice name, struct slice value)
{
    if (h->count == h->capacity)
        return KV_ELIMIT;
    if (h->bytes) {
        size_t used = h->used;
        char *lower = take_room(h, name.len);
        if (lower) {
            slice_lower(name, lower);
            name.data = lower;
            value = hold(h, value);
        }
        if (!lower || !value.data) {
            h->used = used;
            return KV_ELIMIT;
        }
    }
    book_loose(h, name, value, true);
    h->judged = false;
    head_push(h, name, value, field_id_of(name));
    return 0;
}

int head_add_id(struct head *h, enum field_id id, struct slice value)
{
    value = hold(h, value);
    if (h->count == h->capacity || (h->bytes && !value.data))
        return KV_ELIMIT;
    struct slice name = field_name(id);
    book_loose(h, name, value, false);
    h->judged = false;
    head_push(h, name, value, id);
    return 0;
}

const struct field *head_search_id(const struct head *h, enum field_id id)
{
    for (size_t i = 0; i < h->count; i++)
        if (field_id(&h->fields[i]) == id)
            return &h->fields[i];
    return NULL;
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

void head_remove_id(struct head *h, enum field_id id)
{
    uint16_t kept = 0;
    if (head_lacks(h, id))
        return;
    for (uint16_t i = 0; i < h->count; i++)
        if (field_id(&h->fields[i]) != id) {
            if (kept != i)
                h->fields[kept] = h->fields[i];
            kept++;
        }
    h->count = kept;
    h->lacks |= field_bit(id);
}
