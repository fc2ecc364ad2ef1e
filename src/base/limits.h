/*
 * Every cap and deadline, each with its reason. Nothing in the program grows or waits without one of these.
 * Sizes are bytes, times are milliseconds unless the name says otherwise.
 */
#ifndef KV_BASE_LIMITS_H
#define KV_BASE_LIMITS_H

/* HTTP heads */
#define LIMIT_HEAD_BYTES           (32 * 1024) /* as nginx (4 x 8 KiB): large cookies pass, floods do not */
#define LIMIT_TARGET_BYTES         (16 * 1024) /* request target; half of the head, so that fields still fit */
#define LIMIT_HEAD_FIELDS          128         /* field lines in one head: parse work and wire overhead per request */
#define LIMIT_ANSWER_HEAD_BYTES    (64 * 1024) /* a local service's: policies and debug fields make them large */
#define LIMIT_ANSWER_HEAD_FIELDS   256         /* field lines in it */
#define LIMIT_COOKIE_CRUMBS        1024        /* fields that a visitor over HTTP/2 splits Cookie into */
#define LIMIT_TRAILER_BYTES        (16 * 1024) /* trailers carry statuses and checksums, not documents */
#define LIMIT_CHUNK_LINE_BYTES     256         /* chunk size and extensions, which nobody uses */

/* Waiting for visitors */
#define LIMIT_HEAD_MS              15000 /* whole request head; slow heads hold a connection and nothing else */
#define LIMIT_IDLE_MS              75000 /* keep-alive without a request; as nginx */
#define LIMIT_PROGRESS_MS          60000 /* --stall-timeout: a body of which nothing moves is dead if memory is short */
#define LIMIT_STALL_MAX_MS         3600000 /* and in any case after this: a lid is shut, a breakpoint is long */
#define LIMIT_DRAIN_NOTICE_MS      1000    /* from the first GOAWAY to the last, when the visitor answers no PING */
#define LIMIT_LINGER_MS            2000    /* reading on after a final answer, so that the peer sees it and no RST */
#define LIMIT_LINGER_BYTES         (1024 * 1024)

/* The PROXY header in front of a connection, from the proxies that --proxy-protocol-from names */
#define LIMIT_PROXY_HEADER_BYTES   4096 /* as nginx; with every published extension a header has some hundred */
#define LIMIT_PROXY_HEADER_MS      5000 /* proxies send it with the first byte; their probes may not send it at all */

/* Bodies and flow control (docs/FLOW-CONTROL.md has the arithmetic) */
#define LIMIT_WINDOW_BYTES         (64 * 1024)       /* credit of one direction of an exchange at its start */
#define LIMIT_WINDOW_MAX_BYTES     (4 * 1024 * 1024) /* where growth by round trips ends: 40 MiB/s over 100 ms */
#define LIMIT_GRANT_BYTES          (128 * 1024)      /* credit is given back in steps of half a window, or of this */
#define LIMIT_OUTPUT_BYTES         (256 * 1024)      /* stop pulling new frames for a connection with so much unsent */
#define LIMIT_OUTPUT_STOP_READING  (512 * 1024)      /* stop reading from it: PING and SETTINGS floods grow output */
#define LIMIT_READ_BYTES           (64 * 1024)       /* one large receive: a worker's buffer */
#define LIMIT_DATA_FRAME_BYTES     (16 * 1024)       /* one DataChunk, so that exchanges interleave finely */
#define LIMIT_BUDGET_BYTES         (1024UL * 1024 * 1024) /* credit granted in the whole process; above: 503 */
#define LIMIT_BUDGET_MIN_BYTES     (1024 * 1024)          /* --memory-budget: room for eight exchanges at least */

/* Descriptors that every loop is ready for from the start: 128 KiB of table, and more connections than most have */
#define LIMIT_DESCRIPTORS_AHEAD    16384

/* TCP keepalive of every connection, in seconds: a dead peer of a silent one is known after 30 + 3 * 10 */
#define LIMIT_KEEPALIVE_IDLE_S     30
#define LIMIT_KEEPALIVE_STEP_S     10
#define LIMIT_KEEPALIVE_PROBES     3

/* TLS of a server's ports */
#define LIMIT_TLS_PAIRS            32           /* certificates; each is looked through at every handshake */
#define LIMIT_TICKET_KEY_S         (12 * 3600L) /* a ticket key's time for new tickets, and once more for old ones */

/* The tunnel's link */
#define LIMIT_MESSAGE_BYTES        (4 * 1024 * 1024) /* one gRPC message; deployed clients refuse more */
#define LIMIT_GREETING_BYTES       (16 * 1024)       /* one message before the peer is known: a stranger's memory */
#define LIMIT_HELLO_MS             10000             /* from connect to Hello */
#define LIMIT_STRANGERS            4096        /* connections of the control port whose token is not checked yet */
#define LIMIT_PING_MS              5000        /* --ping-interval: how often we ask whether the peer lives */
#define LIMIT_DEAD_MS              15000       /* --ping-timeout: silence after which it does not; three PINGs */
#define LIMIT_PING_MIN_MS          100         /* the shortest of these that is no flood of its own */
#define LIMIT_PING_MAX_MS          3600000     /* the longest that still is a promise */
#define LIMIT_PROXY_MS             20000       /* a proxy's answers: it looks up and dials on our behalf */
#define LIMIT_LINKS_OUTBOX         (64 * 1024) /* link bytes encoded ahead of the connection: keeps turns fair */

/* Deployed clients (docs/PROTOCOL.md): no credit, 32 queued frames a request */
#define LIMIT_LEGACY_OPEN_BODIES   256 /* above it they drop requests without a word */
#define LIMIT_LEGACY_CHUNK_MIN     (64 * 1024)
#define LIMIT_LEGACY_CHUNK_MAX     (3584 * 1024)        /* 3.5 MiB, under their 4 MiB message cap */
#define LIMIT_LEGACY_FRAMES        28                   /* of 31 safe ones; the rest are reserve */
#define LIMIT_LEGACY_BUDGET_BYTES  (64UL * 1024 * 1024) /* coalescing memory of one link */
#define LIMIT_LEGACY_FLUSH_MS      200                  /* a trickling body is sent on after this pause */
#define LIMIT_LEGACY_BACKLOG_BYTES (1024 * 1024) /* answer bytes held for one visitor before the link is paused */
#define LIMIT_LEGACY_STALL_MS      5000          /* one visitor may pause an old client's link for so long */

/* Answers */
#define LIMIT_CONNECT_MS           10000  /* to the local service, all its addresses together */
#define LIMIT_FIRST_BYTE_MS        120000 /* from the end of the request to the answer's head; 504 after */
#define LIMIT_UNTOLD_ANSWER_MS     130000 /* the same in a server whose client does not tell its own, which comes first */
#define LIMIT_ORIGIN_IDLE_MS       30000 /* a pooled connection to the local service */
#define LIMIT_ORIGIN_YOUNG_MS                                                                                          \
    1000 /* idle so long it is trusted with what cannot be sent again; services close from 2 s on */
#define LIMIT_ORIGIN_IDLE_MAX     1024        /* how many of them are kept: as many requests may come at once again */
#define LIMIT_ORIGIN_MUX_MAX      8           /* HTTP/2 connections to it; requests beyond their streams wait for one */
#define LIMIT_ORIGIN_REPLAY_BYTES (16 * 1024) /* of a request's body, kept until the service has begun with it */

/* Sessions */
#define LIMIT_CONCURRENT          256   /* exchanges of one tunnel, --max-concurrent */
#define LIMIT_STILL_STREAMS       4096  /* answered ones of a tunnel that carry nothing, --max-idle-streams */
#define LIMIT_STILL_MS            10000 /* for so long */
#define LIMIT_BACKOFF_FIRST_MS    1000
#define LIMIT_BACKOFF_MAX_MS      60000
#define LIMIT_GRACE_MS            30000 /* --grace: exchanges in flight after SIGTERM */
#define LIMIT_LAST_CALL_MS        1000  /* a drain: for keep-alive connections to ask once more, and be told to close */
#define LIMIT_DEAF_DRAIN_MS       5000  /* an upgrade: exchanges of a client that knows no Drain, whose visitors wait */
#define LIMIT_ARRIVAL_MS          10000 /* after a take-over: for clients to come, and for visitors to wait for them */
#define LIMIT_UPGRADE_MS          30000 /* for a successor to say that it is ready; a database may take its time */
#define LIMIT_WAITING_VISITORS    4096  /* of one worker, waiting so; more are answered at once */
#define LIMIT_ACCEPT_TURN         64    /* accepts in one loop turn, so that a storm does not starve live connections */
#define LIMIT_ACCEPT_PAUSE_MS     100   /* after EMFILE */

/* Names (RFC 1035, 2.3.4) */
#define LIMIT_LABEL_BYTES         63
#define LIMIT_HOST_BYTES          253
#define LIMIT_EMAIL_BYTES         254 /* RFC 5321, 4.5.3.1.3 less the brackets */
#define LIMIT_TOKEN_BYTES         256 /* ours have 52; anything longer is no token of anyone's */

#endif
