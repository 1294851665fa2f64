/* tests/kit/kit.h - what every test includes: cmocka in its required order, and the checks of this project */
#ifndef TSR_KIT_H
#define TSR_KIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tessera/status.h"

/* The call succeeds; otherwise the test fails with the call's own message. */
#define KIT_OK(call)                                                                                         \
    do {                                                                                                     \
        const tsr_status kit_status_ = (call);                                                               \
        if (kit_status_ != TSR_OK)                                                                           \
            fail_msg("%s: %s: %s", #call, tsr_status_name(kit_status_), tsr_last_error());                   \
    } while (0)

/* The call fails with `expected`, and its message holds `words`. */
#define KIT_FAILS(expected, words, call) kit_fails(expected, words, call, #call, __FILE__, __LINE__)
void kit_fails(tsr_status expected, const char *words, tsr_status got, const char *call, const char *file,
               int line);

#endif
