/* tessera/tessera.h - all of tessera: operators, the tape, layers */
#ifndef TESSERA_TESSERA_H
#define TESSERA_TESSERA_H

#include "tessera/activation.h"
#include "tessera/attention.h"
#include "tessera/context.h"
#include "tessera/cross_entropy.h"
#include "tessera/elementwise.h"
#include "tessera/embedding.h"
#include "tessera/gemm.h"
#include "tessera/kv_cache.h"
#include "tessera/linear.h"
#include "tessera/nn.h"
#include "tessera/norm.h"
#include "tessera/optimizer.h"
#include "tessera/random.h"
#include "tessera/rope.h"
#include "tessera/softmax.h"
#include "tessera/status.h"
#include "tessera/tape.h"
#include "tessera/tape_ops.h"
#include "tessera/tensor.h"

#endif
