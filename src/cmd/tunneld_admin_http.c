/*
 * A blocking HTTP/1.1 client for one request:
 *
 *     getaddrinfo ── each address in turn: connect ── request ── head (1xx skipped) ── body ── close
 *
 * Sockets do not block and poll() waits, so that one deadline bounds everything but the resolver, which has its own.
 */
#include "cmd/tunneld_admin_http.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "http/http1.h"
#include "http/syntax.h"
#include "io/listener.h"

#define READ_BYTES (16 * 1024)

struct call {
    const struct admin_http_url *url;
    const char *method, *target;
    int fd;
    int64_t until; /* of the monotonic clock, in milliseconds */
    char *error;
};

/* ---- where ---------------------------------------------------------------------------------------------------------
 */

int admin_http_parse_url(const char *text, struct admin_http_url *url, char *error)
{
    const struct slice scheme = SLICE("http://");
    struct slice rest = slice_of(text);
    if (slice_starts_with(rest, scheme))
        rest = (struct slice){rest.data + scheme.len, rest.len - scheme.len};
    if (rest.len > 0 && rest.data[rest.len - 1] == '/')
        rest.len--;
    size_t len = http_host_of(rest, url->host);
    if (len == 0) {
        snprintf(error, CLI_ERROR_LEN, "must be like http://127.0.0.1:9090, without a path");
        return KV_EINVAL;
    }
    url->host[len] = '\0';
    const char *end = memrchr(rest.data, ']', rest.len), *start = end ? end : rest.data;
    const char *colon = memchr(start, ':', rest.len - (size_t)(start - rest.data));
    size_t digits = colon ? rest.len - (size_t)(colon + 1 - rest.data) : 0;
    snprintf(url->port, sizeof(url->port), "%.*s", digits ? (int)digits : 2, digits ? colon + 1 : "80");
    if (url->host[0] == '[') {
        memmove(url->host, url->host + 1, len - 2);
        url->host[len - 2] = '\0';
    }
    return KV_OK;
}

/* ---- waiting -------------------------------------------------------------------------------------------------------
 */

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* 0 or KV_ETIMEDOUT. What is wrong with the socket is told by the call that follows. */
static int wait_for(const struct call *c, short events)
{
    for (;;) {
        struct pollfd p = {.fd = c->fd, .events = events};
        int64_t left = c->until - now_ms();
        if (left <= 0)
            return KV_ETIMEDOUT;
        int ready = poll(&p, 1, (int)left);
        if (ready > 0)
            return KV_OK;
        if (ready < 0 && errno != EINTR)
            return KV_EIO;
    }
}

__attribute__((format(printf, 3, 4))) static int fail(const struct call *c, int error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(c->error, CLI_ERROR_LEN, format, arguments);
    va_end(arguments);
    return error;
}

/* ---- connecting ----------------------------------------------------------------------------------------------------
 */

/* 0 with c->fd, or the errno of why not. */
static int connect_to(struct call *c, const struct addrinfo *address)
{
    c->fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (c->fd < 0)
        return errno;
    int why = 0;
    if (connect(c->fd, address->ai_addr, address->ai_addrlen) != 0)
        why = errno;
    if (why == EINPROGRESS) {
        socklen_t len = sizeof(why);
        if (wait_for(c, POLLOUT) != KV_OK)
            why = ETIMEDOUT;
        else if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &why, &len) != 0)
            why = errno;
    }
    if (why) {
        close(c->fd);
        c->fd = -1;
    }
    return why;
}

/* Connects to the first address that takes it, and writes it to `host` as Host shows it. */
static int dial(struct call *c, char host[SOCKADDR_TEXT_LEN])
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *addresses = NULL;
    int why = getaddrinfo(c->url->host, c->url->port, &hints, &addresses);
    if (why != 0)
        return fail(c, KV_ENOTFOUND, "'%s' has no address: %s", c->url->host, gai_strerror(why));
    for (const struct addrinfo *a = addresses; a; a = a->ai_next) {
        why = connect_to(c, a);
        if (why == 0) {
            sockaddr_format(a->ai_addr, host);
            break;
        }
    }
    freeaddrinfo(addresses);
    if (why == 0)
        return KV_OK;
    return fail(c, KV_EREFUSED,
                "no admin listener answers at %s port %s: %s (is the server running, with this --admin-listen?)",
                c->url->host, c->url->port, strerror(why));
}

/* ---- the request ---------------------------------------------------------------------------------------------------
 */

static int send_all(struct call *c, struct slice bytes)
{
    while (bytes.len > 0) {
        ssize_t n = send(c->fd, bytes.data, bytes.len, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return KV_ECLOSED;
        if (n < 0 && wait_for(c, POLLOUT) != KV_OK)
            return KV_ETIMEDOUT;
        if (n > 0)
            bytes = (struct slice){bytes.data + n, bytes.len - (size_t)n};
    }
    return KV_OK;
}

static int send_request(struct call *c, const char *host)
{
    struct field fields[2];
    struct head head;
    struct buffer out = BUFFER_INIT(LIMIT_HEAD_BYTES);
    head_borrow(&head, fields, 2);
    head.method = slice_of(c->method);
    head.target = slice_of(c->target);
    head.authority = slice_of(host);
    head_add(&head, SLICE("user-agent"), SLICE("kavilo-tunneld/" KV_VERSION));
    int error = http1_write_request(&out, &head, HTTP1_NO_BODY, 0);
    if (error == KV_OK)
        error = send_all(c, buffer_slice(&out));
    buffer_free(&out);
    return error;
}

/* ---- the answer ----------------------------------------------------------------------------------------------------
 */

/* Appends what comes next: the count of bytes, 0 at the end, or a kv_error. */
static ssize_t receive(struct call *c, struct buffer *in)
{
    char bytes[READ_BYTES];
    for (;;) {
        ssize_t n = recv(c->fd, bytes, sizeof(bytes), 0);
        if (n >= 0) {
            int error = buffer_append(in, bytes, (size_t)n);
            return error ? error : n;
        }
        if (errno != EAGAIN && errno != EINTR)
            return KV_ECLOSED;
        if (wait_for(c, POLLIN) != KV_OK)
            return KV_ETIMEDOUT;
    }
}

/* Reads the final head and drops it from `in`, where the start of the body stays. */
static int read_head(struct call *c, struct buffer *in, struct http1_body *body, unsigned *status)
{
    size_t scanned = 0;
    struct http1_message m;
    for (;;) {
        ssize_t n = http1_parse_response(buffer_slice(in), &scanned, slice_of(c->method), &m);
        if (n < 0)
            return KV_EPROTO;
        if (n > 0) {
            bool final = m.head.status >= 200;
            *status = m.head.status;
            buffer_consume(in, (size_t)n);
            scanned = 0;
            if (final) {
                http1_body_start(body, m.framing, m.length, HTTP1_TOLERANT);
                return KV_OK;
            }
            continue;
        }
        n = receive(c, in);
        if (n <= 0)
            return n < 0 ? (int)n : KV_ECLOSED;
    }
}

static int read_body(struct call *c, struct buffer *in, struct http1_body *body, struct buffer *out)
{
    for (;;) {
        struct slice input = buffer_slice(in), data;
        enum http1_body_event event;
        while ((event = http1_body_next(body, &input, SIZE_MAX, &data)) == HTTP1_BODY_DATA) {
            int error = buffer_append_slice(out, data);
            if (error)
                return error;
        }
        if (event != HTTP1_BODY_MORE)
            return event == HTTP1_BODY_END ? KV_OK : KV_EPROTO;
        buffer_consume(in, in->len - input.len);
        ssize_t n = receive(c, in);
        if (n < 0)
            return (int)n;
        if (n == 0)
            return http1_body_eof_is_end(body) ? KV_OK : KV_ECLOSED;
    }
}

int admin_http_request(const struct admin_http_url *url, const char *method, const char *target,
                       struct admin_http_answer *answer, char *error_text)
{
    struct call c = {.url = url, .method = method, .target = target, .fd = -1, .error = error_text};
    struct http1_body body = {0};
    struct buffer in = BUFFER_INIT(LIMIT_ANSWER_HEAD_BYTES + READ_BYTES);
    char host[SOCKADDR_TEXT_LEN];
    c.until = now_ms() + ADMIN_HTTP_MS;
    *answer = (struct admin_http_answer){.body = BUFFER_INIT(ADMIN_ANSWER_BYTES)};
    int error = dial(&c, host);
    if (error)
        return error;
    error = send_request(&c, host);
    if (error == KV_OK)
        error = read_head(&c, &in, &body, &answer->status);
    if (error == KV_OK)
        error = read_body(&c, &in, &body, &answer->body);
    if (error) {
        buffer_free(&answer->body);
        fail(&c, error, "no answer from %s that could be read: %s", host, kv_strerror(error));
    }
    http1_body_free(&body);
    buffer_free(&in);
    close(c.fd);
    return error;
}
