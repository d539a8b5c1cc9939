/* chip_functions_avx2.c - 8 lanes at a time. */
#include "kernels/chip_functions/chip_functions_avx2.h"

#define TWIN(name) name##_avx2
#include "kernels/chip_functions/chip_functions_all.h"
