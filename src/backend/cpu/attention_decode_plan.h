/*
 * backend/cpu/attention_decode_plan.h - attention of few queries: how it is cut into items, and its memory
 *
 * Items are ranges of chunks of a KV head's keys, so that all threads work even with one head, and results
 * are the same however many ranges there are. Where heads are nearer in memory than keys, as in pages, an
 * item has several KV heads, which take turns, tile by tile, so that a page of the operating system is looked
 * up once, not once for each head.
 *
 * workspace   | head 0: chunk 0: m l O | chunk 1: .. | head 1: .. | slot 0: scratch | slot 1: .. | ..
 * scratch     | S, then P | P of the keys that a row sees | gathered rows | head 0: Q | Q as integers | 1: ..
 */
#ifndef TSR_CPU_ATTENTION_DECODE_PLAN_H
#define TSR_CPU_ATTENTION_DECODE_PLAN_H

#include "backend/cpu/attention_plan.h"

enum { ATTENTION_DECODE_MOST_IN_TURN = 16 }; /* KV heads */

typedef struct attention_decoding {
    const tsr_cpu *cpu;
    const tsr_attention_fwd_args *a;
    const tsr_attention_decode_f32_kernel *kernel;
    const tsr_attention_decode_s8_kernel *of_k, *of_v; /* what multiplies int8 K and V; NULL: `kernel` */
    int64_t group, n_rows;               /* query heads to a KV head; rows of a KV head, at most */
    int64_t n_chunks, n_ranges;          /* of the longest sequence; ranges that chunks are dealt to */
    int64_t q_stride, o_stride;          /* floats between rows */
    int64_t q_integers_stride;           /* of Q as integers; 0 if there are none */
    int64_t part_floats;                 /* of one chunk's m, l, O */
    int64_t q_floats, scratch_floats;    /* of a head's queries; of a slot */
    int64_t in_turn;                     /* KV heads of an item, that its tiles go through in turn */
    int64_t heads_per_round, first_head; /* KV heads, counted over the batch: b * hkv + head */
    int64_t n_heads;                     /* of this round                                  */
    float *parts, *scratch;
} attention_decoding;

/* A sequence's own number of queries decides, whatever it is padded to. */
static inline bool attention_decodes(const attention_sequence *s) { return s->lq <= TSR_DECODE_LQ; }

/* Sizes, and the workspace laid out, over an arena that counts only measured, for sequences as long as they
 * may be: no tensor is read. */
attention_decoding attention_decode_plan(const tsr_cpu *cpu, const tsr_attention_fwd_args *a,
                                         tsr_arena *arena);
/* Items anew, for the keys that queries see, which may be fewer: the memory stays enough. No bit depends on
 * it. */
void attention_decode_deal(attention_decoding *w);

#endif
