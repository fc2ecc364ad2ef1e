/*
 * Response heads; the first byte chooses the method that was asked with. Invariants: the verdict does not depend on how
 * the bytes were cut; a head with a length has one length; written again, and forwarded, it reads the same.
 */
#include "http1_check.h"

static void check_round_trip(const struct http1_message *m, const struct head *head, const char *method)
{
    struct buffer first = BUFFER_INIT(1 << 20), second = BUFFER_INIT(1 << 20);
    struct http1_message again;
    size_t scanned = 0;
    CHECK(http1_write_response(&first, head, m->framing, m->length, m->keep_alive, false) == 0);
    ssize_t result = http1_parse_response(buffer_slice(&first), &scanned, slice_of(method), &again);
    if (result == KV_ELIMIT) { /* our own fields and spaces took it over a cap */
        CHECK(head->count + 2 > HTTP1_ANSWER_FIELDS_MAX || first.len > LIMIT_ANSWER_HEAD_BYTES);
        buffer_free(&first);
        return;
    }
    CHECK(result == (ssize_t)first.len);
    CHECK(again.head.status == head->status && slice_equals(again.head.protocol, head->protocol));
    CHECK(again.framing == m->framing && again.length == m->length && again.upgrade == m->upgrade);
    if (head->status >= 200)
        CHECK(again.keep_alive == m->keep_alive);
    check_same_fields(head, &again.head);

    CHECK(http1_write_response(&second, &again.head, again.framing, again.length, m->keep_alive, false) == 0);
    CHECK(slice_equals(buffer_slice(&first), buffer_slice(&second)));
    buffer_free(&first);
    buffer_free(&second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const methods[] = {"GET", "HEAD", "CONNECT", "POST"};
    if (size == 0)
        return 0;
    const char *method = methods[data[0] % 4];
    struct slice input = {(const char *)data + 1, size - 1};
    struct http1_message m;
    size_t scanned = 0;
    ssize_t result = http1_parse_response(input, &scanned, slice_of(method), &m);
    CHECK(result <= (ssize_t)input.len && (result < 0) == (m.error != NULL));
    check_pieces(input, method, result, &m);
    if (result > 0)
        check_judged(&m.head, false);
    if (result <= 0)
        return 0;

    unsigned lengths = 0;
    for (size_t i = 0; i < m.head.count; i++)
        lengths += slice_equals_nocase(m.head.fields[i].name, SLICE("content-length"));
    CHECK(lengths <= 1 && (m.framing != HTTP1_LENGTH || lengths == 1));
    CHECK(m.framing != HTTP1_UNTIL_CLOSE || !m.keep_alive);
    CHECK(m.upgrade == (m.head.status == 101));
    check_round_trip(&m, &m.head, method);

    struct head *out = forward_response(&m.head);
    CHECK(out);
    CHECK(!head_find(out, SLICE("connection")) && !head_find(out, SLICE("transfer-encoding")));
    check_round_trip(&m, out, method);
    head_free(out);
    return 0;
}
