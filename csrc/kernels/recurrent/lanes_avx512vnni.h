/* lanes_avx512vnni.h - 16 units at a time, vpdpbusd products of codes + 128. The bodies of lstm_forward.h and gru_forward.h are
 * written in the names of this file; lanes_avx2.h has the same names. */
#ifndef LGR_LANES_H
#define LGR_LANES_H
#include "kernels/chip_functions/chip_functions_avx512.h"
#include "kernels/recurrent/recurrent_sizes.h"
#include "lgr/recurrent.h"
#include <string.h>

#define LGR_TWIN(name) name##_avx512vnni
enum { GROUP = 4 /* codes that one product takes together */ };
typedef uint8_t hcode; /* a code of x or h + 128 */

/* rounded right shift by a number that is not a constant: shift = s - 1, any = s > 0 */
LGR_VEC vi v_round_by(vi v, __m128i shift, int any)
{
    if (!any) return v;
    /* INT32_MAX where shift is 0: adding 1 first would wrap */
    const vi twice = _mm512_sra_epi32(v, shift);
    return v_add(v_half(twice), v_and(twice, v_set(1)));
}
LGR_VEC vi v_sat_add(vi a, vi b)
{
    const vi s = v_add(a, b), over = _mm512_ternarylogic_epi32(a, b, s, 0x42);
    const __mmask16 k = _mm512_cmplt_epi32_mask(over, _mm512_setzero_si512()); /* s left the sign */
    return _mm512_mask_xor_epi32(s, k, _mm512_srai_epi32(a, 31), v_set(INT32_MAX));
}
/* sat_32(a * b); counts the lanes that saturate */
LGR_VEC vi v_sat_mul(vi a, vi b, int64_t *saturated)
{
    const vi hi = _mm512_set1_epi64(INT32_MAX), lo = _mm512_set1_epi64(INT32_MIN);
    const vi e = _mm512_mul_epi32(a, b),
             d = _mm512_mul_epi32(_mm512_srli_epi64(a, 32), _mm512_srli_epi64(b, 32)),
             es = _mm512_min_epi64(_mm512_max_epi64(e, lo), hi),
             ds = _mm512_min_epi64(_mm512_max_epi64(d, lo), hi);
    const unsigned cut =
        (unsigned)_mm512_cmpneq_epi64_mask(e, es) | (unsigned)_mm512_cmpneq_epi64_mask(d, ds) << 8;
    if (__builtin_expect(cut != 0, 0)) *saturated += __builtin_popcount(cut);
    return _mm512_mask_mov_epi32(es, 0xaaaa, _mm512_slli_epi64(ds, 32));
}
/* a * b / 2^31 rounded half up; the result fits */
LGR_VEC vi v_mul31(vi a, vi b) { return v_mul_round(a, b, 31); }
/* largest float bits of |z * scale * a + b|, in float32 */
LGR_VEC vi v_mixed(vi most, vi z, float scale, vi a, vi b)
{
    const __m512 share = _mm512_mul_ps(_mm512_cvtepi32_ps(z), _mm512_set1_ps(scale));
    const __m512 v =
        _mm512_add_ps(_mm512_mul_ps(share, _mm512_cvtepi32_ps(a)), _mm512_cvtepi32_ps(b));
    return v_max(most, v_and(_mm512_castps_si512(v), v_set(INT32_MAX)));
}
/* lanes within int16; within a byte */
LGR_VEC void v_put16(void *p, vi v) { _mm256_storeu_si256(p, _mm512_cvtepi32_epi16(v)); }
LGR_VEC void v_put8(void *p, vi v) { _mm_storeu_si128(p, _mm512_cvtepi32_epi8(v)); }
LGR_VEC vi v_codes(const hcode *h) /* codes of a state */
{
    const __m128i v = _mm_xor_si128(_mm_loadu_si128((const void *)h), _mm_set1_epi8((char)0x80));
    return _mm512_cvtepi8_epi32(v);
}
LGR_VEC void v_put_code(hcode *h, vi v)
{
    const __m128i v8 = _mm512_cvtepi32_epi8(v);
    _mm_storeu_si128((void *)h, _mm_xor_si128(v8, _mm_set1_epi8((char)0x80)));
}
/* the first n lanes, as they leave the layer */
LGR_VEC void v_put(int8_t *y, float *value, vi v, float inv, int64_t n)
{
    const __mmask16 k = v_first(n);
    _mm_mask_storeu_epi8(y, k, _mm512_cvtepi32_epi8(v));
    if (value)
        _mm512_mask_storeu_ps(value, k, _mm512_mul_ps(_mm512_cvtepi32_ps(v), _mm512_set1_ps(inv)));
}
LGR_VEC hcode code_of(int8_t v) { return (hcode)(v ^ (int8_t)-128); }
LGR_VEC int8_t of_code(hcode v) { return (int8_t)(v ^ 0x80); }
/* n codes, padded to a multiple of GROUP */
LGR_VEC void take_codes(hcode *restrict to, const int8_t *restrict from, int64_t n, int64_t padded)
{
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        _mm_storeu_si128((void *)(to + i), _mm_xor_si128(_mm_loadu_si128((const void *)(from + i)),
                                                         _mm_set1_epi8((char)0x80)));
    for (; i < n; ++i) to[i] = code_of(from[i]);
    for (; i < padded; ++i) to[i] = code_of(0);
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
    const __mmask16 k = _mm512_cmpgt_epi32_mask(g, f->most);
    return _mm512_mask_mov_epi32(_mm512_sll_epi32(v_max(g, f->least), f->shift), k,
                                 v_set(INT32_MAX));
}

/* asm: gcc 12 copies and spills the accumulators around the intrinsic */
#define LGR_DP(acc, x, w) __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(x), "v"(w))
/* m rows x n gates of one unit block: sums with bias, fitted */
LGR_VEC void tile(const int m_rows, const int n_gates, const hcode *x, int64_t step, int64_t groups,
                  const int8_t *w, const int32_t *sum, const int32_t *bias, int wide, const fit *f,
                  int32_t *out, int64_t ostep)
{
    vi acc[8][4];
#pragma GCC unroll 8
    for (int m = 0; m < m_rows; ++m)
#pragma GCC unroll 4
        for (int b = 0; b < n_gates; ++b) acc[m][b] = v_load(sum + 16 * b);
    const int64_t block = groups * 64, s3 = 3 * step;
    const hcode *p0 = x, *p1 = x + 4 * step;
    for (int64_t q = 0; q < groups; ++q, p0 += 4, p1 += 4, w += 64) {
        vi wv[4];
#pragma GCC unroll 4
        for (int b = 0; b < n_gates; ++b) wv[b] = _mm512_loadu_si512(w + b * block);
#pragma GCC unroll 8
        for (int m = 0; m < m_rows; ++m) {
            int32_t four;
            memcpy(&four,
                   (m < 4 ? p0 : p1) + (m % 4 == 0   ? 0
                                        : m % 4 == 1 ? step
                                        : m % 4 == 2 ? 2 * step
                                                     : s3),
                   4);
            const vi v = v_set(four);
#pragma GCC unroll 4
            for (int b = 0; b < n_gates; ++b) LGR_DP(acc[m][b], v, wv[b]);
        }
    }
    const fit ff = *f;
#pragma GCC unroll 4
    for (int b = 0; b < n_gates; ++b) {
        const vi bv = v_load(bias + 16 * b);
#pragma GCC unroll 8
        for (int m = 0; m < m_rows; ++m) {
            const vi g = wide ? v_sat_add(acc[m][b], bv) : v_add(acc[m][b], bv);
            v_store(out + m * ostep + 16 * b, fitted(&ff, g));
        }
    }
}
/* `count` rows x `gates` gates of one unit block; w, sum, bias begin at the first of them */
LGR_VEC void products(const int gates, int64_t count, const hcode *x, int64_t step, int64_t groups,
                      const void *packed, const int32_t *sum, const int32_t *bias, int wide,
                      const fit *f, int32_t *out, int64_t ostep)
{
    const int8_t *w = packed;
    int64_t m = 0;
    for (; m + 8 <= count; m += 8)
        for (int b = 0; b < gates; b += 2) {
            const int8_t *wb = w + b * groups * 64;
            const hcode *xm = x + m * step;
            int32_t *o = out + m * ostep + 16 * b;
            if (b + 1 < gates)
                tile(8, 2, xm, step, groups, wb, sum + 16 * b, bias + 16 * b, wide, f, o, ostep);
            else tile(8, 1, xm, step, groups, wb, sum + 16 * b, bias + 16 * b, wide, f, o, ostep);
        }
    for (; m + 4 <= count; m += 4)
        tile(4, gates, x + m * step, step, groups, w, sum, bias, wide, f, out + m * ostep, ostep);
    for (; m + 2 <= count; m += 2)
        tile(2, gates, x + m * step, step, groups, w, sum, bias, wide, f, out + m * ostep, ostep);
    for (; m < count; ++m)
        tile(1, gates, x + m * step, step, groups, w, sum, bias, wide, f, out + m * ostep, ostep);
}
#endif
