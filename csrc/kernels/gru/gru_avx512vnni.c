/* gru_avx512vnni.c - the forward pass of gru_forward.h. */
#include "kernels/recurrent/lanes_avx512vnni.h"

#include "kernels/gru/gru_forward.h"
