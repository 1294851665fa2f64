/*
 * train/bpe_trainer.h - a byte-level BPE vocabulary learned from text
 *
 * The most frequent pair of neighbouring tokens becomes a token, over and over, until the
 * vocabulary has the size asked for or no pair occurs twice. Pairs are counted within the pieces
 * of GPT-2's pattern. Of pairs that are equally frequent the one with the smaller ids is taken,
 * so the result depends on the text alone.
 */
#ifndef TSR_TRAIN_BPE_TRAINER_H
#define TSR_TRAIN_BPE_TRAINER_H

#include "format/tokenizer.h"

typedef struct tsr_text {
    const char *bytes;
    size_t n;
} tsr_text;

/*
 * `vocab_size` includes the special tokens and the 256 bytes; a short text gives fewer. The ids
 * are those of tsr_tokenizer_create. A special token must not be a single piece. No piece goes from one text
 * over to the next.
 */
tsr_status tsr_bpe_train(const tsr_text *texts, size_t n_texts, int32_t vocab_size,
                         const char *const *special, int32_t n_special, tsr_tokenizer **out);

#endif
