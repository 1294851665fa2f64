/* base/error.h - raise a status with its message; forward one that was raised below */
#ifndef TSR_BASE_ERROR_H
#define TSR_BASE_ERROR_H

#include "tessera/status.h"

/* Stores the message for tsr_last_error() of this thread and returns `status`. */
tsr_status tsr_fail(tsr_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Puts "<prefix>: " before the message of a failure that came from below. */
tsr_status tsr_fail_within(tsr_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define TSR_TRY(call)                                                                                        \
    do {                                                                                                     \
        const tsr_status try_status_ = (call);                                                               \
        if (try_status_ != TSR_OK) return try_status_;                                                       \
    } while (0)

#endif
