/* lstm_backward_avx512vnni.c - lstm_backward.h. */
#include "kernels/recurrent/grad_lanes_avx512vnni.h"

#include "kernels/lstm/lstm_backward.h"
