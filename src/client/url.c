/*
 * URLs of services and endpoints. A URL is taken apart from the outside in: scheme, then what may not follow the
 * authority, then port and host. Whatever is not plainly meant is refused with the part that is wrong, because a tunnel
 * that forwards to the wrong place looks like one that works.
 */
#include "client/url.h"

#include <arpa/inet.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/error.h"
#include "http/syntax.h"

#define HTTP_PORT  80
#define HTTPS_PORT 443

__attribute__((format(printf, 2, 3))) static int refuse(char *error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error, URL_ERROR_LEN, format, arguments);
    va_end(arguments);
    return KV_EINVAL;
}

/* Offset of the first of these characters in s, or s.len. */
static size_t find_any(struct slice s, const char *characters)
{
    size_t i = 0;
    while (i < s.len && (s.data[i] == '\0' || !strchr(characters, s.data[i])))
        i++;
    return i;
}

static struct slice behind(struct slice s, size_t n)
{
    return (struct slice){s.data + n, s.len - n};
}

/* Cuts "http://", "https://" or, where `h2c` is not NULL, "h2c://" (case does not matter: RFC 3986, 3.1). 1: cut; 0:
 * there is no scheme; negative: refused. */
static int cut_scheme(struct slice *rest, bool *tls, bool *h2c, char *error)
{
    static const char mark[] = "://";
    size_t colon = find_any(*rest, ":/?#");
    struct slice scheme = {rest->data, colon};
    if (!slice_starts_with(behind(*rest, colon), slice_of(mark))) {
        *tls = false;
        return 0;
    }
    *tls = slice_equals_nocase(scheme, SLICE("https"));
    if (h2c)
        *h2c = slice_equals_nocase(scheme, SLICE("h2c"));
    if (!*tls && !(h2c && *h2c) && !slice_equals_nocase(scheme, SLICE("http")))
        return refuse(error, "'%.*s' is no scheme for this; give http://%s or https://", (int)scheme.len, scheme.data,
                      h2c ? ", h2c://" : "");
    *rest = behind(*rest, colon + sizeof(mark) - 1);
    return 1;
}

/* Cuts a final "/" and refuses everything else that can follow the authority or stand in it. */
static int cut_tail(struct slice *rest, char *error)
{
    size_t end = find_any(*rest, "/?#\\");
    struct slice tail = behind(*rest, end);
    if (tail.len > 1 || (tail.len == 1 && tail.data[0] != '/'))
        return refuse(error, "has '%.*s' behind the host; give scheme, host and port alone, the path is the visitor's",
                      (int)tail.len, tail.data);
    rest->len = end;
    if (find_any(*rest, "@") < rest->len)
        return refuse(error, "holds a user name or password; leave out everything up to the @");
    return 0;
}

/* *port is untouched when there is none. */
static int cut_port(struct slice *rest, uint16_t *port, char *error)
{
    bool bracketed = rest->len > 0 && rest->data[0] == '[';
    size_t from = bracketed ? find_any(*rest, "]") : 0;
    size_t colon = from + find_any(behind(*rest, from), ":");
    if (colon == rest->len)
        return 0;
    struct slice digits = behind(*rest, colon + 1);
    uint64_t number;
    if (!bracketed && find_any(digits, ":") < digits.len)
        return refuse(error, "has more than one colon; an IPv6 address stands in brackets: [::1]:3000");
    if (!slice_to_u64(digits, &number) || number == 0 || number > UINT16_MAX)
        return refuse(error, "has no valid port: '%.*s' is no number from 1 to 65535", (int)digits.len, digits.data);
    *port = (uint16_t)number;
    rest->len = colon;
    return 0;
}

/* A name that ends in a number is an IPv4 address or a mistake (as the WHATWG URL standard has it, 3.5). */
static bool ends_in_number(const char *host)
{
    const char *dot = strrchr(host, '.');
    const char *last = dot ? dot + 1 : host;
    return last[strspn(last, "0123456789")] == '\0';
}

static int set_host(struct slice host, struct url *out, char *error)
{
    if (host.len == 0)
        return refuse(error, "has no host");
    /* Only bytes that are known to be printable are shown again. */
    char name[LIMIT_HOST_BYTES + 1];
    size_t len = http_host_of(host, name);
    if (len == 0 && memchr(host.data, '%', host.len))
        return refuse(error, "has a '%%' in its host, which neither a name nor an address may have here");
    if (len == 0)
        return refuse(error, "has no valid host; a name has letters, digits, '-', '_' and '.' (others as punycode), an "
                             "IPv6 address stands in brackets");
    name[len] = '\0';
    bool v6 = name[0] == '[';
    unsigned char address[sizeof(struct in6_addr)];
    snprintf(out->host, sizeof(out->host), "%.*s", (int)(v6 ? len - 2 : len), name + v6);
    if (v6 ? inet_pton(AF_INET6, out->host, address) != 1
           : ends_in_number(out->host) && inet_pton(AF_INET, out->host, address) != 1)
        return refuse(error, "has no valid host: '%s' is no address", out->host);

    bool own_port = out->port == (out->tls ? HTTPS_PORT : HTTP_PORT);
    int shown = snprintf(out->text, sizeof(out->text), "%s://%s", out->tls ? "https" : out->h2c ? "h2c" : "http", name);
    if (!own_port)
        snprintf(out->text + shown, sizeof(out->text) - (size_t)shown, ":%u", (unsigned)out->port);
    return 0;
}

static int check_printable(struct slice text, char *error)
{
    if (text.len == 0)
        return refuse(error, "must not be empty");
    for (size_t i = 0; i < text.len; i++)
        if ((unsigned char)text.data[i] <= ' ' || text.data[i] == 0x7f)
            return refuse(error, "holds a space or a control character");
    return 0;
}

/* Everything behind the scheme. */
static int parse_authority(struct slice rest, uint16_t default_port, struct url *out, char *error)
{
    out->port = 0;
    int result = cut_tail(&rest, error);
    if (result == 0)
        result = cut_port(&rest, &out->port, error);
    if (result != 0)
        return result;
    if (out->port == 0 && default_port == 0)
        return refuse(error, "has no port; give http://HOST, HOST:PORT or a port");
    if (out->port == 0)
        out->port = default_port;
    return set_host(rest, out, error);
}

static bool is_number(struct slice s)
{
    return s.len > 0 && http_span(s, HTTP_CHAR_DIGIT) == s.len;
}

int url_parse_service(struct slice text, struct url *out, char *error)
{
    struct url url = {0};
    int result = check_printable(text, error);
    if (result != 0)
        return result;
    if (is_number(text)) {
        uint64_t port;
        if (!slice_to_u64(text, &port) || port == 0 || port > UINT16_MAX)
            return refuse(error, "is no port; ports are numbers from 1 to 65535");
        url.local = true;
        url.port = (uint16_t)port;
        result = set_host(SLICE("127.0.0.1"), &url, error);
    } else {
        struct slice rest = text;
        int scheme = cut_scheme(&rest, &url.tls, &url.h2c, error);
        uint16_t default_port = scheme == 0 ? 0 : url.tls ? HTTPS_PORT : HTTP_PORT;
        result = scheme < 0 ? scheme : parse_authority(rest, default_port, &url, error);
    }
    if (result == 0)
        *out = url;
    return result;
}

int url_parse_authority(struct slice authority, bool tls, uint16_t default_port, struct url *out, char *error)
{
    struct url url = {.tls = tls};
    int result = parse_authority(authority, default_port, &url, error);
    if (result == 0)
        *out = url;
    return result;
}

int url_parse_endpoint(struct slice text, struct url *out, char *error)
{
    struct url url = {0};
    struct slice rest = text;
    int result = check_printable(text, error);
    if (result != 0)
        return result;
    int scheme = cut_scheme(&rest, &url.tls, NULL, error);
    if (scheme == 0)
        return refuse(error, "has no scheme; give http://HOST:PORT or https://HOST");
    result = scheme < 0 ? scheme : parse_authority(rest, url.tls ? HTTPS_PORT : HTTP_PORT, &url, error);
    if (result == 0)
        *out = url;
    return result;
}

struct slice url_dial_host(const struct url *url)
{
    return url->local ? SLICE("localhost") : slice_of(url->host);
}
