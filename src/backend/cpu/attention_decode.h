/* backend/cpu/attention_decode.h - the regime of few queries, which attention_fwd.c hands sequences to */
#ifndef TSR_CPU_ATTENTION_DECODE_H
#define TSR_CPU_ATTENTION_DECODE_H

#include "backend/cpu/attention_decode_plan.h"

/* Can some sequence be of that kind; must all be? Lengths are not known yet. */
static inline bool attention_may_decode(const tsr_attention_fwd_args *a)
{
    return a->lq <= TSR_DECODE_LQ || a->seqlens_q.data != NULL || a->cu_seqlens_q.data != NULL;
}
static inline bool attention_only_decodes(const tsr_attention_fwd_args *a) { return a->lq <= TSR_DECODE_LQ; }

size_t attention_decode_workspace(const tsr_cpu *cpu, const tsr_attention_fwd_args *a);
/* out and lse of the sequences that decode, their padding included. */
void attention_decode(const tsr_cpu *cpu, const tsr_attention_fwd_args *a, void *workspace);

#endif
