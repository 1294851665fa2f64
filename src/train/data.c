/* train/data.c - files to tokens to windows */
#define _POSIX_C_SOURCE 200809L
#include "train/data.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/error.h"

static const size_t max_file_nbytes = (size_t)1 << 31; /* ids are counted in 31 bits */

/* 95 % of the file, moved on to the start of a line if one is near, else of a character. */
static size_t held_start(const tsr_file *file)
{
    enum { NEAR = 200 };
    const size_t at = file->nbytes - file->nbytes / 20;
    for (size_t i = at; i < file->nbytes && i < at + NEAR; i++)
        if (i > 0 && file->data[i - 1] == '\n') return i;
    size_t i = at;
    while (i < file->nbytes && (file->data[i] & 0xc0) == 0x80) i++; /* a byte inside a UTF-8 character */
    return i;
}

static tsr_status add_file(tsr_corpus *c, const char *path)
{
    tsr_file *files = realloc(c->files, ((size_t)c->n_files + 1) * sizeof *files);
    if (files != NULL) c->files = files;
    size_t *held_at = realloc(c->held_at, ((size_t)c->n_files + 1) * sizeof *held_at);
    if (held_at != NULL) c->held_at = held_at;
    if (files == NULL || held_at == NULL) return tsr_fail(TSR_ERR_MEMORY, "%s: out of memory", path);
    tsr_file *file = &c->files[c->n_files];
    TSR_TRY(tsr_file_read(path, max_file_nbytes, file));
    const size_t held = held_start(file);
    c->held_at[c->n_files++] = held;
    c->train_nbytes += held;
    c->held_nbytes += file->nbytes - held;
    return TSR_OK;
}

static tsr_status add_entry(tsr_corpus *c, const char *folder, const char *name)
{
    if (name[0] == '.') return TSR_OK;
    const size_t n = strlen(folder) + strlen(name) + 2;
    char *path = malloc(n);
    if (path == NULL) return tsr_fail(TSR_ERR_MEMORY, "%s: out of memory", folder);
    snprintf(path, n, "%s/%s", folder, name);
    struct stat st;
    tsr_status status = TSR_OK;
    if (lstat(path, &st) == 0 && S_ISREG(st.st_mode)) status = add_file(c, path);
    free(path);
    return status;
}

static tsr_status add_folder(tsr_corpus *c, const char *folder)
{
    struct dirent **entries;
    const int n = scandir(folder, &entries, NULL, alphasort);
    if (n < 0) return tsr_fail(TSR_ERR_IO, "%s: %s", folder, strerror(errno));
    tsr_status status = TSR_OK;
    for (int i = 0; i < n; i++) {
        if (status == TSR_OK) status = add_entry(c, folder, entries[i]->d_name);
        free(entries[i]);
    }
    free(entries);
    return status;
}

tsr_status tsr_corpus_load(const char *path, tsr_corpus *out)
{
    struct stat st;
    if (stat(path, &st) != 0) return tsr_fail(TSR_ERR_IO, "%s: %s", path, strerror(errno));
    tsr_corpus c = {0};
    tsr_status status = S_ISDIR(st.st_mode) ? add_folder(&c, path) : add_file(&c, path);
    if (status == TSR_OK && c.train_nbytes + c.held_nbytes == 0)
        status = tsr_fail(TSR_ERR_FORMAT, "%s: there is no text in it", path);
    if (status != TSR_OK) {
        tsr_corpus_free(&c);
        return status;
    }
    *out = c;
    return TSR_OK;
}

void tsr_corpus_free(tsr_corpus *c)
{
    for (int32_t i = 0; i < c->n_files; i++) tsr_file_release(&c->files[i]);
    free(c->files);
    free(c->held_at);
    *c = (tsr_corpus){0};
}

static tsr_status append_text(tsr_dataset *d, tsr_ids *ids, const tsr_tokenizer *tokenizer, const void *text,
                              size_t n)
{
    if (n == 0) return TSR_OK;
    TSR_TRY(tsr_ids_append(ids, d->eos));
    return tsr_tokenizer_encode(tokenizer, text, n, false, ids);
}

static tsr_status encode_corpus(tsr_dataset *d, const tsr_corpus *c, const tsr_tokenizer *tokenizer)
{
    for (int32_t i = 0; i < c->n_files; i++) {
        const tsr_file *file = &c->files[i];
        TSR_TRY(append_text(d, &d->train, tokenizer, file->data, c->held_at[i]));
        TSR_TRY(
            append_text(d, &d->held, tokenizer, file->data + c->held_at[i], file->nbytes - c->held_at[i]));
    }
    if ((int64_t)d->train.n <= d->context)
        return tsr_fail(
            TSR_ERR_FORMAT,
            "data: %zu bytes give %zu tokens to learn from, one context needs %lld; give more text or "
            "a shorter context",
            c->train_nbytes, d->train.n, (long long)d->context + 1);
    if (d->held.n < 2)
        return tsr_fail(TSR_ERR_FORMAT, "data: %zu bytes leave nothing to hold out",
                        c->train_nbytes + c->held_nbytes);
    return TSR_OK;
}

tsr_status tsr_dataset_create(const tsr_corpus *corpus, const tsr_tokenizer *tokenizer, int64_t context,
                              tsr_dataset *out)
{
    tsr_dataset d = {.eos = tsr_tokenizer_eos(tokenizer),
                     .context = context,
                     .train_nbytes = corpus->train_nbytes,
                     .held_nbytes = corpus->held_nbytes};
    if (d.eos < 0) return tsr_fail(TSR_ERR_ARGUMENT, "data: the tokenizer has no end-of-text token");
    const tsr_status status = encode_corpus(&d, corpus, tokenizer);
    if (status != TSR_OK) {
        tsr_dataset_free(&d);
        return status;
    }
    *out = d;
    return TSR_OK;
}

void tsr_dataset_free(tsr_dataset *d)
{
    tsr_ids_free(&d->train);
    tsr_ids_free(&d->held);
}

void tsr_dataset_train_window(const tsr_dataset *d, tsr_random *random, int32_t *ids, int32_t *targets)
{
    const int64_t start = (int64_t)tsr_random_below(random, d->train.n - (size_t)d->context);
    memcpy(ids, d->train.id + start, (size_t)d->context * sizeof *ids);
    memcpy(targets, d->train.id + start + 1, (size_t)d->context * sizeof *targets);
}

int64_t tsr_dataset_n_held(const tsr_dataset *d) { return ((int64_t)d->held.n - 2) / d->context + 1; }

void tsr_dataset_held_window(const tsr_dataset *d, int64_t w, int32_t *ids, int32_t *targets)
{
    const int64_t n = (int64_t)d->held.n;
    for (int64_t i = 0; i < d->context; i++) {
        const int64_t at = w * d->context + i;
        ids[i] = at < n ? d->held.id[at] : d->eos;
        targets[i] = at + 1 < n && d->held.id[at + 1] != d->eos ? d->held.id[at + 1] : TSR_IGNORE;
    }
}
