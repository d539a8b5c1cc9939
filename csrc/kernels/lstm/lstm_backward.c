/* lstm_backward.c - lstm_backward.h in plain C. */
#include "kernels/recurrent/grad_lanes_ref.h"

#include "kernels/lstm/lstm_backward.h"
