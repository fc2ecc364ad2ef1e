/*
 * kavilo-tunnel login and logout. The token comes from the first of these that is given: --token, --token-file, a
 * prompt on a terminal, standard input. All values are checked before the file is touched.
 */
#include "cmd/tunnel_login.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/blake3.h"
#include "base/error.h"
#include "client/settings.h"
#include "cmd/tunnel_reach.h"
#include "io/file.h"

#define TOKEN_FILE_BYTES (LIMIT_TOKEN_BYTES + 1024) /* a token with some white space around it */

const char tunnel_login_details[] =
    "The token is what 'kavilo-tunneld admin issue-token' printed. Without --token and --token-file it is asked for, "
    "without echo, or read from standard input when that is no terminal. It is stored in "
    "~/.kavilo-tunnel/config.yml, which only you can read; what else the file says stays. Where a token is stored "
    "already, the other options change what they name and nothing else, and --check alone changes nothing.";

const char tunnel_logout_details[] =
    "Takes the token out of ~/.kavilo-tunnel/config.yml; what else the file says stays. "
    "The token is still good: revoke it on the server if others may have it.";

static bool is_white(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Checks a token without the white space around it, which copying and pasting brings, and keeps it. */
static int keep_token(struct tunnel_login *login, struct slice text, char *reason)
{
    while (text.len > 0 && is_white(text.data[0]))
        text = (struct slice){text.data + 1, text.len - 1};
    while (text.len > 0 && is_white(text.data[text.len - 1]))
        text.len--;
    int result = settings_check_token_form(text, reason);
    if (result != 0)
        return result;
    memcpy(login->token, text.data, text.len);
    login->token[text.len] = '\0';
    return 0;
}

/* ---- flags ----------------------------------------------------------------------------------------------------- */

static int set_token(void *into, const char *value, char *error)
{
    return keep_token(into, slice_of(value), error);
}

static int set_token_file(void *into, const char *value, char *error)
{
    struct tunnel_login *login = into;
    (void)error; /* that there is no such file is said when it is read */
    login->token_file = value;
    return 0;
}

static int set_endpoint(void *into, const char *value, char *error)
{
    struct tunnel_login *login = into;
    return url_parse_endpoint(slice_of(value), &login->endpoint, error);
}

static int set_ca_cert(void *into, const char *value, char *error)
{
    struct tunnel_login *login = into;
    login->ca_cert = value;
    return settings_check_ca_cert(value, error);
}

static int set_proxy(void *into, const char *value, char *error)
{
    struct tunnel_login *login = into;
    struct proxy parsed;
    login->proxy = value;
    int result = proxy_parse(slice_of(value), &parsed, error);
    proxy_wipe(&parsed);
    return result;
}

static int set_check(void *into, const char *value, char *error)
{
    (void)value;
    (void)error;
    ((struct tunnel_login *)into)->check = true;
    return KV_OK;
}

const struct cli_option tunnel_login_options[] = {
    {.name = "token",
     .value_name = "TOKEN",
     .help = "the token; other users of this machine can see it while the command runs and your shell remembers it, so "
             "prefer --token-file or the prompt",
     .secret = true,
     .set = set_token},
    {.name = "token-file",
     .value_name = "FILE",
     .help = "a file that holds the token and nothing else; '-' is standard input",
     .set = set_token_file},
    {.name = "endpoint",
     .value_name = "URL",
     .help = "the server that the token is for, such as https://tnl.example.com; stays as it is unless given",
     .set = set_endpoint},
    {.name = "ca-cert",
     .value_name = "PEM",
     .help = "authorities to trust for the server instead of the system's; stays as it is unless given",
     .set = set_ca_cert},
    {.name = "proxy",
     .value_name = "URL",
     .help = "the proxy on the way to the server, or none; stays as it is unless given",
     .secret = true,
     .set = set_proxy},
    {.name = "check",
     .help = "connect to the server once, with what is stored then, and say whether it takes the token",
     .set = set_check},
    {.name = NULL},
};

const struct cli_option tunnel_logout_options[] = {{.name = NULL}};

/* ---- the token ------------------------------------------------------------------------------------------------- */

static int take_token(struct tunnel_login *login, const char *source, struct slice text)
{
    char reason[SETTINGS_REASON_LEN];
    if (keep_token(login, text, reason) == 0)
        return CLI_EXIT_OK;
    return cli_usage_error("the token from %s %s", source, reason);
}

static int token_from_file(struct tunnel_login *login)
{
    const char *path = login->token_file;
    bool standard_input = strcmp(path, "-") == 0;
    struct buffer text;
    int result =
        standard_input ? file_read_fd(STDIN_FILENO, TOKEN_FILE_BYTES, &text) : file_read(path, TOKEN_FILE_BYTES, &text);
    if (result == KV_EIO)
        return cli_usage_error("--token-file '%s': %s", path, strerror(errno));
    if (result == KV_ELIMIT)
        return cli_usage_error("--token-file '%s' is larger than any token", path);
    if (result != 0)
        return cli_failure("--token-file '%s': %s", path, kv_strerror(result));
    int status = take_token(login, standard_input ? "standard input" : path, buffer_slice(&text));
    file_wipe(&text);
    return status;
}

static int token_from_person_or_pipe(struct tunnel_login *login)
{
    char line[TOKEN_FILE_BYTES + 1];
    const char *source = isatty(STDIN_FILENO) ? "the prompt" : "standard input";
    int result = cli_read_secret("Token: ", line, sizeof(line));
    if (result == KV_ENOTFOUND)
        return cli_usage_error("no token: %s ended without one", source);
    if (result == KV_EINVAL)
        return cli_usage_error("the token from %s holds a NUL byte, which no token has", source);
    if (result == KV_ELIMIT)
        return cli_usage_error("the token from %s is longer than any token", source);
    if (result == KV_ECANCELED)
        return cli_failure("login was cancelled, nothing is stored");
    if (result != 0)
        return cli_failure("%s cannot be read: %s", source, strerror(errno));
    int status = take_token(login, source, slice_of(line));
    secret_wipe(line, sizeof(line));
    return status;
}

/* ---- the file -------------------------------------------------------------------------------------------------- */

static int find_file(char *path, size_t size)
{
    if (settings_path(path, size) == KV_OK)
        return CLI_EXIT_OK;
    return cli_usage_error("there is no home folder to store the token in; set HOME");
}

static int change_file(const char *path, const struct settings_given *changes)
{
    char error[SETTINGS_ERROR_LEN];
    int result = settings_write(path, changes, error);
    if (result == KV_OK)
        return CLI_EXIT_OK;
    return result == KV_EINVAL ? cli_usage_error("%s", error) : cli_failure("%s", error);
}

static int has_token(const char *path, bool *out)
{
    char error[SETTINGS_ERROR_LEN];
    struct settings_file file;
    *out = false;
    int result = settings_read(path, &file, error);
    if (result != KV_OK)
        return result == KV_EINVAL ? cli_usage_error("%s", error) : cli_failure("%s", error);
    *out = file.token != NULL;
    settings_file_free(&file);
    return CLI_EXIT_OK;
}

/* Says what is stored now, and tries it if that is wanted. */
static int settle(const char *path, const char *what, bool check)
{
    char error[SETTINGS_ERROR_LEN];
    struct settings stored;
    if (settings_resolve(path, &(struct settings_given){0}, &stored, error) != KV_OK)
        return cli_failure("%s, but no tunnel can use it: %s", what, error);
    if (what[0])
        fprintf(stderr, "%s in %s for %s\n", what, path, stored.endpoint.text);
    int status = CLI_EXIT_OK;
    if (check && !stored.token)
        status = cli_usage_error("there is no token to check; store one with 'kavilo-tunnel login'");
    else if (check)
        status = tunnel_reach_check(&stored);
    settings_free(&stored);
    return status;
}

static int ask_for_token(struct tunnel_login *login)
{
    if (login->token_file)
        return token_from_file(login);
    return login->token[0] ? CLI_EXIT_OK : token_from_person_or_pipe(login);
}

static int store(struct tunnel_login *login, const char *ca_cert)
{
    char path[PATH_MAX];
    bool changes = login->endpoint.text[0] || ca_cert || login->proxy, keeps = false;
    bool token_given = login->token[0] || login->token_file;
    int status = find_file(path, sizeof(path));
    if (status == CLI_EXIT_OK && !token_given && (changes || login->check))
        status = has_token(path, &keeps);
    if (status == CLI_EXIT_OK && !keeps)
        status = ask_for_token(login);
    if (status == CLI_EXIT_OK && (changes || !keeps))
        status = change_file(path, &(struct settings_given){login->endpoint.text, login->token, ca_cert, login->proxy});
    if (status != CLI_EXIT_OK)
        return status;
    return settle(path, !keeps ? "token stored" : changes ? "settings stored, the token stays," : "", login->check);
}

int tunnel_login(void *settings)
{
    struct tunnel_login *login = settings;
    char *ca_cert = NULL;
    if (login->token[0] && login->token_file)
        return cli_usage_error("--token and --token-file are both given; one of them is enough");
    /* Stored by its absolute path: the next run may start anywhere. */
    if (login->ca_cert && !(ca_cert = realpath(login->ca_cert, NULL)))
        return cli_failure("--ca-cert '%s': %s", login->ca_cert, strerror(errno));
    int status = store(login, ca_cert);
    free(ca_cert);
    return status;
}

int tunnel_logout(void *settings)
{
    char path[PATH_MAX];
    bool stored;
    (void)settings;
    int status = find_file(path, sizeof(path));
    if (status == CLI_EXIT_OK)
        status = has_token(path, &stored);
    if (status != CLI_EXIT_OK)
        return status;
    if (stored)
        status = change_file(path, &(struct settings_given){.token = settings_removed});
    if (status == CLI_EXIT_OK)
        fprintf(stderr, stored ? "token taken out of %s\n" : "there was no token in %s\n", path);
    return status;
}
