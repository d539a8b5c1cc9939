/* softmax_avx2.c - 8 terms at a time. */
#include "kernels/lanes/lanes_256.h"

#define TWIN(name) name##_avx2
#include "kernels/softmax/softmax_lanes.h"
