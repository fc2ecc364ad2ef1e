/* Proxy URLs, see proxy.h. What may hold a password is never put into a sentence. */
#include "client/proxy.h"

#include <stdio.h>
#include <string.h>

#include "base/blake3.h"
#include "base/error.h"

struct scheme {
    const char *name;
    enum proxy_kind kind;
    uint16_t port;
    bool tls, remote_dns;
};

static const struct scheme schemes[] = {
    {"http", PROXY_CONNECT, 80, false, false},
    {"https", PROXY_CONNECT, 443, true, false},
    {"socks5", PROXY_SOCKS5, 1080, false, false},
    {"socks5h", PROXY_SOCKS5, 1080, false, true},
};

static int refuse(char *error, const char *reason)
{
    snprintf(error, URL_ERROR_LEN, "%s", reason);
    return KV_EINVAL;
}

static const char *find(struct slice s, const char *mark)
{
    return s.len ? memmem(s.data, s.len, mark, strlen(mark)) : NULL;
}

/* Cuts "scheme://"; without one it is http. NULL for one that is not known. */
static const struct scheme *cut_scheme(struct slice *rest)
{
    const char *mark = find(*rest, "://");
    if (!mark)
        return &schemes[0];
    struct slice name = {rest->data, (size_t)(mark - rest->data)};
    *rest = (struct slice){mark + 3, rest->len - name.len - 3};
    for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++)
        if (slice_equals_nocase(name, slice_of(schemes[i].name)))
            return &schemes[i];
    return NULL;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Percent-decodes into out[SOCKS5_TEXT_MAX + 1]; control characters are no part of a credential. */
static int decode(struct slice text, char *out, char *error)
{
    size_t n = 0;
    for (size_t i = 0; i < text.len; i++) {
        int c = (unsigned char)text.data[i];
        if (c == '%') {
            int high = i + 2 < text.len ? hex_digit(text.data[i + 1]) : -1;
            int low = high >= 0 ? hex_digit(text.data[i + 2]) : -1;
            if (low < 0)
                return refuse(error, "has a '%' in its user name or password that no two hex digits follow; write %25");
            c = high << 4 | low;
            i += 2;
        }
        if (c < 0x20 || c == 0x7f)
            return refuse(error, "has a control character in its user name or password");
        if (n == SOCKS5_TEXT_MAX)
            return refuse(error, "has a user name or password of more than 255 characters");
        out[n++] = (char)c;
    }
    out[n] = '\0';
    return KV_OK;
}

/* Cuts "user[:password]@". The last '@' ends it: passwords are typed with an '@' of their own. */
static int cut_credentials(struct slice *rest, struct proxy *out, char *error)
{
    const char *at = rest->len ? memrchr(rest->data, '@', rest->len) : NULL;
    if (!at)
        return KV_OK;
    struct slice user = {rest->data, (size_t)(at - rest->data)}, password = {0};
    *rest = (struct slice){at + 1, rest->len - user.len - 1};
    const char *colon = user.len ? memchr(user.data, ':', user.len) : NULL;
    if (colon) {
        password = (struct slice){colon + 1, (size_t)(at - colon - 1)};
        user.len = (size_t)(colon - user.data);
    }
    if (user.len == 0)
        return refuse(error, "has an empty user name");
    out->has_user = true;
    int result = decode(user, out->user, error);
    if (result == KV_OK)
        result = decode(password, out->password, error);
    if (result == KV_OK && out->kind == PROXY_CONNECT && strchr(out->user, ':'))
        result = refuse(error, "has a ':' in its user name, which HTTP cannot tell from the password's beginning");
    if (result == KV_OK && out->kind == PROXY_SOCKS5 && !out->password[0])
        result = refuse(error, "has a user name and no password, which SOCKS5 cannot send");
    return result;
}

/* Fills *out as far as the text goes; what is in it after a refusal is wiped by the caller. */
static int parse(struct slice text, struct proxy *out, char *error)
{
    struct slice rest = text;
    const struct scheme *scheme = cut_scheme(&rest);
    if (!scheme)
        return refuse(error, "has a scheme that is none of http, https, socks5 and socks5h");
    out->kind = scheme->kind;
    out->remote_dns = scheme->remote_dns;
    if (rest.len > 0 && rest.data[rest.len - 1] == '/')
        rest.len--;
    int result = cut_credentials(&rest, out, error);
    if (result != KV_OK)
        return result;
    /* What follows can be a part of a password with a '/' or '#' that was not encoded: it is not shown. */
    for (size_t i = 0; i < rest.len; i++)
        if (strchr("/?#\\", rest.data[i]))
            return refuse(error, "has something behind its host and port; '/', '?' and '#' in a password are "
                                 "written %2F, %3F and %23");
    char reason[URL_ERROR_LEN];
    if (url_parse_authority(rest, scheme->tls, scheme->port, &out->url, reason) != KV_OK)
        return refuse(error, out->has_user ? "has no valid host and port behind the '@'" : reason);
    snprintf(out->text, sizeof(out->text), "%s%s", scheme->name, strstr(out->url.text, "://"));
    return KV_OK;
}

int proxy_parse(struct slice text, struct proxy *out, char *error)
{
    *out = (struct proxy){.kind = PROXY_NONE};
    if (slice_equals(text, SLICE("none")))
        return KV_OK;
    if (text.len == 0)
        return refuse(error, "must not be empty; give a URL, or 'none' for no proxy");
    for (size_t i = 0; i < text.len; i++)
        if ((unsigned char)text.data[i] <= ' ' || text.data[i] == 0x7f)
            return refuse(error, "holds a space or a control character");
    int result = parse(text, out, error);
    if (result != KV_OK)
        proxy_wipe(out);
    return result;
}

void proxy_wipe(struct proxy *proxy)
{
    secret_wipe(proxy, sizeof(*proxy));
}
