/*
 * cli/options.h - what a command takes, written down once: read from the command line, printed by --help
 *
 * A command lists its options as a table; each entry names a flag, where its value goes and
 * what it may be. `--name value` and `--name=value` are the same; of a flag given twice the last
 * counts (but see texts_option); `--` ends the options. Every mistake is one line, "tessera gemm: --alpha:
 * 'x' is not a number", and exit status 2.
 */
#ifndef TSR_CLI_OPTIONS_H
#define TSR_CLI_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

typedef enum option_kind {
    OPTION_END,
    OPTION_FLAG,   /* bool *        */
    OPTION_TEXT,   /* const char ** */
    OPTION_CHOICE, /* int *         */
    OPTION_INT,    /* int64_t *     */
    OPTION_REAL,   /* double *      */
    OPTION_PAIR,   /* int64_t [2]   */
    OPTION_TEXTS,  /* text_list *   */
} option_kind;

/* What an option that may be given several times was given. */
enum { MAX_TEXTS = 16 };
typedef struct text_list {
    const char *items[MAX_TEXTS];
    int n;
} text_list;

/* One row of the table; made by the functions below. */
typedef struct option {
    const char *name;  /* "--alpha"; "-n, --tokens" has a short form; NULL: a heading */
    const char *value; /* what --help calls it: "FILE"; NULL for a flag               */
    const char *help;
    option_kind kind;
    void *out;        /* keeps what it holds, the default, where the flag is not given */
    bool *given;      /* set if the flag was given; may be NULL                       */
    double low, high; /* INT, PAIR, REAL: the values allowed, both ends included       */
    const char *const *choices;
    bool required; /* TEXT only */
} option;

static inline option heading(const char *title) { return (option){.kind = OPTION_FLAG, .help = title}; }

static inline option flag_option(const char *name, bool *out, const char *help)
{
    return (option){.name = name, .help = help, .kind = OPTION_FLAG, .out = out};
}

/* *out stays NULL where the option is not given. */
static inline option text_option(const char *name, const char *value, const char **out, const char *help)
{
    return (option){.name = name, .value = value, .help = help, .kind = OPTION_TEXT, .out = out};
}

static inline option required_option(const char *name, const char *value, const char **out, const char *help)
{
    option o = text_option(name, value, out, help);
    o.required = true;
    return o;
}

/* *out becomes the index in `choices`, which ends with NULL. */
static inline option choice_option(const char *name, const char *value, int *out, const char *const *choices,
                                   const char *help)
{
    return (option){
        .name = name, .value = value, .help = help, .kind = OPTION_CHOICE, .out = out, .choices = choices};
}

static inline option int_option(const char *name, const char *value, int64_t *out, double low, double high,
                                const char *help)
{
    return (option){
        .name = name, .value = value, .help = help, .kind = OPTION_INT, .out = out, .low = low, .high = high};
}

static inline option real_option(const char *name, const char *value, double *out, double low, double high,
                                 const char *help)
{
    return (option){.name = name,
                    .value = value,
                    .help = help,
                    .kind = OPTION_REAL,
                    .out = out,
                    .low = low,
                    .high = high};
}

/* Two whole numbers, "8,-1". */
static inline option pair_option(const char *name, const char *value, int64_t out[2], double low, double high,
                                 const char *help)
{
    return (option){.name = name,
                    .value = value,
                    .help = help,
                    .kind = OPTION_PAIR,
                    .out = out,
                    .low = low,
                    .high = high};
}

/* May be given several times; all count. */
static inline option texts_option(const char *name, const char *value, text_list *out, const char *help)
{
    return (option){.name = name, .value = value, .help = help, .kind = OPTION_TEXTS, .out = out};
}

/* The same, noting in *given whether it was given. */
static inline option noting(option o, bool *given)
{
    o.given = given;
    return o;
}

static inline option end_of_options(void) { return (option){.kind = OPTION_END}; }

typedef struct command_line {
    const char *command;     /* "gemm"                                             */
    const char *usage;       /* after "tessera gemm ": "--a FILE --b FILE ..."     */
    const char *description; /* a few lines                                        */
    const char *example;     /* one command that works                             */
    const option *options;   /* ends with end_of_options()                         */
    int max_arguments;       /* what may stand beside the options, and where it goes */
    int min_arguments;
    const char **arguments; /* [max_arguments], NULL where not given              */
} command_line;

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, OPTIONS_READ = -1 };

/* OPTIONS_READ to go on; else the exit status: EXIT_DONE after --help, EXIT_USAGE after its message.
 * argv[0] is the command's own name. */
int options_read(const command_line *line, int argc, char **argv);

/* One line on stderr, "tessera <command>: ...". Returns EXIT_USAGE. */
int usage_error(const char *command, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
