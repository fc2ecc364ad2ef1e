/*
 * The settings of a client: which place wins for each value, the file on disk, and the sentences about all that can be
 * wrong with them. settings_yaml.c knows what stands in the file.
 */
#include "client/settings.h"

#include <errno.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/base32.h"
#include "base/blake3.h"
#include "base/error.h"
#include "base/limits.h"
#include "client/settings_impl.h"
#include "io/file.h"
#include "io/tls.h"

#define TOKEN_CHARACTERS BASE32_LEN(32)

#define FOLDER           ".kavilo-tunnel"
#define FILE_NAME        "config.yml"
#define PASSWD_BUFFER    4096

__attribute__((format(printf, 3, 4))) static int refuse(int result, char *error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error, SETTINGS_ERROR_LEN, format, arguments);
    va_end(arguments);
    return result;
}

int settings_path(char *out, size_t size)
{
    const char *home = getenv("HOME");
    struct passwd account, *found = NULL;
    char text[PASSWD_BUFFER];
    if ((!home || home[0] != '/') && getpwuid_r(getuid(), &account, text, sizeof(text), &found) == 0 && found)
        home = found->pw_dir;
    if (!home || home[0] != '/')
        return KV_ENOTFOUND;
    int len = snprintf(out, size, "%s/" FOLDER "/" FILE_NAME, home);
    return len > 0 && (size_t)len < size ? 0 : KV_ELIMIT;
}

static void wipe(char **secret)
{
    if (*secret)
        secret_wipe(*secret, strlen(*secret));
    free(*secret);
    *secret = NULL;
}

void settings_file_free(struct settings_file *file)
{
    free(file->endpoint);
    wipe(&file->token);
    free(file->ca_cert);
    wipe(&file->proxy); /* may have a password in it */
    *file = (struct settings_file){0};
}

void settings_free(struct settings *settings)
{
    wipe(&settings->token);
    free(settings->ca_cert);
    proxy_wipe(&settings->proxy);
    *settings = (struct settings){0};
}

int settings_check_token(struct slice token, char *error)
{
    if (token.len == 0) {
        snprintf(error, SETTINGS_REASON_LEN, "is empty");
        return KV_EINVAL;
    }
    if (token.len > LIMIT_TOKEN_BYTES) {
        snprintf(error, SETTINGS_REASON_LEN, "is longer than %d characters", LIMIT_TOKEN_BYTES);
        return KV_EINVAL;
    }
    for (size_t i = 0; i < token.len; i++) {
        unsigned char c = (unsigned char)token.data[i];
        if (c > 0x20 && c < 0x7f)
            continue;
        snprintf(error, SETTINGS_REASON_LEN, "holds a %s, which no token has",
                 c == ' '   ? "space"
                 : c < 0x80 ? "control character"
                            : "character that is not ASCII");
        return KV_EINVAL;
    }
    return 0;
}

int settings_check_token_form(struct slice token, char *error)
{
    int result = settings_check_token(token, error);
    if (result != 0)
        return result;
    size_t right = 0;
    while (right < token.len && strchr("abcdefghijklmnopqrstuvwxyz234567", token.data[right]))
        right++;
    if (token.len == TOKEN_CHARACTERS && right == token.len)
        return 0;
    snprintf(error, SETTINGS_REASON_LEN, "is no token: those have %d characters, a to z and 2 to 7", TOKEN_CHARACTERS);
    return KV_EINVAL;
}

int settings_check_ca_cert(const char *file, char *error)
{
    static const char *const no_protocols[] = {NULL};
    char sentence[TLS_ERROR_LEN];
    struct tls_context *context = tls_client_context(file, true, no_protocols, sentence);
    tls_context_free(context);
    if (context)
        return 0;
    /* The file is named by whoever names the value. */
    const char *behind_name = strstr(sentence, file);
    const char *reason = behind_name && file[0] ? behind_name + strlen(file) : sentence;
    snprintf(error, SETTINGS_REASON_LEN, "%s", reason + strspn(reason, "': "));
    return KV_EINVAL;
}

/* ---- the file -------------------------------------------------------------------------------------------------- */

/* The file's text, empty when there is no file. */
static int load_text(const char *path, struct buffer *text, char *error)
{
    int result = file_read(path, SETTINGS_FILE_BYTES, text);
    if (result == KV_EIO && (errno == ENOENT || errno == ENOTDIR))
        return 0;
    if (result == KV_EIO)
        return refuse(result, error, "settings file '%s' cannot be read: %s", path, strerror(errno));
    if (result == KV_ELIMIT)
        return refuse(KV_EINVAL, error, "settings file '%s' is larger than %d bytes", path, SETTINGS_FILE_BYTES);
    if (result != 0)
        return refuse(result, error, "settings file '%s' cannot be read: %s", path, kv_strerror(result));
    return 0;
}

static int parse_text(const char *path, struct slice text, struct settings_file *out, char *error)
{
    struct settings_fault fault;
    int result = settings_parse(text, out, &fault);
    if (result == KV_EINVAL && fault.line > 0)
        return refuse(result, error, "settings file '%s', line %u: %s", path, fault.line, fault.reason);
    if (result != 0)
        return refuse(result, error, "settings file '%s': %s", path,
                      result == KV_EINVAL ? fault.reason : kv_strerror(result));
    return 0;
}

static void warn_of_mode(const char *path, char *error)
{
    struct stat facts;
    if (stat(path, &facts) == 0 && (facts.st_mode & (S_IRWXG | S_IRWXO)) != 0)
        snprintf(error, SETTINGS_ERROR_LEN,
                 "settings file '%s' holds a token and is open to other users; run chmod 600 '%s'", path, path);
}

int settings_read(const char *path, struct settings_file *out, char *error)
{
    struct buffer text;
    *out = (struct settings_file){0};
    error[0] = '\0';
    int result = load_text(path, &text, error);
    if (result != 0)
        return result;
    result = parse_text(path, buffer_slice(&text), out, error);
    file_wipe(&text);
    if (result == 0 && out->token)
        warn_of_mode(path, error);
    return result;
}

static int make_folder(const char *path, char *error)
{
    char *folder = slice_dup((struct slice){path, (size_t)(strrchr(path, '/') - path)});
    if (!folder)
        return refuse(KV_ENOMEM, error, "no memory");
    int result = 0;
    if (folder[0] != '\0' && mkdir(folder, 0700) != 0 && errno != EEXIST)
        result = refuse(KV_EIO, error, "folder '%s' cannot be made: %s", folder, strerror(errno));
    free(folder);
    return result;
}

int settings_write(const char *path, const struct settings_given *changes, char *error)
{
    struct buffer old, edited = {0};
    struct settings_file before = {0};
    error[0] = '\0';
    int result = load_text(path, &old, error);
    if (result != 0)
        return result;
    /* A broken file is its owner's to mend: it may hold more than we would write. */
    result = parse_text(path, buffer_slice(&old), &before, error);
    if (result != 0)
        goto done;
    result = settings_edit(buffer_slice(&old), changes, &edited);
    if (result != 0) {
        refuse(result, error, "settings file '%s' cannot hold these values: %s", path, kv_strerror(result));
        goto done;
    }
    result = strchr(path, '/') ? make_folder(path, error) : 0;
    if (result != 0)
        goto done;
    result = file_replace(path, buffer_slice(&edited));
    if (result != 0)
        refuse(result, error, "settings file '%s' cannot be written: %s", path,
               result == KV_EIO ? strerror(errno) : kv_strerror(result));

done:
    settings_file_free(&before);
    file_wipe(&edited);
    file_wipe(&old);
    return result;
}

/* ---- who wins -------------------------------------------------------------------------------------------------- */

static bool is_given(const char *value)
{
    return value && value[0] != '\0';
}

static const char *first_of(const char *given, const char *stored)
{
    return is_given(given) ? given : stored;
}

/* A copy of the winner in *out, NULL for none. 0 or KV_ENOMEM. */
static int choose(const char *given, const char *stored, char **out)
{
    const char *winner = first_of(given, stored);
    *out = winner ? slice_dup(slice_of(winner)) : NULL;
    return winner && !*out ? KV_ENOMEM : 0;
}

/* "settings file '...': endpoint 'x': has no scheme", or without the place for what the command line gave. `value` is
 * NULL for one that is not shown. */
static int refuse_value(char *error, const char *file, const char *key, const char *value, const char *reason)
{
    char shown[SETTINGS_REASON_LEN] = "";
    if (value)
        snprintf(shown, sizeof(shown), " '%.400s'", value);
    if (file)
        return refuse(KV_EINVAL, error, "settings file '%s': %s%s: %s", file, key, shown, reason);
    return refuse(KV_EINVAL, error, "%s%s: %s", key, shown, reason);
}

static int resolve_proxy(const char *path, const char *given, const char *stored, struct settings *out, char *error)
{
    char reason[URL_ERROR_LEN];
    const char *variable = "proxy", *value = first_of(given, stored);
    const char *file = value && value == stored ? path : NULL;
    if (!value)
        value = proxy_from_environment(&out->endpoint, &variable);
    if (!value || proxy_parse(slice_of(value), &out->proxy, reason) == 0)
        return 0;
    char key[64];
    snprintf(key, sizeof(key), "%s (not shown)", variable);
    return refuse_value(error, file, key, NULL, reason);
}

int settings_resolve(const char *path, const struct settings_given *given, struct settings *out, char *error)
{
    struct settings_file file = {0};
    char reason[SETTINGS_REASON_LEN];
    *out = (struct settings){0};
    error[0] = '\0';
    int result = path ? settings_read(path, &file, error) : 0;
    if (result != 0)
        return result;

    const char *endpoint = first_of(given->endpoint, file.endpoint);
    result = url_parse_endpoint(slice_of(endpoint ? endpoint : SETTINGS_DEFAULT_ENDPOINT), &out->endpoint, reason);
    if (result != 0) {
        refuse_value(error, endpoint == file.endpoint ? path : NULL, "endpoint", endpoint, reason);
        goto err;
    }
    if (choose(given->token, file.token, &out->token) != 0 ||
        choose(given->ca_cert, file.ca_cert, &out->ca_cert) != 0) {
        result = refuse(KV_ENOMEM, error, "no memory");
        goto err;
    }
    if (out->token && settings_check_token(slice_of(out->token), reason) != 0) {
        result = refuse_value(error, is_given(given->token) ? NULL : path, "token (not shown)", NULL, reason);
        goto err;
    }
    if (out->ca_cert && settings_check_ca_cert(out->ca_cert, reason) != 0) {
        result = refuse_value(error, is_given(given->ca_cert) ? NULL : path, "ca_cert", out->ca_cert, reason);
        goto err;
    }
    result = resolve_proxy(path, given->proxy, file.proxy, out, error);
    if (result != 0)
        goto err;
    settings_file_free(&file);
    return 0;

err:
    settings_file_free(&file);
    settings_free(out);
    return result;
}
