/* The way to a local service that speaks HTTP/2; behind origin.h, for origin.c alone. */
#ifndef KV_CLIENT_ORIGIN_H2_H
#define KV_CLIENT_ORIGIN_H2_H

struct origin;
struct origin_muxes;

/* Asks for a seat on a connection, and opens a stream at once if there is one. Should the service turn out to speak
 * HTTP/1.1 instead, the request goes that way by itself. Sets the operations. 0; KV_EINVAL for a head that cannot be
 * sent and KV_ENOMEM, and then nothing is open. */
int origin_h2_start(struct origin *origin, struct origin_muxes *muxes);

#endif
