/*
 * The message reader is a machine of three states, told apart by what it holds:
 *
 *     prefix_len < 5                 the prefix is arriving, perhaps byte by byte
 *     prefix_len == 5, no message    its length is known; whether to collect depends on what is in the input
 *     message                        collecting; chunk capacity is the length, chunk len what has come
 *
 * An error leaves the state as it is: the same call would fail again, and the stream ends anyway. The link is the
 * caller on both sides; it is given bytes in a buffer of its worker, so most messages are handed out in place.
 */
#include "grpc/grpc.h"

#include <limits.h>
#include <stdbool.h>
#include <string.h>

#include "base/error.h"

#define SIZE(array) (sizeof(array) / sizeof((array)[0]))

static const char *const status_names[] = {
    [GRPC_OK] = "OK",
    [GRPC_CANCELLED] = "CANCELLED",
    [GRPC_UNKNOWN] = "UNKNOWN",
    [GRPC_INVALID_ARGUMENT] = "INVALID_ARGUMENT",
    [GRPC_DEADLINE_EXCEEDED] = "DEADLINE_EXCEEDED",
    [GRPC_NOT_FOUND] = "NOT_FOUND",
    [GRPC_ALREADY_EXISTS] = "ALREADY_EXISTS",
    [GRPC_PERMISSION_DENIED] = "PERMISSION_DENIED",
    [GRPC_RESOURCE_EXHAUSTED] = "RESOURCE_EXHAUSTED",
    [GRPC_FAILED_PRECONDITION] = "FAILED_PRECONDITION",
    [GRPC_ABORTED] = "ABORTED",
    [GRPC_OUT_OF_RANGE] = "OUT_OF_RANGE",
    [GRPC_UNIMPLEMENTED] = "UNIMPLEMENTED",
    [GRPC_INTERNAL] = "INTERNAL",
    [GRPC_UNAVAILABLE] = "UNAVAILABLE",
    [GRPC_DATA_LOSS] = "DATA_LOSS",
    [GRPC_UNAUTHENTICATED] = "UNAUTHENTICATED",
};

const char *grpc_status_name(int status)
{
    if (status < 0 || (size_t)status >= SIZE(status_names))
        return status_names[GRPC_UNKNOWN];
    return status_names[status];
}

/* ---- messages -------------------------------------------------------------------------------------------------- */

void grpc_prefix(size_t message_len, char out[GRPC_PREFIX_LEN])
{
    out[0] = 0; /* not compressed */
    for (int i = 1; i < GRPC_PREFIX_LEN; i++)
        out[i] = (char)(unsigned char)(message_len >> (8 * (GRPC_PREFIX_LEN - 1 - i)));
}

static uint32_t prefix_length(const char prefix[GRPC_PREFIX_LEN])
{
    const unsigned char *length = (const unsigned char *)prefix + 1;
    return (uint32_t)length[0] << 24 | (uint32_t)length[1] << 16 | (uint32_t)length[2] << 8 | length[3];
}

/* Copies up to `most` bytes from the front of *input to `out`; returns how many. */
static size_t take(struct slice *input, char *out, size_t most)
{
    size_t n = input->len < most ? input->len : most;
    if (n > 0)
        memcpy(out, input->data, n);
    *input = (struct slice){input->data + n, input->len - n};
    return n;
}

/* A message that lies whole in the input, as nearly all do, leaves nothing in the reader. False for any other, and for
 * what is none. */
static bool take_whole(const struct grpc_reader *reader, struct slice *input, struct slice *bytes)
{
    if (reader->prefix_len > 0 || input->len < GRPC_PREFIX_LEN || input->data[0] != 0)
        return false;
    uint32_t length = prefix_length(input->data);
    if (length > reader->limit || length > input->len - GRPC_PREFIX_LEN)
        return false;
    *bytes = (struct slice){input->data + GRPC_PREFIX_LEN, length};
    *input = (struct slice){bytes->data + length, input->len - GRPC_PREFIX_LEN - length};
    return true;
}

int grpc_read(struct grpc_reader *reader, struct slice *input, struct slice *bytes, struct chunk **whole)
{
    *whole = NULL;
    if (take_whole(reader, input, bytes))
        return 1;
    *bytes = (struct slice){0};
    if (input->len == 0)
        return 0; /* and no arithmetic on a pointer that may be NULL; an empty message leaves with its prefix */

    if (reader->prefix_len < GRPC_PREFIX_LEN) {
        size_t missing = (size_t)GRPC_PREFIX_LEN - reader->prefix_len;
        reader->prefix_len = (uint8_t)(reader->prefix_len + take(input, reader->prefix + reader->prefix_len, missing));
    }
    if (reader->prefix[0] != 0)
        return KV_EPROTO;
    if (reader->prefix_len < GRPC_PREFIX_LEN)
        return 0;
    uint32_t length = prefix_length(reader->prefix);
    if (length > reader->limit)
        return KV_ELIMIT;

    if (!reader->message) {
        if (input->len >= length) {
            *bytes = (struct slice){input->data, length};
            *input = (struct slice){input->data + length, input->len - length};
            reader->prefix_len = 0;
            return 1;
        }
        if (input->len == 0)
            return 0; /* no memory for a promise: it may lie whole in the next input */
        reader->message = chunk_alloc(length);
        if (!reader->message)
            return KV_ENOMEM;
    }

    struct chunk *message = reader->message;
    message->len += (uint32_t)take(input, message->data + message->len, length - message->len);
    if (message->len < length)
        return 0;
    reader->message = NULL;
    reader->prefix_len = 0;
    *bytes = chunk_slice(message);
    *whole = message;
    return 1;
}

void grpc_reader_free(struct grpc_reader *reader)
{
    chunk_free(reader->message);
    reader->message = NULL;
    reader->prefix_len = 0;
}

/* ---- status ---------------------------------------------------------------------------------------------------- */

/* Bytes of the UTF-8 character (or the stray byte) at the start of a NUL-terminated text. */
static size_t character_length(const char *text)
{
    size_t n = 1;
    if ((unsigned char)text[0] < 0x80)
        return n;
    while (n < 4 && ((unsigned char)text[n] & 0xc0) == 0x80)
        n++;
    return n;
}

void grpc_encode_message(const char *text, char *out, size_t size)
{
    static const char digits[] = "0123456789ABCDEF";
    size_t used = 0;
    if (size == 0)
        return;
    while (*text) {
        size_t n = character_length(text);
        bool plain = *text >= ' ' && *text <= '~' && *text != '%';
        /* A character goes in whole or not at all, so that what a cut leaves can be decoded. */
        if (used + (plain ? n : 3 * n) >= size)
            break;
        for (; n > 0; n--, text++) {
            unsigned char byte = (unsigned char)*text;
            if (plain) {
                out[used++] = *text;
                continue;
            }
            out[used++] = '%';
            out[used++] = digits[byte >> 4];
            out[used++] = digits[byte & 15];
        }
    }
    out[used] = '\0';
}

/* The value of a hexadecimal digit, or -1. */
static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

void grpc_decode_message(struct slice encoded, char *out, size_t size)
{
    size_t used = 0;
    if (size == 0)
        return;
    for (size_t i = 0; i < encoded.len && used + 1 < size; i++) {
        unsigned char byte = (unsigned char)encoded.data[i];
        if (byte == '%' && encoded.len - i > 2) {
            int high = hex_value(encoded.data[i + 1]), low = hex_value(encoded.data[i + 2]);
            if (high >= 0 && low >= 0) {
                byte = (unsigned char)(high << 4 | low);
                i += 2;
            }
        }
        /* The text ends up on a terminal: nothing a peer sends may move its cursor. */
        out[used++] = (char)(byte < ' ' || byte == 0x7f ? ' ' : byte);
    }
    out[used] = '\0';
}

int grpc_status_of(const struct head *head, char *message, size_t size)
{
    uint64_t status;
    grpc_decode_message(head_value(head, SLICE("grpc-message")), message, size);
    if (!slice_to_u64(head_value(head, SLICE("grpc-status")), &status))
        return -1;
    return status <= INT_MAX ? (int)status : GRPC_UNKNOWN;
}
