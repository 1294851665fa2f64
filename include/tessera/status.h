/*
 * tessera/status.h - what every public function returns, and why it failed
 *
 * A caller's mistake gives a status and a message that names the argument,
 * what it was and what it must be. Outputs are then untouched.
 */
#ifndef TESSERA_STATUS_H
#define TESSERA_STATUS_H

#if defined(__GNUC__)
#define TSR_API __attribute__((visibility("default")))
#else
#define TSR_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum tsr_status {
    TSR_OK = 0,
    TSR_ERR_ARGUMENT,    /* a null pointer, or a value outside its range        */
    TSR_ERR_SHAPE,       /* ranks or extents that do not agree                  */
    TSR_ERR_DTYPE,       /* an element type that the operator does not take     */
    TSR_ERR_DEVICE,      /* a tensor that lives on another device               */
    TSR_ERR_OVERLAP,     /* an output that shares memory with an input or itself */
    TSR_ERR_OVERFLOW,    /* a size whose product does not fit                   */
    TSR_ERR_WORKSPACE,   /* the workspace passed is too small                   */
    TSR_ERR_INDEX,       /* an id, length or table entry in the data is out of range */
    TSR_ERR_UNSUPPORTED, /* this backend lacks the operator                     */
    TSR_ERR_BUSY,        /* the context is serving another call                 */
    TSR_ERR_MEMORY,      /* the system is out of memory                         */
    TSR_ERR_IO,          /* the operating system refused a file                 */
    TSR_ERR_FORMAT,      /* a file that is not what it says it is               */
} tsr_status;

/* "ok", "argument", "shape" ...: the status as a word. */
TSR_API const char *tsr_status_name(tsr_status status);

/* The message of this thread's last failure, "" before the first: one line, control characters in the names
 * that it quotes as '?'. Valid until the next failure. */
TSR_API const char *tsr_last_error(void);

#ifdef __cplusplus
}
#endif
#endif
