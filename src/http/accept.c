/* Every offer is held against every range; there are three of the one and rarely ten of the other. */
#include "http/accept.h"

#include <stdbool.h>

#include "http/head.h"

struct match {
    unsigned weight;   /* in thousandths */
    unsigned specific; /* 0: none yet; 1: any type, 2: any subtype, 3: the type itself */
    unsigned place;    /* of the range in Accept */
};

/* weight = OWS ";" OWS "q=" qvalue (12.4.2), without the name. False when it is none. */
static bool parse_weight(struct slice text, unsigned *weight)
{
    unsigned scale = 100;
    if (text.len == 0 || text.len > 5 || (text.data[0] != '0' && text.data[0] != '1'))
        return false;
    *weight = text.data[0] == '1' ? 1000 : 0;
    if (text.len > 1 && text.data[1] != '.')
        return false;
    for (size_t i = 2; i < text.len; i++, scale /= 10) {
        if (text.data[i] < '0' || text.data[i] > '9')
            return false;
        *weight += (unsigned)(text.data[i] - '0') * scale;
    }
    return *weight <= 1000;
}

/* The part in front of the next semicolon, which is cut off `rest`. */
static struct slice next_part(struct slice *rest)
{
    const char *semicolon = memchr(rest->data, ';', rest->len);
    struct slice part = {rest->data, semicolon ? (size_t)(semicolon - rest->data) : rest->len};
    size_t taken = part.len + (semicolon ? 1 : 0);
    *rest = (struct slice){rest->data + taken, rest->len - taken};
    return slice_trim(part);
}

/* How specifically a range names a type; 0 when it does not. */
static unsigned names(struct slice range, struct slice type)
{
    if (slice_equals(range, SLICE("*/*")))
        return 1;
    if (slice_equals_nocase(range, type))
        return 3;
    const char *slash = memchr(type.data, '/', type.len);
    size_t major = slash ? (size_t)(slash - type.data) + 1 : type.len;
    bool any_subtype = range.len == major + 1 && range.data[major] == '*';
    return any_subtype && slice_equals_nocase((struct slice){range.data, major}, (struct slice){type.data, major}) ? 2
                                                                                                                   : 0;
}

static struct match best_match(const struct head *request, struct slice offer)
{
    struct match best = {0};
    unsigned place = 0;
    for (size_t i = 0; i < request->count; i++) {
        struct slice list = request->fields[i].value, element;
        if (field_id(&request->fields[i]) != FIELD_ACCEPT)
            continue;
        for (; slice_next_element(&list, &element); place++) {
            struct slice range = next_part(&element);
            unsigned specific = names(range, offer), weight = 1000;
            bool sound = true;
            while (element.len > 0) {
                struct slice parameter = next_part(&element);
                if (parameter.len >= 2 && (parameter.data[0] == 'q' || parameter.data[0] == 'Q') &&
                    parameter.data[1] == '=')
                    sound = parse_weight((struct slice){parameter.data + 2, parameter.len - 2}, &weight);
            }
            if (sound && specific > best.specific)
                best = (struct match){weight, specific, place};
        }
    }
    return best;
}

static bool is_better(struct match a, struct match b)
{
    if (a.weight != b.weight)
        return a.weight > b.weight;
    if (a.specific != b.specific)
        return a.specific > b.specific;
    return a.place < b.place;
}

/* Whether Accept is not there, or "any type" and nothing else: so from most programs that are no browser. */
static bool takes_anything(const struct head *request)
{
    if (head_lacks(request, FIELD_ACCEPT))
        return true;
    for (size_t i = 0; i < request->count; i++)
        if (field_id(&request->fields[i]) == FIELD_ACCEPT && !slice_equals(request->fields[i].value, SLICE("*/*")))
            return false;
    return true;
}

size_t accept_choose(const struct head *request, const struct slice *offers, size_t count)
{
    size_t chosen = 0;
    if (takes_anything(request))
        return chosen;
    struct match best = best_match(request, offers[0]);
    for (size_t i = 1; i < count; i++) {
        struct match match = best_match(request, offers[i]);
        if (match.weight > 0 && is_better(match, best)) {
            chosen = i;
            best = match;
        }
    }
    return chosen;
}
