/*
 * Shows how our HTTP/1 code reads requests, for comparison with other parsers (http1_against_node.js). Standard input
 * is a run of records: four bytes of length, little end first, and a request with its body. For each one line of JSON
 * goes to standard output, texts in hex so that no byte is lost: what was read, how many bytes it took, and the request
 * as we would write it to the next hop.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "http/http1.h"

#define RECORD_MAX (1 << 20)

struct message {
    struct http1_message head;
    struct http1_body body;
    struct buffer content;
    size_t used;
    const char *error;
};

static void read_message(struct message *m, struct slice input)
{
    size_t scanned = 0;
    ssize_t len = http1_parse_request(input, &scanned, &m->head);
    if (len <= 0) {
        m->error = len ? m->head.error : "incomplete head";
        return;
    }
    struct slice rest = {input.data + len, input.len - (size_t)len}, data;
    http1_body_start(&m->body, m->head.framing, m->head.length, HTTP1_STRICT);
    enum http1_body_event event;
    while ((event = http1_body_next(&m->body, &rest, SIZE_MAX, &data)) == HTTP1_BODY_DATA)
        if (buffer_append_slice(&m->content, data))
            abort();
    m->used = input.len - rest.len;
    if (event != HTTP1_BODY_END)
        m->error = event == HTTP1_BODY_BAD ? m->body.error : "incomplete body";
}

static int write_message(struct buffer *out, const struct message *m)
{
    int error = http1_write_request(out, &m->head.head, m->head.framing, m->head.length);
    if (error || m->head.framing != HTTP1_CHUNKED)
        return error ? error : buffer_append_slice(out, buffer_slice(&m->content));
    if (m->content.len > 0) {
        char prefix[HTTP1_CHUNK_PREFIX_LEN];
        error = buffer_append(out, prefix, http1_chunk_prefix(m->content.len, prefix));
        if (!error)
            error = buffer_append_slice(out, buffer_slice(&m->content));
        if (!error)
            error = buffer_append_string(out, "\r\n");
    }
    return error ? error : http1_write_last_chunk(out, &m->body.trailers);
}

static void print_hex(const char *key, struct slice s)
{
    printf("%s\"", key);
    for (size_t i = 0; i < s.len; i++)
        printf("%02x", (unsigned char)s.data[i]);
    printf("\"");
}

static void print_fields(const char *key, const struct head *h)
{
    printf(",\"%s\":[", key);
    for (size_t i = 0; i < h->count; i++) {
        print_hex(i ? ",[" : "[", h->fields[i].name);
        print_hex(",", h->fields[i].value);
        printf("]");
    }
    printf("]");
}

static void print_message(const struct message *m, struct slice rewritten)
{
    const struct http1_message *h = &m->head;
    if (m->error) {
        printf("{\"error\":\"%s\"}\n", m->error);
        return;
    }
    printf("{\"used\":%zu,\"http10\":%d,\"keep_alive\":%d,\"upgrade\":%d,\"expect_continue\":%d", m->used, h->http10,
           h->keep_alive, h->upgrade, h->expect_continue);
    print_hex(",\"method\":", h->head.method);
    print_hex(",\"target\":", h->head.target);
    print_hex(",\"authority\":", h->head.authority);
    print_hex(",\"body\":", buffer_slice(&m->content));
    print_hex(",\"rewritten\":", rewritten);
    print_fields("fields", &h->head);
    print_fields("trailers", &m->body.trailers);
    printf("}\n");
}

int main(void)
{
    unsigned char prefix[4];
    while (fread(prefix, 1, 4, stdin) == 4) {
        size_t len = prefix[0] | (size_t)prefix[1] << 8 | (size_t)prefix[2] << 16 | (size_t)prefix[3] << 24;
        char *record = len <= RECORD_MAX ? malloc(len + 1) : NULL;
        if (!record || fread(record, 1, len, stdin) != len) {
            fprintf(stderr, "http1_dump: record of %zu bytes cannot be read\n", len);
            free(record);
            return 1;
        }
        struct message m = {.content = BUFFER_INIT(RECORD_MAX)};
        struct buffer rewritten = BUFFER_INIT(2 * RECORD_MAX);
        read_message(&m, (struct slice){record, len});
        if (!m.error && write_message(&rewritten, &m))
            m.error = "cannot be written";
        print_message(&m, buffer_slice(&rewritten));
        buffer_free(&rewritten);
        buffer_free(&m.content);
        http1_body_free(&m.body);
        free(record);
    }
    return 0;
}
