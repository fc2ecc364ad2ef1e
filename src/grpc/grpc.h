/*
 * gRPC's own layer over HTTP/2: length-prefixed messages and status (the gRPC over HTTP/2 protocol description). What
 * the messages mean is the tunnel's business.
 */
#ifndef KV_GRPC_GRPC_H
#define KV_GRPC_GRPC_H

#include <stddef.h>
#include <stdint.h>

#include "base/chunk.h"
#include "base/slice.h"
#include "http/head.h"

enum grpc_status {
    GRPC_OK = 0,
    GRPC_CANCELLED = 1,
    GRPC_UNKNOWN = 2,
    GRPC_INVALID_ARGUMENT = 3,
    GRPC_DEADLINE_EXCEEDED = 4,
    GRPC_NOT_FOUND = 5,
    GRPC_ALREADY_EXISTS = 6,
    GRPC_PERMISSION_DENIED = 7,
    GRPC_RESOURCE_EXHAUSTED = 8,
    GRPC_FAILED_PRECONDITION = 9,
    GRPC_ABORTED = 10,
    GRPC_OUT_OF_RANGE = 11,
    GRPC_UNIMPLEMENTED = 12,
    GRPC_INTERNAL = 13,
    GRPC_UNAVAILABLE = 14,
    GRPC_DATA_LOSS = 15,
    GRPC_UNAUTHENTICATED = 16,
};

/* "ALREADY_EXISTS"; "UNKNOWN" for values that are none. */
const char *grpc_status_name(int status);

#define GRPC_PREFIX_LEN 5

/* Writes the prefix of an uncompressed message. */
void grpc_prefix(size_t message_len, char out[GRPC_PREFIX_LEN]);

/*
 * Cuts a byte stream into messages. Zeroed but for its limit, a reader is at the start of a stream. Small messages that
 * lie whole in the input are handed out in place; a message that arrives in pieces is collected in a chunk of exactly
 * its size, so that a body byte is copied once on its way in.
 */
struct grpc_reader {
    uint32_t limit; /* largest message accepted */
    char prefix[GRPC_PREFIX_LEN];
    uint8_t prefix_len;
    struct chunk *message; /* being collected */
};

/* The next message from the front of *input, which is advanced; call it until it returns 0.
 * 1: a message. Either *whole is a chunk that now belongs to the caller and *bytes is its content, or *whole is NULL
 *    and *bytes borrows from the input.
 * 0: the input is used up.
 * KV_EPROTO: a compressed message, or a prefix that is none. KV_ELIMIT: over the limit. Both end the stream.
 * KV_ENOMEM: the same call may be tried again with what is left of the input. */
int grpc_read(struct grpc_reader *reader, struct slice *input, struct slice *bytes, struct chunk **whole);

/* Drops a message being collected; the reader is at the start of a stream again. */
void grpc_reader_free(struct grpc_reader *reader);

/* Percent-encoding of grpc-message: printable ASCII but '%' stays. Writes a NUL-terminated string into out[0..size),
 * cut between characters if it does not fit. */
void grpc_encode_message(const char *text, char *out, size_t size);

/* Undoes it, for people to read: what is no proper escape stays as it is, control bytes become spaces, and the text is
 * cut to size. */
void grpc_decode_message(struct slice encoded, char *out, size_t size);

/* grpc-status (-1 when absent or no number) and the decoded grpc-message of a trailers or trailers-only head. `message`
 * is empty when there is none. */
int grpc_status_of(const struct head *head, char *message, size_t size);

#endif
