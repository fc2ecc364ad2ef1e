/*
 * The tunnel's messages (docs/PROTOCOL.md) as our structs, and their protobuf encoding. The messages of a session go
 * through protobuf-c. What every request needs is written and read here by hand: heads, which are read where they lie,
 * and a DataChunk's few bytes of framing, so that a body is moved, not copied, between socket and wire. Whatever comes
 * in another shape than our own peers write is left to protobuf-c. The tests hold both against the same published
 * bytes.
 */
#ifndef KV_TUNNEL_WIRE_H
#define KV_TUNNEL_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/limits.h"
#include "base/reason.h"
#include "base/slice.h"
#include "http/head.h"

/* What a peer can do beyond the base protocol; announced in Hello and Welcome, used when both sides have it. */
enum wire_feature {
    FEATURE_CREDIT = 1 << 0,     /* per-exchange credit both ways */
    FEATURE_TRAILERS = 1 << 1,   /* Trailers messages and interim (1xx) response heads */
    FEATURE_HALF_CLOSE = 1 << 2, /* end_stream of an upgraded exchange ends one direction only */
    FEATURE_RESET = 1 << 3,      /* Reset with a reason, at any time; detailed reasons in Error */
    FEATURE_DRAIN = 1 << 4,      /* Drain from the server */
    FEATURE_CLOCKS = 1 << 10,    /* Hello tells how long the client waits for an answer */
    FEATURE_VISITOR = 1 << 11,   /* RequestHead tells the visitor's connection */
};
#define WIRE_FEATURES                                                                                                  \
    (FEATURE_CREDIT | FEATURE_TRAILERS | FEATURE_HALF_CLOSE | FEATURE_RESET | FEATURE_DRAIN | FEATURE_CLOCKS |         \
     FEATURE_VISITOR)

/* A head on the wire: what a service may answer, which is more than a visitor may send (base/limits.h), and what is
 * added to it on the way. */
#define WIRE_HEAD_FIELDS  (LIMIT_ANSWER_HEAD_FIELDS + 16)
#define WIRE_HEAD_BYTES   (LIMIT_ANSWER_HEAD_BYTES + 2048)
#define WIRE_ERROR_BYTES  1024 /* the text of an Error or Reset; more is cut */

#define WIRE_INSTANCE_LEN 16
#define WIRE_SESSION_LEN  16 /* characters of a session id as we make them */

enum wire_kind {
    WIRE_UNKNOWN, /* nothing this version knows: skipped */
    WIRE_HELLO,
    WIRE_WELCOME,
    WIRE_REQUEST_HEAD,
    WIRE_RESPONSE_HEAD,
    WIRE_DATA,
    WIRE_CANCEL,
    WIRE_PING,
    WIRE_PONG,
    WIRE_ERROR,
    WIRE_CREDIT,
    WIRE_TRAILERS,
    WIRE_RESET,
    WIRE_DRAIN,
};

enum wire_side {
    WIRE_FROM_SERVER,
    WIRE_FROM_CLIENT
};

/*
 * One message. A decoded one borrows its slices and fields from the input or from the arena, until the next wire_decode
 * on that arena. Lengths of token, instance id and the like are as the peer sent them: whoever uses them checks them.
 */
struct wire_message {
    enum wire_kind kind;
    uint64_t request_id; /* 0: the tunnel itself */
    union {
        struct {
            struct slice token, name, client_version, instance_id;
            bool has_name, takeover, no_subdomains;
            uint32_t features, initial_credit, response_timeout_ms;
        } hello;
        struct {
            struct slice subdomain, public_url, session_id, server_name;
            uint32_t max_concurrent, features, initial_credit;
        } welcome;
        struct {
            /* Fields as sent, hop-by-hop ones too, names lower-cased; authority taken from `host`, which is a field as
             * well; protocol from `upgrade` when the exchange upgrades, else empty. */
            struct head head;
            struct slice remote_addr;    /* request: address:port of the visitor */
            uint64_t visitor_connection; /* request: 0 if it is not told */
            bool is_upgrade;             /* request; never without a protocol */
            bool upgraded;               /* response; if and only if the status is 101, never without a protocol */
            bool interim;                /* response: a 1xx before the final head */
        } head;
        struct {
            struct slice bytes;
            bool end;
        } data;
        struct head trailers; /* also ends the direction */
        uint64_t nonce;       /* ping, pong */
        uint32_t cancel_reason;
        uint32_t credit;
        struct {
            uint32_t code;            /* as on the wire */
            enum close_reason reason; /* what it means here */
            struct slice text;
        } error; /* WIRE_ERROR and WIRE_RESET */
        uint32_t drain_grace_ms;
    };
};

/* Reused memory of decoding: one per link. Zeroed is empty. One message takes at most a little more than
 * LIMIT_MESSAGE_BYTES; what is kept between messages is at most 64 KiB and the field table. A link that has read all
 * there is gives it back: idle ones have none. */
struct wire_arena {
    struct wire_block *blocks; /* newest first; one in the steady state */
    size_t first;              /* capacity of the first block, learnt from messages that needed several */
    size_t total;              /* bytes handed out for the message at hand */
    int error;                 /* why the last allocation failed */
    struct field *fields;      /* of the head at hand: WIRE_HEAD_FIELDS of them, or NULL before the first */
};
/* Gives the memory back; the arena is empty and can be used again. */
void wire_arena_free(struct wire_arena *arena);

/*
 * Decodes one message sent by `side`, without its gRPC prefix. Unknown fields are skipped; a message of nothing else is
 * WIRE_UNKNOWN. The bytes of WIRE_DATA lie in the input if it is framed as wire_data_prefix frames it, otherwise in the
 * arena. Whether a message makes sense now, and with this request id, is the link's question.
 *
 * 0, or
 *
 * - KV_EPROTO: out->kind tells how far it reaches. WIRE_UNKNOWN: this is no message of that side, the session is
 * broken. A head or trailers: out->request_id is set, and that exchange alone is to be reset. Such a head has a bad
 * method, target, address, status, field name or value, two hosts, an upgrade without a protocol or a 101 without an
 * upgrade.
 *
 * - KV_ELIMIT: likewise; a head over WIRE_HEAD_FIELDS or WIRE_HEAD_BYTES, or a message over the memory of one message.
 *
 * - KV_ENOMEM.
 */
int wire_decode(enum wire_side side, struct slice bytes, struct wire_arena *arena, struct wire_message *out);

/*
 * Appends the message to `out`, with the gRPC prefix before it; all or nothing. Any head will do, borrowing or owning;
 * field names are lower-cased. A request gets `host` from its authority if it has no such field. An upgrade is one with
 * a protocol (a request) or with status 101 (a response); it gets `connection` and `upgrade` fields unless it has the
 * latter. is_upgrade, upgraded, interim and error.reason are not looked at. Data messages are encoded whole; the link
 * uses wire_data_prefix.
 *
 * 0; KV_EINVAL for a kind that this side does not send, a head that wire_decode would refuse, or text that is no UTF-8;
 * KV_ELIMIT over the caps of a head, LIMIT_MESSAGE_BYTES or out->limit; KV_ENOMEM.
 */
int wire_encode(enum wire_side side, const struct wire_message *message, struct buffer *out);

/* What stands before the bytes of a DataChunk of `len` bytes on the wire: gRPC prefix and protobuf framing, and what
 * stands behind them when the chunk ends its direction (2 bytes, or 0). `len` is at most LIMIT_MESSAGE_BYTES -
 * WIRE_DATA_PREFIX_LEN. Returns the length of the prefix. */
#define WIRE_DATA_PREFIX_LEN 48
#define WIRE_DATA_SUFFIX_LEN 2
size_t wire_data_prefix(enum wire_side side, uint64_t request_id, size_t len, bool end,
                        char prefix[WIRE_DATA_PREFIX_LEN], char suffix[WIRE_DATA_SUFFIX_LEN], size_t *suffix_len);

/* Reasons as numbers on the wire (Error.code 0..2 as deployed, ours from 16 on; Reset.code) and back; the table is in
 * docs/PROTOCOL.md. Unknown numbers become REASON_ORIGIN_OTHER, and those of a
 * client that speak of a visitor or the server REASON_PROTOCOL: a tenant has no voice there. With `detailed` false (the
 * peer lacks FEATURE_RESET) only 0, 1 and 2 are produced. */
uint32_t wire_reason_code(enum close_reason reason, bool detailed);
enum close_reason wire_reason_of(enum wire_side side, uint32_t code);

#endif
