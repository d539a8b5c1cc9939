/* gru_avx2.c - the forward pass of gru_forward.h. */
#include "kernels/recurrent/lanes_avx2.h"

#include "kernels/gru/gru_forward.h"
