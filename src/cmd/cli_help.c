/*
 * The pages of --help, made from the same tables that are parsed, and the guess at what a mistyped word was meant to
 * be. Pages are laid out for 80 columns: names on the left, text wrapped on the right.
 */
#include "cmd/cli_impl.h"

#include <string.h>

#define PAGE_COLUMNS 80
#define LEFT_MAX     30 /* a longer left column pushes its text to the next line instead of everybody's to the right */
#define WORD_MAX     64 /* longer words are nobody's typing mistake */

/* Prints words wrapped at the page's edge, `indent` columns from the left; the cursor stands at `column`. Newlines in
 * the text begin a new line. */
static void print_wrapped(FILE *to, const char *text, int column, int indent)
{
    while (*text) {
        int len = (int)strcspn(text, " \n");
        if (column > indent && column + 1 + len > PAGE_COLUMNS) {
            fputc('\n', to);
            column = 0;
        }
        if (column < indent) {
            fprintf(to, "%*s", indent - column, "");
            column = indent;
        } else if (column > indent) {
            fputc(' ', to);
            column++;
        }
        fprintf(to, "%.*s", len, text);
        column += len;
        text += len;
        if (*text == '\n') {
            fputc('\n', to);
            column = 0;
        }
        if (*text)
            text++;
    }
    fputc('\n', to);
}

static void print_row(FILE *to, const char *left, int width, const char *text)
{
    int column = fprintf(to, "  %s", left);
    if (column > width + 2) {
        fputc('\n', to);
        column = 0;
    }
    print_wrapped(to, text, column, width + 4);
}

static int widest(int a, size_t b)
{
    int wider = b > LEFT_MAX ? a : (int)b;
    return wider > a ? wider : a;
}

void cli_help_program(FILE *to, const char *program, const char *summary, const struct cli_command *commands,
                      const char *group)
{
    fprintf(to, "%s %s\n", program, KV_VERSION);
    print_wrapped(to, summary, 0, 0);
    fprintf(to, "\nUsage: %s %s%s[flags]\n\nCommands:\n", program, group ? group : "",
            group ? " <command> " : "<command> ");
    int width = 0;
    for (const struct cli_command *c = commands; c->name; c++)
        if (!group || cli_in_group(c->name, group))
            width = widest(width, strlen(c->name));
    for (const struct cli_command *c = commands; c->name; c++)
        if (!group || cli_in_group(c->name, group))
            print_row(to, c->name, width, c->summary);
    fprintf(to, "\n'%s <command> --help' explains a command and its flags.\n", program);
}

static void option_left(const struct cli_option *option, char *out, size_t size)
{
    snprintf(out, size, "--%s%s%s", option->name, option->value_name ? " " : "",
             option->value_name ? option->value_name : "");
}

void cli_help_command(FILE *to, const char *program, const struct cli_command *command)
{
    fprintf(to, "Usage: %s %s", program, command->name);
    for (const struct cli_option *o = command->options; o && o->name; o++)
        if (o->required)
            fprintf(to, " --%s %s", o->name, o->value_name);
    fprintf(to, " [flags]\n\n");
    print_wrapped(to, command->summary, 0, 0);
    if (command->details) {
        fputc('\n', to);
        print_wrapped(to, command->details, 0, 0);
    }

    char left[96];
    int width = (int)strlen("--help");
    for (const struct cli_option *o = command->options; o && o->name; o++) {
        option_left(o, left, sizeof(left));
        width = widest(width, strlen(left));
    }
    fprintf(to, "\nFlags:\n");
    for (const struct cli_option *o = command->options; o && o->name; o++) {
        char text[CLI_ERROR_LEN];
        snprintf(text, sizeof(text), "%s%s%s%s%s%s", o->help, o->required ? " (required)" : "",
                 o->repeatable ? " (may be given several times)" : "", o->environment ? " [environment: " : "",
                 o->environment ? o->environment : "", o->environment ? "]" : "");
        option_left(o, left, sizeof(left));
        print_row(to, left, width, text);
    }
    print_row(to, "--help", width, "print this page");
}

static unsigned least(unsigned a, unsigned b, unsigned c)
{
    unsigned ab = a < b ? a : b;
    return ab < c ? ab : c;
}

/* Edits (insert, delete, replace, swap of neighbours) that make b of a: the optimal string alignment distance. */
static unsigned distance(const char *a, const char *b)
{
    size_t a_len = strlen(a), b_len = strlen(b);
    if (a_len > WORD_MAX || b_len > WORD_MAX)
        return WORD_MAX;
    unsigned rows[3][WORD_MAX + 1]; /* the rows for i-2, i-1 and i characters of a, in turn */
    for (size_t j = 0; j <= b_len; j++)
        rows[0][j] = (unsigned)j;
    for (size_t i = 1; i <= a_len; i++) {
        unsigned *row = rows[i % 3];
        const unsigned *above = rows[(i + 2) % 3], *above2 = rows[(i + 1) % 3];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= b_len; j++) {
            row[j] = least(above[j] + 1, row[j - 1] + 1, above[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && above2[j - 2] + 1 < row[j])
                row[j] = above2[j - 2] + 1;
        }
    }
    return rows[a_len % 3][b_len];
}

/* Keeps the nearer of the best guess so far and `name`. A third of the letters may be wrong, or the rest untyped. */
static void consider(const char *word, const char *name, const char **best, unsigned *best_distance)
{
    size_t len = strlen(word);
    unsigned d = distance(word, name);
    if (len >= 3 && strncmp(name, word, len) == 0)
        d = 1;
    if (d <= 1 + strlen(name) / 3 && d < len && d < *best_distance) {
        *best = name;
        *best_distance = d;
    }
}

const char *cli_nearest_command(const struct cli_command *commands, const char *word)
{
    const char *best = NULL;
    unsigned best_distance = WORD_MAX;
    for (const struct cli_command *c = commands; c->name; c++) {
        consider(word, c->name, &best, &best_distance);
        /* "create-user" for "admin create-user" */
        const char *second = strchr(c->name, ' ');
        if (second && strcmp(second + 1, word) == 0)
            return c->name;
    }
    return best;
}

const char *cli_nearest_option(const struct cli_option *options, const char *word)
{
    const char *best = NULL;
    unsigned best_distance = WORD_MAX;
    for (const struct cli_option *o = options; o && o->name; o++)
        consider(word, o->name, &best, &best_distance);
    return best;
}
