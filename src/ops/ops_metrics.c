/*
 * What the program counts, for Prometheus. Gauges are read as they are at the scrape; counters are sums of what each
 * worker counted for itself, so two of them may differ by what happened between the two reads.
 */
#include <stdio.h>
#include <sys/resource.h>
#include <uv.h>

#include "base/chunk.h"
#include "base/log.h"
#include "base/reason.h"
#include "control/control.h"
#include "edge/edge.h"
#include "io/descriptors.h"
#include "io/tls_server.h"
#include "ops/metric_text.h"
#include "ops/ops_impl.h"
#include "store/store_thread.h"
#include "tunnel/budget.h"
#include "tunnel/registry.h"

static void gauge(struct metric_text *m, const char *name, const char *help, uint64_t value)
{
    metric_family(m, name, METRIC_GAUGE, help);
    metric_value(m, value);
}

static void counter(struct metric_text *m, const char *name, const char *help, uint64_t value)
{
    metric_family(m, name, METRIC_COUNTER, help);
    metric_value(m, value);
}

static void write_tunnels(struct metric_text *m, const struct ops_settings *s)
{
    gauge(m, "kavilo_tunnels_active", "Live tunnels.", registry_count(s->registry));
    counter(
        m, "kavilo_control_connections_refused_total",
        "Connections of the control port that were over a limit, or gave way to newer ones, before they were known.",
        control_refused(s->control));
    counter(m, "kavilo_tunnels_connected_total", "Tunnels that were welcomed since the start, reconnects included.",
            control_welcomed(s->control));
    gauge(m, "kavilo_control_connections",
          "Open connections of the control port: tunnels, and clients that have not got one yet.",
          control_connections(s->control));
}

/* The codes that can be known before they happen are there from the start, at 0: an alert on the first 502 would
 * otherwise miss it, because a series that appears at 1 has not grown. */
static void write_responses(struct metric_text *m, const struct edge_counts *counts)
{
    bool always[EDGE_STATUS_MAX] = {[200] = true};
    for (int reason = 0; reason < REASON_COUNT; reason++)
        always[reason_text((enum close_reason)reason)->status] = true;
    metric_family(m, "kavilo_edge_responses_total", METRIC_COUNTER,
                  "Answers to visitors, by status code; those of tunnels and the edge's own.");
    for (unsigned status = 100; status < EDGE_STATUS_MAX; status++) {
        char code[4];
        snprintf(code, sizeof(code), "%03u", status % 1000);
        if (counts->responses[status] > 0 || always[status])
            metric_labelled(m, "code", code, counts->responses[status]);
    }
}

static void write_edge(struct metric_text *m, const struct ops_settings *s)
{
    struct edge_counts counts;
    edge_count(s->edge, &counts);
    gauge(m, "kavilo_edge_connections", "Open connections of visitors.", edge_alive(s->edge));
    counter(m, "kavilo_edge_requests_total", "Requests of visitors, refused ones included.", counts.requests);
    write_responses(m, &counts);
    counter(m, "kavilo_edge_body_limit_exceeded_total", "Requests whose body was over --max-request-body-bytes.",
            counts.body_limit_exceeded);
    counter(m, "kavilo_edge_connections_refused_total",
            "Connections over --max-connections-per-address or --max-connects-per-second.", counts.connections_refused);
    counter(m, "kavilo_edge_requests_limited_total", "Requests over --max-requests-per-second, answered with 429.",
            counts.requests_limited);
    counter(m, "kavilo_edge_floods_total", "HTTP/2 connections of visitors that were ended because they flooded us.",
            counts.floods);
    counter(m, "kavilo_edge_proxy_headers_refused_total",
            "Connections of --proxy-protocol-from that did not begin with a sound PROXY header.",
            counts.proxy_headers_refused);
    counter(m, "kavilo_edge_waited_total", "Requests that waited for their tunnel to come over from another process.",
            counts.waited);
}

static void write_tls(struct metric_text *m, struct tls_server *tls)
{
    struct tls_counts counts;
    struct tls_pair_facts facts;
    tls_server_count(tls, &counts);
    metric_family(m, "kavilo_tls_handshakes_total", METRIC_COUNTER,
                  "TLS handshakes of visitors and clients: full, resumed, or failed.");
    metric_labelled(m, "result", "full", counts.full);
    metric_labelled(m, "result", "resumed", counts.resumed);
    metric_labelled(m, "result", "failed", counts.failed);
    metric_family(m, "kavilo_tls_reloads_total", METRIC_COUNTER,
                  "Certificates that were loaded anew, or refused while the old one is served on.");
    metric_labelled(m, "result", "ok", counts.reloads);
    metric_labelled(m, "result", "refused", counts.reloads_refused);
    metric_family(m, "kavilo_tls_certificate_not_after_seconds", METRIC_GAUGE,
                  "When the certificate that is served from this file expires, in seconds since 1970.");
    for (unsigned i = 0; i < tls_server_pairs(tls); i++) {
        tls_server_pair_facts(tls, i, &facts);
        metric_labelled(m, "file", facts.cert, (uint64_t)facts.not_after);
    }
    metric_family(m, "kavilo_tls_ocsp_next_update_seconds", METRIC_GAUGE,
                  "Until when the OCSP response stapled to the certificate of this file is good; 0 for none stapled.");
    for (unsigned i = 0; i < tls_server_pairs(tls); i++) {
        tls_server_pair_facts(tls, i, &facts);
        metric_labelled(m, "file", facts.cert, (uint64_t)facts.staple_until);
    }
}

static void write_memory(struct metric_text *m)
{
    gauge(m, "kavilo_credit_granted_bytes", "Body bytes that peers may send at once, booked on the process's budget.",
          budget_used());
    gauge(m, "kavilo_chunks_live", "Pieces of bodies and output in memory.", chunk_live_count());
    gauge(m, "kavilo_chunk_bytes_live", "Bytes of memory that they take.", chunk_live_bytes());
}

/* The names that every Prometheus client library uses. */
static void write_process(struct metric_text *m, const struct ops *ops)
{
    struct rusage usage;
    struct rlimit files;
    size_t resident;
    if (getrusage(RUSAGE_SELF, &usage) == 0) {
        metric_family(m, "process_cpu_seconds_total", METRIC_COUNTER, "Processor time, user and system.");
        metric_seconds(m, (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                              (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
    }
    if (uv_resident_set_memory(&resident) == 0)
        gauge(m, "process_resident_memory_bytes", "Resident memory.", resident);
    gauge(m, "process_open_fds", "Open file descriptors.", descriptors_open());
    if (getrlimit(RLIMIT_NOFILE, &files) == 0)
        gauge(m, "process_max_fds", "The limit of open file descriptors.", files.rlim_cur);
    gauge(m, "process_start_time_seconds", "When the server started, in seconds since 1970.",
          (uint64_t)ops->started_at);
}

int ops_metrics(const struct ops *ops, struct buffer *out)
{
    struct metric_text m = {.out = out};
    metric_family(&m, "kavilo_build_info", METRIC_GAUGE, "Always 1; the label tells the version.");
    metric_labelled(&m, "version", KV_VERSION, 1);
    write_tunnels(&m, &ops->settings);
    write_edge(&m, &ops->settings);
    if (ops->settings.tls)
        write_tls(&m, ops->settings.tls);
    write_memory(&m);
    gauge(&m, "kavilo_store_reachable", "1 if the accounts' database answered when it was last asked, otherwise 0.",
          store_thread_reachable(ops->settings.store));
    counter(&m, "kavilo_log_lines_dropped_total",
            "Log lines that standard error did not take: its reader is stuck or its disk is full.", log_dropped());
    gauge(&m, "kavilo_admin_connections", "Open connections of the admin listener.", ops_alive(ops));
    write_process(&m, ops);
    return m.error;
}
