/* What the two files of TLS share; nobody else includes this. */
#ifndef KV_IO_TLS_IMPL_H
#define KV_IO_TLS_IMPL_H

#include <openssl/ssl.h>

#include "io/tls.h"

/* ---- tls_pem.c: files into a context; 0, or KV_ETLS with a sentence in error[TLS_ERROR_LEN] -------------------- */

/* Certificate chain and key, which must belong together. On success error is empty or a warning about the dates. */
int tls_load_identity(SSL_CTX *ssl, const char *cert_file, const char *key_file, char *error);
/* Authorities to trust instead of the system's. */
int tls_load_authorities(SSL_CTX *ssl, const char *ca_file, char *error);

#endif
