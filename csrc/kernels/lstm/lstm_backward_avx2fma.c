/* lstm_backward_avx2fma.c - lstm_backward.h. */
#include "kernels/recurrent/grad_lanes_avx2fma.h"

#include "kernels/lstm/lstm_backward.h"
