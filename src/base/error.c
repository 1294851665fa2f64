/* base/error.c - the thread's last message, in a fixed buffer */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { MESSAGE_NBYTES = 512 };
static _Thread_local char message[MESSAGE_NBYTES];

const char *tsr_last_error(void) { return message; }

const char *tsr_status_name(tsr_status status)
{
    switch (status) {
    case TSR_OK: return "ok";
    case TSR_ERR_ARGUMENT: return "argument";
    case TSR_ERR_SHAPE: return "shape";
    case TSR_ERR_DTYPE: return "dtype";
    case TSR_ERR_DEVICE: return "device";
    case TSR_ERR_OVERLAP: return "overlap";
    case TSR_ERR_OVERFLOW: return "overflow";
    case TSR_ERR_WORKSPACE: return "workspace";
    case TSR_ERR_INDEX: return "index";
    case TSR_ERR_UNSUPPORTED: return "unsupported";
    case TSR_ERR_BUSY: return "busy";
    case TSR_ERR_MEMORY: return "memory";
    case TSR_ERR_IO: return "io";
    case TSR_ERR_FORMAT: return "format";
    }
    return "unknown";
}

/* A message is one line, and no order to a terminal, whatever the names in it. */
static void make_plain(void)
{
    for (char *c = message; *c != '\0'; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f) *c = '?';
}

tsr_status tsr_fail(tsr_status status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    make_plain();
    return status;
}

tsr_status tsr_fail_within(tsr_status status, const char *format, ...)
{
    char inner[MESSAGE_NBYTES];
    memcpy(inner, message, sizeof inner);
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(message, sizeof message, format, args);
    va_end(args);
    if (n >= 0 && n < MESSAGE_NBYTES) snprintf(message + n, (size_t)(MESSAGE_NBYTES - n), ": %s", inner);
    make_plain();
    return status;
}
