/* backend/cpu/linear.c - packed weights and the products with them */
#include "backend/cpu/cpu.h"
#include "base/error.h"
