/*
 * The control plane: tunnel clients connect here, say who they are and what name they want, and become links in the
 * registry. It knows accounts and nothing of visitors.
 *
 *     accept ── HTTP/2 ── POST /kavilo.tunnel.v1.Tunnel/Open ── Hello ── store ── registry ── Welcome ── link
 *
 * control_conn.c takes connections of the control port; control_session.c is one Open stream from its first byte to its
 * grpc-status, and does not care which port its connection came in on.
 */
#ifndef KV_CONTROL_CONTROL_H
#define KV_CONTROL_CONTROL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/slice.h"
#include "io/address_limit.h"

struct control;
struct h2_events;
struct h2_stream;
struct head;
struct networks;
struct registry;
struct store_thread;
struct tls_context;
struct worker_group;

struct control_settings {
    struct worker_group *group;
    struct registry *registry;
    struct store_thread *store;
    struct tls_context *tls; /* of the control port; NULL: in the clear. Referenced, not owned */
    const char *base_host;
    const char *public_scheme;  /* "http" or "https" */
    uint16_t public_port;       /* 0: the scheme's own */
    uint32_t max_concurrent;    /* exchanges of one tunnel at work */
    uint32_t max_still;         /* and such as are answered and carry nothing */
    unsigned ping_ms, dead_ms;  /* of its links (struct link_terms) */
    unsigned answer_cap_ms;     /* from a request's end to its answer's head, whatever clients tell; 0: no bound */
    unsigned answer_default_ms; /* the same for clients that do not tell how long they wait; 0: no bound */
    uint32_t grace_ms;          /* how long a drain may last: what clients are told */
    struct address_rates rates; /* of one address: connections at once until they are known, and a second */
    /* Whose connections speak for many and are not held to that. Referenced, not owned; NULL: nobody's */
    const struct networks *trusted_proxies;
    size_t
        max_strangers; /* connections of the control port that are not known yet; a newcomer takes the oldest's place */
};

/* What it needs is borrowed and outlives it. NULL without memory. */
struct control *control_new(const struct control_settings *settings);
/* After the workers have ended. NULL is legal. */
void control_free(struct control *control);

/* A connection accepted on the control port; its socket is the control plane's. On the worker that is to serve it. */
void control_accept(struct control *control, int fd);

/* ---- on another port: an HTTP/2 connection that somebody else owns hands its Open stream over ---- */

/* True if a request is for the control plane. Any thread. */
bool control_wants(const struct head *head);
/* Takes an Open stream of a client at `peer` ("address:port"); the result is its user data, and control_stream_events
 * its events. `finished` is called once when the last word is queued: the connection is then to be closed. NULL when
 * the stream was answered at once. */
void *control_open(void *control, struct h2_stream *stream, const struct head *head, const char *peer,
                   void (*finished)(void *arg), void *arg);
extern const struct h2_events control_stream_events;
/* A PING that was sent on the stream's connection was answered. */
void control_pong(void *user, uint64_t opaque);

/* Tells every client that knows Drain to open a session elsewhere, and takes no new session. Links go on serving, for
 * visitors' connections that are still here. With `succeeded` another process has the ports, so clients that know no
 * Drain will not be waited for long. Any thread; returns at once. */
void control_announce_drain(struct control *control, bool succeeded);
/* Refuses new exchanges, and ends each session when its last exchange has. Any thread; returns at once. */
void control_drain(struct control *control);
/* Ends every session and connection now, with UNAVAILABLE. Any thread; returns at once. */
void control_stop(struct control *control);

/* Whether anything is left to end: connections and sessions alive on all workers together. Any thread. */
size_t control_alive(const struct control *control);
/* Open connections of the control port, on all workers. Any thread. */
size_t control_connections(const struct control *control);

/* Connections of the control port that were turned away, or gave way to newer ones, before they were known. Any thread.
 */
uint64_t control_refused(const struct control *control);

/* Sessions that were welcomed since the start. Any thread. */
uint64_t control_welcomed(const struct control *control);

#endif
