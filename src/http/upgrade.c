/* The protocols that carry HTTP, compared by the beginning of their names: drafts append to them ("h2c-14"). */
#include "http/upgrade.h"

#include "http/syntax.h"

static bool carries_http(struct slice name)
{
    static const char *const beginnings[] = {"http", "h2", "h3", "hq", "tls"};
    for (size_t i = 0; i < sizeof(beginnings) / sizeof(beginnings[0]); i++) {
        struct slice beginning = slice_of(beginnings[i]);
        if (name.len >= beginning.len && slice_equals_nocase((struct slice){name.data, beginning.len}, beginning))
            return true;
    }
    return false;
}

bool http_upgrade_is_allowed(struct slice value)
{
    size_t name = http_span(value, HTTP_CHAR_TOKEN);
    if (name == 0 || carries_http((struct slice){value.data, name}))
        return false;
    if (name == value.len)
        return true;
    return value.data[name] == '/' && http_is_token((struct slice){value.data + name + 1, value.len - name - 1});
}

bool http_upgrade_is_listed(struct slice value, struct slice list)
{
    struct slice name = {value.data, http_span(value, HTTP_CHAR_TOKEN)}, element;
    while (slice_next_element(&list, &element))
        if (slice_equals_nocase(element, name) || slice_equals_nocase(element, value))
            return true;
    return false;
}
