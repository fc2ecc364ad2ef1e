/*
 * TLS between a connection's owner and its socket. OpenSSL reads and writes through a BIO of ours that looks straight
 * at the bytes just received and appends straight to the connection's output, so records are copied by the cipher and
 * by nothing else.
 *
 * Clear output waits in `plain` until the turn's end and is then cut into records as large as it allows: one write a
 * turn is one record for a small answer. Ciphertext that arrives while the owner has paused is kept in `kept`, which is
 * bounded by one read, because a paused connection reads no further.
 *
 * Layers can lie on each other: TLS to a server inside TLS to the proxy that leads to it. conn->tls is the one that the
 * owner speaks through; what a layer encrypts is clear output of the one under it, and what that one decrypts is
 * ciphertext for the layer over it.
 */
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "io/conn_impl.h"
#include "io/tls.h"

#define RECORD_BYTES 16384 /* the largest TLS record (RFC 8446, 5.1) */

struct conn_tls {
    SSL *ssl;
    struct tls_context *context; /* a reference, until the handshake is done */
    struct conn *conn;
    struct conn_tls *under; /* closer to the socket; freed with this one */
    struct conn_tls *over;  /* closer to the owner */
    struct slice input;     /* ciphertext of the running call that OpenSSL has not taken */
    struct chain kept;      /* ciphertext from before a pause */
    struct chain plain;     /* clear output */
    bool begun;             /* the peer has said something */
    bool handshaken;
    bool transport_ended;
    bool reading; /* conn_tls_read is running: it is not entered again from a callback */
};

/* ---- the BIO --------------------------------------------------------------------------------------------------- */

static int bio_read(BIO *bio, char *out, int len)
{
    struct conn_tls *t = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (len <= 0)
        return 0;
    size_t n = (size_t)len;
    if (t->kept.bytes > 0)
        return (int)chain_read(&t->kept, out, n);
    if (t->input.len == 0) {
        if (t->transport_ended)
            return 0;
        BIO_set_retry_read(bio);
        return -1;
    }
    if (n > t->input.len)
        n = t->input.len;
    memcpy(out, t->input.data, n);
    t->input.data += n;
    t->input.len -= n;
    return (int)n;
}

static int bio_write(BIO *bio, const char *data, int len)
{
    struct conn_tls *t = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (len <= 0 || chain_append(t->under ? &t->under->plain : &t->conn->out, data, (size_t)len) != KV_OK)
        return -1;
    return len;
}

static long bio_ctrl(BIO *bio, int command, long number, void *pointer)
{
    (void)number;
    (void)pointer;
    struct conn_tls *t = BIO_get_data(bio);
    if (command == BIO_CTRL_FLUSH)
        return 1;
    if (command == BIO_CTRL_EOF)
        return t->transport_ended && t->input.len == 0 && t->kept.bytes == 0;
    return 0;
}

/* Made once for the process; OpenSSL frees it never, like its own methods. */
static BIO_METHOD *bio_method;
static pthread_once_t bio_method_once = PTHREAD_ONCE_INIT;

static void make_bio_method(void)
{
    bio_method = BIO_meth_new(BIO_TYPE_SOURCE_SINK | BIO_get_new_index(), "connection");
    if (!bio_method)
        return;
    BIO_meth_set_read(bio_method, bio_read);
    BIO_meth_set_write(bio_method, bio_write);
    BIO_meth_set_ctrl(bio_method, bio_ctrl);
}

/* ---- start and end --------------------------------------------------------------------------------------------- */

struct conn_tls *conn_tls_new(struct tls_context *context, bool server, struct slice server_name)
{
    pthread_once(&bio_method_once, make_bio_method);
    struct conn_tls *t = calloc(1, sizeof(*t));
    if (!t || !bio_method)
        goto fail;
    t->context = tls_context_ref(context);
    t->ssl = tls_new_ssl(context, server, server_name);
    BIO *bio = t->ssl ? BIO_new(bio_method) : NULL;
    if (!bio)
        goto fail;
    BIO_set_data(bio, t);
    BIO_set_init(bio, 1);
    SSL_set_bio(t->ssl, bio, bio);
    SSL_set_mode(t->ssl, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    return t;

fail:
    conn_tls_free(t);
    return NULL;
}

void conn_tls_free(struct conn_tls *t)
{
    if (!t)
        return;
    conn_tls_free(t->under);
    if (t->begun && !t->handshaken)
        tls_count_handshake(t->ssl, false);
    tls_context_free(t->context);
    SSL_free(t->ssl);
    chain_free(&t->kept);
    chain_free(&t->plain);
    free(t);
}

static void fail_tls(struct conn *c, struct conn_tls *t, bool in_handshake)
{
    char text[TLS_ERROR_LEN];
    struct slice answer = in_handshake ? tls_plain_answer(t->context) : (struct slice){0};
    tls_error_text(text, sizeof(text), t->ssl);
    if (answer.len > 0) { /* the alert would be noise to it */
        chain_free(&c->out);
        (void)chain_append(&c->out, answer.data, answer.len);
    }
    conn_offer_output(c); /* the alert, which tells the peer what is wrong (RFC 8446, 6.2) */
    conn_fail(c, in_handshake ? KV_ETLS : KV_ECLOSED, text);
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

/* 0 when more bytes are needed or the handshake is done (t->handshaken), negative after a failure. */
static int advance_handshake(struct conn *c, struct conn_tls *t)
{
    ERR_clear_error();
    int result = SSL_do_handshake(t->ssl);
    worker_flush_later(c->worker, &c->flush);
    if (result == 1) {
        t->handshaken = true;
        tls_context_free(t->context);
        t->context = NULL;
        tls_count_handshake(t->ssl, true);
        conn_become_ready(c);
        return KV_OK;
    }
    int error = SSL_get_error(t->ssl, result);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE)
        return t->transport_ended ? (fail_tls(c, t, true), KV_ETLS) : KV_OK;
    fail_tls(c, t, true);
    return KV_ETLS;
}

static void read_layer(struct conn *c, struct conn_tls *t, struct slice ciphertext);

static void deliver(struct conn *c, struct conn_tls *t, struct slice clear)
{
    if (t->over) /* asked for each record: the owner may have laid it there between two */
        read_layer(c, t->over, clear);
    else
        conn_deliver(c, clear);
}

static void deliver_eof(struct conn *c, struct conn_tls *t)
{
    if (t->over) {
        t->over->transport_ended = true;
        read_layer(c, t->over, (struct slice){0});
    } else {
        conn_deliver_eof(c);
    }
}

static void read_records(struct conn *c, struct conn_tls *t)
{
    char clear[RECORD_BYTES];
    while (!c->paused && c->state != CONN_CLOSED && !c->read_ended) {
        ERR_clear_error();
        int n = SSL_read(t->ssl, clear, sizeof(clear));
        if (n > 0) {
            deliver(c, t, (struct slice){clear, (size_t)n});
            continue;
        }
        int error = SSL_get_error(t->ssl, n);
        if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE)
            break;
        if (error == SSL_ERROR_ZERO_RETURN)
            deliver_eof(c, t);
        else
            fail_tls(c, t, false);
        return;
    }
}

/* What OpenSSL has not taken by the end of a call belongs to the worker's buffer: keep a copy. */
static void keep_rest(struct conn *c, struct conn_tls *t)
{
    if (t->input.len > 0 && chain_append(&t->kept, t->input.data, t->input.len) != KV_OK)
        conn_fail(c, KV_ENOMEM, "no memory for input");
    t->input = (struct slice){0};
}

static bool layer_has_input(const struct conn_tls *t)
{
    /* Whole records alone: a part of one, which SSL_has_pending counts too, can only wait for the socket. */
    return t->kept.bytes > 0 || SSL_pending(t->ssl) > 0;
}

static void read_layer(struct conn *c, struct conn_tls *t, struct slice ciphertext)
{
    if (t->reading || (ciphertext.len == 0 && !layer_has_input(t) && !t->transport_ended))
        return;
    t->reading = true;
    t->conn = c;
    t->input = ciphertext;
    t->begun = t->begun || ciphertext.len > 0;
    if (t->handshaken || advance_handshake(c, t) == KV_OK) {
        if (t->handshaken)
            read_records(c, t);
    }
    keep_rest(c, t);
    t->reading = false;
}

/* The upper layer first: what it has kept came before what the lower one will yield. */
void conn_tls_read(struct conn *c, struct slice ciphertext)
{
    struct conn_tls *t = c->tls;
    if (c->read_ended) /* what follows close_notify is nobody's (RFC 8446, 6.1) */
        return;
    if (t->under)
        read_layer(c, t, (struct slice){0});
    read_layer(c, t->under ? t->under : t, ciphertext);
    if (ciphertext.len > 0 && (c->out.head || (t->under && t->under->plain.head)) && c->state != CONN_CLOSED)
        worker_flush_later(c->worker, &c->flush); /* answers to KeyUpdate and the like; a flush sends by itself */
}

void conn_tls_start(struct conn *c)
{
    c->tls->conn = c;
    advance_handshake(c, c->tls);
}

void conn_tls_lay(struct conn *c, struct conn_tls *over, struct slice first)
{
    over->under = c->tls;
    if (c->tls)
        c->tls->over = over;
    c->tls = over;
    conn_tls_start(c);
    if (first.len > 0 && c->state != CONN_CLOSED)
        read_layer(c, over, first);
}

void conn_tls_eof(struct conn *c)
{
    (c->tls->under ? c->tls->under : c->tls)->transport_ended = true;
    conn_tls_read(c, (struct slice){0});
}

bool conn_tls_has_input(const struct conn *c)
{
    return layer_has_input(c->tls) || (c->tls->under && layer_has_input(c->tls->under));
}

/* ---- writing --------------------------------------------------------------------------------------------------- */

static void write_layer(struct conn *c, struct conn_tls *t)
{
    const struct chain *sink = t->under ? &t->under->plain : &c->out;
    t->conn = c;
    if (!t->handshaken)
        return;
    char record[RECORD_BYTES];
    /* Ciphertext is as much ahead of the socket as clear output may be: the rest waits in the clear. */
    while (t->plain.bytes > 0 && sink->bytes < LIMIT_OUTPUT_BYTES) {
        const struct chunk *first = t->plain.head;
        const char *data = first->data + first->off;
        size_t len = first->len;
        bool gathered = len < RECORD_BYTES && first->next;
        if (gathered) {
            len = chain_read(&t->plain, record, sizeof(record));
            data = record;
        } else if (len > RECORD_BYTES) {
            len = RECORD_BYTES;
        }
        ERR_clear_error();
        if (SSL_write(t->ssl, data, (int)len) <= 0) {
            fail_tls(c, t, false);
            return;
        }
        if (!gathered)
            chain_consume(&t->plain, len);
    }
}

void conn_tls_write(struct conn *c)
{
    for (struct conn_tls *t = c->tls; t && c->state != CONN_CLOSED; t = t->under)
        write_layer(c, t);
}

bool conn_tls_shutdown(struct conn *c)
{
    size_t before = c->out.bytes;
    for (struct conn_tls *t = c->tls; t && c->state != CONN_CLOSED; t = t->under) {
        write_layer(c, t); /* the farewell of the layer over this one */
        ERR_clear_error();
        if (!(SSL_get_shutdown(t->ssl) & SSL_SENT_SHUTDOWN)) /* a second call would read, and lose what is kept */
            SSL_shutdown(t->ssl);
    }
    return c->out.bytes > before;
}

struct chain *conn_tls_plain(struct conn_tls *t)
{
    return &t->plain;
}

size_t conn_tls_unsent(const struct conn_tls *t)
{
    return t->plain.bytes + (t->under ? t->under->plain.bytes : 0);
}

struct slice conn_tls_alpn(const struct conn_tls *t)
{
    const unsigned char *name = NULL;
    unsigned len = 0;
    SSL_get0_alpn_selected(t->ssl, &name, &len);
    return (struct slice){(const char *)name, len};
}
