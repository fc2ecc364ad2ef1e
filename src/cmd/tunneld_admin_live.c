/* The admin commands about live tunnels: they ask the running server, and need no database. */
#include <jansson.h>
#include <stdlib.h>

#include "cmd/tunneld_admin.h"
#include "cmd/tunneld_admin_http.h"
#include "http/http1.h"
#include "store/rules.h"

static int set_admin_url(void *into, const char *value, char *error)
{
    struct admin_settings *s = into;
    struct admin_http_url url;
    int status = admin_http_parse_url(value, &url, error);
    return status ? status : cli_set_string(s->admin_url, sizeof(s->admin_url), value, error);
}

/* Host names have no case (RFC 4343). */
static int set_subdomain(void *into, const char *value, char *error)
{
    struct admin_settings *s = into;
    int status = cli_set_string(s->subdomain, sizeof(s->subdomain), value, error);
    if (status)
        return status;
    for (char *p = s->subdomain; *p; p++)
        if (*p >= 'A' && *p <= 'Z')
            *p = (char)(*p - 'A' + 'a');
    if (rules_is_label(slice_of(s->subdomain)))
        return 0;
    snprintf(error, CLI_ERROR_LEN, "is no subdomain: give the part of the host name before its first dot");
    return KV_EINVAL;
}

#define OPTION_ADMIN_URL                                                                                               \
    {                                                                                                                  \
        "admin-url", "URL", "KAVILO_ADMIN_URL", "the server's admin listener (" ADMIN_HTTP_URL ")",                    \
            .set = set_admin_url                                                                                       \
    }

/* ---- asking -------------------------------------------------------------------------------------------------------
 */

/* What a server that said no gave as its reason, or why this is no server of ours. */
static int report_refusal(const char *url, unsigned status, json_t *json)
{
    const char *message = json_string_value(json_object_get(json, "message"));
    if (message)
        return cli_failure("the server refused: %s", message);
    return cli_failure("%s is no admin listener of kavilo-tunneld: it answered %u %s", url, status,
                       http_status_phrase(status));
}

/* Asks the server. CLI_EXIT_OK and the member of the answer that was asked for (NULL: all of it), or the exit status,
 * and then the sentence has been printed. A tunnel that is not there is CLI_EXIT_OK and NULL. */
static int ask(const struct admin_settings *s, const char *method, const char *target, const char *member,
               json_type type, json_t **json)
{
    const char *text = s->admin_url[0] ? s->admin_url : ADMIN_HTTP_URL;
    struct admin_http_url url;
    struct admin_http_answer answer;
    char error[CLI_ERROR_LEN];
    *json = NULL;
    if (admin_http_parse_url(text, &url, error) != KV_OK)
        return cli_usage_error("--admin-url '%s' %s", text, error);
    if (admin_http_request(&url, method, target, &answer, error) != KV_OK)
        return cli_failure("%s", error);
    json_t *value = json_loadb(answer.body.data ? answer.body.data : "", answer.body.len, 0, NULL);
    const char *code = json_string_value(json_object_get(value, "error"));
    int status = CLI_EXIT_OK;
    json_t *found = member ? json_object_get(value, member) : value;
    if (answer.status == 200 && found && json_typeof(found) == type)
        *json = json_incref(found);
    else if (!(answer.status == 404 && code && strcmp(code, "no_tunnel") == 0))
        status = report_refusal(text, answer.status, value);
    json_decref(value);
    buffer_free(&answer.body);
    return status;
}

/* Standard output is what the caller works with: if it could not be written, nothing was done for them. */
static int finish_output(int error)
{
    if (error == KV_OK && fflush(stdout) == 0 && !ferror(stdout))
        return CLI_EXIT_OK;
    return error ? cli_failure("%s", kv_strerror(error)) : cli_failure("standard output cannot be written");
}

static int print_json(const json_t *json)
{
    int error = json_dumpf(json, stdout, JSON_INDENT(2)) == 0 ? KV_OK : KV_EIO;
    putchar('\n');
    return finish_output(error);
}

/* ---- tunnels ------------------------------------------------------------------------------------------------------
 */

const struct cli_option admin_tunnels_options[] = {
    OPTION_ADMIN_URL,
    ADMIN_OPTION_JSON,
    {0},
};

#define AGE_LEN 32

/* The two largest units: "12s", "5m 3s", "2d 4h". */
static void format_age(json_int_t seconds, char out[AGE_LEN])
{
    static const struct {
        json_int_t seconds;
        char name;
    } units[] = {{86400, 'd'}, {3600, 'h'}, {60, 'm'}, {1, 's'}};
    size_t i = 0;
    while (i < 3 && seconds < units[i].seconds)
        i++;
    long long first = seconds / units[i].seconds, rest = seconds % units[i].seconds;
    if (i == 3)
        snprintf(out, AGE_LEN, "%llds", first);
    else
        snprintf(out, AGE_LEN, "%lld%c %lld%c", first, units[i].name, rest / units[i + 1].seconds, units[i + 1].name);
}

static const char *text_of(const json_t *row, const char *name)
{
    const char *text = json_string_value(json_object_get(row, name));
    return text ? text : "";
}

static int add_row(struct admin_table *table, const json_t *row)
{
    char age[AGE_LEN];
    format_age(json_integer_value(json_object_get(row, "age_seconds")), age);
    return admin_table_add(table, (const char *[]){text_of(row, "subdomain"), text_of(row, "user_email"),
                                                   text_of(row, "client_version"), text_of(row, "peer_addr"),
                                                   text_of(row, "connected_at"), age, text_of(row, "public_url")});
}

static int print_table(const json_t *tunnels)
{
    static const struct admin_column columns[] = {
        {"subdomain", ADMIN_TEXT},    {"user_email", ADMIN_TEXT},    {"client", ADMIN_TEXT},     {"peer", ADMIN_TEXT},
        {"connected_at", ADMIN_TEXT}, {"connected_for", ADMIN_TEXT}, {"public_url", ADMIN_TEXT}, {0},
    };
    struct admin_table table;
    int error = KV_OK;
    admin_table_init(&table, columns);
    for (size_t i = 0; i < json_array_size(tunnels) && error == KV_OK; i++)
        error = add_row(&table, json_array_get(tunnels, i));
    if (error == KV_OK && table.rows == 0)
        fprintf(stderr, "no tunnel is live\n");
    if (error == KV_OK)
        error = admin_table_print(&table, false);
    admin_table_free(&table);
    return finish_output(error);
}

int admin_tunnels(void *settings)
{
    const struct admin_settings *s = settings;
    json_t *tunnels;
    int status = ask(s, "GET", "/admin/tunnels", NULL, JSON_ARRAY, &tunnels);
    if (status != CLI_EXIT_OK)
        return status;
    status = s->json ? print_json(tunnels) : print_table(tunnels);
    json_decref(tunnels);
    return status;
}

/* ---- kick ---------------------------------------------------------------------------------------------------------
 */

const struct cli_option admin_kick_options[] = {
    {"subdomain", "SUBDOMAIN", NULL, "which tunnel, as admin tunnels shows it", .required = true, .set = set_subdomain},
    OPTION_ADMIN_URL,
    ADMIN_OPTION_JSON,
    {0},
};

int admin_kick(void *settings)
{
    const struct admin_settings *s = settings;
    static const struct admin_column columns[] = {{"kicked", ADMIN_TEXT}, {0}};
    char target[ADMIN_TEXT_LEN + 32];
    json_t *kicked;
    snprintf(target, sizeof(target), "/admin/tunnels/%s/kick", s->subdomain);
    int status = ask(s, "POST", target, "kicked", JSON_STRING, &kicked);
    if (status != CLI_EXIT_OK)
        return status;
    if (!kicked)
        return cli_failure("no live tunnel has the subdomain '%s'", s->subdomain);
    json_decref(kicked);
    if (s->json)
        return finish_output(admin_print_object(columns, (const char *[]){s->subdomain}));
    fprintf(stderr, "closed the tunnel %s; a client that is still running connects again by itself\n", s->subdomain);
    return CLI_EXIT_OK;
}
