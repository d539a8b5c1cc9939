/* conv_grad_avx2fma.c - walk.h on 8 floats; 6 rows x 2 vectors of sums leave 4 of 16 registers. */
#include "kernels/lanes/floats_256.h"

#define TWIN lgr_conv_grad_isa_avx2fma
#define TILE_M 6
#define EACH_TILE(f) f(1) f(2) f(3) f(4) f(5) f(6)
#include "kernels/conv_grad/walk.h"
