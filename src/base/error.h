/*
 * Error codes of the whole program. A function that can fail returns 0 (or a count) on success and one of these,
 * which are negative, otherwise. Callers that must tell a person more put the sentence into the log where it is known.
 */
#ifndef KV_BASE_ERROR_H
#define KV_BASE_ERROR_H

enum kv_error {
    KV_OK = 0,
    KV_ENOMEM = -1,     /* malloc refused */
    KV_ELIMIT = -2,     /* a named cap of base/limits.h would be passed */
    KV_EINVAL = -3,     /* malformed input; the peer or the operator is to blame */
    KV_EAGAIN = -4,     /* nothing now, call again when told */
    KV_ECLOSED = -5,    /* the other side is gone */
    KV_ETIMEDOUT = -6,  /* a deadline passed */
    KV_EREFUSED = -7,   /* the other side said no (connection refused, authentication) */
    KV_EEXIST = -8,     /* a uniqueness rule would be broken */
    KV_ENOTFOUND = -9,  /* no such row, host or file */
    KV_EIO = -10,       /* the operating system or a library failed; errno or its own text has the cause */
    KV_EUNAVAIL = -11,  /* a thing that should be there is not at the moment (the store, the resolver) */
    KV_EPROTO = -12,    /* the peer broke the protocol */
    KV_ETLS = -13,      /* TLS handshake or certificate verification failed */
    KV_ECANCELED = -14, /* we gave up ourselves */
    KV_ENEWER = -15,    /* stored data is of a newer version than this program knows */
};

/* A short English phrase for any value above ("no memory"); never NULL. Any thread. */
const char *kv_strerror(int error);

#endif
