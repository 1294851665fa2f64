/*
 * cli/train.c - tessera train: a Llama learns from text
 *
 * Progress goes to stderr: one line that is rewritten on a terminal, one now and then elsewhere. Ctrl-C (or
 * the end of the terminal) finishes the step, stores a checkpoint and ends; a second one ends at once.
 */
#define _POSIX_C_SOURCE 200809L
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "format/file.h"
#include "loss_plot.h"
#include "train/trainer.h"

static volatile sig_atomic_t stop_requested;

static void request_stop(int signal_number)
{
    (void)signal_number;
    stop_requested = 1;
}

/* A log that nobody reads any more is no reason to lose a run, so the end of its pipe goes unheard. */
static void handle_signals(void)
{
    static const int stops[] = {SIGINT, SIGTERM, SIGHUP};
    const struct sigaction once = {.sa_handler = request_stop, .sa_flags = SA_RESTART | SA_RESETHAND};
    for (size_t i = 0; i < sizeof stops / sizeof *stops; i++) {
        struct sigaction old;
        const bool nohup = stops[i] == SIGHUP && sigaction(SIGHUP, NULL, &old) == 0 &&
                           old.sa_handler == SIG_IGN;
        if (!nohup) sigaction(stops[i], &once, NULL);
    }
    signal(SIGPIPE, SIG_IGN);
}

enum { MAX_SETTINGS = 32 };

typedef struct train_flags {
    common_options common;
    tsr_train_options train;
    const char *plot;
    int dtype;
    /* What makes the run what it is: a checkpoint holds the same. */
    struct {
        option option;
        bool given;
    } setting[MAX_SETTINGS];
    int n_settings;
} train_flags;

static option setting(train_flags *f, option o)
{
    o.given = &f->setting[f->n_settings].given;
    f->setting[f->n_settings++].option = o;
    return o;
}

static const char *const dtype_names[] = {"f32", "bf16", NULL};

static int read_flags(int argc, char **argv, train_flags *f)
{
    tsr_train_options *t = &f->train;
    const option options[] = {
        required_option("--data", "PATH", &t->data, "text to learn from: a file, or a folder of files"),
        required_option("--out", "DIR", &t->out, "where the model and its checkpoint go"),
        setting(f,
                real_option("--minutes", "M", &t->minutes, 0.01, 1e6, "train about this long (default 2)")),
        setting(f, int_option("--steps", "N", &t->steps, 1, TSR_MAX_STEPS, "train this many steps")),
        flag_option("--resume", &t->resume, "go on from the checkpoint in --out, with its settings"),
        flag_option("--overwrite", &t->overwrite, "replace a model that is in --out already"),
        text_option("--plot", "FILE", &f->plot, "draw the loss curve as an SVG"),
        heading("The model"),
        setting(f,
                int_option("--vocab", "N", &t->vocab, 257, 1e6, "tokens in the vocabulary (default 1024)")),
        setting(f, int_option("--dim", "N", &t->dim, 2, 65536, "width of the residual stream (default 192)")),
        setting(f, int_option("--layers", "N", &t->layers, 1, 1000, "blocks (default 6)")),
        setting(f, int_option("--heads", "N", &t->heads, 1, 1024, "query heads (default 6)")),
        setting(f, int_option("--kv-heads", "N", &t->kv_heads, 1, 1024, "key-value heads (default 3)")),
        setting(f, int_option("--ffn", "N", &t->ffn, 1, 1e6, "width of the feed-forward (default 512)")),
        setting(f, int_option("--context", "N", &t->context, 2, 1e6, "tokens seen at once (default 256)")),
        setting(f, choice_option("--dtype", "TYPE", &f->dtype, dtype_names,
                                 "f32 (default), or bf16 with f32 master weights")),
        heading("Learning"),
        setting(f, int_option("--batch", "N", &t->batch, 1, 65536, "windows a pass (default 8)")),
        setting(f, int_option("--accumulate", "N", &t->accumulate, 1, 65536, "passes a step (default 1)")),
        setting(f, real_option("--lr", "X", &t->lr, 0, 10, "peak learning rate (default 0.003)")),
        setting(f, int_option("--warmup", "N", &t->warmup, 0, 1e9, "steps until the peak (default 60)")),
        setting(f, real_option("--weight-decay", "X", &t->weight_decay, 0, 10, "of matrices (default 0.1)")),
        setting(f, real_option("--clip", "X", &t->clip, 0, 1e9,
                               "largest norm of the gradient, 0 = any (default 1)")),
        setting(f, real_option("--dropout", "P", &t->dropout, 0, 0.99,
                               "of what is added to the residual stream (default 0)")),
        setting(f, int_option("--evaluations", "N", &t->n_evaluations, 1, 1e6,
                              "looks at the held-out text (default 12)")),
        setting(f, int_option("--seed", "N", (int64_t *)&t->seed, 0, 9e15,
                              "of weights, windows and dropout (default 0)")),
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
    if (t->minutes > 0 && t->steps > 0) return usage_error("train", "--steps: cannot go with --minutes");
    if (f->train.resume && f->train.overwrite)
        return usage_error("train", "--overwrite: cannot go with --resume");
    t->dtype = f->dtype == 0 ? TSR_F32 : TSR_BF16;
    if (t->minutes == 0 && t->steps == 0) t->minutes = 2;
    if (tsr_train_check_options(t) != TSR_OK) return usage_error("train", "%s", tsr_last_error());
    return OPTIONS_READ;
}

/* A resumed run has the checkpoint's settings; what was given again must say the same. */
static int check_settings(const train_flags *f, const tsr_train_options *stored)
{
    for (int i = 0; i < f->n_settings; i++) {
        const option *o = &f->setting[i].option;
        const char *name = o->name;
        if (!f->setting[i].given) continue;
        if (o->kind == OPTION_CHOICE) {
            if (stored->dtype != f->train.dtype)
                return usage_error("train", "%s: the run in %s has %s", name, f->train.out,
                                   tsr_dtype_name(stored->dtype));
            continue;
        }
        /* The same field of the stored options. */
        const void *field = (const char *)stored + ((const char *)o->out - (const char *)&f->train);
        const double given = o->kind == OPTION_REAL ? *(const double *)o->out
                                                    : (double)*(const int64_t *)o->out;
        const double value = o->kind == OPTION_REAL ? *(const double *)field
                                                    : (double)*(const int64_t *)field;
        if (given != value)
            return usage_error("train", "%s is %.10g, the run in %s has %.10g", name, given, f->train.out,
                               value);
    }
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
    char steps[32] = "", held[32] = "", left[32] = "";
    if (s->n_steps > 0) snprintf(steps, sizeof steps, "/%lld", (long long)s->n_steps);
    if (!isnan(p->held_bits)) snprintf(held, sizeof held, "  held out %.3f bits/byte", p->held_bits);
    if (!isnan(p->seconds_left)) snprintf(left, sizeof left, "  %.0f s left", p->seconds_left);
    fprintf(stderr, "%sstep %lld%s  loss %.3f%s  %.0f tokens/s%s%s", r->terminal ? "\r\033[K" : "",
            (long long)s->step, steps, p->loss, held, p->tokens_per_s, left, r->terminal ? "" : "\n");
    fflush(stderr);
}

static void print_start(const tsr_trainer *t)
{
    fprintf(stderr, "%zu tokens to learn from, %zu held out (%zu bytes); %lld parameters, %s, %d threads\n",
            t->data.train.n, t->data.held.n, t->data.held_nbytes, (long long)tsr_weights_numel(&t->weights),
            tsr_dtype_name(t->options.dtype), (int)tsr_context_n_threads(t->ctx));
}

/* The steps since `first` took so many seconds. */
static void print_result(const tsr_trainer *t, bool finished, bool json, int64_t first, double seconds)
{
    const tsr_train_state *s = &t->state;
    const double tokens_per_s = (double)(s->step - first) * (double)tsr_trainer_step_tokens(t) / seconds;
    const size_t peak = tsr_tape_memory_use(t->tape).peak_nbytes;
    if (json) {
        printf("{\"finished\":%s,\"steps\":%lld,", finished ? "true" : "false", (long long)s->step);
        if (s->n_steps > 0) printf("\"n_steps\":%lld,", (long long)s->n_steps);
        if (isfinite(s->best_bits))
            printf("\"held_out_bits_per_byte\":%.4f,\"best_step\":%lld,", s->best_bits,
                   (long long)s->best_step);
        printf("\"parameters\":%lld,\"seconds\":%.1f,\"tokens_per_s\":%.0f,\"tape_peak_bytes\":%zu}\n",
               (long long)tsr_weights_numel(&t->weights), seconds, tokens_per_s, peak);
        return;
    }
    printf("%s after step %lld", finished ? "done" : "stopped", (long long)s->step);
    if (s->n_steps > 0) printf(" of %lld", (long long)s->n_steps);
    printf(", %.0f s", seconds);
    if (isfinite(s->best_bits))
        printf("; held-out bits per byte %.3f (step %lld)", s->best_bits, (long long)s->best_step);
    printf("; %.0f tokens/s overall; activations' peak %.1f MiB\n", tokens_per_s, (double)peak / 1048576);
    if (!finished)
        printf("go on with: tessera train --resume --data '%s' --out '%s'\n", t->options.data,
               t->options.out);
}

/* Known before the work rather than after it. */
static tsr_status check_writable(const char *path)
{
    tsr_writer *w;
    const tsr_status status = tsr_writer_open(path, &w);
    if (status == TSR_OK) tsr_writer_discard(w);
    return status;
}

static int run(const train_flags *f, tsr_trainer *trainer)
{
    const double start = seconds_now();
    const int64_t first = trainer->state.step;
    handle_signals();
    print_start(trainer);
    reporter r = {.terminal = isatty(STDERR_FILENO)};
    const tsr_train_hooks hooks = {.progress = print_progress, .user = &r, .stop = &stop_requested};
    bool finished = false;
    tsr_status status = tsr_trainer_run(trainer, &hooks, &finished);
    if (r.terminal) fputc('\n', stderr);
    if (status == TSR_OK) print_result(trainer, finished, f->common.json, first, seconds_now() - start);
    if (status == TSR_OK && f->plot != NULL) status = plot_loss(f->plot, trainer);
    return status == TSR_OK ? EXIT_DONE : work_failed("train");
}

static int train(tsr_context *ctx, const train_flags *f)
{
    tsr_trainer trainer;
    if (f->plot != NULL && check_writable(f->plot) != TSR_OK) return work_failed("train");
    if (tsr_trainer_open(ctx, &f->train, &trainer) != TSR_OK) return work_failed("train");
    int status = f->train.resume ? check_settings(f, &trainer.options) : OPTIONS_READ;
    if (status == OPTIONS_READ) status = run(f, &trainer);
    tsr_trainer_close(&trainer);
    return status;
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
