/* cli/loss_plot.h - the loss curve of a run as an SVG picture */
#ifndef TSR_CLI_LOSS_PLOT_H
#define TSR_CLI_LOSS_PLOT_H

#include "train/trainer.h"

/* Bits per byte of the training and the held-out text over the steps so far. Replaces the file, whole. */
tsr_status plot_loss(const char *path, const tsr_trainer *trainer);

#endif
