/* Where a line ends and what a field line is made of. Everything that two parsers are known to read differently here
 * (line ends, white space, control bytes) is a refusal; answers are read more tolerantly. */
#include "http/http1_line.h"

#include "http/syntax.h"

enum http1_line http1_line_find(struct slice in, size_t *at, enum http1_reading reading, const char **error)
{
    size_t end = http_find_control(in, *at);
    *at = end;
    if (end == in.len)
        return HTTP1_LINE_PART;
    if (in.data[end] == '\r') {
        if (end + 1 == in.len)
            return HTTP1_LINE_PART;
        if (in.data[end + 1] == '\n')
            return HTTP1_LINE_WHOLE;
        *error = "bare CR";
    } else if (in.data[end] == '\n' && reading == HTTP1_TOLERANT) {
        return HTTP1_LINE_WHOLE;
    } else {
        *error = in.data[end] == '\n' ? "bare LF" : "control byte";
    }
    return HTTP1_LINE_BAD;
}

bool http1_field_split(struct slice line, enum http1_reading reading, struct field *out, const char **error)
{
    size_t name = http_span(line, HTTP_CHAR_TOKEN), colon = name;
    while (reading == HTTP1_TOLERANT && name > 0 && colon < line.len && http_is_space(line.data[colon]))
        colon++;
    if (colon < line.len && line.data[colon] == ':' && name > 0) {
        out->name = (struct slice){line.data, name};
        out->value = slice_trim((struct slice){line.data + colon + 1, line.len - colon - 1});
        out->id = field_id_of(out->name);
        return true;
    }
    if (colon == line.len)
        *error = "field line without a colon";
    else if (line.data[colon] == ':')
        *error = "empty field name";
    else if (colon > name || !http_is_space(line.data[colon]))
        *error = "field name is not a token";
    else if (colon == 0)
        *error = "white space at the start of a line";
    else
        *error = "white space in or behind a field name";
    return false;
}
