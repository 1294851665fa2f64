/* model/weights_file.c - a Llama's parameters from a Hugging Face directory, and to one */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/dtype.h"
#include "base/error.h"
#include "format/printable.h"
#include "format/safetensors.h"
#include "model/weights_plan.h"

static tsr_status path_in(const char *directory, const char *name, char **out)
{
    const size_t n = strlen(directory) + strlen(name) + 2;
    *out = malloc(n);
    if (*out == NULL) return tsr_fail(TSR_ERR_MEMORY, "%s: out of memory", directory);
    snprintf(*out, n, "%s/%s", directory, name);
    return TSR_OK;
}

static tsr_status read_config(const char *directory, tsr_llama_config *out)
{
    char *path;
    TSR_TRY(path_in(directory, "config.json", &path));
    const tsr_status status = tsr_llama_config_read(path, out);
    free(path);
    return status;
}

/* A tied head is the embedding once more; older checkpoints carry RoPE's frequencies as a tensor. */
static bool may_be_ignored(const char *name)
{
    const size_t n = strlen(name), tail = strlen("rotary_emb.inv_freq");
    return strcmp(name, "lm_head.weight") == 0 ||
           (n > tail && strcmp(name + n - tail, "rotary_emb.inv_freq") == 0);
}

/* Every weight present with its shape and a float type; planned[i]: the file's i-th tensor is one of them. */
static tsr_status check_planned(const tsr_weights *w, const tsr_safetensors *st, const tsr_stored *all,
                                const char *directory, bool *planned)
{
    for (int32_t i = 0; i < w->n; i++) {
        const tsr_stored *stored;
        TSR_TRY(tsr_safetensors_expect(st, w->list[i].name, w->list[i].rank, w->list[i].shape, &stored));
        if (stored->dtype != TSR_F32 && stored->dtype != TSR_F64 && stored->dtype != TSR_BF16 &&
            stored->dtype != TSR_F16)
            return tsr_fail(TSR_ERR_FORMAT, "%s: tensor '%s' is %s, must be a float", directory,
                            w->list[i].name, tsr_safetensors_dtype_name(stored->dtype));
        planned[stored - all] = true;
    }
    return TSR_OK;
}

/* The tensors are those of the plan: none missing, and none there that this model would ignore. */
static tsr_status check_stored(const tsr_weights *w, const tsr_safetensors *st, const char *directory)
{
    size_t n;
    const tsr_stored *all = tsr_safetensors_list(st, &n);
    bool *planned = calloc(n + 1, sizeof *planned);
    if (planned == NULL) return tsr_fail(TSR_ERR_MEMORY, "%s: out of memory", directory);
    tsr_status status = check_planned(w, st, all, directory, planned);
    for (size_t i = 0; i < n && status == TSR_OK; i++)
        if (!planned[i] && !may_be_ignored(all[i].name))
            status = tsr_fail(TSR_ERR_FORMAT, "%s: tensor '%s' is no part of this model", directory,
                              tsr_printable(all[i].name).text);
    free(planned);
    return status;
}

/* Opens both files and holds them against each other; *w has a plan and *st is open if it succeeds. */
static tsr_status open_checked(const char *directory, tsr_weights *w, tsr_safetensors **st)
{
    struct stat s;
    if (stat(directory, &s) == 0 && !S_ISDIR(s.st_mode))
        return tsr_fail(TSR_ERR_IO, "%s: not a directory; a model is a directory with config.json",
                        directory);
    tsr_llama_config config;
    TSR_TRY(read_config(directory, &config));
    TSR_TRY(tsr_safetensors_open(directory, st));
    tsr_status status = tsr_weights_plan(&config, w);
    if (status == TSR_OK) {
        status = check_stored(w, *st, directory);
        if (status != TSR_OK) tsr_weights_free(w);
    }
    if (status != TSR_OK) tsr_safetensors_close(*st);
    return status;
}

tsr_status tsr_weights_check(const char *directory, tsr_llama_config *config, int64_t *numel)
{
    tsr_weights w;
    tsr_safetensors *st;
    TSR_TRY(open_checked(directory, &w, &st));
    *config = w.config;
    *numel = tsr_weights_numel(&w);
    tsr_weights_free(&w);
    tsr_safetensors_close(st);
    return TSR_OK;
}

static tsr_status read_all(tsr_weights *w, const tsr_safetensors *st)
{
    for (int32_t i = 0; i < w->n; i++) {
        const tsr_stored *stored = tsr_safetensors_find(st, w->list[i].name);
        const tsr_tensor view = tsr_weight_view(&w->list[i], &w->values);
        const size_t nbytes = (size_t)tsr_tensor_numel(&view) * tsr_dtype_nbytes(w->dtype);
        void *host = malloc(nbytes);
        if (host == NULL) return tsr_fail(TSR_ERR_MEMORY, "model: out of memory for %s", w->list[i].name);
        tsr_status status = tsr_stored_read(stored, w->dtype, host);
        if (status == TSR_OK) status = tsr_upload(w->ctx, view.data, host, nbytes);
        free(host);
        TSR_TRY(status);
    }
    return TSR_OK;
}

tsr_status tsr_weights_load(tsr_context *ctx, const char *directory, tsr_dtype dtype, int64_t n_positions,
                            tsr_weights *out)
{
    tsr_weights plan, w;
    tsr_safetensors *st;
    TSR_TRY(open_checked(directory, &plan, &st));
    const int64_t most = plan.config.max_position_embeddings;
    if (n_positions <= 0 || n_positions > most) n_positions = most;
    tsr_status status = tsr_weights_create_for(ctx, &plan.config, dtype, false, n_positions, &w);
    tsr_weights_free(&plan);
    if (status == TSR_OK) {
        status = read_all(&w, st);
        if (status != TSR_OK) tsr_weights_free(&w);
    }
    tsr_safetensors_close(st);
    if (status == TSR_OK) *out = w;
    return status;
}

typedef struct save_job {
    const tsr_weights *weights;
    char *device_bytes, *file_bytes; /* one tensor as the device has it, and as the file wants it */
} save_job;

static tsr_status next_tensor(void *user, size_t i, tsr_tensor *out)
{
    const save_job *job = user;
    const tsr_weights *w = job->weights;
    const tsr_tensor view = tsr_weight_view(&w->list[i], &w->values);
    const int64_t n = tsr_tensor_numel(&view);
    TSR_TRY(tsr_download(w->ctx, job->device_bytes, view.data, (size_t)n * tsr_dtype_nbytes(w->dtype)));
    for (int64_t j = 0; j < n; j++)
        tsr_store_f64(job->file_bytes, w->config.dtype, j, tsr_load_f64(job->device_bytes, w->dtype, j));
    *out = view;
    out->data = job->file_bytes, out->dtype = w->config.dtype, out->device = TSR_DEVICE_CPU;
    return TSR_OK;
}

static tsr_status write_tensors(const tsr_weights *w, const char *directory)
{
    int64_t largest = 0;
    for (int32_t i = 0; i < w->n; i++) {
        const tsr_tensor view = tsr_weight_view(&w->list[i], &w->values);
        if (tsr_tensor_numel(&view) > largest) largest = tsr_tensor_numel(&view);
    }
    char *path = NULL;
    save_job job = {w, malloc((size_t)largest * 8), malloc((size_t)largest * 8)};
    tsr_named_tensor *list = calloc((size_t)w->n, sizeof *list);
    tsr_status status = path_in(directory, "model.safetensors", &path);
    if (status == TSR_OK && (job.device_bytes == NULL || job.file_bytes == NULL || list == NULL))
        status = tsr_fail(TSR_ERR_MEMORY, "%s: out of memory", path);
    if (status == TSR_OK) {
        for (int32_t i = 0; i < w->n; i++) {
            list[i].name = w->list[i].name;
            list[i].tensor = tsr_weight_view(&w->list[i], &w->values);
            list[i].tensor.dtype = w->config.dtype;
        }
        status = tsr_safetensors_write(path, list, (size_t)w->n, next_tensor, &job);
    }
    free(path);
    free(list);
    free(job.device_bytes);
    free(job.file_bytes);
    return status;
}

tsr_status tsr_weights_save(const tsr_weights *w, const char *directory)
{
    char *path;
    TSR_TRY(write_tensors(w, directory)); /* first: where the disk is full, it is this that does not fit */
    TSR_TRY(path_in(directory, "config.json", &path));
    const tsr_status status = tsr_llama_config_write(path, &w->config);
    free(path);
    return status;
}
