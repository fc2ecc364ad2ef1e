/*
 * What every visitor's request goes through, whichever HTTP it came in: counted, routed by its host, held against the
 * limits, dressed for the tunnel and opened as an exchange. And what every answer gets on its way back.
 */
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

#include "base/random.h"
#include "edge/edge_impl.h"
#include "http/cookie.h"
#include "http/forward.h"
#include "http/loop.h"
#include "http/upgrade.h"
#include "io/conn.h"
#include "io/listener.h"
#include "io/network.h"

void edge_peer_of(struct edge *edge, const struct conn *conn, struct edge_peer *peer)
{
    const struct networks *trusted = edge->settings.trusted_proxies;
    const struct ip ip = ip_of(conn_peer(conn));
    sockaddr_format(conn_peer(conn), peer->text);
    const char *colon = strrchr(peer->text, ':');
    bool bracketed = peer->text[0] == '[';
    peer->host_at = bracketed ? 1 : 0;
    peer->host_len = (uint8_t)((colon ? (size_t)(colon - peer->text) : strlen(peer->text)) - (bracketed ? 2 : 0));
    peer->trusted = trusted && networks_contain(trusted, &ip) ? trusted : NULL;
    peer->site = peer->trusted || ip_is_loopback(&ip) ? 0 : ip_site(&ip);
    peer->connection = peer->trusted ? 0 : ++edge_local(edge)->connections;
}

/* The way from the peer to the visitor, who is the peer itself unless that is a trusted proxy. */
static void find_path(const struct head *head, const struct conn *conn, const struct edge_peer *peer,
                      struct forward_path *path)
{
    const struct ip ip = ip_of(conn_peer(conn));
    if (peer->trusted) {
        forward_path_find(head, &ip, peer->trusted, path);
    } else {
        path->hops[0] = ip;
        path->count = 1;
    }
}

static struct ip visitor_of(const struct head *head, const struct conn *conn, const struct edge_peer *peer)
{
    struct forward_path path = {.count = 0};
    if (!peer->trusted)
        return ip_of(conn_peer(conn));
    find_path(head, conn, peer, &path);
    return *forward_path_visitor(&path);
}

bool edge_hold_take(struct edge *edge, const struct conn *conn, struct address_hold *hold)
{
    if (address_hold_take(edge->limit, edge->settings.trusted_proxies, conn, hold))
        return true;
    edge_counter_add(&edge_local(edge)->connections_refused, 1);
    return false;
}

enum close_reason edge_admit(struct edge *edge, const struct head *head, const struct conn *conn,
                             const struct edge_peer *peer)
{
    struct edge_local *local = edge_local(edge);
    edge_counter_add(&local->requests, 1);
    if (!edge->limit)
        return REASON_NONE;
    struct ip visitor = visitor_of(head, conn, peer);
    if (address_limit_request(edge->limit, &visitor, worker_now(conn_worker(conn))))
        return REASON_NONE;
    edge_counter_add(&local->requests_limited, 1);
    return REASON_RATE_LIMITED;
}

enum close_reason edge_find_tunnel(struct edge *edge, const struct edge_request *request, struct address *link)
{
    struct slice host;
    enum close_reason reason = edge_route(edge, request->head, link, &host);
    if (reason == REASON_NONE && loop_has_passed(request->head, host))
        return REASON_LOOP;
    if (reason != REASON_NONE || request->length <= edge->settings.max_request_body)
        return reason;
    edge_count_body_limit(edge_local(edge));
    return REASON_BODY_TOO_LARGE;
}

/* The head for the tunnel, and the visitor's address for it. A body of unknown length is told by a field, which is how
 * every peer knows that there is one. */
static struct head *make_head(const struct edge *edge, const struct edge_request *request, const struct conn *conn,
                              const struct edge_peer *peer, char remote[EXCHANGE_REMOTE_LEN])
{
    struct forward_path path = {.count = 0};
    char visitor[IP_TEXT_LEN], host[LIMIT_HOST_BYTES];
    struct forward_facts facts = {
        .peer_address = {peer->text + peer->host_at, peer->host_len},
        .scheme = conn_is_tls(conn) ? SLICE("https") : SLICE("http"),
        .peer_trusted = peer->trusted != NULL,
        .path = edge->settings.forwarded ? &path : NULL,
    };
    facts.visitor_address = facts.peer_address;
    facts.version = request->version;
    facts.host = edge_tunnel_host(edge, request->head, host);
    memcpy(remote, peer->text, EXCHANGE_REMOTE_LEN);
    if (peer->trusted || edge->settings.forwarded)
        find_path(request->head, conn, peer, &path);
    if (path.count > 1) {
        const struct ip *ip = forward_path_visitor(&path);
        facts.visitor_address = (struct slice){visitor, ip_format(ip, visitor)};
        snprintf(remote, EXCHANGE_REMOTE_LEN, ip_is_v4(ip) ? "%s:0" : "[%s]:0", visitor); /* nobody told the port */
    }
    struct head *head = forward_request(request->head, &facts);
    if (!head || !request->unknown_length)
        return head;
    struct head *chunked = head_copy(head, 1, sizeof("transfer-encoding: chunked"));
    head_free(head);
    if (chunked)
        head_add(chunked, SLICE("transfer-encoding"), SLICE("chunked"));
    return chunked;
}

/* Whom a trusted proxy's request counts for; 0 if that is the proxy itself, or another one, or this machine. */
static uint64_t told_site(const struct head *head, const struct conn *conn, const struct edge_peer *peer)
{
    const struct ip visitor = visitor_of(head, conn, peer);
    return networks_contain(peer->trusted, &visitor) || ip_is_loopback(&visitor) ? 0 : ip_site(&visitor);
}

int edge_open(const struct edge *edge, const struct edge_request *request, struct conn *conn,
              const struct edge_peer *peer, struct address link, struct half *half, const struct half_events *events,
              void *owner)
{
    struct exchange_open open = {
        .credit = LIMIT_WINDOW_BYTES, .end = request->complete, .visitor_connection = peer->connection};
    open.head = make_head(edge, request, conn, peer, open.remote);
    open.visitor_site = peer->trusted ? told_site(request->head, conn, peer) : peer->site;
    if (!open.head)
        return KV_ENOMEM;
    int error = half_open(half, conn_worker(conn), link, &open, events, owner);
    if (error)
        head_free(open.head);
    return error;
}

int edge_add_hsts(const struct edge *edge, struct head **head)
{
    static const struct slice name = {"strict-transport-security", 25};
    struct slice value = slice_of(edge->settings.hsts);
    if (value.len == 0 || head_find(*head, name))
        return KV_OK;
    struct head *dressed = head_copy(*head, 1, name.len + value.len);
    if (!dressed)
        return KV_ENOMEM;
    head_add(dressed, name, value);
    head_free(*head);
    *head = dressed;
    return KV_OK;
}

static void confine_cookies(const struct edge *edge, struct head *head)
{
    struct slice base = slice_of(edge->settings.base_host);
    if (edge->settings.shared_cookies || head_lacks(head, FIELD_MODIFIER)) /* which Set-Cookie is */
        return;
    for (size_t i = 0; i < head->count; i++) {
        struct field *field = &head->fields[i];
        if (field_is(field, SLICE("set-cookie")))
            field->value.len = cookie_confine(head->bytes + (field->value.data - head->bytes), field->value.len, base);
    }
}

int edge_dress_answer(const struct edge *edge, struct head **head)
{
    bool final = (*head)->status >= 200 || (*head)->status == 101;
    confine_cookies(edge, *head);
    return final ? edge_add_hsts(edge, head) : KV_OK;
}

bool edge_is_bodyless(const struct head *answer, bool to_head)
{
    unsigned status = answer->status;
    return to_head || status < 200 || status == 204 || status == 205 || status == 304;
}

bool edge_allows_upgrade(const struct edge *edge, struct slice protocol)
{
    const char *list = edge->settings.upgrades;
    return http_upgrade_is_allowed(protocol) && (!list || http_upgrade_is_listed(protocol, slice_of(list)));
}

struct head *edge_make_upgrade(const struct head *head)
{
    struct head *upgrade = head_copy(head, 1, 64);
    unsigned char nonce[16];
    char key[32];
    if (!upgrade)
        return NULL;
    upgrade->method = SLICE("GET");
    head_remove(upgrade, SLICE("sec-websocket-key"));
    head_remove_id(upgrade, FIELD_CONTENT_LENGTH); /* all that follows is raw (RFC 9113, 8.5) */
    if (slice_equals_nocase(head->protocol, SLICE("websocket"))) {
        random_bytes(nonce, sizeof(nonce));
        int len = EVP_EncodeBlock((unsigned char *)key, nonce, sizeof(nonce));
        head_add(upgrade, SLICE("sec-websocket-key"), (struct slice){key, (size_t)len});
    }
    return upgrade;
}
