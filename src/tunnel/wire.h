/*
 * The tunnel's messages (docs/PROTOCOL.md) as our structs, and their protobuf encoding. Everything but the two hot
 * paths goes through protobuf-c; a DataChunk's few bytes of framing are written and read here by hand, so that a body
 * is moved, not copied, between socket and wire. The tests hold both against the same published bytes.
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
};
#define WIRE_FEATURES (FEATURE_CREDIT | FEATURE_TRAILERS | FEATURE_HALF_CLOSE | FEATURE_RESET | FEATURE_DRAIN)

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

enum wire_side { WIRE_FROM_SERVER, WIRE_FROM_CLIENT };

/* One decoded message; slices and head borrow from the input or the arena and live until the next wire_decode on it. */
struct wire_message {
    enum wire_kind kind;
    uint64_t request_id; /* 0: the tunnel itself */
    union {
        struct {
            struct slice token, name, client_version, instance_id;
            bool has_name, takeover;
            uint32_t features, initial_credit;
        } hello;
        struct {
            struct slice subdomain, public_url, session_id, server_name;
            uint32_t max_concurrent, features, initial_credit;
        } welcome;
        struct {
            struct head head; /* authority taken from the host field, protocol from upgrade; fields as sent */
            struct slice remote_addr;
            bool is_upgrade; /* request */
            bool upgraded;   /* response */
            bool interim;    /* response: a 1xx before the final head */
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
            uint32_t code;           /* as on the wire */
            enum close_reason reason; /* what it means here */
            struct slice text;
        } error;                      /* WIRE_ERROR and WIRE_RESET */
        uint32_t drain_grace_ms;
    };
};

/* Reused memory of decoding: one per link. Zeroed is empty. */
struct wire_arena {
    char *block;
    size_t used, capacity;
    struct wire_overflow *overflow; /* extra blocks of an unusually large message, freed by the next decode */
    struct field fields[LIMIT_HEAD_FIELDS];
};
void wire_arena_free(struct wire_arena *arena);

/* Decodes one message sent by `side`. 0; KV_EPROTO for bytes that are no message of that side, a head with bad field
 * names, values, method, target or status; KV_ELIMIT for a head over its caps; KV_ENOMEM. Unknown fields are skipped. */
int wire_decode(enum wire_side side, struct slice bytes, struct wire_arena *arena, struct wire_message *out);

/* Encodes any message (heads take any head of ours; names are lower-cased by whoever made it) into `out`, with the gRPC
 * prefix before it. 0, KV_ELIMIT or KV_ENOMEM. Data messages are encoded whole; the link uses wire_data_prefix. */
int wire_encode(enum wire_side side, const struct wire_message *message, struct buffer *out);

/* What stands before the bytes of a DataChunk of `len` bytes on the wire: gRPC prefix and protobuf framing, and what
 * stands behind them when the chunk ends its direction (2 bytes, or 0). Returns the length of the prefix. */
#define WIRE_DATA_PREFIX_LEN 48
#define WIRE_DATA_SUFFIX_LEN 2
size_t wire_data_prefix(enum wire_side side, uint64_t request_id, size_t len, bool end,
                        char prefix[WIRE_DATA_PREFIX_LEN], char suffix[WIRE_DATA_SUFFIX_LEN], size_t *suffix_len);

/* Reasons as numbers on the wire (Error.code 0..2 as deployed, ours from 16 on; Reset.code) and back. Unknown numbers
 * become REASON_ORIGIN_OTHER. With `detailed` false only 0, 1 and 2 are produced. */
uint32_t wire_reason_code(enum close_reason reason, bool detailed);
enum close_reason wire_reason_of(uint32_t code);

#endif
