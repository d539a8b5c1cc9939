/* conv_grad_avx512vnni.c - walk.h on 16 floats; 16 rows of one vector: rows of 32, 16 and 8 pixels or outputs are whole tiles. */
#include "kernels/lanes/floats_512.h"

#define TWIN lgr_conv_grad_isa_avx512vnni
#define TILE_M 16
#define EACH_TILE(f)                                                                               \
    f(1) f(2) f(3) f(4) f(5) f(6) f(7) f(8) f(9) f(10) f(11) f(12) f(13) f(14) f(15) f(16)
#include "kernels/conv_grad/walk.h"
