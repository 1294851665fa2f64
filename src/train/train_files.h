/* train/train_files.h - the directory that a run writes to */
#ifndef TSR_TRAIN_TRAIN_FILES_H
#define TSR_TRAIN_TRAIN_FILES_H

#include "train/trainer.h"

/* A vocabulary from the training parts of the corpus; vocab: up to TSR_MAX_IDS. */
tsr_status tsr_train_tokenizer(const tsr_corpus *corpus, int64_t vocab, tsr_tokenizer **out);

/* TSR_ERR_IO: `out` is no directory and cannot become one, or holds a model that may not go. Changes nothing.
 */
tsr_status tsr_train_check_directory(const tsr_train_options *options);

/* Makes the directory, stores the tokenizer, removes the model that it held. */
tsr_status tsr_train_prepare_directory(const tsr_trainer *trainer);

#endif
