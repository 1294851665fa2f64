/* cli/info_model.h - the part of `tessera info` that opens a model */
#ifndef TSR_CLI_INFO_MODEL_H
#define TSR_CLI_INFO_MODEL_H

#include "cli.h"

/* Checks the model's folder or .safetensors file at `path` and prints what is in it. Returns the exit status.
 */
int show_model(const char *path, const common_options *common);

#endif
