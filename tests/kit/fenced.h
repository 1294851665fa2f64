/*
 * tests/kit/fenced.h - a device in the host's memory that behaves like one far away
 *
 * The operators are the reference's. Memory is mapped page by page between guards and can be touched only
 * while an operator that was given it, an upload or a download runs; operators are queued and run at the next
 * upload, download or synchronise, which report what they ran into. So whatever above the seam reads or
 * writes a tensor by itself dies here, a tensor that is not the device's or was freed is refused, and memory
 * that is freed while a queued operator uses it aborts the program with that operator's name. What works here
 * will work on an asynchronous device with memory of its own.
 */
#ifndef TSR_KIT_FENCED_H
#define TSR_KIT_FENCED_H

#include "backend/backend.h"

extern const tsr_backend kit_backend_fenced; /* its device is TSR_DEVICE_FENCED */

/* A new context on it; the caller destroys it. */
tsr_context *kit_fenced(void);

/* Operators that were queued and have not run. */
int64_t kit_fenced_queued(const tsr_context *ctx);

/* The same view (shape, strides, gaps) in new memory of the context's device, filled with what t holds. */
tsr_tensor kit_to_device(tsr_context *ctx, const tsr_tensor *t);

/* Copies a view made by kit_to_device, gaps included, over the host's view of the same layout. */
void kit_from_device(tsr_context *ctx, const tsr_tensor *device, const tsr_tensor *host);

/* Frees a view made by kit_to_device. */
void kit_free_on_device(tsr_context *ctx, const tsr_tensor *device);

#endif
