/*
 * cli/info.c - tessera info: what this machine's backends, instruction sets and kernels are; or, with a
 * file or folder, whether a model would load and what is in it
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"
#include "backend/cpu/isa.h"
#include "info_model.h"

/* Why a set that this machine has is not the one in use. */
static void why_not(tsr_isa isa, tsr_isa used, char *text, size_t size)
{
    const char *missing = tsr_isa_missing(isa), *slower = tsr_isa_slower(isa),
               *wanted = getenv("TESSERA_ISA");
    if (isa == used)
        snprintf(text, size, slower != NULL ? "used, though %s" : "used", slower);
    else if (missing != NULL)
        snprintf(text, size, "not here: %s", missing);
    else if (slower != NULL && isa > used)
        snprintf(text, size, "not used: %s", slower);
    else if (wanted != NULL && wanted[0] != '\0')
        snprintf(text, size, "not used: TESSERA_ISA is %s", wanted);
    else
        snprintf(text, size, "not used: %s is better", tsr_isa_name(used));
}

/* One backend: its threads, and its kernels a line a family. */
static json_t *describe_backend(tsr_context *ctx)
{
    json_t *kernels = json_array();
    const char *line = tsr_context_kernels(ctx);
    while (*line != '\0') {
        const size_t n = strcspn(line, "\n");
        json_array_append_new(kernels, json_stringn(line, n));
        line += n + (line[n] == '\n');
    }
    return json_pack("{s:s, s:i, s:o}", "name", tsr_context_backend(ctx), "threads",
                     (int)tsr_context_n_threads(ctx), "kernels", kernels);
}

static json_t *describe_sets(tsr_isa used)
{
    json_t *sets = json_array();
    for (int i = 0; !tsr_isa_is_plain((tsr_isa)i); i++) {
        char text[160];
        why_not((tsr_isa)i, used, text, sizeof text);
        json_array_append_new(sets, json_pack("{s:s, s:b, s:b, s:s}", "name", tsr_isa_name((tsr_isa)i),
                                              "available", tsr_isa_missing((tsr_isa)i) == NULL, "used",
                                              (tsr_isa)i == used, "status", text));
    }
    return sets;
}

static void print_machine(json_t *machine)
{
    size_t i, j;
    json_t *item, *kernel;
    printf("tessera %s\n\nbackends\n", TSR_VERSION);
    json_array_foreach(json_object_get(machine, "backends"), i, item)
    {
        const int threads = (int)json_integer_value(json_object_get(item, "threads"));
        printf("  %-10s %d %s\n", json_string_value(json_object_get(item, "name")), threads,
               threads == 1 ? "thread" : "threads");
        json_array_foreach(json_object_get(item, "kernels"), j, kernel)
            printf("             %s\n", json_string_value(kernel));
    }
    printf("\ninstruction sets\n");
    json_array_foreach(json_object_get(machine, "instruction_sets"), i, item)
        printf("  %-10s %s\n", json_string_value(json_object_get(item, "name")),
               json_string_value(json_object_get(item, "status")));
}

static int show_machine(const common_options *common)
{
    tsr_isa used;
    if (tsr_isa_choose(&used) != TSR_OK) return work_failed("info");
    json_t *backends = json_array();
    int status = OPTIONS_READ;
    for (int i = 0; tsr_backends[i] != NULL && status == OPTIONS_READ; i++) {
        common_options one = *common;
        tsr_context *ctx;
        one.backend = tsr_backends[i]->name;
        if (common->backend != NULL && strcmp(common->backend, one.backend) != 0) continue;
        status = open_context("info", &one, &ctx);
        if (status != OPTIONS_READ) break;
        json_array_append_new(backends, describe_backend(ctx));
        tsr_context_destroy(ctx);
    }
    json_t *machine = json_pack("{s:s, s:o, s:o}", "version", TSR_VERSION, "backends", backends,
                                "instruction_sets", describe_sets(used));
    if (status == OPTIONS_READ) {
        if (common->json) {
            json_dumpf(machine, stdout, JSON_COMPACT);
            putchar('\n');
        } else {
            print_machine(machine);
        }
        status = EXIT_DONE;
    }
    json_decref(machine);
    return status;
}

int command_info(int argc, char **argv)
{
    common_options common = {.n_threads = 0};
    const char *path = NULL;
    const option options[] = {
        backend_option(&common),
        threads_option(&common),
        json_option(&common),
        end_of_options(),
    };
    const command_line line = {
        .command = "info",
        .usage = "[DIR_OR_FILE] [options]",
        .description =
            "Without an argument: this machine's backends, instruction sets and kernels. With a model's\n"
            "folder or a .safetensors file: checks all that loading would check, and says what is in it.\n"
            "TESSERA_ISA=NAME in the environment chooses a set, whose kernels and no better ones are used.",
        .example = "tessera info build/run/model",
        .options = options,
        .max_arguments = 1,
        .arguments = &path,
    };
    const int status = options_read(&line, argc, argv);
    if (status != OPTIONS_READ) return status;
    if (common.backend != NULL) {
        /* a name that is in no list is the command line's mistake, with or without an argument */
        tsr_context *ctx;
        const int opened = open_context("info", &common, &ctx);
        if (opened != OPTIONS_READ) return opened;
        tsr_context_destroy(ctx);
    }
    return path == NULL ? show_machine(&common) : show_model(path, &common);
}
