/* div.c - one reciprocal per element. */
#include "lgr/div.h"

/* floor(a * 2^left + 1/2) for left >= 0, the rounding shift otherwise; saturated. */
static int32_t scaled(int64_t a, int32_t left)
{
    if (left <= 0) return lgr_sat_s32(left < -63 ? 0 : lgr_rsh_s64(a, -left));
    const int64_t most = left > 31 ? 0 : ((int64_t)1 << 31) >> left;
    if (a > most) return INT32_MAX;
    if (a < -most) return INT32_MIN;
    return lgr_sat_s32(a * ((int64_t)1 << (left > 31 ? 31 : left)));
}

lgr_status lgr_div_s32(const int32_t *x, const int32_t *y, int64_t n, int32_t shift,
                       int32_t *quotient)
{
    if (n < 0 || shift < 0 || shift > 62) return LGR_E_RANGE;
    if (n == 0) return LGR_OK;
    if (x == NULL || y == NULL || quotient == NULL) return LGR_E_NULL;
    for (int64_t i = 0; i < n; ++i) {
        const int64_t d = y[i], a = d < 0 ? -(int64_t)x[i] : x[i];
        if (d == 0) {
            quotient[i] = a > 0 ? INT32_MAX : a < 0 ? INT32_MIN : 0;
            continue;
        }
        const lgr_divider v = lgr_make_divider(d < 0 ? -d : d);
        quotient[i] = scaled(a * v.recip, shift - v.shift); /* |a * recip| <= 2^61 */
    }
    return LGR_OK;
}
