/* gru_backward.c - gru_backward.h in plain C. */
#include "kernels/recurrent/grad_lanes_ref.h"

#include "kernels/gru/gru_backward.h"
