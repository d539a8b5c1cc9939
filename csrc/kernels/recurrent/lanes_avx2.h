/* lanes_avx2.h - 8 units at a time, vpmaddwd products of int16 pairs (exact: a pair sums to at most 2^15). The names of
 * lanes_avx512vnni.h. */
#ifndef LGR_LANES_H
#define LGR_LANES_H
#include "kernels/chip_functions/chip_functions_avx2.h"
#include "kernels/recurrent/recurrent_sizes.h"
#include "lgr/recurrent.h"
#include <string.h>

#define LGR_TWIN(name) name##_avx2
enum { GROUP = 2 /* codes that one product takes together */ };
typedef int16_t hcode; /* a code of x or h */

/* rounded right shift by a number that is not a constant: shift = s - 1, any = s > 0 */
LGR_VEC vi v_round_by(vi v, __m128i shift, int any)
{
    if (!any) return v;
    /* INT32_MAX where shift is 0: adding 1 first would wrap */
    const vi twice = _mm256_sra_epi32(v, shift);
    return v_add(v_half(twice), v_and(twice, v_set(1)));
}
LGR_VEC vi v_sat_add(vi a, vi b)
{
    const vi s = v_add(a, b);
    const vi over = _mm256_andnot_si256(_mm256_xor_si256(a, b), _mm256_xor_si256(a, s));
    return lgr_blend8(s, _mm256_xor_si256(_mm256_srai_epi32(a, 31), v_set(INT32_MAX)), over);
}
/* the low and the high halves of a * b */
LGR_VEC void v_wide(vi a, vi b, vi *lo, vi *hi)
{
    const vi e = _mm256_mul_epi32(a, b),
             d = _mm256_mul_epi32(_mm256_srli_epi64(a, 32), _mm256_srli_epi64(b, 32));
    *lo = _mm256_blend_epi32(e, _mm256_slli_epi64(d, 32), 0xaa);
    *hi = _mm256_blend_epi32(_mm256_srli_epi64(e, 32), d, 0xaa);
}
/* sat_32(a * b); counts the lanes that saturate */
LGR_VEC vi v_sat_mul(vi a, vi b, int64_t *saturated)
{
    vi lo, hi;
    v_wide(a, b, &lo, &hi);
    const vi fits = _mm256_cmpeq_epi32(hi, _mm256_srai_epi32(lo, 31));
    const unsigned cut = ~(unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(fits)) & 255;
    if (__builtin_expect(cut != 0, 0)) *saturated += __builtin_popcount(cut);
    return lgr_blend8(_mm256_xor_si256(_mm256_srai_epi32(hi, 31), v_set(INT32_MAX)), lo, fits);
}
/* a * b / 2^31 rounded half up; the result fits */
LGR_VEC vi v_mul31(vi a, vi b) { return v_mul_round(a, b, 31); }
/* largest float bits of |z * scale * a + b|, in float32 */
LGR_VEC vi v_mixed(vi most, vi z, float scale, vi a, vi b)
{
    const __m256 share = _mm256_mul_ps(_mm256_cvtepi32_ps(z), _mm256_set1_ps(scale));
    const __m256 v =
        _mm256_add_ps(_mm256_mul_ps(share, _mm256_cvtepi32_ps(a)), _mm256_cvtepi32_ps(b));
    return v_max(most, v_and(_mm256_castps_si256(v), v_set(INT32_MAX)));
}
LGR_VEC __m128i v_narrow(vi v) /* to int16 */
{
    return _mm256_castsi256_si128(_mm256_permute4x64_epi64(_mm256_packs_epi32(v, v), 0x08));
}
/* lanes within int16; within a byte */
LGR_VEC void v_put16(void *p, vi v) { _mm_storeu_si128(p, v_narrow(v)); }
LGR_VEC void v_put8(void *p, vi v)
{
    const __m128i v16 = v_narrow(v);
    _mm_storel_epi64(p, _mm_packus_epi16(v16, v16));
}
LGR_VEC vi v_codes(const hcode *h) /* codes of a state */
{
    return _mm256_cvtepi16_epi32(_mm_loadu_si128((const void *)h));
}
LGR_VEC void v_put_code(hcode *h, vi v) { _mm_storeu_si128((void *)h, v_narrow(v)); }
/* the first n lanes, as they leave the layer */
LGR_VEC void v_put(int8_t *y, float *value, vi v, float inv, int64_t n)
{
    const __m128i v16 = v_narrow(v), v8 = _mm_packs_epi16(v16, v16);
    const __m256 f = _mm256_mul_ps(_mm256_cvtepi32_ps(v), _mm256_set1_ps(inv));
    if (n >= 8) {
        _mm_storel_epi64((void *)y, v8);
        if (value) _mm256_storeu_ps(value, f);
    } else if (n > 0) {
        int8_t codes[16];
        float real[8];
        _mm_storeu_si128((void *)codes, v8);
        _mm256_storeu_ps(real, f);
        memcpy(y, codes, (size_t)n);
        if (value) memcpy(value, real, (size_t)n * sizeof(float));
    }
}
LGR_VEC hcode code_of(int8_t v) { return v; }
LGR_VEC int8_t of_code(hcode v) { return (int8_t)v; }
/* n codes, padded to a multiple of GROUP */
LGR_VEC void take_codes(hcode *restrict to, const int8_t *restrict from, int64_t n, int64_t padded)
{
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        _mm256_storeu_si256((void *)(to + i),
                            _mm256_cvtepi8_epi16(_mm_loadu_si128((const void *)(from + i))));
    for (; i < n; ++i) to[i] = from[i];
    for (; i < padded; ++i) to[i] = 0;
}

/* A sum in Q.q brought to Q.base */
typedef struct fit {
    int left, any;
    __m128i shift;
    vi most, least;
} fit;
LGR_VEC fit fit_make(int q, int base)
{
    const int s = q < base ? (base - q < 31 ? base - q : 31) : q - base; /* 31: all but 0, -1 */
    fit f = {.left = q < base, .any = s > 0};
    f.shift = _mm_cvtsi32_si128(f.left ? s : s - 1);
    f.most = v_set(INT32_MAX >> (f.left ? s : 0));
    f.least = v_set(INT32_MIN >> (f.left ? s : 0));
    return f;
}
LGR_VEC vi fitted(const fit *f, vi g)
{
    if (!f->left) return v_round_by(g, f->shift, f->any);
    return lgr_blend8(_mm256_sll_epi32(v_max(g, f->least), f->shift), v_set(INT32_MAX),
                      _mm256_cmpgt_epi32(g, f->most));
}

/* m rows x one gate of one unit block: sums with bias, fitted */
LGR_VEC void tile(const int m_rows, const hcode *x, int64_t step, int64_t groups, const int16_t *w,
                  const int32_t *bias, int wide, const fit *f, int32_t *out, int64_t ostep)
{
    vi acc[6][2];
#pragma GCC unroll 6
    for (int m = 0; m < m_rows; ++m) acc[m][0] = acc[m][1] = v_set(0);
    const hcode *p1 = x + 3 * step;
    for (int64_t q = 0; q < groups; ++q, x += 2, p1 += 2, w += 32) {
        const vi w0 = _mm256_loadu_si256((const void *)w),
                 w1 = _mm256_loadu_si256((const void *)(w + 16));
#pragma GCC unroll 6
        for (int m = 0; m < m_rows; ++m) {
            int32_t two;
            memcpy(&two, (m < 3 ? x : p1) + m % 3 * step, 4);
            acc[m][0] = v_add(acc[m][0], _mm256_madd_epi16(v_set(two), w0));
            acc[m][1] = v_add(acc[m][1], _mm256_madd_epi16(v_set(two), w1));
        }
    }
    const fit ff = *f;
#pragma GCC unroll 6
    for (int m = 0; m < m_rows; ++m)
#pragma GCC unroll 2
        for (int b = 0; b < 2; ++b) {
            const vi bv = v_load(bias + 8 * b);
            const vi g = wide ? v_sat_add(acc[m][b], bv) : v_add(acc[m][b], bv);
            v_store(out + m * ostep + 8 * b, fitted(&ff, g));
        }
}
/* Functions of their own: inlined into the walk, gcc 12 spills the sums in every round. */
#define LGR_TILE(m_rows)                                                                           \
    static __attribute__((noinline)) void tile##m_rows(                                            \
        const hcode *x, int64_t step, int64_t groups, const int16_t *w, const int32_t *bias,       \
        int wide, const fit *f, int32_t *out, int64_t ostep)                                       \
    {                                                                                              \
        tile(m_rows, x, step, groups, w, bias, wide, f, out, ostep);                               \
    }
LGR_TILE(6)
LGR_TILE(4)
LGR_TILE(2)
LGR_TILE(1)
/* `count` rows x `gates` gates of one unit block; w, bias begin at the first of them */
LGR_VEC void products(const int gates, int64_t count, const hcode *x, int64_t step, int64_t groups,
                      const void *packed, const int32_t *sum, const int32_t *bias, int wide,
                      const fit *f, int32_t *out, int64_t ostep)
{
    const int16_t *w = packed;
    (void)sum;
    for (int b = 0; b < gates; ++b, w += groups * 32, bias += 16, out += 16) {
        int64_t m = 0;
        for (; m + 6 <= count; m += 6)
            tile6(x + m * step, step, groups, w, bias, wide, f, out + m * ostep, ostep);
        for (; m + 4 <= count; m += 4)
            tile4(x + m * step, step, groups, w, bias, wide, f, out + m * ostep, ostep);
        for (; m + 2 <= count; m += 2)
            tile2(x + m * step, step, groups, w, bias, wide, f, out + m * ostep, ostep);
        for (; m < count; ++m)
            tile1(x + m * step, step, groups, w, bias, wide, f, out + m * ostep, ostep);
    }
}
#endif
