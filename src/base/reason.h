/*
 * Why an exchange, a connection or a session ended. One enum feeds the log, the metrics, the wire and the visitor's
 * status line, so that the four can never tell different stories.
 */
#ifndef KV_BASE_REASON_H
#define KV_BASE_REASON_H

#include <stdint.h>

enum close_reason {
    REASON_NONE = 0,               /* ended as it should */
    REASON_INTERNAL,               /* our own failure (no memory, a bug) */
    REASON_VISITOR_GONE,           /* the visitor closed or reset before the answer was whole */
    REASON_VISITOR_SLOW,           /* the visitor made no progress within its deadline */
    REASON_BAD_REQUEST,            /* the visitor sent what RFC 9112 or safety forbids */
    REASON_NOT_IMPLEMENTED,        /* a transfer coding that is not taken apart here */
    REASON_HEAD_TOO_LARGE,         /* request head over the cap */
    REASON_TARGET_TOO_LONG,        /* request target over the cap */
    REASON_BODY_TOO_LARGE,         /* request body over --max-request-body-bytes */
    REASON_RATE_LIMITED,           /* the visitor's address is over --max-requests-per-second */
    REASON_VISITOR_BUSY,           /* the visitor's address has its share of the tunnel's requests in flight */
    REASON_NO_TUNNEL,              /* no live tunnel has this host */
    REASON_LOOP,                   /* the request has passed this tunnel before */
    REASON_TUNNEL_BUSY,            /* --max-concurrent reached */
    REASON_SERVER_BUSY,            /* the process budget is spent */
    REASON_DRAINING,               /* the server is going away */
    REASON_CLIENT_GONE,            /* the tunnel client's session ended under the exchange */
    REASON_CLIENT_TIMEOUT,         /* the tunnel client sent no answer within the time that it had told */
    REASON_SERVER_TIMEOUT,         /* no answer within the server's own --response-timeout */
    REASON_ORIGIN_REFUSED,         /* connect to the local service failed */
    REASON_ORIGIN_UNREACHABLE,     /* the local service's name or address could not be reached */
    REASON_ORIGIN_CONNECT_TIMEOUT, /* connect to the local service timed out */
    REASON_ORIGIN_TIMEOUT,         /* the local service accepted but did not answer in time */
    REASON_ORIGIN_CLOSED,          /* the local service closed before its answer was whole */
    REASON_ORIGIN_BAD_RESPONSE,    /* the local service's answer is not HTTP */
    REASON_ORIGIN_HEAD_TOO_LARGE,  /* the head of the local service's answer is over the cap */
    REASON_ORIGIN_TLS,             /* TLS to the local service failed */
    REASON_ORIGIN_OTHER,           /* an old client's Error with code 0 */
    REASON_PROTOCOL,               /* the tunnel peer broke the protocol */
    REASON_TAKEN_OVER,             /* another client of the same user took the name */
    REASON_REPLACED,               /* the same client came back and replaced its own ghost */
    REASON_REVOKED,                /* token revoked, user disabled or name released */
    REASON_KICKED,                 /* an operator closed it */
    REASON_IDLE,                   /* closed after being idle for its time */
    REASON_COUNT
};

/* Whose side a failure is on, as told to the visitor. */
enum reason_side {
    SIDE_NOBODY,
    SIDE_VISITOR,
    SIDE_SERVER,
    SIDE_TUNNEL,
    SIDE_SERVICE
};

struct reason_text {
    const char *code;     /* stable, for the kavilo-error header and metric labels: "no_tunnel" */
    const char *sentence; /* for the visitor: what is wrong, no internals */
    enum reason_side side;
    uint16_t status; /* HTTP status for a visitor who has had no answer yet; 0 where none makes sense */
};

/* The row of a reason. Out-of-range values yield REASON_INTERNAL's row. Any thread. */
const struct reason_text *reason_text(enum close_reason reason);

/* "visitor", "server", "tunnel", "local service" or "nobody". */
const char *reason_side_name(enum reason_side side);

#endif
