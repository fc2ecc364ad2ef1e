/*
 * Error answers: a stable code for programs, a sentence for people, whose side it is on, and an id that the operator
 * finds in the log. As text by default, as JSON or a small page for those who prefer it. Nothing about the inside.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "edge/edge_impl.h"
#include "http/http1.h"

#define ERROR_BODY_MAX 4096

/* ---- what the visitor wants ------------------------------------------------------------------------------------ */

/* Quality of one element of Accept in thousandths (RFC 9110, 12.4.2). */
static unsigned quality_of(struct slice parameters)
{
    for (size_t i = 0; i + 2 < parameters.len; i++) {
        if ((parameters.data[i] != 'q' && parameters.data[i] != 'Q') || parameters.data[i + 1] != '=')
            continue;
        unsigned value = parameters.data[i + 2] == '1' ? 1000 : 0, scale = 100;
        for (size_t j = i + 4;
             j < parameters.len && scale > 0 && parameters.data[j] >= '0' && parameters.data[j] <= '9';
             j++, scale /= 10)
            value += (unsigned)(parameters.data[j] - '0') * scale;
        return value > 1000 ? 1000 : value;
    }
    return 1000;
}

enum edge_body_type edge_wanted_type(const struct head *request)
{
    static const struct {
        struct slice name;
        enum edge_body_type type;
    } types[] = {
        {{"text/html", 9}, EDGE_HTML},
        {{"application/json", 16}, EDGE_JSON},
        {{"text/plain", 10}, EDGE_TEXT},
        {{"*/*", 3}, EDGE_TEXT},
    };
    enum edge_body_type best = EDGE_TEXT;
    unsigned best_quality = 0;
    struct slice rest = head_value(request, SLICE("accept")), element;
    while (slice_next_element(&rest, &element)) {
        const char *semicolon = memchr(element.data, ';', element.len);
        struct slice name = element, parameters = {0};
        if (semicolon) {
            name.len = (size_t)(semicolon - element.data);
            parameters = (struct slice){semicolon, element.len - name.len};
        }
        name = slice_trim(name);
        unsigned quality = quality_of(parameters);
        for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
            if (slice_equals_nocase(name, types[i].name) && quality > best_quality) {
                best = types[i].type;
                best_quality = quality;
            }
        }
    }
    return best;
}

/* ---- the three bodies ------------------------------------------------------------------------------------------ */

static int write_json(struct buffer *body, const struct reason_text *row, const char *request_id)
{
    json_t *json = json_pack("{s:s, s:s, s:s, s:i, s:s}", "error", row->code, "message", row->sentence, "side",
                             reason_side_name(row->side), "status", (int)row->status, "request_id", request_id);
    char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;
    int error = text ? buffer_append_string(body, text) : KV_ENOMEM;
    free(text);
    json_decref(json);
    return error;
}

/* The texts are ours and hold nothing that HTML would read as markup. */
static int write_html(struct buffer *body, const struct reason_text *row, const char *request_id)
{
    return buffer_printf(
        body,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
        "<meta name=\"color-scheme\" content=\"light dark\">\n<title>%u %s</title>\n<style>\n"
        ":root{--ink:#1d2530;--soft:#5b6675;--paper:#f7f8fa;--card:#fff;--line:#e1e5ea}\n"
        "@media (prefers-color-scheme:dark){:root{--ink:#e8ebef;--soft:#9aa5b3;--paper:#14181d;--card:#1c2229;"
        "--line:#2c343d}}\n"
        "body{margin:0;min-height:100vh;display:grid;place-items:center;background:var(--paper);color:var(--ink);"
        "font:16px/1.5 system-ui,sans-serif}\n"
        "main{box-sizing:border-box;width:min(34rem,calc(100%% - 2rem));padding:2rem;background:var(--card);"
        "border:1px solid var(--line);border-radius:12px}\n"
        "h1{margin:0 0 .5rem;font-size:1.25rem}\np{margin:.5rem 0}\n"
        "dl{display:grid;grid-template-columns:auto 1fr;gap:.25rem 1rem;margin:1.5rem 0 0;color:var(--soft);"
        "font-size:.875rem}\ndd{margin:0;overflow-wrap:anywhere;font-family:ui-monospace,monospace}\n"
        "</style>\n</head>\n<body>\n<main>\n<h1>%u %s</h1>\n<p>%s</p>\n"
        "<dl><dt>code</dt><dd>%s</dd><dt>side</dt><dd>%s</dd><dt>request</dt><dd>%s</dd></dl>\n"
        "</main>\n</body>\n</html>\n",
        row->status, http_status_phrase(row->status), row->status, http_status_phrase(row->status), row->sentence,
        row->code, reason_side_name(row->side), request_id);
}

static int write_body(struct buffer *body, enum edge_body_type type, const struct reason_text *row,
                      const char *request_id)
{
    switch (type) {
    case EDGE_JSON:
        return write_json(body, row, request_id);
    case EDGE_HTML:
        return write_html(body, row, request_id);
    case EDGE_TEXT:
        break;
    }
    return buffer_append_string(body, row->sentence);
}

/* ---- the answer ------------------------------------------------------------------------------------------------ */

int edge_error_make(enum close_reason reason, enum edge_body_type type, const char *request_id, struct head **head,
                    struct buffer *body)
{
    static const char *const content_types[] = {"text/plain; charset=utf-8", "text/html; charset=utf-8",
                                                "application/json"};
    const struct reason_text *row = reason_text(reason);
    if (row->status == 0)
        return KV_ENOTFOUND;
    *body = (struct buffer)BUFFER_INIT(ERROR_BODY_MAX);
    struct head *h = head_new(6, 512);
    if (!h || write_body(body, type, row, request_id) != KV_OK) {
        head_free(h);
        buffer_free(body);
        return KV_ENOMEM;
    }
    h->status = row->status;
    head_add(h, SLICE("content-type"), slice_of(content_types[type]));
    head_add(h, SLICE("cache-control"), SLICE("no-store"));
    head_add(h, SLICE("kavilo-error"), slice_of(row->code));
    head_add(h, SLICE("kavilo-error-side"), slice_of(reason_side_name(row->side)));
    head_add(h, SLICE("kavilo-request-id"), slice_of(request_id));
    *head = h;
    return KV_OK;
}
