/* How admin commands print: aligned tables for people, JSON for programs, from the same rows. */
#include <ctype.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/tunneld_admin.h"

void admin_table_init(struct admin_table *table, const struct admin_column *columns)
{
    *table = (struct admin_table){.columns = columns};
    while (columns[table->width].name)
        table->width++;
}

int admin_table_add(struct admin_table *table, const char *const *cells)
{
    if (table->rows == table->room) {
        size_t room = table->room ? table->room * 2 : 64;
        char **grown = reallocarray(table->cells, room * table->width, sizeof(*grown));
        if (!grown)
            return KV_ENOMEM;
        table->cells = grown;
        table->room = room;
    }
    char **row = &table->cells[table->rows * table->width];
    for (size_t i = 0; i < table->width; i++) {
        row[i] = strdup(cells[i]);
        if (!row[i]) {
            while (i > 0)
                free(row[--i]);
            return KV_ENOMEM;
        }
    }
    table->rows++;
    return KV_OK;
}

void admin_table_free(struct admin_table *table)
{
    for (size_t i = 0; i < table->rows * table->width; i++)
        free(table->cells[i]);
    free(table->cells);
    table->cells = NULL;
    table->rows = table->room = 0;
}

/* ---- JSON ------------------------------------------------------------------------------------------------------ */

static json_t *cell_to_json(enum admin_type type, const char *cell)
{
    switch (type) {
    case ADMIN_NUMBER:
        return json_integer(strtoll(cell, NULL, 10));
    case ADMIN_BOOL:
        return json_boolean(cell[0] != '\0');
    case ADMIN_OPTIONAL:
        return cell[0] ? json_string(cell) : json_null();
    case ADMIN_TEXT:
        break;
    }
    return json_string(cell);
}

static json_t *row_to_json(const struct admin_column *columns, const char *const *cells)
{
    json_t *object = json_object();
    for (size_t i = 0; columns[i].name && object; i++) {
        if (json_object_set_new(object, columns[i].name, cell_to_json(columns[i].type, cells[i])) != 0) {
            json_decref(object);
            object = NULL;
        }
    }
    return object;
}

static int print_json(json_t *value)
{
    int error = value && json_dumpf(value, stdout, JSON_INDENT(2)) == 0 ? KV_OK : KV_ENOMEM;
    if (error == KV_OK)
        putchar('\n');
    json_decref(value);
    return error;
}

int admin_print_object(const struct admin_column *columns, const char *const *cells)
{
    return print_json(row_to_json(columns, cells));
}

/* ---- tables ---------------------------------------------------------------------------------------------------- */

/* What a terminal shows of a text: a column for each code point, '?' for bytes that would move its cursor. */
static size_t columns_of(const char *text)
{
    size_t n = 0;
    for (; *text; text++)
        n += (*text & 0xc0) != 0x80;
    return n;
}

static void print_cell(const char *text, size_t width, bool last, bool heading)
{
    for (const char *p = text; *p; p++) {
        unsigned char c = (unsigned char)*p;
        putchar(c < ' ' || c == 0x7f ? '?' : heading ? (c == '_' ? ' ' : toupper(c)) : c);
    }
    for (size_t n = columns_of(text); !last && n < width + 2; n++)
        putchar(' ');
    if (last)
        putchar('\n');
}

/* An absent value is a dash, so that every line has as many words as the heading has columns. */
static const char *shown(const struct admin_table *table, size_t row, size_t column)
{
    const char *cell = table->cells[row * table->width + column];
    if (table->columns[column].type == ADMIN_BOOL)
        return cell[0] ? "yes" : "no";
    return cell[0] ? cell : "-";
}

static void print_table(const struct admin_table *table)
{
    size_t width[ADMIN_COLUMNS_MAX];
    for (size_t c = 0; c < table->width; c++) {
        width[c] = columns_of(table->columns[c].name);
        for (size_t r = 0; r < table->rows; r++)
            if (columns_of(shown(table, r, c)) > width[c])
                width[c] = columns_of(shown(table, r, c));
    }
    for (size_t c = 0; c < table->width; c++)
        print_cell(table->columns[c].name, width[c], c + 1 == table->width, true);
    for (size_t r = 0; r < table->rows; r++)
        for (size_t c = 0; c < table->width; c++)
            print_cell(shown(table, r, c), width[c], c + 1 == table->width, false);
}

int admin_table_print(const struct admin_table *table, bool json)
{
    if (!json) {
        if (table->rows > 0)
            print_table(table);
        return KV_OK;
    }
    json_t *array = json_array();
    for (size_t r = 0; r < table->rows && array; r++)
        if (json_array_append_new(
                array, row_to_json(table->columns, (const char *const *)&table->cells[r * table->width])) != 0) {
            json_decref(array);
            array = NULL;
        }
    return print_json(array);
}
