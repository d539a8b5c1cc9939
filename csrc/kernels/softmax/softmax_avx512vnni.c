/* softmax_avx512vnni.c - 16 terms at a time. */
#include "kernels/lanes/lanes_512.h"

#define TWIN(name) name##_avx512vnni
#include "kernels/softmax/softmax_lanes.h"
