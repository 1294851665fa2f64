/* cli/bench_attention.c - tessera bench attention: attention measured against this machine's peaks, the
 * unfused path and other libraries */
#include "bench.h"
#include "cli.h"

/* The options of one shape that need --lk and --d beside them. */
enum { PASS, DTYPE, KV_DTYPE, BATCH, HEADS, KV_HEADS, LQ, DV, PAGE, DROPOUT, N_OTHER };
static const char *const other_names[N_OTHER] = {"--pass",  "--dtype",    "--kv-dtype", "--batch",
                                                 "--heads", "--kv-heads", "--lq",       "--dv",
                                                 "--page",  "--dropout"};

typedef struct attention_flags {
    common_options common;
    bench_attention_options attention;
    bench_peer_options peer;
    int set, dtype, kv_dtype;
    bool has_set, has_lk, has_d, has_other[N_OTHER];
    text_list peers;
    double scale;
} attention_flags;

#define COMMAND "bench attention"

static int check_flags(attention_flags *f)
{
    bench_attention_options *a = &f->attention;
    const char *other = a->causal ? "--causal" : NULL;
    for (int i = 0; i < N_OTHER; i++)
        if (f->has_other[i]) other = other_names[i];
    const bool has_shape = f->has_lk || f->has_d || other != NULL;
    if (has_shape && f->has_set)
        return usage_error(COMMAND, "--set: does not go with the options of one shape");
    if (a->svg != NULL) {
        if (f->has_set || f->has_lk || f->has_other[LQ] || f->has_other[PAGE] || f->has_other[KV_DTYPE])
            return usage_error(COMMAND, "--svg: goes with the lengths that it chooses, not with --set, --lq, "
                                        "--lk, --kv-dtype or --page");
        if (f->has_other[PASS] && a->pass != 1 && a->pass != 2)
            return usage_error(COMMAND, "--svg: goes with --pass forward or backward");
        if (!f->has_d) a->d = 64;
        f->peer.no_peers = true; /* but for those that are named */
    } else if (has_shape && !(f->has_lk && f->has_d)) {
        return usage_error(COMMAND, "--lk, --d: both make a shape");
    }
    a->set = f->has_set ? bench_attention_sets[f->set] : NULL;
    a->dtype = bench_attention_dtype(f->dtype);
    a->kv_dtype = f->has_other[KV_DTYPE] ? bench_attention_dtype(f->kv_dtype) : a->dtype;
    f->peer.peers = f->peers.items;
    f->peer.n_peers = f->peers.n;
    return OPTIONS_READ;
}

static const char description[] =
    "Measures this machine's own peaks first (multiply-adds, exponentials, reading memory; one\n"
    "thread and all), then attention as shares of the peak that binds it. Beside it in every\n"
    "round: the unfused path (two batched products of our own around a softmax, backward\n"
    "five); the same through the products of OpenBLAS, BLIS and MKL where they are found, for\n"
    "plain f32; PyTorch's scaled_dot_product_attention where --peer names a Python. Each of those\n"
    "runs in a process of its own, stopped while another is timed, with as many threads. Every\n"
    "result is checked, but for others' dropout. Medians of 7 rounds or more.\n\n"
    "A row has three floors: the time of its products at the multiply-add peak, of its\n"
    "exponentials at theirs, of reading and writing each tensor once at the read bandwidth; where\n"
    "all tensors stay in cache, the last is no floor. share is the largest of them over the time\n"
    "measured; floor says which. Operations are 4 B Hq Lq Lk D forward, 2.5 times that backward;\n"
    "when causal, only the pairs of query and key that see each other count. Memory: the workspace\n"
    "that the call asks for, and the process's peak with operands and workspace, above what it had\n"
    "before them. Decoding takes turns over copies of K and V of four times the last-level cache.\n\n"
    "--json: op (peak, attention), pass (forward, backward, decode), dtype, b, hq, hkv, lq, lk,\n"
    "d, dv, causal, dropout, kv_dtype, page, kernel, workspace_nbytes, peak_rss_nbytes,\n"
    "unfused_workspace_nbytes, unfused_peak_rss_nbytes, threads, ms, ms_least, ms_most, rounds,\n"
    "gflops, gbytes_per_s, floor (f32, bf16, s8: multiplying, f32 also where the set has no other;\n"
    "exp; read), floor_peak, peak_moved (its ratio from before to after; over 1.03 share has a ?), share,\n"
    "share_f32 (of the products at the f32 peak, whatever multiplies them),\n"
    "floor_multiply_ms, floor_exp_ms, floor_read_ms (0: in cache), peers {name: ms},\n"
    "peers_least, peers_most, peers_call {name: what it called}.\n";

static int read_flags(int argc, char **argv, attention_flags *f)
{
    bench_attention_options *a = &f->attention;
    bool *other = f->has_other;
    f->scale = 1;
    a->batch = 1;
    a->heads = 8;
    const option options[] = {
        noting(choice_option("--set", "NAME", &f->set, bench_attention_sets,
                             "long, short, single, diffusion or decode (default: all of them)"),
               &f->has_set),
        text_option(
            "--svg", "FILE", &a->svg,
            "a picture of time and memory over L = 128, 256 ... 16384 instead (D 64 by default;\n"
            "                             no peers but those that --peer names); ends, and leaves the\n"
            "                             unfused path out, where a call would take longer than 3.5 s,\n"
            "                             or 3.5 times --seconds if that is less"),
        heading("one shape instead of a set"),
        noting(choice_option("--pass", "NAME", &a->pass, bench_attention_passes,
                             "both (forward and backward, a row each; default), forward, backward, decode"),
               &other[PASS]),
        noting(int_option("--lk", "L", &a->lk, 1, 1 << 24, "keys"), &f->has_lk),
        noting(int_option("--d", "D", &a->d, 1, 4096, "head size of Q and K"), &f->has_d),
        noting(int_option("--dv", "D", &a->dv, 1, 4096, "of V (default D)"), &other[DV]),
        noting(
            int_option("--lq", "L", &a->lq, 1, 1 << 24, "queries (default: as keys; decode 1, at most 16)"),
            &other[LQ]),
        noting(int_option("--batch", "B", &a->batch, 1, 1 << 16, "sequences (default 1)"), &other[BATCH]),
        noting(int_option("--heads", "H", &a->heads, 1, 1 << 16, "query heads (default 8)"), &other[HEADS]),
        noting(
            int_option("--kv-heads", "H", &a->kv_heads, 1, 1 << 16, "heads of K and V (default: as queries)"),
            &other[KV_HEADS]),
        noting(
            choice_option("--dtype", "TYPE", &f->dtype, bench_attention_dtypes, "f32 (default), bf16 or f16"),
            &other[DTYPE]),
        flag_option("--causal", &a->causal, "query i sees keys up to i + Lk - Lq"),
        noting(
            real_option("--dropout", "P", &a->dropout, 0, 0.99, "share of the probabilities that is dropped"),
            &other[DROPOUT]),
        noting(choice_option("--kv-dtype", "TYPE", &f->kv_dtype, bench_attention_kv_dtypes,
                             "decode: K and V in s8, a scale for each row"),
               &other[KV_DTYPE]),
        noting(int_option("--page", "N", &a->page, 1, 1 << 16,
                          "decode: K and V in pages of N rows, out of order"),
               &other[PAGE]),
        heading("other ways to compute it"),
        texts_option("--peer", "NAME=PATH", &f->peers,
                     "torch=PYTHON: that Python's PyTorch; or a library whose NAME begins with openblas,\n"
                     "                             blis or mkl; may be repeated"),
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
        .command = COMMAND,
        .usage = "[--set NAME | --svg FILE | --lk L --d D] [options]",
        .description = description,
        .example = "tessera bench attention --lk 4096 --d 128 --causal --dtype bf16 --peer torch=python3",
        .options = options,
    };
    const int status = options_read(&line, argc, argv);
    return status == OPTIONS_READ ? check_flags(f) : status;
}

int command_bench_attention(int argc, char **argv)
{
    attention_flags f = {0};
    const int flags = read_flags(argc, argv, &f);
    if (flags != OPTIONS_READ) return flags;
    const bench_options options = {.backend = f.common.backend,
                                   .n_threads = (int32_t)f.common.n_threads,
                                   .json = f.common.json,
                                   .scale = f.scale};
    bench *b;
    if (bench_open(&options, &b) != TSR_OK) return work_failed(COMMAND);
    tsr_status status = bench_check_attention(&f.attention);
    if (status == TSR_OK) status = bench_open_peers(b, BENCH_ATTENTION, &f.peer);
    if (status == TSR_OK) {
        bench_print_machine(b);
        status = bench_attention(b, &f.attention);
    } else if (status == TSR_ERR_ARGUMENT) {
        bench_close(b);
        return usage_error(COMMAND, "%s", tsr_last_error());
    }
    bench_close(b);
    return status == TSR_OK ? EXIT_DONE : work_failed(COMMAND);
}
