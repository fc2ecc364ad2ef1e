/*
 * The settings file as YAML. Reading is libcyaml's. It cannot keep what it does not know, so writing edits the text:
 * the lines of a key are replaced by one new line, all others stay, and the result is read back. If it does not say
 * what it should (a file in YAML's other notations) a new file with the known keys is made instead.
 */
#include "client/settings_impl.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include <cyaml/cyaml.h>

#include "base/error.h"
#include "io/file.h"

#define TEXT_FLAGS (CYAML_FLAG_POINTER_NULL_STR | CYAML_FLAG_OPTIONAL)

static const cyaml_schema_field_t fields[] = {
    CYAML_FIELD_STRING_PTR("endpoint", TEXT_FLAGS, struct settings_file, endpoint, 0, CYAML_UNLIMITED),
    CYAML_FIELD_STRING_PTR("token", TEXT_FLAGS, struct settings_file, token, 0, CYAML_UNLIMITED),
    CYAML_FIELD_STRING_PTR("ca_cert", TEXT_FLAGS, struct settings_file, ca_cert, 0, CYAML_UNLIMITED),
    CYAML_FIELD_STRING_PTR("proxy", TEXT_FLAGS, struct settings_file, proxy, 0, CYAML_UNLIMITED),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t document = {CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct settings_file, fields)};

/* ---- reading --------------------------------------------------------------------------------------------------- */

static const char *without(const char *text, const char *prefix)
{
    size_t len = strlen(prefix);
    return strncmp(text, prefix, len) == 0 ? text + len : text;
}

/* True when one letter more, less, other or swapped makes `known` of `word`; case is not looked at. */
static bool is_misspelt(const char *word, const char *known)
{
    size_t same = 0, word_len = strlen(word), known_len = strlen(known);
    while (word[same] && tolower((unsigned char)word[same]) == known[same])
        same++;
    const char *w = word + same, *k = known + same;
    if (*w == '\0' || *k == '\0')
        return word_len <= known_len + 1 && known_len <= word_len + 1;
    bool swapped = w[1] && k[1] && tolower((unsigned char)w[0]) == k[1] && tolower((unsigned char)w[1]) == k[0];
    return strcasecmp(w + 1, k + 1) == 0 || strcasecmp(w + 1, k) == 0 || strcasecmp(w, k + 1) == 0 ||
           (swapped && strcasecmp(w + 2, k + 2) == 0);
}

/* Keys of others are theirs, but one that is nearly one of ours was meant to be it, and its value would be missed. */
static void note_unknown_key(struct settings_fault *fault, const char *key)
{
    for (const cyaml_schema_field_t *field = fields; field->key; field++)
        if (is_misspelt(key, field->key))
            snprintf(fault->reason, sizeof(fault->reason), "the key '%s' is unknown; did you mean '%s'?", key,
                     field->key);
}

/* libcyaml tells what is wrong in its first line of log and where in a later one. Lines that are none of these are not
 * even formatted: some show values. */
__attribute__((format(printf, 3, 0))) static void note_line(cyaml_log_t level, void *context, const char *format,
                                                            va_list arguments)
{
    static const char ignored[] = "Load: Ignoring key: ", place[] = "(line: ";
    struct settings_fault *fault = context;
    char line[256];
    bool unknown_key = slice_starts_with(slice_of(format), slice_of(ignored));
    if (level < CYAML_LOG_ERROR && !unknown_key)
        return;
    vsnprintf(line, sizeof(line), format, arguments);
    line[strcspn(line, "\n")] = '\0';
    if (unknown_key) {
        note_unknown_key(fault, line + sizeof(ignored) - 1);
        return;
    }
    const char *number = strstr(line, place);
    if (number && fault->line == 0)
        fault->line = (unsigned)strtoul(number + sizeof(place) - 1, NULL, 10);
    if (fault->reason[0] == '\0')
        snprintf(fault->reason, sizeof(fault->reason), "%.*s", SETTINGS_REASON_LEN - 1,
                 without(without(line, "Load: "), "libyaml: "));
}

static void forget_empty(char **value)
{
    if (*value && **value == '\0') {
        free(*value);
        *value = NULL;
    }
}

int settings_parse(struct slice yaml, struct settings_file *out, struct settings_fault *fault)
{
    *out = (struct settings_file){0};
    *fault = (struct settings_fault){0};
    const cyaml_config_t config = {
        .log_fn = note_line,
        .log_ctx = fault,
        .log_level = CYAML_LOG_DEBUG, /* that of ignored keys */
        .mem_fn = cyaml_mem,          /* plain realloc and free, so that the strings can be taken over */
        .flags = CYAML_CFG_IGNORE_UNKNOWN_KEYS,
    };
    if (yaml.len == 0)
        return 0;
    cyaml_data_t *data = NULL;
    cyaml_err_t error = cyaml_load_data((const uint8_t *)yaml.data, yaml.len, &config, &document, &data, NULL);
    if (error == CYAML_ERR_INVALID_VALUE) /* libcyaml speaks of events here, which are the parser's affair */
        snprintf(fault->reason, sizeof(fault->reason), "%s",
                 fault->line ? "a single text is expected as the value"
                             : "lines of the form 'key: value' are expected");
    if (error == CYAML_ERR_OOM)
        return KV_ENOMEM;
    if (error != CYAML_OK)
        return KV_EINVAL;
    if (data) { /* a file of comments has no document */
        *out = *(struct settings_file *)data;
        free(data);
    }
    forget_empty(&out->endpoint);
    forget_empty(&out->token);
    forget_empty(&out->ca_cert);
    forget_empty(&out->proxy);
    if (fault->reason[0] != '\0') {
        settings_file_free(out);
        return KV_EINVAL;
    }
    return 0;
}

/* ---- writing --------------------------------------------------------------------------------------------------- */

/* `key: "value"` with the value as a double-quoted scalar (YAML 1.2, 7.3.1). */
static int append_line(struct buffer *out, const char *key, const char *value)
{
    int result = buffer_printf(out, "%s: \"", key);
    for (; *value && result == 0; value++) {
        unsigned char c = (unsigned char)*value;
        if (c < 0x20 || c == 0x7f)
            result = buffer_printf(out, "\\x%02x", c);
        else if (c == '"' || c == '\\')
            result = buffer_printf(out, "\\%c", c);
        else
            result = buffer_append(out, value, 1);
    }
    return result == 0 ? buffer_append_string(out, "\"\n") : result;
}

const char settings_removed[] = "";

static bool given(const char *value)
{
    return value && (value == settings_removed || value[0] != '\0');
}

/* What a value is behind the change to it. */
static const char *changed(const char *change, const char *before)
{
    if (change == settings_removed)
        return NULL;
    return given(change) ? change : before;
}

/* The next line, its end included, cut from *text. */
static struct slice next_line(struct slice *text)
{
    const char *end = memchr(text->data, '\n', text->len);
    struct slice line = {text->data, end ? (size_t)(end - text->data) + 1 : text->len};
    *text = (struct slice){text->data + line.len, text->len - line.len};
    return line;
}

static bool is_line_of(struct slice line, const char *key)
{
    size_t len = strlen(key);
    return line.len > len && memcmp(line.data, key, len) == 0 && line.data[len] == ':';
}

static bool is_indented(struct slice line)
{
    return line.len > 0 && (line.data[0] == ' ' || line.data[0] == '\t');
}

struct edit {
    const char *key, *value;
    bool written;
};

/* The edit that this line is for, NULL for a line that stays. */
static struct edit *edit_of(struct slice line, struct edit *edits, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (given(edits[i].value) && is_line_of(line, edits[i].key))
            return &edits[i];
    return NULL;
}

/* Copies old to out; each key that changes gets one line, in the place of those it had or at the end. */
static int edit_lines(struct slice old, const struct settings_given *changes, struct buffer *out)
{
    struct edit edits[] = {
        {"endpoint", changes->endpoint, false},
        {"token", changes->token, false},
        {"ca_cert", changes->ca_cert, false},
        {"proxy", changes->proxy, false},
    };
    const size_t count = sizeof(edits) / sizeof(edits[0]);
    int result = 0;
    while (old.len > 0 && result == 0) {
        struct slice line = next_line(&old);
        struct edit *edit = edit_of(line, edits, count);
        if (!edit) {
            result = buffer_append_slice(out, line);
            if (result == 0 && line.data[line.len - 1] != '\n')
                result = buffer_append_string(out, "\n");
            continue;
        }
        while (is_indented(old)) /* the value went on */
            next_line(&old);
        if (!edit->written && edit->value != settings_removed)
            result = append_line(out, edit->key, edit->value);
        edit->written = true;
    }
    for (size_t i = 0; i < count && result == 0; i++)
        if (given(edits[i].value) && edits[i].value != settings_removed && !edits[i].written)
            result = append_line(out, edits[i].key, edits[i].value);
    return result;
}

static bool same(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

static bool says(const struct buffer *text, const struct settings_given *wanted)
{
    struct settings_file file;
    struct settings_fault fault;
    bool right = settings_parse(buffer_slice(text), &file, &fault) == 0 && same(file.endpoint, wanted->endpoint) &&
                 same(file.token, wanted->token) && same(file.ca_cert, wanted->ca_cert) &&
                 same(file.proxy, wanted->proxy);
    settings_file_free(&file);
    return right;
}

/* An empty buffer that never has to move, so that the token is in one place. */
static int make_room(struct buffer *b)
{
    *b = (struct buffer)BUFFER_INIT(2 * SETTINGS_FILE_BYTES);
    return buffer_reserve(b, b->limit);
}

static int write_anew(const struct settings_given *values, struct buffer *out)
{
    out->len = 0;
    int result = values->endpoint ? append_line(out, "endpoint", values->endpoint) : 0;
    if (result == 0 && values->token)
        result = append_line(out, "token", values->token);
    if (result == 0 && values->ca_cert)
        result = append_line(out, "ca_cert", values->ca_cert);
    if (result == 0 && values->proxy)
        result = append_line(out, "proxy", values->proxy);
    return result;
}

int settings_edit(struct slice old, const struct settings_given *changes, struct buffer *out)
{
    struct settings_file before;
    struct settings_fault fault;
    *out = (struct buffer){0};
    int result = settings_parse(old, &before, &fault);
    if (result != 0)
        return result;
    const struct settings_given wanted = {
        .endpoint = changed(changes->endpoint, before.endpoint),
        .token = changed(changes->token, before.token),
        .ca_cert = changed(changes->ca_cert, before.ca_cert),
        .proxy = changed(changes->proxy, before.proxy),
    };
    result = make_room(out);
    if (result == 0)
        result = edit_lines(old, changes, out);
    if (result == 0 && !says(out, &wanted)) {
        result = write_anew(&wanted, out);
        if (result == 0 && !says(out, &wanted))
            result = KV_EINVAL;
    }
    if (result != 0)
        file_wipe(out);
    settings_file_free(&before);
    return result;
}
