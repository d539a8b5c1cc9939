/* conv_grad_ref.c - walk.h in plain C. */
#include "kernels/lanes/floats_ref.h"

#define TWIN lgr_conv_grad_isa_ref
#define TILE_M 2
#define EACH_TILE(f) f(1) f(2)
#include "kernels/conv_grad/walk.h"
