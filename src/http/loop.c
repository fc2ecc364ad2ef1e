/* Two lists with one look: what stands behind the host in an element (a comment, parameters) is skipped. */
#include "http/loop.h"

#include "http/head.h"
#include "http/syntax.h"

/* "1.1 host:port (comment)": the word behind the protocol. */
static struct slice received_by(struct slice element)
{
    size_t at = 0;
    while (at < element.len && element.data[at] != ' ' && element.data[at] != '\t')
        at++;
    return slice_trim((struct slice){element.data + at, element.len - at});
}

static bool begins_with_host(struct slice text, struct slice host)
{
    size_t len = http_span(text, HTTP_CHAR_HOST);
    if (len > 0 && text.data[len - 1] == '.')
        len--;
    return slice_equals_nocase((struct slice){text.data, len}, host);
}

static bool names(const struct head *request, enum field_id id, struct slice host)
{
    if (head_lacks(request, id))
        return false;
    for (size_t i = 0; i < request->count; i++) {
        struct slice list = request->fields[i].value, element;
        if (field_id(&request->fields[i]) != id)
            continue;
        while (slice_next_element(&list, &element))
            if (begins_with_host(id == FIELD_VIA ? received_by(element) : element, host))
                return true;
    }
    return false;
}

bool loop_has_passed(const struct head *request, struct slice host)
{
    return names(request, FIELD_VIA, host) || names(request, FIELD_CDN_LOOP, host);
}
