/*
 * cli/train.c - tessera train: a Llama learns from text
 *
 * Progress goes to stderr: one line that is rewritten on a terminal, one now and then elsewhere. Ctrl-C
 * finishes the step, stores a checkpoint and ends; a second one ends at once.
 */
#define _POSIX_C_SOURCE 200809L
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "loss_plot.h"
#include "train/trainer.h"

static volatile sig_atomic_t stop_requested;

static void request_stop(int signal_number)
{
    stop_requested = 1;
    signal(signal_number, SIG_DFL);
}

typedef struct train_flags {
    common_options common;
    tsr_train_options train;
    const char *plot;
    int dtype;
} train_flags;

static const char *const dtype_names[] = {"f32", "bf16", NULL};

static int read_flags(int argc, char **argv, train_flags *f)
{
    int64_t seed = 0;
    bool minutes_given = false, steps_given = false;
    tsr_train_options *t = &f->train;
    const option options[] = {
        required_option("--data", "PATH", &t->data, "text to learn from: a file, or a folder of files"),
        required_option("--out", "DIR", &t->out, "where the model and its checkpoint go"),
        noting(real_option("--minutes", "M", &t->minutes, 0.01, 1e6, "train about this long (default 2)"),
               &minutes_given),
        noting(int_option("--steps", "N", &t->steps, 1, 1e12, "train this many steps"), &steps_given),
        flag_option("--resume", &t->resume, "go on from the checkpoint in --out, with its settings"),
        flag_option("--overwrite", &t->overwrite, "a model that is in --out already may go"),
        text_option("--plot", "FILE", &f->plot, "draw the loss curve as an SVG"),
        heading("The model"),
        int_option("--vocab", "N", &t->vocab, 257, 1e6, "tokens in the vocabulary (default 1024)"),
        int_option("--dim", "N", &t->dim, 2, 65536, "width of the residual stream (default 192)"),
        int_option("--layers", "N", &t->layers, 1, 1000, "blocks (default 6)"),
        int_option("--heads", "N", &t->heads, 1, 1024, "query heads (default 6)"),
        int_option("--kv-heads", "N", &t->kv_heads, 1, 1024, "key-value heads (default 3)"),
        int_option("--ffn", "N", &t->ffn, 1, 1e6, "width of the feed-forward (default 512)"),
        int_option("--context", "N", &t->context, 2, 1e6, "tokens that are seen at once (default 256)"),
        choice_option("--dtype", "TYPE", &f->dtype, dtype_names,
                      "f32 (default), or bf16 with f32 master weights"),
        heading("Learning"),
        int_option("--batch", "N", &t->batch, 1, 65536, "windows a pass (default 8)"),
        int_option("--accumulate", "N", &t->accumulate, 1, 65536, "passes a step (default 1)"),
        real_option("--lr", "X", &t->lr, 0, 10, "peak learning rate (default 0.002)"),
        int_option("--warmup", "N", &t->warmup, 0, 1e9, "steps until the peak (default 30)"),
        real_option("--weight-decay", "X", &t->weight_decay, 0, 10, "of matrices (default 0.1)"),
        real_option("--clip", "X", &t->clip, 0, 1e9, "largest norm of the gradient, 0 = any (default 1)"),
        real_option("--dropout", "P", &t->dropout, 0, 0.99,
                    "of what is added to the residual stream (default 0)"),
        int_option("--evaluations", "N", &t->n_evaluations, 1, 1e6,
                   "looks at the held-out text (default 12)"),
        int_option("--seed", "N", &seed, 0, 9e15, "of weights, windows and dropout (default 0)"),
        backend_option(&f->common),
        threads_option(&f->common),
        json_option(&f->common),
        end_of_options(),
    };
    const command_line line = {
        .command = "train",
        .usage = "--data PATH --out DIR [options]",
        .description =
            "Trains a Llama on text, with a byte-level BPE vocabulary made from that text. The last 5 %\n"
            "of each file is held out and measured; the best model becomes DIR, a Hugging Face\n"
            "directory. Of a folder its files are read, not its links, hidden files and subfolders.",
        .example = "tessera train --data /usr/share/common-licenses --out licences --minutes 2",
        .options = options,
    };
    const int status = options_read(&line, argc, argv);
    if (status != OPTIONS_READ) return status;
    if (minutes_given && steps_given) return usage_error("train", "--steps: goes with --minutes not given");
    if (f->train.resume && f->train.overwrite)
        return usage_error("train", "--overwrite: cannot go with --resume");
    if (!minutes_given && !steps_given) t->minutes = 2;
    t->seed = (uint64_t)seed;
    t->dtype = f->dtype == 0 ? TSR_F32 : TSR_BF16;
    return OPTIONS_READ;
}

typedef struct reporter {
    bool terminal;
    double last_line; /* when one was written */
} reporter;

static void print_progress(void *user, const tsr_train_progress *p)
{
    reporter *r = user;
    const double now = seconds_now(), pause = r->terminal ? 0.2 : 10;
    const tsr_train_state *s = &p->trainer->state;
    if (!p->evaluated && now - r->last_line < pause && s->step != 1) return;
    r->last_line = now;
    char steps[32] = "?", held[32] = "", left[32] = "";
    if (s->n_steps > 0) snprintf(steps, sizeof steps, "%lld", (long long)s->n_steps);
    if (!isnan(p->held_bits)) snprintf(held, sizeof held, "  held out %.3f bits/byte", p->held_bits);
    if (!isnan(p->seconds_left)) snprintf(left, sizeof left, "  %.0f s left", p->seconds_left);
    fprintf(stderr, "%sstep %lld/%s  loss %.3f%s  %.0f tokens/s%s%s", r->terminal ? "\r\033[K" : "",
            (long long)s->step, steps, p->loss, held, p->tokens_per_s, left, r->terminal ? "" : "\n");
    fflush(stderr);
}

static void print_start(const tsr_trainer *t)
{
    fprintf(stderr, "%zu tokens to learn from, %zu held out (%zu bytes); %lld parameters, %s, %d threads\n",
            t->data.train.n, t->data.held.n, t->data.held_nbytes, (long long)tsr_weights_numel(&t->weights),
            tsr_dtype_name(t->options.dtype), (int)tsr_context_n_threads(t->ctx));
}

static void print_result(const tsr_trainer *t, bool finished, bool json, double seconds)
{
    const tsr_train_state *s = &t->state;
    const double tokens_per_s = (double)(s->step * tsr_trainer_step_tokens(t)) / seconds;
    const size_t peak = tsr_tape_memory_use(t->tape).peak_nbytes;
    if (json) {
        printf("{\"finished\":%s,\"steps\":%lld,\"n_steps\":%lld,", finished ? "true" : "false",
               (long long)s->step, (long long)s->n_steps);
        if (isfinite(s->best_bits))
            printf("\"held_out_bits_per_byte\":%.4f,\"best_step\":%lld,", s->best_bits,
                   (long long)s->best_step);
        printf("\"parameters\":%lld,\"seconds\":%.1f,\"tape_peak_bytes\":%zu}\n",
               (long long)tsr_weights_numel(&t->weights), seconds, peak);
        return;
    }
    printf("%s after step %lld of %lld, %.0f s", finished ? "done" : "stopped", (long long)s->step,
           (long long)s->n_steps, seconds);
    if (isfinite(s->best_bits))
        printf("; held-out bits per byte %.3f (step %lld)", s->best_bits, (long long)s->best_step);
    printf("; %.0f tokens/s overall; activations' peak %.1f MiB\n", tokens_per_s, (double)peak / 1048576);
    if (!finished)
        printf("go on with: tessera train --resume --data %s --out %s\n", t->options.data, t->options.out);
}

static int train(tsr_context *ctx, const train_flags *f)
{
    tsr_trainer t;
    const double start = seconds_now();
    if (tsr_trainer_open(ctx, &f->train, &t) != TSR_OK) return work_failed("train");
    print_start(&t);
    reporter r = {.terminal = isatty(STDERR_FILENO)};
    const tsr_train_hooks hooks = {.progress = print_progress, .user = &r, .stop = &stop_requested};
    bool finished = false;
    signal(SIGINT, request_stop);
    signal(SIGTERM, request_stop);
    tsr_status status = tsr_trainer_run(&t, &hooks, &finished);
    if (r.terminal) fputc('\n', stderr);
    if (status == TSR_OK && f->plot != NULL) status = plot_loss(f->plot, t.history, t.n_history);
    if (status == TSR_OK) print_result(&t, finished, f->common.json, seconds_now() - start);
    const int exit_status = status == TSR_OK ? EXIT_DONE : work_failed("train");
    tsr_trainer_close(&t);
    return exit_status;
}

int command_train(int argc, char **argv)
{
    train_flags f = {.train = tsr_train_defaults()};
    int status = read_flags(argc, argv, &f);
    if (status != OPTIONS_READ) return status;
    tsr_context *ctx;
    status = open_context("train", &f.common, &ctx);
    if (status != OPTIONS_READ) return status;
    status = train(ctx, &f);
    tsr_context_destroy(ctx);
    return status;
}
