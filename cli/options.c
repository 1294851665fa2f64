/* cli/options.c - reading a command line by its table, and --help from the same table */
#include "options.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/printable.h"

int usage_error(const char *command, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "tessera %s: ", command);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    return EXIT_USAGE;
}

/* The long form of "-n, --tokens". */
static const char *long_name(const option *o)
{
    const char *comma = strstr(o->name, ", ");
    return comma == NULL ? o->name : comma + 2;
}

/* True if the first n characters of `text` are the long or the short form. */
static bool is_named(const option *o, const char *text, size_t n)
{
    if (o->name == NULL) return false;
    const char *whole = long_name(o);
    if (strlen(whole) == n && strncmp(whole, text, n) == 0) return true;
    return whole != o->name && n == 2 && strncmp(o->name, text, 2) == 0;
}

/* A bound as a whole number; 2^63, which a double can hold, stands for one below it. */
static int64_t whole(double bound) { return bound >= 0x1p63 ? INT64_MAX : (int64_t)bound; }

static int read_int(const command_line *line, const option *o, const char *text, int64_t *out, char **end)
{
    errno = 0;
    const long long value = strtoll(text, end, 10);
    if (*end == text || (o->kind != OPTION_PAIR && **end != '\0'))
        return usage_error(line->command, "%s: '%s' is not a whole number", long_name(o),
                           tsr_printable(text).text);
    const int64_t low = whole(o->low), high = whole(o->high);
    if (errno == ERANGE || value < low || value > high)
        return usage_error(line->command, "%s: %s is out of range, must be %" PRId64 " to %" PRId64,
                           long_name(o), tsr_printable(text).text, low, high);
    *out = value;
    return OPTIONS_READ;
}

static int read_pair(const command_line *line, const option *o, const char *text)
{
    int64_t pair[2] = {0, 0};
    char *end;
    int status = read_int(line, o, text, &pair[0], &end);
    if (status != OPTIONS_READ) return status;
    if (*end == ',') {
        status = read_int(line, o, end + 1, &pair[1], &end);
        if (status != OPTIONS_READ) return status;
        if (*end == '\0') {
            memcpy(o->out, pair, sizeof pair);
            return OPTIONS_READ;
        }
    }
    return usage_error(line->command, "%s: '%s' is not two whole numbers with a comma between", long_name(o),
                       tsr_printable(text).text);
}

static int read_real(const command_line *line, const option *o, const char *text)
{
    char *end;
    const double value = strtod(text, &end);
    if (end == text || *end != '\0')
        return usage_error(line->command, "%s: '%s' is not a number", long_name(o), tsr_printable(text).text);
    if (!(value >= o->low && value <= o->high))
        return usage_error(line->command, "%s: %s is out of range, must be %g to %g", long_name(o),
                           tsr_printable(text).text, o->low, o->high);
    *(double *)o->out = value;
    return OPTIONS_READ;
}

static int read_choice(const command_line *line, const option *o, const char *text)
{
    char names[256] = "";
    for (int i = 0; o->choices[i] != NULL; i++) {
        if (strcmp(o->choices[i], text) == 0) {
            *(int *)o->out = i;
            return OPTIONS_READ;
        }
        const size_t used = strlen(names);
        const char *separator = i == 0 ? "" : o->choices[i + 1] == NULL ? " or " : ", ";
        snprintf(names + used, sizeof names - used, "%s%s", separator, o->choices[i]);
    }
    return usage_error(line->command, "%s: '%s' is unknown, must be %s", long_name(o),
                       tsr_printable(text).text, names);
}

static int add_text(const command_line *line, const option *o, const char *text)
{
    text_list *list = o->out;
    if (list->n == MAX_TEXTS)
        return usage_error(line->command, "%s: given more than %d times", long_name(o), MAX_TEXTS);
    list->items[list->n++] = text;
    return OPTIONS_READ;
}

static int read_value(const command_line *line, const option *o, const char *text)
{
    char *end;
    switch (o->kind) {
    case OPTION_TEXT: *(const char **)o->out = text; return OPTIONS_READ;
    case OPTION_CHOICE: return read_choice(line, o, text);
    case OPTION_INT: return read_int(line, o, text, o->out, &end);
    case OPTION_REAL: return read_real(line, o, text);
    case OPTION_PAIR: return read_pair(line, o, text);
    case OPTION_TEXTS: return add_text(line, o, text);
    case OPTION_FLAG:
    case OPTION_END: break;
    }
    return usage_error(line->command, "%s: takes no value", long_name(o));
}

/* Reads the option at argv[*i], and its value where that is the next one. */
static int read_option(const command_line *line, int argc, char **argv, int *i)
{
    const char *text = argv[*i], *equals = strncmp(text, "--", 2) == 0 ? strchr(text, '=') : NULL;
    const size_t n = equals == NULL ? strlen(text) : (size_t)(equals - text);
    const option *o = line->options;
    while (o->kind != OPTION_END && !is_named(o, text, n)) o++;
    if (o->kind == OPTION_END)
        return usage_error(line->command, "%s: unknown option (tessera %s --help lists them)",
                           tsr_printable_n(text, n).text, line->command);
    if (o->given != NULL) *o->given = true;
    if (o->kind == OPTION_FLAG && equals == NULL) {
        *(bool *)o->out = true;
        return OPTIONS_READ;
    }
    if (equals != NULL) return read_value(line, o, equals + 1);
    if (*i + 1 == argc) return usage_error(line->command, "%s: needs a value (%s)", long_name(o), o->value);
    *i += 1;
    return read_value(line, o, argv[*i]);
}

static void print_help(const command_line *line)
{
    printf("usage: tessera %s %s\n\n%s\n", line->command, line->usage, line->description);
    for (const option *o = line->options; o->kind != OPTION_END; o++) {
        char left[64];
        if (o->name == NULL) {
            printf("\n%s:\n", o->help);
            continue;
        }
        snprintf(left, sizeof left, "%s%s%s", o->name, o->value == NULL ? "" : " ",
                 o->value == NULL ? "" : o->value);
        printf("  %-26s %s%s\n", left, strlen(left) > 26 ? "\n                             " : "", o->help);
    }
    printf("  %-26s %s\n\nexample:\n  %s\n", "-h, --help", "this text", line->example);
}

int options_read(const command_line *line, int argc, char **argv)
{
    int n_arguments = 0;
    bool only_arguments = false;
    for (int i = 1; i < argc; i++) {
        const char *text = argv[i];
        if (!only_arguments && strcmp(text, "--") == 0) {
            only_arguments = true;
        } else if (!only_arguments && (strcmp(text, "--help") == 0 || strcmp(text, "-h") == 0)) {
            print_help(line);
            return EXIT_DONE;
        } else if (!only_arguments && text[0] == '-' && text[1] != '\0') {
            const int status = read_option(line, argc, argv, &i);
            if (status != OPTIONS_READ) return status;
        } else if (n_arguments < line->max_arguments) {
            line->arguments[n_arguments++] = text;
        } else {
            return usage_error(line->command, "'%s': unexpected argument", tsr_printable(text).text);
        }
    }
    if (n_arguments < line->min_arguments)
        return usage_error(line->command, "an argument is missing: tessera %s %s", line->command,
                           line->usage);
    for (const option *o = line->options; o->kind != OPTION_END; o++)
        if (o->required && *(const char **)o->out == NULL)
            return usage_error(line->command, "%s: is required", long_name(o));
    return OPTIONS_READ;
}
