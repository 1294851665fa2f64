/*
 * tessera/embedding.h - rows of a table, by id
 *
 *     out[..., :] = table[ids[...], :]        (the product of one-hot rows with the table)
 */
#ifndef TESSERA_EMBEDDING_H
#define TESSERA_EMBEDDING_H

#include "tessera/context.h"

#ifdef __cplusplus
extern "C" {
#endif

/* table [V, n]; ids [...] i32 (rank <= 3), each in [0, V) or TSR_ERR_INDEX; out [..., n] of table's dtype. */
TSR_API tsr_status tsr_embedding_fwd(tsr_context *ctx, const tsr_tensor *table, const tsr_tensor *ids,
                                     const tsr_tensor *out);

/* dtable [V, n] f32 (f64 with f64 dout) += rows of dout, in the order of ids; if !accumulate it is cleared
 * first. */
TSR_API tsr_status tsr_embedding_bwd(tsr_context *ctx, const tsr_tensor *ids, const tsr_tensor *dout,
                                     int accumulate, const tsr_tensor *dtable);

#ifdef __cplusplus
}
#endif
#endif
