/* chip_functions_avx512vnni.c - 16 lanes at a time. */
#include "kernels/chip_functions/chip_functions_avx512.h"

#define TWIN(name) name##_avx512vnni
#include "kernels/chip_functions/chip_functions_all.h"
