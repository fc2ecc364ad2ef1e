/* The answer's head goes through the parser that reads the local service's answers: what it refuses is refused here. */
#include "client/connect.h"

#include <stdio.h>
#include <string.h>

#include "base/base64.h"
#include "base/blake3.h"
#include "base/error.h"
#include "http/http1.h"

static int append_credentials(const struct proxy *proxy, struct buffer *out)
{
    char pair[2 * SOCKS5_TEXT_MAX + 2], encoded[BASE64_LEN(sizeof(pair)) + 1];
    int len = snprintf(pair, sizeof(pair), "%s:%s", proxy->user, proxy->password);
    struct slice text = {pair, (size_t)len};
    base64_encode(text, encoded);
    encoded[BASE64_LEN(text.len)] = '\0';
    int result = buffer_printf(out, "Proxy-Authorization: Basic %s\r\n", encoded);
    secret_wipe(pair, sizeof(pair));
    secret_wipe(encoded, sizeof(encoded));
    return result;
}

int connect_write(const struct proxy *proxy, const char *host, uint16_t port, struct buffer *out)
{
    const char *open = strchr(host, ':') ? "[" : "", *close = open[0] ? "]" : "";
    *out = (struct buffer)BUFFER_INIT(LIMIT_HEAD_BYTES);
    int result = buffer_reserve(out, 4096); /* so that the credentials are in one place */
    if (result == KV_OK)
        result = buffer_printf(out, "CONNECT %s%s%s:%u HTTP/1.1\r\nHost: %s%s%s:%u\r\n", open, host, close,
                               (unsigned)port, open, host, close, (unsigned)port);
    if (result == KV_OK)
        result = buffer_append_string(out, "User-Agent: kavilo-tunnel/" KV_VERSION "\r\n");
    if (result == KV_OK && proxy->has_user)
        result = append_credentials(proxy, out);
    return result == KV_OK ? buffer_append_string(out, "\r\n") : result;
}

/* ---- the answer -------------------------------------------------------------------------------------------------- */

/* The scheme of a challenge: its first word (RFC 9110, 11.6.1). The parser lets no control bytes through. */
static struct slice challenge(const struct head *head)
{
    struct slice value = head_value(head, SLICE("proxy-authenticate"));
    size_t len = 0;
    while (len < value.len && value.data[len] != ' ' && value.data[len] != ',')
        len++;
    return (struct slice){value.data, len < 40 ? len : 40};
}

static bool offers_basic(const struct head *head)
{
    for (unsigned i = 0; i < head->count; i++) {
        const struct field *field = &head->fields[i];
        if (!slice_equals_nocase(field->name, SLICE("proxy-authenticate")))
            continue;
        struct slice rest = field->value, element;
        while (slice_next_element(&rest, &element)) {
            element.len = element.len < 5 ? element.len : 5;
            if (slice_equals_nocase(element, SLICE("basic")))
                return true;
        }
    }
    return false;
}

/* 407; and 401, which tinyproxy says to credentials that are wrong, rather than missing. */
static void explain_credentials(const struct proxy *proxy, const struct head *head, struct connect_answer *answer)
{
    struct slice scheme = challenge(head);
    answer->refused_credentials = true;
    if (scheme.len > 0 && !offers_basic(head))
        snprintf(answer->text, sizeof(answer->text), "wants '%.*s' authentication (%u), and only Basic is spoken here",
                 (int)scheme.len, scheme.data, head->status);
    else if (proxy->has_user)
        snprintf(answer->text, sizeof(answer->text), "does not accept its user name and password (%u)", head->status);
    else
        snprintf(answer->text, sizeof(answer->text),
                 "wants a user name and a password (%u); give them in its URL: http://USER:PASSWORD@HOST:PORT",
                 head->status);
}

static void explain(const struct proxy *proxy, const struct http1_message *m, struct connect_answer *answer)
{
    answer->status = m->head.status;
    if (m->head.status < 300 && m->head.status != 101)
        return;
    if (m->head.status == 407 || m->head.status == 401)
        explain_credentials(proxy, &m->head, answer);
    else
        snprintf(answer->text, sizeof(answer->text), "refused to connect to the server: %u %s", m->head.status,
                 http_status_phrase(m->head.status));
}

ssize_t connect_read(const struct proxy *proxy, struct slice in, size_t *scanned, struct connect_answer *answer)
{
    struct http1_message m;
    *answer = (struct connect_answer){0};
    ssize_t len = http1_parse_response(in, scanned, SLICE("CONNECT"), &m);
    if (len < 0) {
        snprintf(answer->text, sizeof(answer->text), "does not answer as an HTTP proxy does (%s)", m.error);
        return KV_EPROTO;
    }
    if (len > 0)
        explain(proxy, &m, answer);
    return len;
}
