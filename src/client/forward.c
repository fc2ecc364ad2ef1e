/*
 * The forwarder is a mailbox and a pool: OPEN messages of every session arrive here and become relays, which have all
 * that is particular to one exchange. What it adds is what concerns them together: refusing new ones when the client
 * stops, and one line in the log, not hundreds, when the local service is down.
 */
#include "client/forward.h"

#include <stdlib.h>

#include "base/log.h"
#include "client/relay.h"
#include "tunnel/exchange.h"

#define QUIET_MS 1000 /* one warning of a kind in this time: a service that is down is told once, not per visitor */

struct forwarder {
    struct relay_context relays; /* first: relays give it back to `on_failed` */
    struct receiver receiver;
    struct worker *worker;
    struct url url;
    bool stopping;
    struct {
        uint64_t told_at;
        uint64_t untold;
    } failures[REASON_COUNT];
};

/* ---- the log --------------------------------------------------------------------------------------------------- */

static void on_failed(struct relay_context *context, const struct half *half, const struct head *request,
                      enum close_reason reason, const char *text)
{
    struct forwarder *f = (struct forwarder *)context;
    uint64_t now = worker_now(f->worker);
    if (f->failures[reason].told_at && now - f->failures[reason].told_at < QUIET_MS) {
        f->failures[reason].untold++;
        return;
    }
    log_warn("the local service failed a request; the visitor is told", log_str("request", half->id),
             log_str("service", f->url.text), log_slice("method", request->method),
             log_slice("path", relay_path(request)), log_str("reason", reason_text(reason)->code),
             log_str("text", text), log_uint("more_since_last", f->failures[reason].untold));
    f->failures[reason].told_at = now ? now : 1;
    f->failures[reason].untold = 0;
}

/* ---- exchanges ------------------------------------------------------------------------------------------------- */

static void on_message(struct receiver *receiver, struct message *message)
{
    struct forwarder *f = (struct forwarder *)((char *)receiver - offsetof(struct forwarder, receiver));
    if (!f->stopping) {
        relay_start(&f->relays, message);
        return;
    }
    if (exchange_open_of(message))
        exchange_refuse(message, REASON_CLIENT_GONE, "the tunnel client is being stopped");
}

struct address forwarder_address(const struct forwarder *f)
{
    return f->receiver.address;
}

size_t forwarder_active(const struct forwarder *f)
{
    return f->relays.count;
}

/* ---- life ------------------------------------------------------------------------------------------------------ */

/* "host:port" as it stands in the URL. */
static struct slice authority_of(const struct url *url)
{
    const char *host = strstr(url->text, "://");
    return slice_of(host ? host + 3 : url->text);
}

struct forwarder *forwarder_new(struct worker *worker, const struct forward_options *options)
{
    struct forwarder *f = calloc(1, sizeof(*f));
    if (!f)
        return NULL;
    f->worker = worker;
    f->url = options->target.url;
    f->relays.host_header = slice_of(options->host_header);
    f->relays.authority = authority_of(&f->url);
    f->relays.tls = f->url.tls;
    f->relays.rewrites = !options->no_rewrite;
    f->relays.response_ms = options->response_ms;
    f->relays.failed = on_failed;
    f->receiver.receive = on_message;
    f->relays.pool = origin_pool_new(worker, &options->target);
    if (!f->relays.pool)
        goto free_forwarder;
    if (receiver_attach(worker, &f->receiver) != 0)
        goto free_pool;
    return f;

free_pool:
    origin_pool_free(f->relays.pool);
free_forwarder:
    free(f);
    return NULL;
}

void forwarder_stop(struct forwarder *f)
{
    f->stopping = true;
}

void forwarder_free(struct forwarder *f)
{
    if (!f)
        return;
    receiver_detach(&f->receiver);
    relay_abort_all(&f->relays, REASON_CLIENT_GONE, "the tunnel client was stopped");
    origin_pool_free(f->relays.pool);
    free(f);
}
