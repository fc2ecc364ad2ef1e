/*
 * Addresses and networks in CIDR notation (RFC 4632, 3.1; RFC 4291, 2.3), for the lists in which an operator names whom
 * the edge believes. An IPv4 address is kept in its IPv6-mapped form (RFC 4291, 2.5.5.2): one comparison serves both
 * families, and a visitor of a [::] socket is found by the IPv4 address that he has. Values only; any thread.
 */
#ifndef KV_IO_NETWORK_H
#define KV_IO_NETWORK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/slice.h"

struct ip {
    uint8_t bytes[16];
};

/* Room for the longest address as text, and its NUL. */
#define IP_TEXT_LEN 46

/* A literal address, without port, brackets or zone. 0 or KV_EINVAL. */
int ip_parse(struct slice text, struct ip *out);
/* Of a socket address; any other family yields the unspecified address, which no list ought to hold. */
struct ip ip_of(const struct sockaddr *address);
/* "203.0.113.7" or "2001:db8::1" (RFC 5952). Returns the length. */
size_t ip_format(const struct ip *ip, char out[IP_TEXT_LEN]);
bool ip_is_v4(const struct ip *ip);
bool ip_is_loopback(const struct ip *ip);
/* 64 bits that stand for whoever has the address: an IPv4 address for itself, an IPv6 address for its /64, which is
 * what one household or one rented machine has. Never 0, but for the unspecified network. */
uint64_t ip_site(const struct ip *ip);

struct network {
    struct ip ip;
    uint8_t bits; /* of the mapped form: 96 more than an IPv4 prefix says */
};

/* Networks in one list: the hops in front of a server are counted on fingers, published ranges of a CDN are some tens,
 * and each is compared for every connection. */
#define NETWORKS_MAX 128

struct networks {
    struct network list[NETWORKS_MAX];
    unsigned count;
};

/* Appends "address", "address/prefix" or a comma-separated list of them. 0, or KV_EINVAL or KV_ELIMIT with the element
 * in *wrong and a clause that says why in *why; `networks` then holds what stood before it. */
int networks_add(struct networks *networks, struct slice list, struct slice *wrong, const char **why);

bool networks_contain(const struct networks *networks, const struct ip *ip);

#endif
