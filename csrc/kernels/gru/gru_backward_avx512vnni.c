/* gru_backward_avx512vnni.c - gru_backward.h. */
#include "kernels/recurrent/grad_lanes_avx512vnni.h"

#include "kernels/gru/gru_backward.h"
