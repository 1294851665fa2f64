/* cli/bench.c - tessera bench: this machine's peaks, and operators measured against them */
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "bench.h"
#include "cli.h"

typedef struct bench_flags {
    common_options common;
    const char *what, *data; /* data NULL: not given */
    double scale;
} bench_flags;

static const char usual_data[] = "/usr/share/common-licenses";

static int read_flags(int argc, char **argv, bench_flags *f)
{
    f->what = "all";
    f->scale = 1;
    const option options[] = {
        text_option("--data", "PATH", &f->data, "train: text (default /usr/share/common-licenses)"),
        real_option("--seconds", "S", &f->scale, 0.001, 1000,
                    "time for each row (default 1; below 0.01 nothing is cold)"),
        backend_option(&f->common),
        threads_option(&f->common),
        json_option(&f->common),
        end_of_options(),
    };
    const command_line line = {
        .command = "bench",
        .usage = "[machine | gemm | attention | softmax | train] [options]",
        .description =
            "Measures this machine's own limits (multiply-adds and exponentials of each instruction set,\n"
            "reading memory), then rows as shares of the limit that binds them; medians of 7 rounds or\n"
            "more. A share is of the limit as measured just before and after its row. If that moved by over\n"
            "3 %, the row is measured again, up to three times (not with --seconds below 0.5); a share with\n"
            "a ? is one where it moved to the last (JSON: peak_moved, a ratio). TESSERA_ISA chooses the\n"
            "instruction set, tessera info tells which there are. With --json, one object a line.\n\n"
            "gemm and attention have options of their own (tessera bench gemm --help), and peers: without\n"
            "an argument they take part as well. softmax times three ways to softmax(x), in three passes\n"
            "over a row, in two and in one, over lengths of the row; the one pass sums the values v that\n"
            "softmax(x) weighs, as flash attention does, and writes nothing else. Its rows' JSON: op, form\n"
            "(three passes, two passes, one pass), rows, n, kernel, threads, ms, gbytes_per_s, floor, share.",
        .example = "tessera bench softmax --seconds 0.2",
        .options = options,
        .max_arguments = 1,
        .arguments = &f->what,
    };
    const int status = options_read(&line, argc, argv);
    if (status != OPTIONS_READ) return status;
    static const char *const own[] = {"gemm", "attention"};
    for (int i = 0; i < 2; i++)
        if (strcmp(f->what, own[i]) == 0)
            return usage_error("bench", "%s: must come first, its options after it", own[i]);
    static const char *const whats[] = {"all", "machine", "softmax", "train"};
    for (size_t i = 0; i < sizeof whats / sizeof *whats; i++)
        if (strcmp(f->what, whats[i]) == 0) return OPTIONS_READ;
    return usage_error("bench", "'%s' is no benchmark, must be machine, gemm, attention, softmax or train",
                       f->what);
}

/* Whether there is text to train on, known before anything is measured. Of all benchmarks train is left out
 * where the usual text, which nobody named, is not there. */
static tsr_status check_train(const bench_flags *f, const char *data, bool *trains)
{
    const bool all = strcmp(f->what, "all") == 0;
    *trains = all || strcmp(f->what, "train") == 0;
    const tsr_status status = *trains ? bench_check_train(data) : TSR_OK;
    if (status == TSR_OK) return TSR_OK;
    if (!all || f->data != NULL) return tsr_fail_within(status, "--data");
    fprintf(stderr, "left out: train: %s (--data names another text)\n", tsr_last_error());
    *trains = false;
    return TSR_OK;
}

static tsr_status run(bench *b, const bench_flags *f)
{
    const bool all = strcmp(f->what, "all") == 0;
    const char *data = f->data != NULL ? f->data : usual_data;
    bool trains;
    TSR_TRY(check_train(f, data, &trains));
    const bench_peer_options peers = {.n_peers = 0};
    const bench_gemm_options products = {.batch = 1, .heads = 1};
    const bench_attention_options attention = {.lk = 0};
    tsr_status status = TSR_OK;
    bench_print_machine(b);
    if (all) status = bench_open_peers(b, BENCH_PRODUCTS, &peers);
    if (all && status == TSR_OK) status = bench_gemm(b, &products);
    if (all && status == TSR_OK) status = bench_open_peers(b, BENCH_ATTENTION, &peers);
    if (all && status == TSR_OK) status = bench_attention(b, &attention);
    if (status == TSR_OK && (all || strcmp(f->what, "softmax") == 0)) status = bench_softmax(b);
    if (status == TSR_OK && trains) status = bench_train(b, data);
    return status;
}

int command_bench(int argc, char **argv)
{
    bench_flags f = {0};
    if (argc > 1 && strcmp(argv[1], "gemm") == 0) return command_bench_gemm(argc - 1, argv + 1);
    if (argc > 1 && strcmp(argv[1], "attention") == 0) return command_bench_attention(argc - 1, argv + 1);
    if (argc == 5 && strcmp(argv[1], "serve-peer") == 0) return bench_serve_peer(argv[2], argv[3], argv[4]);
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
    return result == TSR_OK ? EXIT_DONE : work_failed("bench");
}
