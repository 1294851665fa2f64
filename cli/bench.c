/* cli/bench.c - tessera bench: this machine's peaks, and operators measured against them */
#include <stdio.h>
#include <string.h>

#include "bench.h"
#include "cli.h"

typedef struct bench_flags {
    common_options common;
    const char *what, *set, *data;
    double scale;
} bench_flags;

static int read_flags(int argc, char **argv, bench_flags *f)
{
    f->what = "all";
    f->scale = 1;
    f->data = "/usr/share/common-licenses";
    const option options[] = {
        text_option("--set", "NAME", &f->set,
                    "attention: long, short or decode (default: all); gemm: see tessera bench gemm --help"),
        text_option("--data", "PATH", &f->data, "train: text (default /usr/share/common-licenses)"),
        real_option("--seconds", "S", &f->scale, 0.001, 1000, "time for each row (default 1)"),
        backend_option(&f->common),
        threads_option(&f->common),
        json_option(&f->common),
        end_of_options(),
    };
    const command_line line = {
        .command = "bench",
        .usage = "[machine | gemm | attention | train] [options]",
        .description =
            "Measures this machine's own limits (multiply-adds of each instruction set, reading memory),\n"
            "then rows as shares of the limit that binds them; medians of 7 rounds or more. A row\n"
            "during which the machine's peak moved by over 3 % is measured again. With --json, one\n"
            "object a line.\n\n"
            "tessera bench gemm has options of its own (tessera bench gemm --help), and peers: without an\n"
            "argument they take part as well.",
        .example = "tessera bench attention --set long",
        .options = options,
        .max_arguments = 1,
        .arguments = &f->what,
    };
    const int status = options_read(&line, argc, argv);
    if (status != OPTIONS_READ) return status;
    if (f->set != NULL && strcmp(f->what, "attention") != 0)
        return usage_error("bench", strcmp(f->what, "gemm") == 0 ? "--set: must come after gemm"
                                                                 : "--set: goes with gemm or attention");
    static const char *const whats[] = {"all", "machine", "gemm", "attention", "train"};
    for (size_t i = 0; i < sizeof whats / sizeof *whats; i++)
        if (strcmp(f->what, whats[i]) == 0) return OPTIONS_READ;
    return usage_error("bench", "'%s' is no benchmark, must be machine, gemm, attention or train", f->what);
}

static tsr_status run(bench *b, const bench_flags *f)
{
    const bool all = strcmp(f->what, "all") == 0, gemm = all || strcmp(f->what, "gemm") == 0;
    const bench_gemm_options products = {.batch = 1, .heads = 1};
    tsr_status status = gemm ? bench_open_peers(b, &products) : TSR_OK;
    if (status != TSR_OK) return status;
    bench_print_machine(b);
    if (gemm) status = bench_gemm(b, &products);
    if (status == TSR_OK && (all || strcmp(f->what, "attention") == 0)) status = bench_attention(b, f->set);
    if (status == TSR_OK && (all || strcmp(f->what, "train") == 0)) status = bench_train(b, f->data);
    return status;
}

int command_bench(int argc, char **argv)
{
    bench_flags f = {0};
    if (argc > 1 && strcmp(argv[1], "gemm") == 0) return command_bench_gemm(argc - 1, argv + 1);
    if (argc == 4 && strcmp(argv[1], "serve-peer") == 0) return bench_serve_peer(argv[2], argv[3]);
    const int status = read_flags(argc, argv, &f);
    if (status != OPTIONS_READ) return status;
    const bench_options options = {.backend = f.common.backend,
                                   .n_threads = (int32_t)f.common.n_threads,
                                   .json = f.common.json,
                                   .scale = f.scale};
    bench *b;
    if (bench_open(&options, &b) != TSR_OK) return work_failed("bench");
    const tsr_status result = run(b, &f);
    bench_close(b);
    if (result == TSR_ERR_ARGUMENT) return usage_error("bench", "%s", tsr_last_error());
    return result == TSR_OK ? EXIT_DONE : work_failed("bench");
}
