/* chip_functions_avx512.h - 16 lanes of one function; a table of 16 is one register. For files built with AVX-512 F and BW. */
#ifndef LGR_CHIP_FUNCTIONS_AVX512_H
#define LGR_CHIP_FUNCTIONS_AVX512_H
#include "kernels/chip_functions/chip_functions_avx2.h" /* LGR_IS_... */

LGR_VEC __m512i lgr_row16(const void *p) { return _mm512_load_si512(p); }
/* t[j] for x >= 0, t[16 + j] for x < 0 */
LGR_VEC __m512i lgr_signed16(const int32_t *t, __m512i j, __m512i x)
{
    const __m512i s = _mm512_mask_or_epi32(j, _mm512_cmplt_epi32_mask(x, _mm512_setzero_si512()), j,
                                           _mm512_set1_epi32(16));
    return _mm512_permutex2var_epi32(lgr_row16(t), s, lgr_row16(t + 16));
}
/* bucket 0: count the thresholds below */
LGR_VEC __m512i lgr_segment16(const lgr_pwl *p, const int bucket, __m512i a)
{
    const __m512i one = _mm512_set1_epi32(1);
    if (bucket == 0) {
        __m512i j = _mm512_setzero_si512();
        for (int k = 0; k < 15; ++k) {
            const __m512i thr = _mm512_set1_epi32((int32_t)p->thr[k]);
            j = _mm512_mask_add_epi32(j, _mm512_cmpgt_epu32_mask(a, thr), j, one);
        }
        return j;
    }
    const __m512i b =
        _mm512_min_epu32(_mm512_srli_epi32(a, (unsigned)bucket), _mm512_set1_epi32(31));
    const __m512i j = _mm512_permutexvar_epi16(b, lgr_row16(p->j0)); /* high words: entry 0 is 0 */
    const __m512i thr = _mm512_permutexvar_epi32(j, lgr_row16(p->thr));
    return _mm512_mask_add_epi32(j, _mm512_cmpgt_epu32_mask(a, thr), j, one);
}
/* slope * x, the two halves of a vector in 64 bits */
typedef struct lgr_wide16 {
    __m512i even, odd, icpt;
} lgr_wide16;
LGR_VEC lgr_wide16 lgr_line16(const lgr_pwl *p, const int is, __m512i x)
{
    const int bucket = is == LGR_IS_GELU ? 0 : is == LGR_IS_TANH ? 24 : 25;
    const __m512i j = lgr_segment16(p, bucket, _mm512_abs_epi32(x));
    const __m512i s = is == LGR_IS_GELU ? lgr_signed16(p->slope, j, x)
                                        : _mm512_permutexvar_epi32(j, lgr_row16(p->slope));
    lgr_wide16 w;
    w.icpt = lgr_signed16(p->icpt, j, x);
    if (is != LGR_IS_SIGMOID) x = _mm512_max_epi32(x, _mm512_set1_epi32(-INT32_MAX));
    w.even = _mm512_mul_epi32(x, s);
    w.odd = _mm512_mul_epi32(_mm512_srli_epi64(x, 32), _mm512_srli_epi64(s, 32));
    return w;
}
/* arcs, venusA: Q27 -> Q31 (GELU, swish: Q27) */
LGR_VEC __m512i lgr_pwl27x16(const lgr_pwl *p, const int is, const int venusa, __m512i x)
{
    lgr_wide16 w = lgr_line16(p, is, x);
    if (venusa) {
        const __m512i half = _mm512_set1_epi64(1 << 26);
        w.even = _mm512_add_epi64(w.even, half);
        w.odd = _mm512_add_epi64(w.odd, half);
    }
    return _mm512_add_epi32(
        _mm512_mask_mov_epi32(_mm512_srli_epi64(w.even, 27), 0xaaaa, _mm512_slli_epi64(w.odd, 5)),
        w.icpt);
}
LGR_VEC __m512i lgr_clamp16(__m512i v, int lo, int hi)
{
    return _mm512_min_epi32(_mm512_max_epi32(v, _mm512_set1_epi32(lo)), _mm512_set1_epi32(hi));
}
/* floor(v / 2^s + 1/2), s >= 1, no overflow */
LGR_VEC __m512i lgr_rhu16(__m512i v, unsigned s)
{
    return _mm512_srai_epi32(_mm512_add_epi32(_mm512_srai_epi32(v, s - 1), _mm512_set1_epi32(1)),
                             1);
}
/* venusA: Q27 -> 8 or 16 bits, rounded once from the exact sum, whose upper half suffices */
LGR_VEC __m512i lgr_pwl27x16_narrow(const lgr_pwl *p, const int is, const int bits, __m512i x)
{
    const lgr_wide16 w = lgr_line16(p, is, x);
    const __m512i one = _mm512_set1_epi32(1 << 27);
    const __m512i even = _mm512_add_epi64(w.even, _mm512_mul_epi32(w.icpt, one));
    const __m512i odd =
        _mm512_add_epi64(w.odd, _mm512_mul_epi32(_mm512_srli_epi64(w.icpt, 32), one));
    const __m512i top = _mm512_mask_mov_epi32(_mm512_srli_epi64(even, 32), 0xaaaa, odd);
    return lgr_clamp16(lgr_rhu16(top, (unsigned)(27 - bits)), -(1 << (bits - 1)),
                       (1 << (bits - 1)) - 1);
}
/* venus: Q11 -> Q15, both in 32-bit lanes */
LGR_VEC __m512i lgr_pwl11x16(const lgr_pwl *p, const int is, __m512i x)
{
    const __m512i j = lgr_segment16(p, is == LGR_IS_TANH ? 8 : 9, _mm512_abs_epi32(x)),
                  c = lgr_signed16(p->icpt, j, x);
    if (is == LGR_IS_TANH) x = _mm512_max_epi32(x, _mm512_set1_epi32(-32767));
    const __m512i v =
        _mm512_srav_epi32(_mm512_mullo_epi32(x, _mm512_permutexvar_epi32(j, lgr_row16(p->slope))),
                          _mm512_permutexvar_epi32(j, lgr_row16(p->shift)));
    return lgr_clamp16(_mm512_add_epi32(v, c), -32768, 32767);
}
#endif
