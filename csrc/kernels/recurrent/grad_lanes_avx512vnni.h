/* grad_lanes_avx512vnni.h - 16 floats at a time; the names that lstm_backward.h and gru_backward.h are written in. */
#ifndef LGR_GRAD_LANES_H
#define LGR_GRAD_LANES_H
#include "kernels/chip_functions/chip_functions_avx512.h"
#include "kernels/lanes/floats_512.h"

#define LGR_TWIN(name) name##_avx512vnni
enum { TILE_M = 8 /* rows of a register tile */ };
typedef __m512i vg; /* integers, one for each float */

LGR_VEC vg g_load(const int32_t *p) { return _mm512_loadu_si512(p); }
LGR_VEC vg g_load_n(const int32_t *p, int64_t n)
{
    const __mmask16 k = f_first(n);
    return k ? _mm512_maskz_loadu_epi32(k, p) : _mm512_setzero_si512();
}
/* 16-bit and byte planes of what forward saved */
LGR_VEC vg g_load16(const void *p) { return _mm512_cvtepi16_epi32(_mm256_loadu_si256(p)); }
LGR_VEC vg g_load8(const void *p) { return _mm512_cvtepu8_epi32(_mm_loadu_si128(p)); }
LGR_VEC vg g_and(vg v, int bits) { return _mm512_and_si512(v, _mm512_set1_epi32(bits)); }
LGR_VEC vg g_up(vg v, int s) { return _mm512_slli_epi32(v, (unsigned)s); }
LGR_VEC vg g_add(vg a, vg b) { return _mm512_add_epi32(a, b); }
LGR_VEC vg g_sub(vg a, vg b) { return _mm512_sub_epi32(a, b); }
LGR_VEC vg g_plus(vg v, int n) { return _mm512_add_epi32(v, _mm512_set1_epi32(n)); }
LGR_VEC vg g_codes_n(const int8_t *p, int64_t n)
{
    const __mmask16 k = f_first(n);
    return _mm512_cvtepi8_epi32(k ? _mm_maskz_loadu_epi8(k, p) : _mm_setzero_si128());
}
LGR_VEC vg g_clamp(vg v, int lo, int hi) { return v_clamp(v, lo, hi); }
LGR_VEC vg g_round(vg v, int s) { return s > 0 ? v_round(v, s) : v; }
LGR_VEC vf f_from(vg v, float scale) { return _mm512_cvtepi32_ps(v) * f_set(scale); }
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
    const vf t = _mm512_mul_ps(_mm512_abs_ps(x), f_set(-1.44269504f)),
             n = _mm512_roundscale_ps(t, 8), f = t - n;
    vf p = f_fma(f, f_set(1.33336e-3f), f_set(9.61813e-3f));
    p = f_fma(p, f, f_set(5.550411e-2f));
    p = f_fma(p, f, f_set(2.4022651e-1f));
    p = f_fma(p, f, f_set(6.9314718e-1f));
    p = f_fma(p, f, f_set(1.0f));
    const vf e = _mm512_scalef_ps(p, n), d = e + f_set(1.0f);
    return e / (d * d);
}
#endif
