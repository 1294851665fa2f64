/* tests/kit/kit.c - assertions about statuses */
#include "kit/kit.h"

#include <string.h>

void kit_fails(tsr_status expected, const char *words, tsr_status got, const char *call, const char *file,
               int line)
{
    if (got != expected || strstr(tsr_last_error(), words) == NULL) {
        print_error("%s: expected status '%s' and a message with \"%s\"; got '%s': %s\n", call,
                    tsr_status_name(expected), words, tsr_status_name(got),
                    got == TSR_OK ? "" : tsr_last_error());
        _fail(file, line);
    }
}
