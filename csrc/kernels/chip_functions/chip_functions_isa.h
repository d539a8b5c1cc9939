/* chip_functions_isa.h - one signature for every twin. */
#ifndef LGR_CHIP_FUNCTIONS_ISA_H
#define LGR_CHIP_FUNCTIONS_ISA_H
#include "lgr/chip_functions.h"

typedef void lgr_chip_function_fn(int table, int bits, const int32_t *x, int64_t n, int32_t *y);
lgr_chip_function_fn lgr_chip_function_ref, lgr_chip_function_avx2, lgr_chip_function_avx512vnni;
#endif
