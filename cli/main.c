/* cli/main.c - the program: finds the command, lets it run, makes sure that its output arrived */
#define _XOPEN_SOURCE 700
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "cli.h"
#include "format/printable.h"

static const cli_command commands[] = {
    {"attention", "attention forward and backward on NumPy files", command_attention},
    {"bench", "this machine's peaks, and operators measured against them", command_bench},
    {"gemm", "matrix products on NumPy files", command_gemm},
    {"generate", "let a model go on with a text", command_generate},
    {"info", "what this machine's backends and kernels are, or what is in a model", command_info},
    {"train", "let a model learn from text", command_train},
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

static void print_help(FILE *to)
{
    fprintf(to, "usage: tessera <command> [options] [files]\n\n"
                "The operators that transformers are made of, and the program built from them.\n\n");
    for (int i = 0; i < N_COMMANDS; i++) fprintf(to, "  %-12s %s\n", commands[i].name, commands[i].summary);
    fprintf(to, "\n  tessera <command> --help   a command's options, with an example\n"
                "  tessera --version          the version\n");
}

static int run(int argc, char **argv)
{
    if (argc < 2) {
        print_help(stderr);
        return EXIT_USAGE;
    }
    const char *name = argv[1];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
        print_help(stdout);
        return EXIT_DONE;
    }
    if (strcmp(name, "--version") == 0) {
        puts("tessera " TSR_VERSION);
        return EXIT_DONE;
    }
    for (int i = 0; i < N_COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0) return commands[i].run(argc - 1, argv + 1);
    fprintf(stderr, "tessera: '%s' is no %s (tessera --help lists them)\n", tsr_printable(name).text,
            name[0] == '-' ? "option" : "command");
    return EXIT_USAGE;
}

/*
 * A full disk, or a limit on the size of files, is an error that a message tells of, not a signal to die by.
 * SIGPIPE stays as it is: who reads our output and has enough of it ends us, as with any filter.
 */
int main(int argc, char **argv)
{
    signal(SIGXFSZ, SIG_IGN);
    const int status = run(argc, argv);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        perror("tessera: writing to stdout");
        return status == EXIT_DONE ? EXIT_FAILED : status;
    }
    return status;
}
