/*
 * The head of a request or a response, as every codec of the program sees it: HTTP/1, HTTP/2 and the tunnel's wire fill
 * and read the same struct. Field order is kept, names are lower case, values are as they came, without surrounding
 * white space (RFC 9110, 5).
 *
 * A head either borrows (its slices point into somebody's input: parsers make such heads, on the stack) or owns
 * (head_new: one allocation that holds everything, names and values each followed by a NUL). An owning head is made
 * from another with head_derive, which copies the text in one piece, and head_carry. No function here locks; a head
 * belongs to one worker at a time.
 */
#ifndef KV_HTTP_HEAD_H
#define KV_HTTP_HEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/limits.h"
#include "base/slice.h"
#include "http/field_name.h"

struct field {
    struct slice name; /* lower case in owning heads; as sent in borrowing ones */
    struct slice value;
    enum field_id id; /* of the name; ask field_id() */
};

struct head {
    struct slice method;    /* requests; empty in responses and trailers */
    struct slice target;    /* path and query as sent; "*" or authority-form only where a method has them */
    struct slice scheme;    /* "http" or "https"; empty when unknown */
    struct slice authority; /* Host or :authority, as sent */
    struct slice protocol;  /* of an Upgrade ("websocket") or an extended CONNECT (RFC 8441); empty without */
    uint16_t host_len; /* of a request that was read: of the authority, without port and trailing dot; 0: not known */
    uint16_t status;   /* responses */
    uint16_t count;
    uint16_t capacity;
    /* Every name is a token, every value a field value and, in requests, the method a token and the target visible
     * ASCII: whoever read the head has looked at every byte, and writers need not again. head_add takes it back. */
    bool judged;
    bool lower;     /* every name is in lower case: so in owning heads, and in those that the wire brought */
    uint32_t lacks; /* a bit for each field_id of which there is surely no field; zero knows nothing */
    struct field *fields;
    struct slice block; /* borrowing: the input that the text lies in, constants aside; empty if it is not one piece */
    char *bytes;        /* owning: the string space */
    size_t used, room, size;
    size_t loose;        /* text of fields that lies neither in the block nor in the string space */
    struct slice origin; /* derived: the block that the string space begins with, to be compared with only */
    bool folds;          /* derived: names have to be lower-cased when they are carried */
};

/* A borrowing head over caller's storage, to be filled by a parser. */
static inline void head_borrow(struct head *h, struct field *storage, uint16_t capacity)
{
    *h = (struct head){.fields = storage, .capacity = capacity, .lacks = UINT32_MAX};
}

_Static_assert(FIELD_ID_COUNT <= 32, "head.lacks has a bit for each");

/* Appends a field whose text lies in the head's block or string space already. There has to be room; for parsers, which
 * know what the name is and look after `judged`. */
static inline void head_push(struct head *h, struct slice name, struct slice value, enum field_id id)
{
    h->fields[h->count++] = (struct field){name, value, id};
    h->lacks &= ~field_bit(id);
}

/* The host that a request was read for, as sent; empty if nobody has split its authority. */
static inline struct slice head_host(const struct head *h)
{
    return (struct slice){h->authority.data, h->host_len};
}

/* An owning head with room for `fields` fields and `bytes` bytes of text (NULs are added by itself: ask for the text
 * alone). NULL without memory or above UINT16_MAX fields. */
struct head *head_new(size_t fields, size_t bytes);

/* An owning head without fields, whose string space begins with all text of `from`, and with room for its fields, more
 * fields and more text: what of it the new head has is said with head_carry. NULL without memory. */
struct head *head_derive(const struct head *from, size_t more_fields, size_t more_bytes);

/* An owning copy with room for more, names lower-cased. NULL without memory. */
struct head *head_copy(const struct head *h, size_t more_fields, size_t more_bytes);

/* Owning heads only; NULL is legal. */
void head_free(struct head *h);

/* Bytes of text that a copy of h needs. */
size_t head_text_size(const struct head *h);

/* Copies text into an owning head and returns the copy, NUL-terminated; data is NULL when the room is spent. */
struct slice head_intern(struct head *h, struct slice text);

/* The copy, in a derived head, of one of the texts of the head it is derived from; NUL-terminated. The byte behind a
 * text belongs to no other text: in HTTP/1 it is a space, a colon or a line's end, on the wire the next tag. */
static inline struct slice head_carry(struct head *h, struct slice text)
{
    size_t at = (size_t)((uintptr_t)text.data - (uintptr_t)h->origin.data);
    if (at > h->origin.len || text.len > h->origin.len - at)
        return head_intern(h, text);
    h->bytes[at + text.len] = '\0';
    return (struct slice){h->bytes + at, text.len};
}

/* Interns the values of all fields of that kind in `from`, then `last`, the empty ones left out, as one text with
 * `separator` between them. data is NULL when the room is spent. */
struct slice head_intern_joined(struct head *h, const struct head *from, enum field_id id, struct slice separator,
                                struct slice last);

/* Appends a field. If the head owns, text is copied (a value that was interned in it before is used where it lies) and
 * the name lower-cased; otherwise both are borrowed. 0, or KV_ELIMIT when the head is full, and then it is as before.
 */
int head_add(struct head *h, struct slice name, struct slice value);

/* The same for a field that this program writes itself, under its field_name. */
int head_add_id(struct head *h, enum field_id id, struct slice value);

/* The same for a value that lies in the owning head already, and was judged. */
static inline int head_push_id(struct head *h, enum field_id id, struct slice value)
{
    struct slice name = field_name(id);
    if (h->count == h->capacity || !value.data)
        return KV_ELIMIT;
    h->loose += name.len;
    head_push(h, name, value, id);
    return 0;
}

/* What the field's name is. */
static inline enum field_id field_id(const struct field *field)
{
    return __builtin_expect(field->id != FIELD_UNREAD, true) ? field->id : field_id_of(field->name);
}

/* Appends the copy of a field, its name lower-cased, of the head that h is derived from. Each at most once. */
static inline void head_carry_field(struct head *h, const struct field *field)
{
    struct slice name = head_carry(h, field->name);
    if (h->folds)
        slice_lower(name, h->bytes + (name.data - h->bytes));
    head_push(h, name, head_carry(h, field->value), field_id(field));
}

/* Whether a field has that name, compared without case. */
static inline bool field_is(const struct field *field, struct slice name)
{
    return field->name.len == name.len && slice_equals_nocase(field->name, name);
}

/* The first field of that name, compared without case, or NULL. */
const struct field *head_find(const struct head *h, struct slice name);

/* Whether there surely is no field of that kind. False says nothing. */
static inline bool head_lacks(const struct head *h, enum field_id id)
{
    return (h->lacks & field_bit(id)) != 0;
}

/* head_find_id without asking head_lacks first. */
const struct field *head_search_id(const struct head *h, enum field_id id);

/* The first field of that kind, or NULL. */
static inline const struct field *head_find_id(const struct head *h, enum field_id id)
{
    return head_lacks(h, id) ? NULL : head_search_id(h, id);
}

/* Gives a field of the head another value, which is borrowed. */
static inline void head_set_value(struct head *h, size_t field, struct slice value)
{
    h->fields[field].value = value;
    h->loose += value.len;
    h->judged = false;
}

/* The value of the first field of that name; empty data==NULL slice when there is none. */
struct slice head_value(const struct head *h, struct slice name);

/* True if any field of that name has `token` among its comma-separated elements, compared without case. */
bool head_has_token(const struct head *h, struct slice name, struct slice token);

/* Removes every field of that name, or kind; order of the others is kept. */
void head_remove(struct head *h, struct slice name);
void head_remove_id(struct head *h, enum field_id id);

#endif
