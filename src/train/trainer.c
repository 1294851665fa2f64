/* train/trainer.c - one run: opening it, a step, an evaluation */
#include "train/trainer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "tessera/optimizer.h"
#include "train/checkpoint.h"
#include "train/train_files.h"

enum { BATCH_RANK = 2 };

/* Of the random draws; weights have the streams from 0 on, one each. */
static const uint32_t data_stream = UINT32_MAX;

tsr_train_options tsr_train_defaults(void)
{
    return (tsr_train_options){.vocab = 1024,
                               .dim = 192,
                               .layers = 6,
                               .heads = 6,
                               .kv_heads = 3,
                               .ffn = 512,
                               .context = 256,
                               .batch = 8,
                               .accumulate = 1,
                               .dtype = TSR_F32,
                               .lr = 3e-3,
                               .weight_decay = 0.1,
                               .clip = 1,
                               .warmup = 60,
                               .n_evaluations = 12};
}

int64_t tsr_trainer_step_tokens(const tsr_trainer *t)
{
    return t->options.batch * t->options.accumulate * t->options.context;
}

/* FNV-1a over all tokens of both parts. */
static uint64_t hash_of(const tsr_dataset *d)
{
    uint64_t h = 14695981039346656037u;
    for (size_t i = 0; i < d->train.n; i++) h = (h ^ (uint32_t)d->train.id[i]) * 1099511628211u;
    for (size_t i = 0; i < d->held.n; i++) h = (h ^ (uint32_t)d->held.id[i]) * 1099511628211u;
    return h;
}

static tsr_llama_config config_of(const tsr_trainer *t)
{
    const tsr_train_options *o = &t->options;
    tsr_llama_config c = {
        .vocab_size = tsr_tokenizer_vocab_size(t->tokenizer),
        .hidden_size = o->dim,
        .intermediate_size = o->ffn,
        .num_hidden_layers = o->layers,
        .num_attention_heads = o->heads,
        .num_key_value_heads = o->kv_heads,
        .head_dim = o->dim / o->heads,
        .max_position_embeddings = o->context,
        .rms_norm_eps = 1e-5,
        .rope_theta = 10000,
        .tie_word_embeddings = true,
        .dtype = o->dtype,
        .bos_token_id = -1,
        .n_eos = 1,
        .eos_token_id = {tsr_tokenizer_eos(t->tokenizer)},
    };
    return c;
}

static tsr_status check_sizes(const tsr_train_options *o)
{
    const struct {
        const char *name;
        int64_t value, least, most;
    } sizes[] = {
        {"vocab", o->vocab, 257, TSR_MAX_IDS}, /* the bytes and the end of text */
        {"dim", o->dim, 2, 1 << 16},
        {"layers", o->layers, 1, 1000},
        {"heads", o->heads, 1, 1 << 10},
        {"kv-heads", o->kv_heads, 1, 1 << 10},
        {"ffn", o->ffn, 1, 1 << 20},
        {"context", o->context, 1, 1 << 20},
        {"batch", o->batch, 1, 1 << 16},
        {"accumulate", o->accumulate, 1, 1 << 16},
        {"steps", o->steps, 0, TSR_MAX_STEPS},
        {"warmup", o->warmup, 0, TSR_MAX_STEPS},
        {"evaluations", o->n_evaluations, 1, 1000000},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (sizes[i].value < sizes[i].least || sizes[i].value > sizes[i].most)
            return tsr_fail(TSR_ERR_ARGUMENT, "%s is %lld, must be %lld to %lld", sizes[i].name,
                            (long long)sizes[i].value, (long long)sizes[i].least, (long long)sizes[i].most);
    return TSR_OK;
}

static tsr_status check_reals(const tsr_train_options *o)
{
    const struct {
        const char *name;
        double value, most;
    } reals[] = {{"minutes", o->minutes, 1e6},
                 {"lr", o->lr, 10},
                 {"weight-decay", o->weight_decay, 10},
                 {"clip", o->clip, 1e9},
                 {"dropout", o->dropout, 0.99}};
    for (size_t i = 0; i < sizeof reals / sizeof *reals; i++)
        if (!(reals[i].value >= 0 && reals[i].value <= reals[i].most))
            return tsr_fail(TSR_ERR_ARGUMENT, "%s is %g, must be 0 to %g", reals[i].name, reals[i].value,
                            reals[i].most);
    return TSR_OK;
}

tsr_status tsr_train_check_options(const tsr_train_options *o)
{
    TSR_TRY(check_sizes(o));
    TSR_TRY(check_reals(o));
    if (o->dim % o->heads != 0 || o->dim / o->heads % 2 != 0)
        return tsr_fail(TSR_ERR_ARGUMENT, "dim is %lld, must be an even multiple of heads, %lld",
                        (long long)o->dim, (long long)o->heads);
    if (o->heads % o->kv_heads != 0)
        return tsr_fail(TSR_ERR_ARGUMENT, "heads is %lld, must be a multiple of kv-heads, %lld",
                        (long long)o->heads, (long long)o->kv_heads);
    if (o->dtype != TSR_F32 && o->dtype != TSR_BF16)
        return tsr_fail(TSR_ERR_DTYPE, "dtype is %s, must be f32 or bf16", tsr_dtype_name(o->dtype));
    if (o->steps == 0 && o->minutes == 0)
        return tsr_fail(TSR_ERR_ARGUMENT, "steps and minutes are both 0, one must say how long");
    return TSR_OK;
}

static tsr_status allocate_rows(tsr_trainer *t)
{
    const int64_t row[1] = {t->weights.row_n};
    tsr_tensor *rows[] = {&t->m, &t->v, &t->master};
    if (t->options.dtype == TSR_F32) t->master = t->weights.values;
    for (int i = 0; i < (t->options.dtype == TSR_F32 ? 2 : 3); i++) {
        TSR_TRY(tsr_tensor_allocate(t->ctx, TSR_F32, 1, row, rows[i]));
        TSR_TRY(tsr_fill(t->ctx, 0, rows[i]));
    }
    const int64_t batch[BATCH_RANK] = {t->options.batch, t->options.context}, one[1] = {1};
    TSR_TRY(tsr_tensor_allocate(t->ctx, TSR_I32, BATCH_RANK, batch, &t->ids));
    TSR_TRY(tsr_tensor_allocate(t->ctx, TSR_I32, BATCH_RANK, batch, &t->targets));
    TSR_TRY(tsr_tensor_allocate(t->ctx, TSR_F32, 1, one, &t->grad_square));
    const size_t n = (size_t)(t->options.batch * t->options.context);
    t->host_ids = malloc(n * sizeof *t->host_ids);
    t->host_targets = malloc(n * sizeof *t->host_targets);
    if (t->host_ids == NULL || t->host_targets == NULL)
        return tsr_fail(TSR_ERR_MEMORY, "train: out of memory for a batch");
    return tsr_tape_create(t->ctx, &t->tape);
}

static tsr_status open_data(tsr_trainer *t)
{
    tsr_corpus corpus;
    TSR_TRY(tsr_corpus_load(t->options.data, &corpus));
    tsr_status status = t->options.resume ? tsr_tokenizer_load(t->options.out, &t->tokenizer)
                                          : tsr_train_tokenizer(&corpus, t->options.vocab, &t->tokenizer);
    if (status == TSR_OK) status = tsr_dataset_create(&corpus, t->tokenizer, t->options.context, &t->data);
    tsr_corpus_free(&corpus);
    return status;
}

/* The first weights, or the checkpoint's; a bf16 run keeps them in f32 beside the rounded ones. */
static tsr_status set_weights(tsr_trainer *t)
{
    if (t->options.resume) {
        TSR_TRY(tsr_checkpoint_read_rows(t->options.out, t));
    } else {
        tsr_weights f32;
        TSR_TRY(tsr_weights_create(t->ctx, &t->weights.config, TSR_F32, false, &f32));
        tsr_status status = tsr_weights_init(&f32, t->options.seed);
        if (status == TSR_OK) status = tsr_copy(t->ctx, &f32.values, &t->master);
        tsr_weights_free(&f32);
        TSR_TRY(status);
    }
    return t->options.dtype == TSR_F32 ? TSR_OK : tsr_copy(t->ctx, &t->master, &t->weights.values);
}

static tsr_status open_run(tsr_trainer *t)
{
    if (t->options.resume) TSR_TRY(tsr_checkpoint_read_state(t->options.out, t));
    TSR_TRY(tsr_train_check_options(&t->options));
    TSR_TRY(open_data(t));
    const uint64_t hash = hash_of(&t->data);
    if (t->options.resume && hash != t->state.data_hash)
        return tsr_fail(TSR_ERR_FORMAT, "%s: not the text that the run in %s learned from", t->options.data,
                        t->options.out);
    t->state.data_hash = hash;
    const tsr_llama_config config = config_of(t);
    if (t->options.resume) TSR_TRY(tsr_checkpoint_check_rows(t->options.out, &config));
    TSR_TRY(tsr_weights_create(t->ctx, &config, t->options.dtype, true, &t->weights));
    TSR_TRY(allocate_rows(t));
    TSR_TRY(set_weights(t));
    return t->options.resume ? TSR_OK : tsr_train_prepare_directory(t);
}

tsr_status tsr_trainer_open(tsr_context *ctx, const tsr_train_options *options, tsr_trainer *out)
{
    tsr_trainer t = {.ctx = ctx, .options = *options, .state = {.best_bits = INFINITY}};
    if (!options->resume) TSR_TRY(tsr_train_check_directory(options));
    t.state.n_steps = options->steps > 0 ? options->steps : 0;
    const tsr_status status = open_run(&t);
    if (status != TSR_OK) {
        tsr_trainer_close(&t);
        return status;
    }
    *out = t;
    return TSR_OK;
}

void tsr_trainer_close(tsr_trainer *t)
{
    if (t->ctx != NULL) tsr_synchronise(t->ctx); /* a queueing device may still have work on them */
    tsr_tape_destroy(t->tape);
    if (t->options.dtype != TSR_F32) tsr_free(t->ctx, t->master.data);
    void *const device[] = {t->m.data, t->v.data, t->ids.data, t->targets.data, t->grad_square.data};
    for (size_t i = 0; i < sizeof device / sizeof *device; i++) tsr_free(t->ctx, device[i]);
    tsr_weights_free(&t->weights);
    tsr_dataset_free(&t->data);
    tsr_tokenizer_free(t->tokenizer);
    free(t->host_ids);
    free(t->host_targets);
    free(t->history);
    *t = (tsr_trainer){0};
}

static tsr_status upload_batch(tsr_trainer *t)
{
    const size_t nbytes = (size_t)tsr_tensor_numel(&t->ids) * sizeof(int32_t);
    TSR_TRY(tsr_upload(t->ctx, t->ids.data, t->host_ids, nbytes));
    return tsr_upload(t->ctx, t->targets.data, t->host_targets, nbytes);
}

static tsr_status read_number(tsr_trainer *t, const tsr_tensor *x, double *out)
{
    float value;
    TSR_TRY(tsr_download(t->ctx, &value, x->data, sizeof value));
    *out = (double)value;
    return TSR_OK;
}

/* One pass: gradients of the mean loss of a batch, divided by the number of passes, are added up. */
static tsr_status run_pass(tsr_trainer *t, int64_t pass, double *loss)
{
    const tsr_train_options *o = &t->options;
    tsr_random random = {.seed = o->seed, .n = t->state.n_draws, .stream = data_stream};
    for (int64_t i = 0; i < o->batch; i++)
        tsr_dataset_train_window(&t->data, &random, t->host_ids + i * o->context,
                                 t->host_targets + i * o->context);
    t->state.n_draws = random.n;
    TSR_TRY(upload_batch(t));
    const uint64_t n_passes = (uint64_t)t->state.step * (uint64_t)o->accumulate + (uint64_t)pass;
    const tsr_dropout dropout = {
        .p = (float)o->dropout, .seed = o->seed, .offset = (uint32_t)(n_passes * 2 * (uint64_t)o->layers)};
    tsr_var loss_var;
    tsr_tensor loss_value;
    TSR_TRY(tsr_llama_loss(&t->weights, t->tape, &t->ids, &t->targets, TSR_IGNORE, &dropout, &loss_var));
    TSR_TRY(tsr_tape_value(t->tape, loss_var, &loss_value));
    TSR_TRY(read_number(t, &loss_value, loss));
    TSR_TRY(tsr_tape_backward(t->tape, loss_var, 1.0 / (double)o->accumulate));
    return tsr_tape_reset(t->tape);
}

static tsr_tensor part_of_row(tsr_tensor row, int64_t first, int64_t end)
{
    return tsr_tensor_slice(&row, 0, first, end - first);
}

/* Weight decay for the matrices only: the row's first part. */
static tsr_status update(tsr_trainer *t, double grad_scale)
{
    const tsr_weights *w = &t->weights;
    const int64_t edges[3] = {0, w->n_decayed, w->row_n};
    for (int part = 0; part < 2; part++) {
        const tsr_adamw_options adamw = {.lr = (float)tsr_schedule_lr(&t->schedule, t->state.step),
                                         .beta1 = 0.9f,
                                         .beta2 = 0.95f,
                                         .eps = 1e-8f,
                                         .weight_decay = part == 0 ? (float)t->options.weight_decay : 0,
                                         .grad_scale = (float)grad_scale,
                                         .step = t->state.step + 1};
        const int64_t a = edges[part], b = edges[part + 1];
        const tsr_tensor p = part_of_row(w->values, a, b), master = part_of_row(t->master, a, b);
        const tsr_tensor g = part_of_row(w->grads, a, b), m = part_of_row(t->m, a, b),
                         v = part_of_row(t->v, a, b);
        TSR_TRY(tsr_adamw(t->ctx, &adamw, &p, t->options.dtype == TSR_F32 ? NULL : &master, &g, &m, &v));
    }
    return TSR_OK;
}

tsr_status tsr_trainer_step(tsr_trainer *t, double *loss)
{
    const int64_t n_steps = t->state.n_steps > 0 ? t->state.n_steps : INT64_MAX;
    t->schedule = (tsr_schedule){.peak = t->options.lr, .warmup = t->options.warmup, .n_steps = n_steps};
    TSR_TRY(tsr_fill(t->ctx, 0, &t->weights.grads));
    *loss = 0;
    for (int64_t pass = 0; pass < t->options.accumulate; pass++) {
        double pass_loss;
        TSR_TRY(run_pass(t, pass, &pass_loss));
        *loss += pass_loss / (double)t->options.accumulate;
    }
    double square;
    TSR_TRY(tsr_sum_squares(t->ctx, &t->weights.grads, false, &t->grad_square));
    TSR_TRY(read_number(t, &t->grad_square, &square));
    if (!isfinite(*loss) || !isfinite(square))
        return tsr_fail(TSR_ERR_ARGUMENT,
                        "the loss of step %lld is %g and its gradient's norm %g; try a smaller lr",
                        (long long)t->state.step, *loss, sqrt(square));
    const double norm = sqrt(square);
    TSR_TRY(update(t, t->options.clip > 0 && norm > t->options.clip ? t->options.clip / norm : 1));
    t->state.step++;
    t->state.loss_sum += *loss;
    t->state.loss_n++;
    return TSR_OK;
}

tsr_status tsr_trainer_evaluate(tsr_trainer *t, double *bits)
{
    const int64_t batch = t->options.batch, context = t->options.context;
    double nats = 0;
    tsr_tape_set_recording(t->tape, 0);
    tsr_status status = TSR_OK;
    for (int64_t w = 0; w < tsr_dataset_n_held(&t->data) && status == TSR_OK; w += batch) {
        int64_t counted = 0;
        for (int64_t i = 0; i < batch; i++)
            tsr_dataset_held_window(&t->data, w + i, t->host_ids + i * context,
                                    t->host_targets + i * context);
        for (int64_t i = 0; i < batch * context; i++) counted += t->host_targets[i] != TSR_IGNORE;
        tsr_var loss;
        tsr_tensor value;
        double mean = 0;
        status = upload_batch(t);
        if (status == TSR_OK)
            status = tsr_llama_loss(&t->weights, t->tape, &t->ids, &t->targets, TSR_IGNORE, NULL, &loss);
        if (status == TSR_OK) status = tsr_tape_value(t->tape, loss, &value);
        if (status == TSR_OK) status = read_number(t, &value, &mean);
        if (status == TSR_OK) status = tsr_tape_reset(t->tape);
        nats += mean * (double)counted;
    }
    tsr_tape_set_recording(t->tape, 1);
    *bits = nats / log(2) / (double)t->data.held_nbytes;
    return status;
}
