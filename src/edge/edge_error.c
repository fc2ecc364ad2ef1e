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
#include "http/accept.h"
#include "http/date.h"

#define ERROR_BODY_MAX 8192
#define ERROR_FIELDS   9
#define ERROR_TEXT     1024 /* names and values together */

/* ---- what the visitor wants ------------------------------------------------------------------------------------ */

/* By enum edge_body_type: the first is for those who do not say. */
static const struct slice types[] = {
    [EDGE_TEXT] = {"text/plain", 10},
    [EDGE_JSON] = {"application/json", 16},
    [EDGE_HTML] = {"text/html", 9},
};

enum edge_body_type edge_wanted_type(const struct head *request)
{
    return (enum edge_body_type)accept_choose(request, types, sizeof(types) / sizeof(types[0]));
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

static int write_body(struct buffer *body, enum edge_body_type type, const struct reason_text *row,
                      const char *request_id)
{
    switch (type) {
    case EDGE_JSON:
        return write_json(body, row, request_id);
    case EDGE_HTML:
        return edge_page_write(body, row, request_id);
    case EDGE_TEXT:
        break;
    }
    return buffer_append_string(body, row->sentence);
}

/* ---- the answer ------------------------------------------------------------------------------------------------ */

int edge_error_make(enum close_reason reason, enum edge_body_type type, const char *request_id, struct head **head,
                    struct buffer *body)
{
    static const char *const content_types[] = {
        [EDGE_TEXT] = "text/plain; charset=utf-8",
        [EDGE_JSON] = "application/json",
        [EDGE_HTML] = "text/html; charset=utf-8",
    };
    char date[HTTP_DATE_LEN];
    const struct reason_text *row = reason_text(reason);
    if (row->status == 0)
        return KV_ENOTFOUND;
    *body = (struct buffer)BUFFER_INIT(ERROR_BODY_MAX);
    struct head *h = head_new(ERROR_FIELDS, ERROR_TEXT);
    if (!h || write_body(body, type, row, request_id) != KV_OK) {
        head_free(h);
        buffer_free(body);
        return KV_ENOMEM;
    }
    h->status = row->status;
    head_add(h, SLICE("date"), http_date(time(NULL), date));
    head_add(h, SLICE("content-type"), slice_of(content_types[type]));
    head_add(h, SLICE("cache-control"), SLICE("no-store"));
    head_add(h, SLICE("x-content-type-options"), SLICE("nosniff"));
    if (type == EDGE_HTML)
        head_add(h, SLICE("content-security-policy"), slice_of(edge_page_policy));
    if (reason == REASON_RATE_LIMITED || reason == REASON_VISITOR_BUSY)
        head_add(h, SLICE("retry-after"), SLICE("1")); /* seconds; rates are whole numbers a second */
    head_add(h, SLICE("kavilo-error"), slice_of(row->code));
    head_add(h, SLICE("kavilo-error-side"), slice_of(reason_side_name(row->side)));
    head_add(h, SLICE("kavilo-request-id"), slice_of(request_id));
    *head = h;
    return KV_OK;
}
