/*
 * PROXY headers under hostile bytes: no prefix of a header is taken for a header or for none, a header that was read is
 * written again in version 2 and gives the same address, and what stands behind it changes nothing.
 */
#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/limits.h"
#include "io/proxy_protocol.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int condition)
{
    if (!condition)
        abort();
}

/* In memory of exactly its size, so that a read behind it is seen. */
static ssize_t parse(const uint8_t *data, size_t size, struct proxy_header *out)
{
    char *copy = malloc(size ? size : 1);
    require(copy != NULL);
    memcpy(copy, data, size);
    ssize_t n = proxy_protocol_parse((struct slice){copy, size}, out);
    free(copy);
    require(n <= (ssize_t)size && n <= LIMIT_PROXY_HEADER_BYTES);
    require(n >= 0 || (out->error != NULL && !out->has_source));
    return n;
}

static void check_prefixes(const uint8_t *data, size_t len)
{
    struct proxy_header header;
    size_t step = len > 256 ? len / 64 : 1;
    for (size_t n = 0; n < len; n += step)
        require(parse(data, n, &header) == 0);
}

static void check_again(const struct proxy_header *header)
{
    uint8_t bytes[64] = "\r\n\r\n\0\r\nQUIT\n\x21";
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)&header->source;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&header->source;
    struct proxy_header again;
    if (header->source.ss_family == AF_INET) {
        bytes[13] = 0x11;
        bytes[15] = 12;
        memcpy(bytes + 16, &v4->sin_addr, 4);
        memcpy(bytes + 24, &v4->sin_port, 2);
    } else {
        require(header->source.ss_family == AF_INET6);
        bytes[13] = 0x21;
        bytes[15] = 36;
        memcpy(bytes + 16, &v6->sin6_addr, 16);
        memcpy(bytes + 48, &v6->sin6_port, 2);
    }
    require(parse(bytes, 16 + (size_t)bytes[15], &again) == 16 + bytes[15]);
    require(again.has_source && memcmp(&again.source, &header->source, sizeof(again.source)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct proxy_header header, alone;
    ssize_t n = parse(data, size, &header);
    if (n <= 0)
        return 0;
    require(parse(data, (size_t)n, &alone) == n);
    require(memcmp(&alone.source, &header.source, sizeof(alone.source)) == 0 && alone.has_source == header.has_source);
    check_prefixes(data, (size_t)n);
    if (header.has_source)
        check_again(&header);
    return 0;
}
