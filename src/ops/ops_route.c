/*
 * What is asked on the admin listener: the guard first, then a table of paths, then the method. Errors are JSON below
 * /admin/ and text elsewhere. A query behind a path is ignored: scrapers add some.
 */
#include <jansson.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/log.h"
#include "http/http1.h"
#include "ops/ops_impl.h"
#include "store/store_thread.h"
#include "tunnel/registry.h"

#define TYPE_TEXT    "text/plain; charset=utf-8"
#define TYPE_METRICS "text/plain; version=0.0.4; charset=utf-8"
#define TYPE_JSON    "application/json"

#define ADMIN_PREFIX SLICE("/admin/")
#define KICK_PREFIX  SLICE("/admin/tunnels/")
#define KICK_SUFFIX  SLICE("/kick")

struct asked {
    struct ops *ops;
    const struct head *request;
    struct slice path;
    struct slice subdomain; /* of a kick */
    const char *peer;
    struct ops_reply *reply;
};

/* ---- errors ---------------------------------------------------------------------------------------------------- */

static int append_json(const char *bytes, size_t len, void *out)
{
    return buffer_append(out, bytes, len);
}

/* Takes the reference. What cannot be written is answered by a 500 without a body. */
static void reply_json(struct asked *a, uint16_t status, json_t *json)
{
    a->reply->status = status;
    a->reply->type = TYPE_JSON;
    if (!json || json_dump_callback(json, append_json, &a->reply->body, JSON_COMPACT) != 0 ||
        buffer_append_string(&a->reply->body, "\n") != KV_OK) {
        a->reply->status = 500;
        buffer_free(&a->reply->body);
    }
    json_decref(json);
}

static void reply_text(struct asked *a, uint16_t status, const char *text)
{
    a->reply->status = status;
    a->reply->type = TYPE_TEXT;
    if (buffer_printf(&a->reply->body, "%s\n", text) != KV_OK)
        a->reply->status = 500;
}

static void reply_error(struct asked *a, uint16_t status, const char *code, const char *sentence)
{
    if (!slice_starts_with(a->path, ADMIN_PREFIX)) {
        reply_text(a, status, sentence);
        return;
    }
    reply_json(a, status, json_pack("{s:s, s:s, s:i}", "error", code, "message", sentence, "status", (int)status));
}

/* The answer of a function that fills a body. */
static void finish(struct asked *a, const char *type, int error)
{
    if (error == KV_OK) {
        a->reply->status = 200;
        a->reply->type = type;
        return;
    }
    buffer_free(&a->reply->body);
    reply_error(a, 500, "internal", kv_strerror(error));
}

/* ---- the answers ----------------------------------------------------------------------------------------------- */

static void answer_metrics(struct asked *a)
{
    finish(a, TYPE_METRICS, ops_metrics(a->ops, &a->reply->body));
}

static void answer_tunnels(struct asked *a)
{
    finish(a, TYPE_JSON, ops_tunnels(a->ops, &a->reply->body));
}

static void answer_kick(struct asked *a)
{
    if (!registry_kick(a->ops->settings.registry, a->subdomain)) {
        reply_error(a, 404, "no_tunnel", "no live tunnel has this subdomain");
        return;
    }
    log_info("an operator closed a tunnel", log_slice("subdomain", a->subdomain), log_str("peer", a->peer));
    reply_json(a, 200, json_pack("{s:s%}", "kicked", a->subdomain.data, a->subdomain.len));
}

/* Nothing but "this process answers": a lost store or a drain is no reason to kill it. */
static void answer_health(struct asked *a)
{
    reply_text(a, 200, "ok");
}

static void answer_readiness(struct asked *a)
{
    const struct ops *ops = a->ops;
    struct buffer *body = &a->reply->body;
    int state = atomic_load(&ops->state), error = KV_OK;
    if (state == OPS_STARTING)
        error = buffer_append_string(body, "starting: the listeners are not up yet\n");
    else if (state == OPS_DRAINING)
        error = buffer_append_string(body, "draining: the server is going away\n");
    if (error == KV_OK && !store_thread_reachable(ops->settings.store))
        error = buffer_append_string(body, "store unreachable: live tunnels serve on, new ones are refused\n");
    if (error == KV_OK && body->len == 0) {
        reply_text(a, 200, "ready");
        return;
    }
    a->reply->status = 503;
    a->reply->type = TYPE_TEXT;
}

/* ---- which of them --------------------------------------------------------------------------------------------- */

struct route {
    const char *path;
    bool posts; /* POST, or else GET and HEAD */
    void (*answer)(struct asked *asked);
};

static const struct route kick = {.posts = true, .answer = answer_kick};

/* /admin/tunnels/<one segment>/kick */
static bool is_kick(struct asked *a)
{
    const struct slice path = a->path;
    const size_t around = KICK_PREFIX.len + KICK_SUFFIX.len;
    if (path.len <= around || !slice_starts_with(path, KICK_PREFIX))
        return false;
    const struct slice end = {path.data + path.len - KICK_SUFFIX.len, KICK_SUFFIX.len};
    a->subdomain = (struct slice){path.data + KICK_PREFIX.len, path.len - around};
    return slice_equals(end, KICK_SUFFIX) && !memchr(a->subdomain.data, '/', a->subdomain.len);
}

static const struct route *find_route(struct asked *a)
{
    static const struct route routes[] = {
        {"/metrics", false, answer_metrics},
        {"/admin/tunnels", false, answer_tunnels},
        {"/healthz", false, answer_health},
        {"/readyz", false, answer_readiness},
    };
    for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
        if (slice_equals(a->path, slice_of(routes[i].path)))
            return &routes[i];
    }
    return is_kick(a) ? &kick : NULL;
}

static bool is_allowed(const struct route *route, struct slice method)
{
    if (route->posts)
        return slice_equals(method, SLICE("POST"));
    return slice_equals(method, SLICE("GET")) || slice_equals(method, SLICE("HEAD"));
}

void ops_answer(struct ops *ops, const struct head *request, bool has_body, const char *peer, struct ops_reply *reply)
{
    const struct slice target = request->target;
    const char *query = memchr(target.data, '?', target.len);
    struct asked a = {.ops = ops, .request = request, .peer = peer, .reply = reply};
    a.path = (struct slice){target.data, query ? (size_t)(query - target.data) : target.len};
    const char *refusal = ops_guard(request);
    const struct route *route = find_route(&a);
    if (refusal) {
        log_warn("an admin request was refused", log_str("peer", peer), log_slice("host", request->authority),
                 log_slice("origin", head_value(request, SLICE("origin"))), log_str("why", refusal));
        reply_error(&a, 403, "forbidden", refusal);
    } else if (!route) {
        reply_error(&a, 404, "not_found",
                    "there are /metrics, /admin/tunnels, /admin/tunnels/<subdomain>/kick, /healthz and /readyz");
    } else if (!is_allowed(route, request->method)) {
        reply->allow = route->posts ? "POST" : "GET, HEAD";
        reply_error(&a, 405, "method_not_allowed",
                    route->posts ? "this path takes POST only" : "this path takes GET and HEAD only");
    } else if (has_body) {
        reply_error(&a, 413, "body_not_allowed", "requests to this listener carry no body");
    } else {
        route->answer(&a);
    }
}
