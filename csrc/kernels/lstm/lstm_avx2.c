/* lstm_avx2.c - the forward pass of lstm_forward.h. */
#include "kernels/recurrent/lanes_avx2.h"

#include "kernels/lstm/lstm_forward.h"
