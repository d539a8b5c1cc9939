/* div_one.h - one quotient, for C and CUDA. */
#ifndef LGR_DIV_ONE_H
#define LGR_DIV_ONE_H
#include "lgr/div.h"

/* floor(a * 2^left + 1/2) for left >= 0, the rounding shift otherwise; saturated. */
LGR_INLINE int32_t lgr_div_scaled(int64_t a, int32_t left)
{
    if (left <= 0) return lgr_sat_s32(left < -63 ? 0 : lgr_rsh_s64(a, -left));
    const int64_t most = left > 31 ? 0 : ((int64_t)1 << 31) >> left;
    if (a > most) return INT32_MAX;
    if (a < -most) return INT32_MIN;
    return lgr_sat_s32(a * ((int64_t)1 << (left > 31 ? 31 : left)));
}
LGR_INLINE int32_t lgr_div_one(int32_t x, int32_t y, int32_t shift)
{
    const int64_t d = y, a = d < 0 ? -(int64_t)x : x;
    if (d == 0) return a > 0 ? INT32_MAX : a < 0 ? INT32_MIN : 0;
    const lgr_divider v = lgr_make_divider(d < 0 ? -d : d);
    return lgr_div_scaled(a * v.recip, shift - v.shift); /* |a * recip| <= 2^61 */
}
#endif
