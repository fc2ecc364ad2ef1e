/*
 * From argv to a command that runs.
 *
 *     cli_main ─ find_command ─ parse_arguments ─ apply_environment ─ check_required ─ command->run
 *
 * Parsing stops at the first thing that cannot work, before the command has done anything. `--help` wins over
 * whatever else is wrong with the line: somebody who asks is not told off first.
 */
#include "cmd/cli_impl.h"

#include <assert.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/blake3.h"

#define OPTIONS_MAX 64 /* bits of the set of options seen */

/* Set once by cli_main, before any other thread exists: who needs them has no other way to know. */
static const char *program_name = "kavilo";
static char **program_arguments;

struct parse {
    const struct cli_command *command;
    void *settings;
    uint64_t seen; /* bit i: options[i] was given */
};

__attribute__((format(printf, 1, 0))) static void say(const char *format, va_list arguments)
{
    char sentence[2 * CLI_ERROR_LEN];
    vsnprintf(sentence, sizeof(sentence), format, arguments);
    /* Values are echoed as they came: control bytes must not reach the terminal. */
    for (char *p = sentence; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = '?';
    fprintf(stderr, "%s: %s\n", program_name, sentence);
}

int cli_usage_error(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    say(format, arguments);
    va_end(arguments);
    return CLI_EXIT_USAGE;
}

int cli_failure(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    say(format, arguments);
    va_end(arguments);
    return CLI_EXIT_FAILED;
}

/* Pages and versions go to standard output, where a full disk or a closed pipe must not look like success. */
static int finish_output(void)
{
    if (fflush(stdout) != 0 || ferror(stdout))
        return cli_failure("cannot write to standard output");
    return CLI_EXIT_OK;
}

char **cli_arguments(void)
{
    return program_arguments;
}

bool cli_in_group(const char *name, const char *group)
{
    size_t len = strlen(group);
    return strncmp(name, group, len) == 0 && name[len] == ' ';
}

static bool is_group(const struct cli_command *commands, const char *word)
{
    for (const struct cli_command *c = commands; c->name; c++)
        if (cli_in_group(c->name, word))
            return true;
    return false;
}

/* The command that the words name; *used is how many of them it took. Two-word names are looked for first. */
static const struct cli_command *find_command(const struct cli_command *commands, int count, char **words, int *used)
{
    for (const struct cli_command *c = commands; count >= 2 && c->name; c++) {
        if (cli_in_group(c->name, words[0]) && strcmp(c->name + strlen(words[0]) + 1, words[1]) == 0) {
            *used = 2;
            return c;
        }
    }
    for (const struct cli_command *c = commands; count >= 1 && c->name; c++) {
        if (strcmp(c->name, words[0]) == 0) {
            *used = 1;
            return c;
        }
    }
    return NULL;
}

static const struct cli_option *find_option(const struct cli_option *options, const char *name, size_t len)
{
    for (const struct cli_option *o = options; o && o->name; o++)
        if (strlen(o->name) == len && memcmp(o->name, name, len) == 0)
            return o;
    return NULL;
}

/* A value as it may be shown: the password of a URL ("http://user:password@host") is left out. */
static void show_value(const char *value, char *out, size_t size)
{
    const char *mark = strstr(value, "://"), *at = strrchr(value, '@');
    const char *user = mark ? mark + 3 : value;
    const char *colon = at && at > user ? memchr(user, ':', (size_t)(at - user)) : NULL;
    if (colon)
        snprintf(out, size, "%.*s:***%s", (int)(colon - value), value, at);
    else
        snprintf(out, size, "%s", value);
}

static int give(struct parse *parse, const struct cli_option *option, const char *source, const char *value)
{
    char reason[CLI_ERROR_LEN] = "cannot be used";
    if (option->set(parse->settings, value, reason) == 0)
        return CLI_EXIT_OK;
    if (option->secret)
        return cli_usage_error("%s (value not shown): %s", source, reason);
    char shown[CLI_ERROR_LEN];
    show_value(value, shown, sizeof(shown));
    return cli_usage_error("%s '%s': %s", source, shown, reason);
}

static int unknown_option(const struct parse *parse, const char *argument)
{
    const char *word = argument + strspn(argument, "-");
    char name[64];
    snprintf(name, sizeof(name), "%.*s", (int)strcspn(word, "="), word);
    const char *nearest = cli_nearest_option(parse->command->options, name);
    if (nearest)
        return cli_usage_error("unknown flag '%.*s'; did you mean --%s?", (int)strcspn(argument, "="), argument,
                               nearest);
    return cli_usage_error("unknown flag '%.*s'; '%s %s --help' lists the flags", (int)strcspn(argument, "="), argument,
                           program_name, parse->command->name);
}

static int parse_arguments(struct parse *parse, int count, char **arguments)
{
    const struct cli_option *options = parse->command->options;
    for (int i = 0; i < count; i++) {
        const char *argument = arguments[i];
        if (argument[0] != '-' || argument[1] == '\0')
            return cli_usage_error("unexpected argument '%s'; '%s %s --help' says what it takes", argument,
                                   program_name, parse->command->name);
        if (argument[1] != '-' || argument[2] == '\0')
            return unknown_option(parse, argument);

        const char *name = argument + 2;
        size_t len = strcspn(name, "=");
        const struct cli_option *option = find_option(options, name, len);
        if (!option)
            return unknown_option(parse, argument);
        uint64_t bit = UINT64_C(1) << (option - options);
        if ((parse->seen & bit) && !option->repeatable)
            return cli_usage_error("--%s is given twice", option->name);
        parse->seen |= bit;

        const char *value = name[len] == '=' ? name + len + 1 : NULL;
        if (!option->value_name) {
            if (value)
                return cli_usage_error("--%s is a switch and takes no value", option->name);
            value = "true";
        } else if (!value) {
            /* The next word is the value, unless it is plainly a flag whose predecessor's value was forgotten. */
            if (i + 1 == count || strncmp(arguments[i + 1], "--", 2) == 0)
                return cli_usage_error("--%s needs a value: --%s %s", option->name, option->name, option->value_name);
            value = arguments[++i];
        }

        char source[64];
        snprintf(source, sizeof(source), "--%s", option->name);
        int status = give(parse, option, source, value);
        if (status != CLI_EXIT_OK)
            return status;
    }
    return CLI_EXIT_OK;
}

/* A switch in the environment is a word; the switch itself has none. -1 for a word that is neither. */
static int switch_word(const char *value)
{
    static const char *const on[] = {"1", "true", "yes", "on"};
    static const char *const off[] = {"0", "false", "no", "off"};
    for (size_t i = 0; i < sizeof(on) / sizeof(on[0]); i++) {
        if (strcmp(value, on[i]) == 0)
            return 1;
        if (strcmp(value, off[i]) == 0)
            return 0;
    }
    return -1;
}

static int apply_environment(struct parse *parse)
{
    const struct cli_option *options = parse->command->options;
    for (const struct cli_option *o = options; o && o->name; o++) {
        if (!o->environment || (parse->seen & UINT64_C(1) << (o - options)))
            continue;
        const char *value = getenv(o->environment);
        if (!value || value[0] == '\0')
            continue;
        if (!o->value_name) {
            int word = switch_word(value);
            if (word < 0)
                return cli_usage_error("%s '%s': must be true or false", o->environment, value);
            if (word == 0)
                continue;
            value = "true";
        }
        parse->seen |= UINT64_C(1) << (o - options);
        int status = give(parse, o, o->environment, value);
        if (status != CLI_EXIT_OK)
            return status;
    }
    return CLI_EXIT_OK;
}

static int check_required(const struct parse *parse)
{
    const struct cli_option *options = parse->command->options;
    for (const struct cli_option *o = options; o && o->name; o++) {
        if (!o->required || (parse->seen & UINT64_C(1) << (o - options)))
            continue;
        if (o->environment)
            return cli_usage_error("%s needs --%s %s (or %s in the environment)", parse->command->name, o->name,
                                   o->value_name, o->environment);
        return cli_usage_error("%s needs --%s %s", parse->command->name, o->name, o->value_name);
    }
    return CLI_EXIT_OK;
}

static int run_command(const struct cli_command *command, int count, char **arguments)
{
    struct parse parse = {.command = command};
    for (const struct cli_option *o = command->options; o && o->name; o++)
        assert(o - command->options < OPTIONS_MAX);
    parse.settings = calloc(1, command->settings_size ? command->settings_size : 1);
    if (!parse.settings)
        return cli_failure("no memory");

    int status = parse_arguments(&parse, count, arguments);
    if (status == CLI_EXIT_OK)
        status = apply_environment(&parse);
    if (status == CLI_EXIT_OK)
        status = check_required(&parse);
    if (status == CLI_EXIT_OK)
        status = command->run(parse.settings);

    if (command->settings_size)
        secret_wipe(parse.settings, command->settings_size);
    free(parse.settings);
    return status;
}

static bool is_help(const char *argument)
{
    return strcmp(argument, "--help") == 0 || strcmp(argument, "-h") == 0;
}

static int unknown_command(const struct cli_command *commands, int count, char **words)
{
    char typed[128];
    bool group = is_group(commands, words[0]);
    if (group && count == 1)
        return cli_usage_error("'%s' needs a command behind it; '%s %s --help' lists them", words[0], program_name,
                               words[0]);
    if (words[0][0] == '-')
        return cli_usage_error("the command comes before its flags, but '%.*s' came first; '%s --help' lists the "
                               "commands",
                               (int)strcspn(words[0], "="), words[0], program_name);
    snprintf(typed, sizeof(typed), "%s%s%s", words[0], group ? " " : "", group ? words[1] : "");
    const char *nearest = cli_nearest_command(commands, typed);
    if (nearest)
        return cli_usage_error("unknown command '%s'; did you mean '%s'?", typed, nearest);
    return cli_usage_error("unknown command '%s'; '%s --help' lists the commands", typed, program_name);
}

int cli_main(const char *program, const char *summary, const struct cli_command *commands, int argc, char **argv)
{
    program_name = program;
    program_arguments = argv;
    int count = argc - 1;
    char **words = argv + 1;
    if (count <= 0) {
        cli_help_program(stderr, program, summary, commands, NULL);
        return CLI_EXIT_USAGE;
    }
    if (strcmp(words[0], "--version") == 0 || strcmp(words[0], "-V") == 0) {
        printf("%s %s\n", program, KV_VERSION);
        return finish_output();
    }
    bool asked = strcmp(words[0], "help") == 0;
    if (asked) {
        count--;
        words++;
    }
    if (count == 0 || is_help(words[0])) {
        cli_help_program(stdout, program, summary, commands, NULL);
        return finish_output();
    }

    int used = 0;
    const struct cli_command *command = find_command(commands, count, words, &used);
    if (!command) {
        if (is_group(commands, words[0]) && (asked ? count == 1 : count > 1 && is_help(words[1]))) {
            cli_help_program(stdout, program, summary, commands, words[0]);
            return finish_output();
        }
        return unknown_command(commands, count, words);
    }
    for (int i = used; i < count && !asked; i++)
        asked = is_help(words[i]);
    if (asked) {
        cli_help_command(stdout, program, command);
        return finish_output();
    }
    return run_command(command, count - used, words + used);
}
