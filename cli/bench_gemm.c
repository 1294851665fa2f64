/* cli/bench_gemm.c - tessera bench gemm: products measured against this machine's peaks and other libraries
 */
#include "bench.h"
#include "cli.h"

typedef struct gemm_flags {
    common_options common;
    bench_gemm_options gemm;
    bench_peer_options peer;
    int set, dtype;
    bool has_set, has_shape[3], has_other[3]; /* m n k; dtype batch heads */
    text_list peers;
    double scale;
} gemm_flags;

/* Flags that go together, as the benchmark takes them. */
static int use_flags(gemm_flags *f)
{
    const int n_shape = f->has_shape[0] + f->has_shape[1] + f->has_shape[2];
    const bool has_other = f->has_other[0] || f->has_other[1] || f->has_other[2];
    if (n_shape != 0 && f->has_set) return usage_error("bench gemm", "--set: does not go with --m, --n, --k");
    if (n_shape != 3 && (n_shape != 0 || has_other))
        return usage_error("bench gemm", "--m, --n, --k: all three make a shape");
    f->gemm.set = f->has_set ? bench_gemm_sets[f->set] : NULL;
    f->gemm.dtype = bench_gemm_dtype(f->dtype);
    f->peer.peers = f->peers.items;
    f->peer.n_peers = f->peers.n;
    return OPTIONS_READ;
}

static int read_flags(int argc, char **argv, gemm_flags *f)
{
    bench_gemm_options *g = &f->gemm;
    f->scale = 1;
    g->batch = g->heads = 1;
    const option options[] = {
        noting(choice_option("--set", "NAME", &f->set, bench_gemm_sets,
                             "llm, square, batched or small (default: all of them)"),
               &f->has_set),
        choice_option("--cache", "STATE", &g->cache, bench_caches,
                      "operands warm, cold or both (default both; llm's m <= 16 cold only)"),
        heading("one shape instead of a set"),
        noting(int_option("--m", "M", &g->m, 1, 1 << 20, "rows of A and C"), &f->has_shape[0]),
        noting(int_option("--n", "N", &g->n, 1, 1 << 20, "columns of C; B is given as [N, K]"),
               &f->has_shape[1]),
        noting(int_option("--k", "K", &g->k, 1, 1 << 20, "the dimension that is summed over"),
               &f->has_shape[2]),
        noting(choice_option("--dtype", "TYPE", &f->dtype, bench_gemm_dtypes,
                             "of A and B: f32 (default), bf16, f16 or s8"),
               &f->has_other[0]),
        noting(int_option("--batch", "B", &g->batch, 1, 1 << 16, "batch * heads products (default 1),"),
               &f->has_other[1]),
        noting(int_option("--heads", "H", &g->heads, 1, 1 << 16, "measured in each form of a batch"),
               &f->has_other[2]),
        heading("other libraries"),
        texts_option("--peer", "NAME=PATH", &f->peers,
                     "one more: NAME begins with openblas, blis, mkl or onednn; may be repeated"),
        flag_option("--no-peers", &f->peer.no_peers, "none but those that --peer names"),
        heading("common"),
        real_option("--seconds", "S", &f->scale, 0.001, 1000,
                    "time for each row and peer (default 1; below 0.01 nothing is cold)"),
        backend_option(&f->common),
        threads_option(&f->common),
        flag_option("--json", &f->common.json, "one JSON object a line instead of tables"),
        end_of_options(),
    };
    const command_line line = {
        .command = "bench gemm",
        .usage = "[--set NAME | --m M --n N --k K] [options]",
        .description =
            "Measures this machine's own peaks first (multiply-adds of each instruction set and type,\n"
            "reading memory; one thread and all), then matrix products as shares of the peak that binds\n"
            "them, beside other libraries: OpenBLAS, BLIS, MKL and oneDNN, where they are found or named\n"
            "(tools/get_peers.sh DIR fetches new ones). Each runs in a process of its own, stopped while\n"
            "another is timed, with as many threads. Medians of 7 rounds or more, least and most.\n"
            "A share is of the peak as measured just before and after its row. If that moved by over 3 %,\n"
            "the row is measured again, up to three times (not with --seconds below 0.5); a share with a ?\n"
            "is one where it moved to the last. Every result is checked.\n\n"
            "Rows: `matmul` has B as the caller has it, `packed` a weight that was packed once; int8 and\n"
            "int4/GROUP weights are packed as such, activations are f32. A batch is measured as a\n"
            "`loop` of matmuls, as `bmm`, `strided`, by `pointers`, and by pointers to `scattered`\n"
            "matrices. `pack` is the packing. Warm: the same operands every call; cold: out of cache.\n\n"
            "--json: op (peak, gemm, pack), dtype, m, n, k, batch, heads, form, b (plain, packed),\n"
            "b_transposed, cache, kernel, threads, ms, ms_least, ms_most, rounds, gflops, gbytes_per_s,\n"
            "floor (f32, bf16, s8: multiplying, f32 also where the set has no other; read: memory),\n"
            "floor_peak, peak_moved, share, peers {name: ms}, peers_least, peers_most,\n"
            "peers_call {name: what it called}.\n",
        .example = "tessera bench gemm --m 512 --n 4096 --k 4096 --dtype bf16",
        .options = options,
    };
    const int status = options_read(&line, argc, argv);
    if (status != OPTIONS_READ) return status;
    return use_flags(f);
}

int command_bench_gemm(int argc, char **argv)
{
    gemm_flags f = {0};
    const int flags = read_flags(argc, argv, &f);
    if (flags != OPTIONS_READ) return flags;
    const bench_options options = {.backend = f.common.backend,
                                   .n_threads = (int32_t)f.common.n_threads,
                                   .json = f.common.json,
                                   .scale = f.scale};
    bench *b;
    if (bench_open(&options, &b) != TSR_OK) return work_failed("bench gemm");
    tsr_status status = bench_open_peers(b, BENCH_PRODUCTS, &f.peer);
    if (status == TSR_ERR_ARGUMENT) {
        bench_close(b);
        return usage_error("bench gemm", "%s", tsr_last_error());
    }
    if (status == TSR_OK) bench_print_machine(b);
    if (status == TSR_OK) status = bench_gemm(b, &f.gemm);
    bench_close(b);
    return status == TSR_OK ? EXIT_DONE : work_failed("bench gemm");
}
