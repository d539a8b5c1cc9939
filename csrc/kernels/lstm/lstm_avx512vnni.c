/* lstm_avx512vnni.c - the forward pass of lstm_forward.h. */
#include "kernels/recurrent/lanes_avx512vnni.h"

#include "kernels/lstm/lstm_forward.h"
