/* cli/common.c - what the commands share */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backend/backend.h"
#include "cli.h"
#include "format/printable.h"

int work_failed(const char *command)
{
    fprintf(stderr, "tessera %s: %s\n", command, tsr_last_error());
    return EXIT_FAILED;
}

/* The backends of this build: "cpu or reference". */
static void list_backends(char *names, size_t size)
{
    names[0] = '\0';
    for (int i = 0; tsr_backends[i] != NULL; i++) {
        const size_t used = strlen(names);
        const char *separator = i == 0 ? "" : tsr_backends[i + 1] == NULL ? " or " : ", ";
        snprintf(names + used, size - used, "%s%s", separator, tsr_backends[i]->name);
    }
}

static bool is_backend(const char *name)
{
    for (int i = 0; tsr_backends[i] != NULL; i++)
        if (strcmp(tsr_backends[i]->name, name) == 0) return true;
    return false;
}

int open_context(const char *command, const common_options *common, tsr_context **out)
{
    if (common->backend != NULL && !is_backend(common->backend)) {
        char names[128];
        list_backends(names, sizeof names);
        return usage_error(command, "--backend: '%s' is not in this build, must be %s",
                           tsr_printable(common->backend).text, names);
    }
    const tsr_context_options options = {.backend = common->backend, .n_threads = (int32_t)common->n_threads};
    return tsr_context_create(&options, out) == TSR_OK ? OPTIONS_READ : work_failed(command);
}

json_t *json_path(const char *path)
{
    json_t *text = json_string(path);
    if (text != NULL) return text;
    char *ascii = strdup(path);
    if (ascii == NULL) return NULL;
    for (char *c = ascii; *c != '\0'; c++)
        if ((unsigned char)*c >= 0x80) *c = '?';
    text = json_string(ascii);
    free(ascii);
    return text;
}

double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
