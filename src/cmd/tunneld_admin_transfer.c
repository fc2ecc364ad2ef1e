/*
 * Export and import as JSON lines:
 *
 *     {"kavilo_export": 1, "exported_at": "2026-01-31T12:00:00Z"}
 *     {"user": {"id": ..., "email": ..., "slug": ..., ...}}          one line a row, parents first
 *     {"token": {"id": ..., "user_id": ..., "token_hash": ..., ...}}
 *     {"name": {"id": ..., "user_id": ..., "name": ..., "subdomain": ..., ...}}
 *     {"end": {"rows": 3}}                                           without it the file was cut
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd/tunneld_admin.h"
#include "store/store_transfer.h"

#define FORMAT_VERSION 1

static int set_file(void *into, const char *value, char *error)
{
    struct admin_settings *s = into;
    return cli_set_string(s->file, sizeof(s->file), value, error);
}

const struct cli_option admin_export_options[] = {
    {"output", "FILE", NULL, "write to this new file, mode 0600; standard output unless given", .set = set_file},
    ADMIN_OPTION_DATABASE,
    {0},
};
const struct cli_option admin_import_options[] = {
    {"input", "FILE", NULL, "read this file; standard input unless given", .set = set_file},
    ADMIN_OPTION_JSON,
    ADMIN_OPTION_DATABASE,
    {0},
};

/* ---- export ---------------------------------------------------------------------------------------------------- */

struct exporting {
    FILE *to;
    uint64_t rows;
};

static int write_line(FILE *to, json_t *line)
{
    int error = line ? KV_OK : KV_ENOMEM;
    if (error == KV_OK && (json_dumpf(line, to, JSON_COMPACT) != 0 || putc('\n', to) == EOF))
        error = KV_EIO;
    json_decref(line);
    return error;
}

static int write_row(void *arg, const struct transfer_kind *kind, const struct slice *values)
{
    struct exporting *e = arg;
    json_t *row = json_object();
    for (size_t i = 0; kind->column[i].name && row; i++) {
        json_t *value = values[i].data ? json_stringn(values[i].data, values[i].len) : json_null();
        if (json_object_set_new(row, kind->column[i].name, value) != 0) {
            json_decref(row);
            return KV_ENOMEM;
        }
    }
    e->rows++;
    return write_line(e->to, row ? json_pack("{s:o}", kind->name, row) : NULL);
}

static int write_all(struct store *store, FILE *to)
{
    struct exporting exporting = {.to = to};
    char now[STORE_TIME_LEN + 1];
    store_time_format(store_now(), now);
    int error = write_line(to, json_pack("{s:i, s:s}", "kavilo_export", FORMAT_VERSION, "exported_at", now));
    if (error == KV_OK)
        error = store_export(store, write_row, &exporting);
    if (error == KV_OK)
        error = write_line(to, json_pack("{s:{s:I}}", "end", "rows", (json_int_t)exporting.rows));
    if (error == KV_OK && fflush(to) != 0)
        error = KV_EIO;
    return error;
}

int admin_export(void *settings)
{
    const struct admin_settings *s = settings;
    struct store *store;
    FILE *to = stdout;
    int status = admin_open(s, &store);
    if (status != CLI_EXIT_OK)
        return status;
    if (s->file[0]) {
        int fd = open(s->file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        to = fd >= 0 ? fdopen(fd, "w") : NULL;
        if (!to) {
            status = cli_usage_error("--output %s: %s", s->file, strerror(errno));
            store_close(store);
            return status;
        }
    }
    int error = write_all(store, to), cause = errno;
    if (to != stdout && fclose(to) != 0 && error == KV_OK) {
        error = KV_EIO;
        cause = errno;
    }
    if (error == KV_EIO && !store_error(store)[0]) {
        status = cli_failure("cannot write %s: %s", s->file[0] ? s->file : "to standard output", strerror(cause));
        store_close(store);
    } else {
        status = admin_close(store, error);
    }
    if (status != CLI_EXIT_OK && s->file[0])
        unlink(s->file); /* half an export is none */
    return status;
}

/* ---- import ---------------------------------------------------------------------------------------------------- */

struct importing {
    struct store *store;
    const char *file;
    FILE *from;
    uint64_t line, rows;
    bool ended;
};

static int bad_line(const struct importing *in, const char *why)
{
    return cli_usage_error("%s, line %" PRIu64 ": %s; nothing was imported", in->file, in->line, why);
}

static int import_object(struct importing *in, const struct transfer_kind *kind, const json_t *row)
{
    struct slice values[TRANSFER_COLUMNS_MAX] = {0};
    for (size_t i = 0; kind->column[i].name; i++) {
        const json_t *value = json_object_get(row, kind->column[i].name);
        if (json_is_string(value))
            values[i] = (struct slice){json_string_value(value), json_string_length(value)};
        else if (value && !json_is_null(value))
            return bad_line(in, "a value that is neither text nor null");
    }
    int error = store_import_row(in->store, kind, values);
    if (error == KV_OK) {
        in->rows++;
        return CLI_EXIT_OK;
    }
    bad_line(in, store_error(in->store));
    return error == KV_EINVAL ? CLI_EXIT_USAGE : CLI_EXIT_FAILED;
}

static int import_line(struct importing *in, const json_t *line)
{
    const json_t *version = json_object_get(line, "kavilo_export"), *end = json_object_get(line, "end");
    if (in->ended)
        return bad_line(in, "something behind the end");
    if ((in->line == 1) != (version != NULL))
        return bad_line(in, in->line == 1 ? "this is no export of kavilo-tunneld" : "a second beginning");
    if (version)
        return json_integer_value(version) == FORMAT_VERSION ? CLI_EXIT_OK
                                                             : bad_line(in, "an export of a newer kavilo-tunneld");
    if (end) {
        in->ended = true;
        return (uint64_t)json_integer_value(json_object_get(end, "rows")) == in->rows
                   ? CLI_EXIT_OK
                   : bad_line(in, "rows are missing");
    }
    const struct transfer_kind *kind;
    for (size_t i = 0; (kind = transfer_kind_at(i)) != NULL; i++) {
        const json_t *row = json_object_get(line, kind->name);
        if (json_is_object(row))
            return import_object(in, kind, row);
    }
    return bad_line(in, "neither a user nor a token nor a name");
}

static int import_lines(struct importing *in)
{
    char *text = NULL;
    size_t room = 0;
    ssize_t len;
    int status = CLI_EXIT_OK;
    while (status == CLI_EXIT_OK && (len = getline(&text, &room, in->from)) >= 0) {
        json_error_t why;
        in->line++;
        json_t *line = json_loadb(text, (size_t)len, JSON_REJECT_DUPLICATES, &why);
        status = json_is_object(line) ? import_line(in, line) : bad_line(in, line ? "no JSON object" : why.text);
        json_decref(line);
    }
    free(text);
    if (status == CLI_EXIT_OK && ferror(in->from))
        status = cli_usage_error("cannot read %s: %s; nothing was imported", in->file, strerror(errno));
    else if (status == CLI_EXIT_OK && !in->ended)
        status = cli_usage_error("%s: the end is missing, so the file was cut; nothing was imported", in->file);
    return status;
}

int admin_import(void *settings)
{
    static const struct admin_column columns[] = {{"rows", ADMIN_NUMBER}, {0}};
    const struct admin_settings *s = settings;
    struct importing in = {.file = s->file[0] ? s->file : "standard input", .from = stdin};
    if (s->file[0] && !(in.from = fopen(s->file, "re")))
        return cli_usage_error("--input %s: %s", s->file, strerror(errno));
    int error = KV_OK, status = admin_open(s, &in.store);
    if (status == CLI_EXIT_OK) {
        error = store_import_begin(in.store);
        status = error == KV_OK ? import_lines(&in) : CLI_EXIT_OK;
        if (error == KV_OK && status == CLI_EXIT_OK)
            error = store_import_commit(in.store);
        else if (error == KV_OK)
            store_import_abandon(in.store);
    }
    if (in.from != stdin)
        fclose(in.from);
    if (status != CLI_EXIT_OK) {
        store_close(in.store);
        return status;
    }
    char rows[24];
    snprintf(rows, sizeof(rows), "%" PRIu64, in.rows);
    if (error == KV_OK && s->json)
        error = admin_print_object(columns, (const char *[]){rows});
    else if (error == KV_OK)
        fprintf(stderr, "imported %s rows\n", rows);
    return admin_close(in.store, error);
}
