/* train/train_files.c - the directory that a run writes to, and its tokenizer */
#define _POSIX_C_SOURCE 200809L
#include "train/train_files.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "train/bpe_trainer.h"

tsr_status tsr_train_tokenizer(const tsr_corpus *corpus, int64_t vocab, tsr_tokenizer **out)
{
    const char *special[] = {"<|endoftext|>"};
    tsr_text *texts = calloc((size_t)corpus->n_files + 1, sizeof *texts);
    if (texts == NULL) return tsr_fail(TSR_ERR_MEMORY, "bpe: out of memory");
    for (int32_t i = 0; i < corpus->n_files; i++)
        texts[i] = (tsr_text){(const char *)corpus->files[i].data, corpus->held_at[i]};
    const tsr_status status = tsr_bpe_train(texts, (size_t)corpus->n_files, (int32_t)vocab, special, 1, out);
    free(texts);
    return status;
}

static const char *const model_files[] = {"checkpoint.safetensors", "model.safetensors",
                                          "model.safetensors.index.json", "config.json"};
enum { N_MODEL_FILES = sizeof model_files / sizeof *model_files };

static tsr_status path_in(const char *directory, const char *name, char *path, size_t n)
{
    const int length = snprintf(path, n, "%s/%s", directory, name);
    return length < 0 || (size_t)length >= n ? tsr_fail(TSR_ERR_IO, "%s: the path is too long", directory)
                                             : TSR_OK;
}

tsr_status tsr_train_check_directory(const tsr_train_options *o)
{
    struct stat st;
    if (stat(o->out, &st) != 0) {
        if (errno == ENOENT) return TSR_OK;
        return tsr_fail(TSR_ERR_IO, "%s: %s", o->out, strerror(errno));
    }
    if (!S_ISDIR(st.st_mode)) return tsr_fail(TSR_ERR_IO, "%s: not a directory", o->out);
    if (access(o->out, W_OK | X_OK) != 0) return tsr_fail(TSR_ERR_IO, "%s: %s", o->out, strerror(errno));
    for (int i = 0; i < N_MODEL_FILES && !o->overwrite; i++) {
        char path[4096];
        TSR_TRY(path_in(o->out, model_files[i], path, sizeof path));
        if (lstat(path, &st) == 0)
            return tsr_fail(
                TSR_ERR_IO,
                "%s: holds a model already (%s): --resume goes on with it, --overwrite replaces it", o->out,
                model_files[i]);
    }
    return TSR_OK;
}

tsr_status tsr_train_prepare_directory(const tsr_trainer *t)
{
    if (mkdir(t->options.out, 0777) != 0 && errno != EEXIST)
        return tsr_fail(TSR_ERR_IO, "%s: %s", t->options.out, strerror(errno));
    TSR_TRY(tsr_tokenizer_save(t->tokenizer, t->options.out)); /* may fail: the old model is still there */
    for (int i = 0; i < N_MODEL_FILES && t->options.overwrite; i++) {
        char path[4096];
        TSR_TRY(path_in(t->options.out, model_files[i], path, sizeof path));
        if (unlink(path) != 0 && errno != ENOENT)
            return tsr_fail(TSR_ERR_IO, "%s: %s", path, strerror(errno));
    }
    return TSR_OK;
}
