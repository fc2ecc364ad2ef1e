/*
 * The page that a browser is shown instead of an answer: what happened, how far the request came, what may help, and
 * what to tell the operator. One file without scripts, pictures or anything from elsewhere; its only style is named by
 * its hash in the policy that goes with it, so nothing that could ever slip into the page would be run or loaded.
 */
#include <string.h>

#include "base/error.h"
#include "edge/edge_impl.h"
#include "http/http1.h"

static const char style[] =
    ":root{color-scheme:light dark;--ink:#1a212b;--soft:#566170;--paper:#f4f6f8;--card:#fff;"
    "--line:#dfe4ea;--dim:#aab4c0;--good:#1f7a4d;--bad:#b3261e}\n"
    "@media(prefers-color-scheme:dark){:root{--ink:#e9edf2;--soft:#a3aebc;--paper:#12161b;"
    "--card:#1b2128;--line:#303944;--dim:#536070;--good:#5cc792;--bad:#ff8a80}}\n"
    "*,:before,:after{box-sizing:border-box}\n"
    "body{margin:0;min-height:100vh;min-height:100dvh;display:grid;place-items:center;padding:1rem;"
    "background:var(--paper);color:var(--ink);font:1rem/1.55 system-ui,-apple-system,\"Segoe UI\","
    "Roboto,sans-serif}\n"
    "main{width:100%;max-width:34rem;padding:clamp(1.5rem,5vw,2.5rem);background:var(--card);"
    "border:1px solid var(--line);border-radius:14px}\n"
    "h1{margin:0;font-size:1.375rem;line-height:1.3;font-weight:650;text-wrap:balance}\n"
    "p{margin:.75rem 0 0;color:var(--soft)}\n"
    "ol{display:grid;grid-template-columns:repeat(4,1fr);margin:2rem 0;padding:0;list-style:none;"
    "text-align:center;font-size:.875rem}\n"
    "li{position:relative;padding-top:1.75rem}\n"
    "li:before{content:\"\";position:absolute;top:.25rem;left:calc(50% - .5rem);width:1rem;height:1rem;"
    "border:2px solid var(--dim);border-radius:50%;background:var(--card)}\n"
    "li+li:after{content:\"\";position:absolute;top:calc(.75rem - 1px);right:calc(50% + 1.125rem);"
    "width:calc(100% - 2.25rem);height:2px;background:var(--dim)}\n"
    ".good:before{border-color:var(--good);background:var(--good)}\n"
    ".good+.good:after{background:var(--good)}\n"
    ".bad:before{border-color:var(--bad);background:var(--bad);box-shadow:0 0 0 3px var(--card),"
    "0 0 0 5px var(--bad)}\n"
    ".bad b{color:var(--bad)}\n"
    "b{display:block;font-weight:600}\n"
    "li span{color:var(--soft);font-size:.75rem}\n"
    "dl{display:grid;grid-template-columns:auto 1fr;gap:.25rem 1rem;margin:0;padding-top:1.25rem;"
    "border-top:1px solid var(--line);color:var(--soft);font-size:.8125rem}\n"
    "dd{margin:0;overflow-wrap:anywhere;font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"
    "monospace;color:var(--ink)}\n";

/* style-src has the SHA-256 of what stands between <style> and </style> (CSP level 3, 6.7.3.3). */
const char edge_page_policy[] = "default-src 'none'; style-src 'sha256-+bYFj/5Fibc4ouMkQYwRPl708Ew7p/UnN4Rx9Xuhwck='; "
                                "base-uri 'none'; form-action 'none'; "
                                "frame-ancestors 'none'";

/* ---- how far the request came ---------------------------------------------------------------------------------- */

#define STATIONS 4

static const char *const stations[STATIONS] = {"You", "Server", "Tunnel", "Service"};

static unsigned station_of(enum reason_side side)
{
    switch (side) {
    case SIDE_VISITOR:
        return 0;
    case SIDE_TUNNEL:
        return 2;
    case SIDE_SERVICE:
        return 3;
    case SIDE_SERVER:
    case SIDE_NOBODY:
        break;
    }
    return 1;
}

static int write_way(struct buffer *page, unsigned failed)
{
    int error = buffer_append_string(page, "<ol aria-label=\"How far the request came\">\n");
    for (unsigned i = 0; i < STATIONS && !error; i++) {
        const char *class = i < failed ? " class=\"good\"" : i == failed ? " class=\"bad\"" : "";
        const char *state = i < failed ? "fine" : i == failed ? "problem" : "not reached";
        error = buffer_printf(page, "<li%s><b>%s</b><span>%s</span></li>\n", class, stations[i], state);
    }
    return error ? error : buffer_append_string(page, "</ol>\n");
}

/* ---- what may help --------------------------------------------------------------------------------------------- */

static const char *advice(const struct reason_text *row)
{
    switch (row->side) {
    case SIDE_VISITOR:
        return row->status == 408 || row->status == 429
                   ? "Please wait a moment and try again."
                   : "The request itself is the problem; sending it again will not help.";
    case SIDE_TUNNEL:
        if (row->status == 508)
            return "The service at the end of this tunnel is the tunnel again. If it is yours, give the tunnel client "
                   "the "
                   "address of a service on its own machine.";
        return row->status == 503
                   ? "It is busy with other requests. Please try again in a moment."
                   : "The service at this address is reached through a tunnel, and there the request ended. If it is "
                     "yours, see whether the tunnel client is running, and what it says.";
    case SIDE_SERVICE:
        return "The tunnel works, but the service at its far end does not. If it is yours, see whether it is running, "
               "and on the port that the tunnel client was told.";
    case SIDE_SERVER:
    case SIDE_NOBODY:
        break;
    }
    return row->status == 502 ? "If it is yours, ask whoever runs this server."
                              : "This is not your fault, and it should not last long.";
}

/* ---- the page -------------------------------------------------------------------------------------------------- */

/* The texts are ours and hold nothing that HTML would read as markup. */
int edge_page_write(struct buffer *page, const struct reason_text *row, const char *request_id)
{
    const char *phrase = http_status_phrase(row->status);
    char first = row->sentence[0];
    if (first >= 'a' && first <= 'z')
        first = (char)(first - 'a' + 'A');
    int error =
        buffer_printf(page,
                      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
                      "<meta name=\"robots\" content=\"noindex\">\n<title>%c%s (%u)</title>\n<style>%s</style>\n"
                      "</head>\n<body>\n<main>\n<h1>%c%s</h1>\n<p>%s</p>\n",
                      first, row->sentence + 1, row->status, style, first, row->sentence + 1, advice(row));
    if (!error)
        error = write_way(page, station_of(row->side));
    if (!error)
        error = buffer_printf(page,
                              "<dl>\n<dt>Status</dt><dd>%u %s</dd>\n<dt>Code</dt><dd>%s</dd>\n"
                              "<dt>Request</dt><dd>%s</dd>\n</dl>\n</main>\n</body>\n</html>\n",
                              row->status, phrase, row->code, request_id);
    return error;
}
