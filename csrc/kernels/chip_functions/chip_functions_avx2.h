/* chip_functions_avx2.h - 8 lanes of one function; a table of 16 is two permutes and a blend. For files built with -mavx2. */
#ifndef LGR_CHIP_FUNCTIONS_AVX2_H
#define LGR_CHIP_FUNCTIONS_AVX2_H
#include "lgr/chip_functions.h"
#include <immintrin.h>

#define LGR_VEC static inline __attribute__((always_inline))

/* b where the sign bit of `sign` is set */
LGR_VEC __m256i lgr_blend8(__m256i a, __m256i b, __m256i sign)
{
    return _mm256_castps_si256(_mm256_blendv_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b),
                                                _mm256_castsi256_ps(sign)));
}
/* t[j]; the sign bit of `high` is bit 3 of j */
LGR_VEC __m256i lgr_look8(const void *t, __m256i j, __m256i high)
{
    const __m256i *v = t;
    return lgr_blend8(_mm256_permutevar8x32_epi32(_mm256_load_si256(v), j),
                      _mm256_permutevar8x32_epi32(_mm256_load_si256(v + 1), j), high);
}
/* t[j] for x >= 0, t[16 + j] for x < 0 */
LGR_VEC __m256i lgr_signed8(const int32_t *t, __m256i j, __m256i high, __m256i x)
{
    return lgr_blend8(lgr_look8(t, j, high), lgr_look8(t + 16, j, high), x);
}
LGR_VEC __m256i lgr_above8(__m256i a, __m256i b) /* a > b, unsigned: -1 or 0 */
{
    const __m256i bias = _mm256_set1_epi32(INT32_MIN);
    return _mm256_cmpgt_epi32(_mm256_xor_si256(a, bias), _mm256_xor_si256(b, bias));
}
/* bucket 0: count the thresholds below */
LGR_VEC __m256i lgr_segment8(const lgr_pwl *p, const int bucket, __m256i a)
{
    if (bucket == 0) {
        __m256i j = _mm256_setzero_si256();
        for (int k = 0; k < 15; ++k)
            j = _mm256_sub_epi32(j, lgr_above8(a, _mm256_set1_epi32((int32_t)p->thr[k])));
        return j;
    }
    const __m256i b = _mm256_min_epu32(_mm256_srli_epi32(a, bucket), _mm256_set1_epi32(31));
    const __m256i t = _mm256_packus_epi16(_mm256_load_si256((const void *)p->j0),
                                          _mm256_load_si256((const void *)(p->j0 + 16)));
    /* t holds 0-7 16-23 | 8-15 24-31 */
    const __m256i lo = _mm256_permute4x64_epi64(t, 0x88), hi = _mm256_permute4x64_epi64(t, 0xdd);
    const __m256i found = lgr_blend8(_mm256_shuffle_epi8(lo, b), _mm256_shuffle_epi8(hi, b),
                                     _mm256_slli_epi32(b, 27));
    const __m256i j = _mm256_and_si256(found, _mm256_set1_epi32(255));
    return _mm256_sub_epi32(j, lgr_above8(a, lgr_look8(p->thr, j, _mm256_slli_epi32(j, 28))));
}
/* Which function, a compile-time constant: how segments are found, what else differs. */
enum { LGR_IS_SIGMOID = 0, LGR_IS_TANH = 1, LGR_IS_GELU = 2 /* and swish */ };

/* slope * x, the two halves of a vector in 64 bits */
typedef struct lgr_wide8 {
    __m256i even, odd, icpt;
} lgr_wide8;
LGR_VEC lgr_wide8 lgr_line8(const lgr_pwl *p, const int is, __m256i x)
{
    const int bucket = is == LGR_IS_GELU ? 0 : is == LGR_IS_TANH ? 24 : 25;
    const __m256i j = lgr_segment8(p, bucket, _mm256_abs_epi32(x)), high = _mm256_slli_epi32(j, 28);
    const __m256i s =
        is == LGR_IS_GELU ? lgr_signed8(p->slope, j, high, x) : lgr_look8(p->slope, j, high);
    lgr_wide8 w;
    w.icpt = lgr_signed8(p->icpt, j, high, x);
    if (is != LGR_IS_SIGMOID) x = _mm256_max_epi32(x, _mm256_set1_epi32(-INT32_MAX));
    w.even = _mm256_mul_epi32(x, s);
    w.odd = _mm256_mul_epi32(_mm256_srli_epi64(x, 32), _mm256_srli_epi64(s, 32));
    return w;
}
/* arcs, venusA: Q27 -> Q31 (GELU, swish: Q27) */
LGR_VEC __m256i lgr_pwl27x8(const lgr_pwl *p, const int is, const int venusa, __m256i x)
{
    lgr_wide8 w = lgr_line8(p, is, x);
    if (venusa) {
        const __m256i half = _mm256_set1_epi64x(1 << 26);
        w.even = _mm256_add_epi64(w.even, half);
        w.odd = _mm256_add_epi64(w.odd, half);
    }
    return _mm256_add_epi32(
        _mm256_blend_epi32(_mm256_srli_epi64(w.even, 27), _mm256_slli_epi64(w.odd, 5), 0xaa),
        w.icpt);
}
LGR_VEC __m256i lgr_clamp8(__m256i v, int lo, int hi)
{
    return _mm256_min_epi32(_mm256_max_epi32(v, _mm256_set1_epi32(lo)), _mm256_set1_epi32(hi));
}
/* floor(v / 2^s + 1/2), s >= 1, no overflow */
LGR_VEC __m256i lgr_rhu8(__m256i v, int s)
{
    return _mm256_srai_epi32(_mm256_add_epi32(_mm256_srai_epi32(v, s - 1), _mm256_set1_epi32(1)),
                             1);
}
/* venusA: Q27 -> 8 or 16 bits, rounded once from the exact sum, whose upper half suffices */
LGR_VEC __m256i lgr_pwl27x8_narrow(const lgr_pwl *p, const int is, const int bits, __m256i x)
{
    const lgr_wide8 w = lgr_line8(p, is, x);
    const __m256i one = _mm256_set1_epi32(1 << 27);
    const __m256i even = _mm256_add_epi64(w.even, _mm256_mul_epi32(w.icpt, one));
    const __m256i odd =
        _mm256_add_epi64(w.odd, _mm256_mul_epi32(_mm256_srli_epi64(w.icpt, 32), one));
    const __m256i top = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
    return lgr_clamp8(lgr_rhu8(top, 27 - bits), -(1 << (bits - 1)), (1 << (bits - 1)) - 1);
}
/* venus: Q11 -> Q15, both in 32-bit lanes */
LGR_VEC __m256i lgr_pwl11x8(const lgr_pwl *p, const int is, __m256i x)
{
    const __m256i j = lgr_segment8(p, is == LGR_IS_TANH ? 8 : 9, _mm256_abs_epi32(x)),
                  high = _mm256_slli_epi32(j, 28), c = lgr_signed8(p->icpt, j, high, x);
    if (is == LGR_IS_TANH) x = _mm256_max_epi32(x, _mm256_set1_epi32(-32767));
    const __m256i v = _mm256_srav_epi32(_mm256_mullo_epi32(x, lgr_look8(p->slope, j, high)),
                                        lgr_look8(p->shift, j, high));
    return lgr_clamp8(_mm256_add_epi32(v, c), -32768, 32767);
}
#endif
