/*
 * Names to addresses. What needs no asking is answered by the flush at the end of the turn, everything else by
 * getaddrinfo(3) on libuv's pool; either way `done` runs from the loop and never inside resolve_start.
 *
 *     resolve_start ──┬── at once ── flush_node ──┬── done ── freed
 *                     └── asked ── on_answer ─────┘
 *
 * A lookup that runs on the pool cannot be stopped. When it is cancelled its `done` is emptied, and the struct waits
 * for the pool to be finished with it.
 */
#include "io/resolve.h"

#include <stdlib.h>

#include <uv.h>

#include "base/error.h"
#include "base/limits.h"
#include "io/worker.h"

#define LITERAL_MAX 64 /* the longest literal address with a zone, and its NUL */

struct resolve {
    struct worker *worker;
    void (*done)(void *arg, int error, const char *text, const struct resolve_answer *answer); /* NULL: cancelled */
    void *arg;
    uint16_t port;
    bool asked; /* the pool has `request`, so the struct stays until it comes back */
    uv_getaddrinfo_t request;
    struct flush_node at_turn_end;
    int error; /* of an answer at once */
    struct resolve_answer answer;
};

void resolve_set_port(struct resolve_answer *answer, uint16_t port)
{
    for (unsigned i = 0; i < answer->count; i++) {
        union resolve_address *address = &answer->addresses[i];
        if (address->any.sa_family == AF_INET6)
            address->v6.sin6_port = htons(port);
        else
            address->v4.sin_port = htons(port);
    }
}

/* ---- names that need no asking --------------------------------------------------------------------------------- */

static bool is_localhost(struct slice host)
{
    static const char below[] = ".localhost";
    const size_t len = sizeof(below) - 1;
    if (host.len > 0 && host.data[host.len - 1] == '.')
        host.len--;
    if (slice_equals_nocase(host, SLICE("localhost")))
        return true;
    return host.len > len && slice_equals_nocase((struct slice){host.data + host.len - len, len}, slice_of(below));
}

int resolve_at_once(struct slice host, uint16_t port, struct resolve_answer *answer)
{
    union resolve_address first = {0}, second = {0};
    unsigned count = 1;
    char text[LITERAL_MAX] = "";
    if (host.len > 0 && host.len < sizeof(text) && !memchr(host.data, '\0', host.len))
        memcpy(text, host.data, host.len);

    if (is_localhost(host)) {
        first.v4 = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        second.v6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
        count = 2;
    } else if (uv_ip4_addr(text, 0, &first.v4) != 0 && uv_ip6_addr(text, 0, &first.v6) != 0) {
        return KV_EAGAIN;
    }
    *answer = (struct resolve_answer){.count = count, .addresses = {first, second}};
    resolve_set_port(answer, port);
    return 0;
}

bool resolve_is_loopback(const struct resolve_answer *answer)
{
    for (unsigned i = 0; i < answer->count; i++) {
        const union resolve_address *a = &answer->addresses[i];
        if (a->any.sa_family == AF_INET6 ? !IN6_IS_ADDR_LOOPBACK(&a->v6.sin6_addr)
                                         : ntohl(a->v4.sin_addr.s_addr) >> 24 != IN_LOOPBACKNET)
            return false;
    }
    return answer->count > 0;
}

/* ---- the order of trying --------------------------------------------------------------------------------------- */

/* The next of the list that is of this family, which is taken off; false when there is none. */
static bool take_next(const struct addrinfo **list, int family, union resolve_address *out)
{
    while (*list) {
        const struct addrinfo *entry = *list;
        *list = entry->ai_next;
        if (entry->ai_family != family || entry->ai_addrlen > sizeof(*out))
            continue;
        memcpy(out, entry->ai_addr, entry->ai_addrlen);
        return true;
    }
    return false;
}

/* The system has sorted by RFC 6724; families then alternate, the first one's first (RFC 8305, 4), so that the cap, or
 * one family's broken path, never leaves only addresses that do not work. */
static void put_in_order(const struct addrinfo *list, struct resolve_answer *answer)
{
    const int families[2] = {list->ai_family, list->ai_family == AF_INET6 ? AF_INET : AF_INET6};
    const struct addrinfo *rest[2] = {list, list};
    unsigned turn = 0, dry = 0; /* turns in a row that found nothing */
    while (answer->count < RESOLVE_ADDRESSES_MAX && dry < 2) {
        if (take_next(&rest[turn], families[turn], &answer->addresses[answer->count])) {
            answer->count++;
            dry = 0;
        } else {
            dry++;
        }
        turn ^= 1;
    }
}

/* ---- asking ---------------------------------------------------------------------------------------------------- */

static int error_of(int status)
{
    switch (status) {
    case 0:
        return 0;
    case UV_EAI_NONAME:
    case UV_EAI_NODATA:
    case UV_EAI_ADDRFAMILY:
        return KV_ENOTFOUND;
    case UV_EAI_MEMORY:
    case UV_ENOMEM:
        return KV_ENOMEM;
    case UV_EINVAL:
    case UV_E2BIG:
        return KV_EINVAL;
    default:
        return KV_EUNAVAIL;
    }
}

static const char *text_of(int error)
{
    switch (error) {
    case 0:
        return "";
    case KV_ENOTFOUND:
        return "no such host name";
    case KV_EINVAL:
        return "not a host name";
    case KV_EUNAVAIL:
        return "the name service does not answer";
    default:
        return kv_strerror(error);
    }
}

/* Tells the one who waits, if anybody still does, and frees. */
static void finish(struct resolve *resolve, int error)
{
    void (*done)(void *, int, const char *, const struct resolve_answer *) = resolve->done;
    resolve->done = NULL; /* a cancel from inside done finds nothing left to do */
    if (done)
        done(resolve->arg, error, text_of(error), &resolve->answer);
    free(resolve);
}

static void on_answer(uv_getaddrinfo_t *request, int status, struct addrinfo *list)
{
    struct resolve *resolve = request->data;
    int error = error_of(status);
    if (error == 0 && list) {
        put_in_order(list, &resolve->answer);
        resolve_set_port(&resolve->answer, resolve->port);
    }
    if (error == 0 && resolve->answer.count == 0)
        error = KV_ENOTFOUND;
    uv_freeaddrinfo(list);
    finish(resolve, error);
}

static void on_turn_end(struct flush_node *node)
{
    struct resolve *resolve = (struct resolve *)((char *)node - offsetof(struct resolve, at_turn_end));
    finish(resolve, resolve->error);
}

/* Hands the name to the pool. 0, or why that cannot be. */
static int ask(struct resolve *resolve, struct slice host)
{
    char name[LIMIT_HOST_BYTES + 2]; /* a trailing dot and the NUL */
    if (host.len == 0 || host.len >= sizeof(name))
        return KV_EINVAL;
    for (size_t i = 0; i < host.len; i++)
        if ((unsigned char)host.data[i] <= ' ' || host.data[i] == 0x7f)
            return KV_EINVAL;
    memcpy(name, host.data, host.len);
    name[host.len] = '\0';

    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_protocol = IPPROTO_TCP};
    resolve->request.data = resolve;
    int status = uv_getaddrinfo(worker_loop(resolve->worker), &resolve->request, on_answer, name, NULL, &hints);
    return error_of(status);
}

struct resolve *resolve_start(struct worker *worker, struct slice host, uint16_t port,
                              void (*done)(void *arg, int error, const char *text, const struct resolve_answer *answer),
                              void *arg)
{
    struct resolve *resolve = calloc(1, sizeof(*resolve));
    if (!resolve)
        return NULL;
    resolve->worker = worker;
    resolve->done = done;
    resolve->arg = arg;
    resolve->port = port;
    resolve->at_turn_end.flush = on_turn_end;
    if (resolve_at_once(host, port, &resolve->answer) != 0) {
        resolve->error = ask(resolve, host);
        resolve->asked = resolve->error == 0;
    }
    if (!resolve->asked)
        worker_flush_later(worker, &resolve->at_turn_end);
    return resolve;
}

void resolve_cancel(struct resolve *resolve)
{
    if (!resolve || !resolve->done)
        return;
    resolve->done = NULL;
    if (resolve->asked) {
        uv_cancel((uv_req_t *)&resolve->request); /* helps when the pool has not begun; on_answer comes either way */
        return;
    }
    worker_flush_cancel(resolve->worker, &resolve->at_turn_end);
    free(resolve);
}
