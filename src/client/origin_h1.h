/* The way to a local service that speaks HTTP/1.1; behind origin.h, for origin.c alone. */
#ifndef KV_CLIENT_ORIGIN_H1_H
#define KV_CLIENT_ORIGIN_H1_H

struct origin;

/* Takes a connection and writes the head of a request that origin_start has filled in. Sets the operations. 0;
 * KV_EINVAL for a head that cannot be sent and KV_ENOMEM, and then nothing is open. */
int origin_h1_start(struct origin *origin);

#endif
