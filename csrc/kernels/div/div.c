/* div.c - one reciprocal per element. */
#include "kernels/div/div_one.h"

lgr_status lgr_div_s32(const int32_t *x, const int32_t *y, int64_t n, int32_t shift,
                       int32_t *quotient)
{
    if (n < 0 || shift < 0 || shift > 62) return LGR_E_RANGE;
    if (n == 0) return LGR_OK;
    if (x == NULL || y == NULL || quotient == NULL) return LGR_E_NULL;
    for (int64_t i = 0; i < n; ++i) quotient[i] = lgr_div_one(x[i], y[i], shift);
    return LGR_OK;
}
