/* chip_functions_ref.h - one value of a table by its number. */
#ifndef LGR_CHIP_FUNCTIONS_REF_H
#define LGR_CHIP_FUNCTIONS_REF_H
#include "kernels/chip_functions/chip_functions_one.h"

static inline int32_t lgr_pwl_ref(int table, int32_t x)
{
    return lgr_pwl_one(&lgr_chip_tables[table], x);
}
static inline int32_t lgr_pwl_bits_ref(int table, int bits, int32_t x)
{
    return lgr_pwl_bits_one(&lgr_chip_tables[table], bits, x);
}
#endif
