/* The five messages of socks5.h, field by field as RFC 1928, 3, 4 and 6, and RFC 1929, 2, draw them. */
#include "client/socks5.h"

#include <string.h>

#include "base/error.h"
#include "io/resolve.h"

#define VERSION             5
#define CREDENTIALS_VERSION 1
#define COMMAND_CONNECT     1
#define ADDRESS_V4          1
#define ADDRESS_NAME        3
#define ADDRESS_V6          4

/* ---- writing --------------------------------------------------------------------------------------------------- */

size_t socks5_greeting(bool with_credentials, uint8_t *out)
{
    size_t n = 0;
    out[n++] = VERSION;
    out[n++] = with_credentials ? 2 : 1;
    out[n++] = SOCKS5_NO_CREDENTIALS;
    if (with_credentials)
        out[n++] = SOCKS5_CREDENTIALS;
    return n;
}

static size_t put_text(uint8_t *out, struct slice text)
{
    out[0] = (uint8_t)text.len;
    memcpy(out + 1, text.data, text.len);
    return 1 + text.len;
}

size_t socks5_credentials(struct slice user, struct slice password, uint8_t *out)
{
    size_t n = 0;
    out[n++] = CREDENTIALS_VERSION;
    n += put_text(out + n, user);
    n += put_text(out + n, password);
    return n;
}

static size_t put_connect(uint8_t *out, uint8_t type)
{
    out[0] = VERSION;
    out[1] = COMMAND_CONNECT;
    out[2] = 0;
    out[3] = type;
    return 4;
}

size_t socks5_connect_name(struct slice name, uint16_t port, uint8_t *out)
{
    size_t n = put_connect(out, ADDRESS_NAME);
    n += put_text(out + n, name);
    out[n++] = (uint8_t)(port >> 8);
    out[n++] = (uint8_t)port;
    return n;
}

size_t socks5_connect_address(const union resolve_address *address, uint8_t *out)
{
    bool v6 = address->any.sa_family == AF_INET6;
    size_t n = put_connect(out, v6 ? ADDRESS_V6 : ADDRESS_V4);
    const void *host = v6 ? (const void *)&address->v6.sin6_addr : (const void *)&address->v4.sin_addr;
    size_t len = v6 ? sizeof(address->v6.sin6_addr) : sizeof(address->v4.sin_addr);
    memcpy(out + n, host, len); /* both are in network order already */
    n += len;
    memcpy(out + n, v6 ? &address->v6.sin6_port : &address->v4.sin_port, sizeof(in_port_t));
    return n + sizeof(in_port_t);
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

static uint8_t byte(struct slice in, size_t i)
{
    return (uint8_t)in.data[i];
}

ssize_t socks5_read_method(struct slice in, enum socks5_method *method)
{
    if (in.len > 0 && byte(in, 0) != VERSION)
        return KV_EPROTO;
    if (in.len < 2)
        return 0;
    uint8_t chosen = byte(in, 1);
    if (chosen != SOCKS5_NO_CREDENTIALS && chosen != SOCKS5_CREDENTIALS && chosen != SOCKS5_NO_METHOD)
        return KV_EPROTO; /* a method that was not offered */
    *method = (enum socks5_method)chosen;
    return 2;
}

/* The version is that of the sub-negotiation (1); some proxies say 5 here, and what they mean is plain. */
ssize_t socks5_read_verdict(struct slice in, bool *accepted)
{
    if (in.len > 0 && byte(in, 0) != CREDENTIALS_VERSION && byte(in, 0) != VERSION)
        return KV_EPROTO;
    if (in.len < 2)
        return 0;
    *accepted = byte(in, 1) == 0;
    return 2;
}

/* The address that the proxy dialled from follows, and is of no interest but for its length. Some proxies send no more
 * than the code when they refuse, so that is enough then. */
ssize_t socks5_read_reply(struct slice in, uint8_t *code)
{
    if (in.len > 0 && byte(in, 0) != VERSION)
        return KV_EPROTO;
    if (in.len < 2)
        return 0;
    *code = byte(in, 1);
    if (*code != 0)
        return 2;
    if (in.len < 5)
        return 0;
    size_t len;
    switch (byte(in, 3)) {
    case ADDRESS_V4:
        len = 4;
        break;
    case ADDRESS_V6:
        len = 16;
        break;
    case ADDRESS_NAME:
        len = 1 + (size_t)byte(in, 4);
        break;
    default:
        return KV_EPROTO;
    }
    len += 4 + 2;
    return in.len < len ? 0 : (ssize_t)len;
}

const char *socks5_reply_text(uint8_t code)
{
    static const char *const texts[] = {
        "succeeded",
        "general failure",
        "not allowed by its rules",
        "network unreachable",
        "host unreachable",
        "connection refused",
        "time to live expired",
        "command not supported",
        "address type not supported",
    };
    return code < sizeof(texts) / sizeof(texts[0]) ? texts[code] : "unknown error";
}
