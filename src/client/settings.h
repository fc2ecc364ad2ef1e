/*
 * Where a client's endpoint, token and trust come from: the command line (with the environment behind it, see
 * cmd/cli.h), then the file that `login` writes, then the defaults.
 *
 *     ~/.kavilo-tunnel/config.yml        endpoint: "https://tnl.example.com"
 *                                        token: "..."
 *                                        ca_cert: "/home/me/tunnel-ca.pem"
 *                                        proxy: "http://proxy.example.com:3128"
 *
 * The file holds a secret: it is made with mode 0600 in a folder with mode 0700 and replaced as a whole, so that
 * neither a crash nor a second login leaves half a file. What else stands in it, comments too, is kept.
 */
#ifndef KV_CLIENT_SETTINGS_H
#define KV_CLIENT_SETTINGS_H

#include <stddef.h>

#include "base/slice.h"
#include "client/proxy.h"
#include "client/url.h"

#define SETTINGS_ERROR_LEN        4608 /* room for the longest path in a sentence */
#define SETTINGS_DEFAULT_ENDPOINT "http://localhost:7777"

/* The file's values, owned; NULL for those that are absent or empty. */
struct settings_file {
    char *endpoint, *token, *ca_cert, *proxy;
};

/* Values from elsewhere, borrowed; NULL or empty for those that are not given. */
struct settings_given {
    const char *endpoint, *token, *ca_cert, *proxy;
};

/* This text in place of a value that settings_write is given takes the value out of the file. */
extern const char settings_removed[];

/* The path above, in $HOME or else the account's home. 0; KV_ENOTFOUND without a home; KV_ELIMIT if it does not fit. */
int settings_path(char *out, size_t size);

/* Reads the file; one that does not exist is empty. 0, and then error is empty or a warning (others can read the file)
 * for the log; KV_EINVAL for broken content, KV_EIO, KV_ENOMEM with the sentence, which never shows a value. */
int settings_read(const char *path, struct settings_file *out, char *error);

/* Writes the values that are given into the file, leaving the rest of it as it is; makes file and folder when they
 * are not there. 0, or negative with the sentence in error, and then nothing has changed. */
int settings_write(const char *path, const struct settings_given *changes, char *error);

/* Wipes the secrets and frees; the struct is empty then. */
void settings_file_free(struct settings_file *file);

#define SETTINGS_REASON_LEN 512 /* what follows a value in a sentence */

/* A token that could be one: printable ASCII without spaces, not empty, at most LIMIT_TOKEN_BYTES. 0, or KV_EINVAL with
 * the rest of a sentence in error[SETTINGS_REASON_LEN]. */
int settings_check_token(struct slice token, char *error);
/* The same, and it has the form that tokens are made in: 52 characters of base32, lower case. A placeholder has not. */
int settings_check_token_form(struct slice token, char *error);

/* A file of PEM authorities that can be read and used. 0, or KV_EINVAL with the rest of a sentence in
 * error[SETTINGS_REASON_LEN]. */
int settings_check_ca_cert(const char *file, char *error);

/* What a client runs with. */
struct settings {
    struct url endpoint;
    char *token;   /* NULL when there is none anywhere */
    char *ca_cert; /* path of PEM authorities, which were readable; NULL for the system's */
    struct proxy proxy;
};

/* Puts `given` (what the command line and the program's own variables say) before the file at `path` (NULL: no file)
 * before the defaults; for the proxy that is what proxy_from_environment says. 0, with a warning or "" in error; or
 * negative as settings_read, and KV_EINVAL with a sentence that names the place of a value that cannot be. */
int settings_resolve(const char *path, const struct settings_given *given, struct settings *out, char *error);

/* Wipes the secrets and frees; the struct is empty then. */
void settings_free(struct settings *settings);

#endif
