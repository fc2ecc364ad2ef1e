/*
 * Request heads. Invariants: the verdict does not depend on how the bytes were cut; what is accepted has one framing
 * and a host that can be looked up; written again it reads the same, and so does what the forwarding rules make of it.
 */
#include "http1_check.h"

/* Writes the head, reads it back and holds both against each other. */
static void check_round_trip(const struct http1_message *m, const struct head *head)
{
    struct buffer first = BUFFER_INIT(1 << 20), second = BUFFER_INIT(1 << 20);
    struct http1_message again;
    size_t scanned = 0;
    CHECK(http1_write_request(&first, head, m->framing, m->length) == 0);
    ssize_t result = http1_parse_request(buffer_slice(&first), &scanned, &again);
    if (result == KV_ELIMIT) { /* our own fields and spaces took it over a cap */
        CHECK(head->count + 2 > HTTP1_FIELDS_MAX || first.len > LIMIT_HEAD_BYTES);
        buffer_free(&first);
        return;
    }
    CHECK(result == (ssize_t)first.len);
    CHECK(again.framing == m->framing && again.length == m->length && again.upgrade == (head->protocol.len > 0));
    CHECK(slice_equals(again.head.method, head->method) && slice_equals(again.head.target, head->target));
    CHECK(slice_equals(again.head.authority, head->authority) && slice_equals(again.head.protocol, head->protocol));
    check_same_fields(head, &again.head);

    CHECK(http1_write_request(&second, &again.head, again.framing, again.length) == 0);
    CHECK(slice_equals(buffer_slice(&first), buffer_slice(&second)));
    buffer_free(&first);
    buffer_free(&second);
}

static void check_forwarded(const struct http1_message *m, bool trusted)
{
    static const char *const ours[] = {"host", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-real-ip"};
    struct forward_facts facts = {.peer_address = SLICE("203.0.113.7"),
                                  .visitor_address = SLICE("203.0.113.7"),
                                  .scheme = SLICE("https"),
                                  .peer_trusted = trusted};
    struct head *out = forward_request(&m->head, &facts);
    CHECK(out);
    for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++) {
        unsigned count = 0;
        for (size_t j = 0; j < out->count; j++)
            count += slice_equals(out->fields[j].name, slice_of(ours[i]));
        CHECK(count == 1);
    }
    CHECK(slice_equals(out->fields[0].value, m->head.authority));
    CHECK(!head_find(out, SLICE("connection")) && !head_find(out, SLICE("transfer-encoding")));
    if (!trusted)
        CHECK(slice_equals(head_value(out, SLICE("x-forwarded-for")), facts.peer_address));
    check_round_trip(m, out);
    head_free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice input = {(const char *)data, size};
    struct http1_message m;
    size_t scanned = 0;
    ssize_t result = http1_parse_request(input, &scanned, &m);
    CHECK(result <= (ssize_t)size && (result < 0) == (m.error != NULL));
    check_pieces(input, NULL, result, &m);
    if (result > 0)
        check_judged(&m.head, true);
    if (result <= 0)
        return 0;

    char host[LIMIT_HOST_BYTES + 1];
    CHECK(http_host_of(m.head.authority, host) > 0 && http_host_of(m.head.authority, host) == m.head.host_len);
    CHECK(m.framing != HTTP1_UNTIL_CLOSE && (m.framing == HTTP1_LENGTH || m.length == 0));
    CHECK(!m.upgrade || m.framing != HTTP1_CHUNKED);
    check_round_trip(&m, &m.head);
    check_forwarded(&m, true);
    check_forwarded(&m, false);
    return 0;
}
