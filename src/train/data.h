/*
 * train/data.h - the text that a model learns from, and the windows that are cut from its tokens
 *
 *     file   |############################# 95 % ##############################|== 5 % ==|
 *              training                                                         held out
 *
 * Each part becomes ids with one eos before every file, in one row per part:
 *
 *     eos a a a a a eos b b b b eos c c c ...
 *
 * A training window starts anywhere. Held-out windows lie end to end, so that each token is predicted once;
 * the eos between files is no text and is not counted (its target is TSR_IGNORE).
 */
#ifndef TSR_TRAIN_DATA_H
#define TSR_TRAIN_DATA_H

#include "base/random.h"
#include "format/file.h"
#include "format/tokenizer.h"

enum { TSR_IGNORE = -100 }; /* the target of a position that is not learned from */

typedef struct tsr_corpus {
    tsr_file *files;
    size_t *held_at; /* where in each file the held-out part begins, at a line's or character's start */
    int32_t n_files;
    size_t train_nbytes, held_nbytes;
} tsr_corpus;

/*
 * A file, or the regular files of a folder in the order of their names (links, which would repeat a text,
 * hidden files and subfolders are left out). TSR_ERR_IO; TSR_ERR_FORMAT: there is no text in it.
 */
tsr_status tsr_corpus_load(const char *path, tsr_corpus *out);
void tsr_corpus_free(tsr_corpus *corpus);

typedef struct tsr_dataset {
    tsr_ids train, held;
    int32_t eos;
    int64_t context;
    size_t train_nbytes; /* of text */
    size_t held_nbytes;  /* of text, that held-out targets spell */
} tsr_dataset;

/* TSR_ERR_FORMAT: fewer tokens than one window needs, or nothing held out. The tokenizer must have an eos. */
tsr_status tsr_dataset_create(const tsr_corpus *corpus, const tsr_tokenizer *tokenizer, int64_t context,
                              tsr_dataset *out);
void tsr_dataset_free(tsr_dataset *dataset);

/* ids, targets [context]: targets[i] is the token after ids[i]. */
void tsr_dataset_train_window(const tsr_dataset *dataset, tsr_random *random, int32_t *ids, int32_t *targets);

/* Window w of tsr_dataset_n_held; past the end of the text ids are eos and targets TSR_IGNORE, so that
 * windows beyond the last fill a batch. */
int64_t tsr_dataset_n_held(const tsr_dataset *dataset);
void tsr_dataset_held_window(const tsr_dataset *dataset, int64_t w, int32_t *ids, int32_t *targets);

#endif
