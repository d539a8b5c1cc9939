/* softmax_avx2.c - 8 terms at a time. Products are formed in 64 bits, in two halves; results fit 32 bits, so a logical shift
 * will do, and the odd half is shifted into the upper words right away. */
#include "kernels/softmax/softmax_isa.h"
#include <immintrin.h>

#define VEC static inline __attribute__((always_inline))

VEC __m256i odd(__m256i v) { return _mm256_srli_epi64(v, 32); }
/* low 32 bits of (even >> s) and (odd >> s), 0 < s < 32 */
VEC __m256i join(__m256i even, __m256i odds, const int s)
{
    return _mm256_blend_epi32(_mm256_srli_epi64(even, s), _mm256_slli_epi64(odds, 32 - s), 0xaa);
}
/* RSH(a * b, s) */
VEC __m256i mul_rsh(__m256i a, __m256i b, const int s)
{
    const __m256i half = _mm256_set1_epi64x((int64_t)1 << (s - 1));
    return join(_mm256_add_epi64(_mm256_mul_epi32(a, b), half),
                _mm256_add_epi64(_mm256_mul_epi32(odd(a), odd(b)), half), s);
}
/* sat_32(x - m), never positive: it can only fall below the range */
VEC __m256i distance(__m256i x, __m256i m)
{
    const __m256i d = _mm256_sub_epi32(x, m), none = _mm256_setzero_si256();
    return _mm256_blendv_epi8(d, _mm256_set1_epi32(INT32_MIN), _mm256_cmpgt_epi32(d, none));
}
VEC __m256i terms(const int once, __m256i d)
{
    const __m256i v = mul_rsh(d, _mm256_set1_epi32(LGR_LOG2E), 31);
    const __m256i down = _mm256_sub_epi32(_mm256_setzero_si256(), _mm256_srai_epi32(v, 23));
    const __m256i f = _mm256_sub_epi32(_mm256_and_si256(v, _mm256_set1_epi32(0x7fffff)),
                                       _mm256_set1_epi32(1 << 23));
    __m256i y = _mm256_add_epi32(mul_rsh(_mm256_set1_epi32(LGR_EXP_P0), f, 23),
                                 _mm256_set1_epi32(LGR_EXP_P1));
    y = _mm256_add_epi32(mul_rsh(y, f, 23), _mm256_set1_epi32(LGR_EXP_P2));
    y = _mm256_add_epi32(mul_rsh(y, f, 23), _mm256_set1_epi32(LGR_EXP_P3));
    if (!once) {
        y = _mm256_add_epi32(mul_rsh(y, f, 23), _mm256_set1_epi32(LGR_EXP_P4));
        return _mm256_srlv_epi32(_mm256_add_epi32(y, y), down); /* 0 from 32 on */
    }
    const __m256i top = _mm256_set1_epi64x((int64_t)LGR_EXP_P4 << 23), one = _mm256_set1_epi64x(1);
    const __m256i s = _mm256_add_epi32(down, _mm256_set1_epi32(21)); /* then half of the rest */
    const __m256i s_even = _mm256_and_si256(s, _mm256_set1_epi64x(0xffffffff)), s_odd = odd(s);
    __m256i even = _mm256_add_epi64(_mm256_mul_epi32(y, f), top),
            odds = _mm256_add_epi64(_mm256_mul_epi32(odd(y), odd(f)), top);
    even = _mm256_add_epi64(_mm256_srlv_epi64(even, s_even), one);
    odds = _mm256_add_epi64(_mm256_srlv_epi64(odds, s_odd), one);
    return join(even, odds, 1);
}
VEC __m256i load(const int32_t *x) { return _mm256_loadu_si256((const void *)x); }

static int32_t top_of(const int32_t *x, int64_t n)
{
    __m256i v = _mm256_set1_epi32(INT32_MIN);
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) v = _mm256_max_epi32(v, load(x + i));
    int32_t m[8];
    _mm256_storeu_si256((void *)m, v);
    return lgr_max_ref(x + i, n - i, lgr_max_ref(m, 8, INT32_MIN));
}
/* Terms to e when it is not NULL; returns their sum. */
VEC int64_t sum_terms(const int once, const int32_t *x, int64_t n, int32_t m, int32_t *e)
{
    const __m256i top = _mm256_set1_epi32(m);
    __m256i sum = _mm256_setzero_si256();
    int64_t i = 0, lane[4], tail = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256i t = terms(once, distance(load(x + i), top));
        if (e) _mm256_storeu_si256((void *)(e + i), t);
        sum = _mm256_add_epi64(sum, odd(t));
        sum = _mm256_add_epi64(sum, _mm256_and_si256(t, _mm256_set1_epi64x(0xffffffff)));
    }
    for (; i < n; ++i) {
        const int32_t t = lgr_exp_ref(once, lgr_sat_s32((int64_t)x[i] - m));
        if (e) e[i] = t;
        tail += t;
    }
    _mm256_storeu_si256((void *)lane, sum);
    return lane[0] + lane[1] + lane[2] + lane[3] + tail;
}

void lgr_softmax_avx2(int chip, const int32_t *x, int64_t n, int32_t *y)
{
    const int32_t m = top_of(x, n);
    const int64_t sum = chip == LGR_ARCS ? sum_terms(LGR_EXP_TWICE, x, n, m, y)
                                         : sum_terms(LGR_EXP_ONCE, x, n, lgr_softmax_top(m), y);
    const int64_t c = lgr_reciprocal(sum);
    const __m256i factor = _mm256_set1_epi64x(c), half = _mm256_set1_epi64x((int64_t)1 << 37);
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256i e = load(y + i);
        const __m256i even = _mm256_add_epi64(_mm256_mul_epu32(e, factor), half),
                      odds = _mm256_add_epi64(_mm256_mul_epu32(odd(e), factor), half);
        const __m256i high = _mm256_blend_epi32(odd(even), odds, 0xaa);
        _mm256_storeu_si256((void *)(y + i), _mm256_srli_epi32(high, 6));
    }
    lgr_divide_ref(y + i, n - i, c);
}

void lgr_log_softmax_avx2(const int32_t *x, int64_t n, int32_t *y)
{
    const int32_t m = lgr_softmax_top(top_of(x, n));
    const int32_t ln = lgr_half_ln(sum_terms(LGR_EXP_ONCE, x, n, m, NULL));
    const __m256i top = _mm256_set1_epi32(m), sub = _mm256_set1_epi32(ln);
    const __m256i one = _mm256_set1_epi32(1), none = _mm256_setzero_si256();
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) { /* RSH(-u, 10) = -((u + 511) >> 10), u = m - x unsigned */
        const __m256i u = _mm256_sub_epi32(top, load(x + i));
        const __m256i rest = _mm256_and_si256(u, _mm256_set1_epi32(511));
        const __m256i s = _mm256_add_epi32(_mm256_srli_epi32(u, 9), one);
        const __m256i up = _mm256_add_epi32(s, _mm256_cmpeq_epi32(rest, none));
        const __m256i v = _mm256_add_epi32(_mm256_srli_epi32(up, 1), sub);
        _mm256_storeu_si256((void *)(y + i), _mm256_sub_epi32(none, v));
    }
    for (; i < n; ++i) y[i] = (int32_t)lgr_rsh_s64((int64_t)x[i] - m, 10) - ln;
}
