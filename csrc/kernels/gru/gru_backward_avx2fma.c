/* gru_backward_avx2fma.c - gru_backward.h. */
#include "kernels/recurrent/grad_lanes_avx2fma.h"

#include "kernels/gru/gru_backward.h"
