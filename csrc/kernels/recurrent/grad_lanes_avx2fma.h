/* grad_lanes_avx2fma.h - 8 floats at a time; the names of grad_lanes_avx512vnni.h. */
#ifndef LGR_GRAD_LANES_H
#define LGR_GRAD_LANES_H
#include "kernels/chip_functions/chip_functions_avx2.h"
#include "kernels/lanes/floats_256.h"

#define LGR_TWIN(name) name##_avx2fma
enum { TILE_M = 6 /* rows of a register tile */ };
typedef __m256i vg; /* integers, one for each float */

LGR_VEC vg g_load(const int32_t *p) { return _mm256_loadu_si256((const void *)p); }
LGR_VEC vg g_load_n(const int32_t *p, int64_t n)
{
    int32_t lane[8] = {0};
    if (n >= 8) return g_load(p);
    if (n > 0) memcpy(lane, p, f_first(n) * sizeof(int32_t));
    return g_load(lane);
}
/* 16-bit and byte planes of what forward saved */
LGR_VEC vg g_load16(const void *p) { return _mm256_cvtepi16_epi32(_mm_loadu_si128(p)); }
LGR_VEC vg g_load8(const void *p) { return _mm256_cvtepu8_epi32(_mm_loadl_epi64(p)); }
LGR_VEC vg g_and(vg v, int bits) { return _mm256_and_si256(v, _mm256_set1_epi32(bits)); }
LGR_VEC vg g_up(vg v, int s) { return _mm256_slli_epi32(v, s); }
LGR_VEC vg g_add(vg a, vg b) { return _mm256_add_epi32(a, b); }
LGR_VEC vg g_sub(vg a, vg b) { return _mm256_sub_epi32(a, b); }
LGR_VEC vg g_plus(vg v, int n) { return _mm256_add_epi32(v, _mm256_set1_epi32(n)); }
LGR_VEC vg g_codes_n(const int8_t *p, int64_t n)
{
    int8_t lane[8] = {0};
    if (n > 0) memcpy(lane, p, f_first(n));
    return _mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)lane));
}
LGR_VEC vg g_clamp(vg v, int lo, int hi) { return v_clamp(v, lo, hi); }
LGR_VEC vg g_round(vg v, int s) { return s > 0 ? v_round(v, s) : v; }
LGR_VEC vf f_from(vg v, float scale) { return _mm256_cvtepi32_ps(v) * f_set(scale); }
LGR_VEC vg g_pwl27(int table, const int is_tanh, const int venusa, vg x)
{
    return v_pwl27(&lgr_chip_tables[table], is_tanh, venusa, x);
}
LGR_VEC vg g_pwl11(int table, const int is_tanh, vg x)
{
    return v_pwl11(&lgr_chip_tables[table], is_tanh, x);
}
/* e / (1 + e)^2 with e = exp(-|x|): the derivative of the sigmoid at x, a quarter of that of tanh at x / 2 */
LGR_VEC vf f_dsigmoid(vf x)
{
    const vf a = _mm256_min_ps(_mm256_andnot_ps(f_set(-0.0f), x), f_set(80.0f));
    const vf t = a * f_set(-1.44269504f), n = _mm256_round_ps(t, 8), f = t - n;
    vf p = f_fma(f, f_set(1.33336e-3f), f_set(9.61813e-3f));
    p = f_fma(p, f, f_set(5.550411e-2f));
    p = f_fma(p, f, f_set(2.4022651e-1f));
    p = f_fma(p, f, f_set(6.9314718e-1f));
    p = f_fma(p, f, f_set(1.0f));
    const __m256i up = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
    const vf e = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), up)),
             d = e + f_set(1.0f);
    return e / (d * d);
}
#endif
