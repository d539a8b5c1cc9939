/* chip_functions_cuda.cu - a table travels as an argument: in constant memory, no copy of it anywhere. */
#include "kernels/chip_functions/chip_functions_one.h"
#include "kernels/cuda/flat.h"
#include "lgr/chip_functions_cuda.h"

namespace {
struct function {
    lgr_pwl table;
    int32_t bits;
    const int32_t *x;
    int32_t *y;
    __device__ lgr::nothing_kept start() const { return {}; }
    __device__ void operator()(lgr::nothing_kept, int64_t i) const
    {
        y[i] = lgr_pwl_bits_one(&table, bits, x[i]);
    }
};
} // namespace

extern "C" lgr_status lgr_chip_function_cuda(int table, int bits, const int32_t *x, int64_t n,
                                             int32_t *y, void *stream)
{
    if (n < 0 || !lgr_chip_function_has(table, bits)) return LGR_E_RANGE;
    if (n > 0 && (x == NULL || y == NULL)) return LGR_E_NULL;
    return lgr::flat(function{lgr_chip_tables[table], bits, x, y}, n, stream);
}
