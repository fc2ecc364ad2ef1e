/* The phrases of enum kv_error. They are fragments: the caller's sentence says what failed, the phrase says how. */
#include "base/error.h"

const char *kv_strerror(int error)
{
    switch ((enum kv_error)error) {
    case KV_OK:
        return "success";
    case KV_ENOMEM:
        return "no memory";
    case KV_ELIMIT:
        return "limit exceeded";
    case KV_EINVAL:
        return "invalid input";
    case KV_EAGAIN:
        return "not ready yet";
    case KV_ECLOSED:
        return "closed by the other side";
    case KV_ETIMEDOUT:
        return "timed out";
    case KV_EREFUSED:
        return "refused";
    case KV_EEXIST:
        return "already exists";
    case KV_ENOTFOUND:
        return "not found";
    case KV_EIO:
        return "system error";
    case KV_EUNAVAIL:
        return "unavailable";
    case KV_EPROTO:
        return "protocol violation";
    case KV_ETLS:
        return "TLS failure";
    case KV_ECANCELED:
        return "canceled";
    case KV_ENEWER:
        return "data of a newer version";
    }
    return "unknown error";
}
