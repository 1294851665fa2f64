/*
 * cli/cli.h - what the commands share: the table of them, the options that mean the same everywhere, a
 * context
 *
 * Results go to stdout, everything else to stderr. Exit status: 0 done, 1 the work failed (a file, the
 * data, memory), 2 the command line is wrong; either with one line that says what and where.
 */
#ifndef TSR_CLI_CLI_H
#define TSR_CLI_CLI_H

#include <jansson.h>

#include "options.h"
#include "tessera/context.h"

typedef struct cli_command {
    const char *name, *summary;
    int (*run)(int argc, char **argv); /* argv[0] is the name; returns the exit status */
} cli_command;

int command_attention(int argc, char **argv);
int command_bench(int argc, char **argv);
int command_bench_gemm(int argc, char **argv);      /* argv[0] is "gemm" */
int command_bench_attention(int argc, char **argv); /* argv[0] is "attention" */
int command_gemm(int argc, char **argv);
int command_generate(int argc, char **argv);
int command_info(int argc, char **argv);
int command_train(int argc, char **argv);

/* --backend, --threads and --json, the same for every command. */
typedef struct common_options {
    const char *backend;
    int64_t n_threads; /* 0 = as many as the process may use */
    bool json;
} common_options;

static inline option backend_option(common_options *common)
{
    return text_option("--backend", "NAME", &common->backend, "cpu (default) or reference");
}

static inline option threads_option(common_options *common)
{
    return int_option("--threads", "N", &common->n_threads, 1, 1024,
                      "threads to run (default: all that the process may use)");
}

static inline option json_option(common_options *common)
{
    return flag_option("--json", &common->json, "print the result as one JSON object");
}

/* OPTIONS_READ and *out, or the exit status after a message. */
int open_context(const char *command, const common_options *common, tsr_context **out);

/* Prints the library's last message on stderr, "tessera gemm: ...". Returns EXIT_FAILED. */
int work_failed(const char *command);

/* A file's name for a JSON report; one that is not UTF-8 has '?' for what is not ASCII. */
json_t *json_path(const char *path);

/* Seconds on a clock that only goes forward. */
double seconds_now(void);

#endif
