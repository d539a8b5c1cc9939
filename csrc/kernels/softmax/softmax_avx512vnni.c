/* softmax_avx512vnni.c - 16 terms at a time; the scheme of softmax_avx2.c, tails by mask. */
#include "kernels/softmax/softmax_isa.h"
#include <immintrin.h>

#define VEC static inline __attribute__((always_inline))

VEC __m512i odd(__m512i v) { return _mm512_srli_epi64(v, 32); }
VEC __m512i join(__m512i even, __m512i odds, const unsigned s)
{
    return _mm512_mask_mov_epi32(_mm512_srli_epi64(even, s), 0xaaaa,
                                 _mm512_slli_epi64(odds, 32 - s));
}
VEC __m512i mul_rsh(__m512i a, __m512i b, const unsigned s)
{
    const __m512i half = _mm512_set1_epi64((int64_t)1 << (s - 1));
    return join(_mm512_add_epi64(_mm512_mul_epi32(a, b), half),
                _mm512_add_epi64(_mm512_mul_epi32(odd(a), odd(b)), half), s);
}
VEC __m512i distance(__m512i x, __m512i m)
{
    const __m512i d = _mm512_sub_epi32(x, m);
    return _mm512_mask_mov_epi32(d, _mm512_cmpgt_epi32_mask(d, _mm512_setzero_si512()),
                                 _mm512_set1_epi32(INT32_MIN));
}
VEC __m512i terms(const int once, __m512i d)
{
    const __m512i v = mul_rsh(d, _mm512_set1_epi32(LGR_LOG2E), 31);
    const __m512i down = _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_srai_epi32(v, 23));
    const __m512i f = _mm512_sub_epi32(_mm512_and_si512(v, _mm512_set1_epi32(0x7fffff)),
                                       _mm512_set1_epi32(1 << 23));
    __m512i y = _mm512_add_epi32(mul_rsh(_mm512_set1_epi32(LGR_EXP_P0), f, 23),
                                 _mm512_set1_epi32(LGR_EXP_P1));
    y = _mm512_add_epi32(mul_rsh(y, f, 23), _mm512_set1_epi32(LGR_EXP_P2));
    y = _mm512_add_epi32(mul_rsh(y, f, 23), _mm512_set1_epi32(LGR_EXP_P3));
    if (!once) {
        y = _mm512_add_epi32(mul_rsh(y, f, 23), _mm512_set1_epi32(LGR_EXP_P4));
        return _mm512_srlv_epi32(_mm512_add_epi32(y, y), down); /* 0 from 32 on */
    }
    const __m512i top = _mm512_set1_epi64((int64_t)LGR_EXP_P4 << 23), one = _mm512_set1_epi64(1);
    const __m512i s = _mm512_add_epi32(down, _mm512_set1_epi32(21)); /* then half of the rest */
    const __m512i s_even = _mm512_and_si512(s, _mm512_set1_epi64(0xffffffff)), s_odd = odd(s);
    __m512i even = _mm512_add_epi64(_mm512_mul_epi32(y, f), top),
            odds = _mm512_add_epi64(_mm512_mul_epi32(odd(y), odd(f)), top);
    even = _mm512_add_epi64(_mm512_srlv_epi64(even, s_even), one);
    odds = _mm512_add_epi64(_mm512_srlv_epi64(odds, s_odd), one);
    return join(even, odds, 1);
}
VEC __mmask16 lanes(int64_t n) { return n >= 16 ? 0xffff : (__mmask16)((1u << n) - 1); }

static int32_t top_of(const int32_t *x, int64_t n)
{
    __m512i v = _mm512_set1_epi32(INT32_MIN);
    for (int64_t i = 0; i < n; i += 16)
        v = _mm512_mask_max_epi32(v, lanes(n - i), v,
                                  _mm512_maskz_loadu_epi32(lanes(n - i), x + i));
    return _mm512_reduce_max_epi32(v);
}
/* Terms to e when it is not NULL; returns their sum. */
VEC int64_t sum_terms(const int once, const int32_t *x, int64_t n, int32_t m, int32_t *e)
{
    const __m512i top = _mm512_set1_epi32(m), low = _mm512_set1_epi64(0xffffffff);
    __m512i sum = _mm512_setzero_si512();
    for (int64_t i = 0; i < n; i += 16) {
        const __mmask16 k = lanes(n - i);
        const __m512i t = _mm512_maskz_mov_epi32(
            k, terms(once, distance(_mm512_maskz_loadu_epi32(k, x + i), top)));
        if (e) _mm512_mask_storeu_epi32(e + i, k, t);
        sum = _mm512_add_epi64(sum, _mm512_add_epi64(odd(t), _mm512_and_si512(t, low)));
    }
    return _mm512_reduce_add_epi64(sum);
}

void lgr_softmax_avx512vnni(int chip, const int32_t *x, int64_t n, int32_t *y)
{
    const int32_t m = top_of(x, n);
    const int64_t sum = chip == LGR_ARCS ? sum_terms(LGR_EXP_TWICE, x, n, m, y)
                                         : sum_terms(LGR_EXP_ONCE, x, n, lgr_softmax_top(m), y);
    const __m512i factor = _mm512_set1_epi64(lgr_reciprocal(sum)),
                  half = _mm512_set1_epi64((int64_t)1 << 37);
    for (int64_t i = 0; i < n; i += 16) {
        const __m512i e = _mm512_maskz_loadu_epi32(lanes(n - i), y + i);
        const __m512i even = _mm512_add_epi64(_mm512_mul_epu32(e, factor), half),
                      odds = _mm512_add_epi64(_mm512_mul_epu32(odd(e), factor), half);
        const __m512i high = _mm512_mask_mov_epi32(odd(even), 0xaaaa, odds);
        _mm512_mask_storeu_epi32(y + i, lanes(n - i), _mm512_srli_epi32(high, 6));
    }
}

void lgr_log_softmax_avx512vnni(const int32_t *x, int64_t n, int32_t *y)
{
    const int32_t m = lgr_softmax_top(top_of(x, n));
    const __m512i ln = _mm512_set1_epi32(lgr_half_ln(sum_terms(LGR_EXP_ONCE, x, n, m, NULL)));
    const __m512i top = _mm512_set1_epi32(m), one = _mm512_set1_epi32(1);
    for (int64_t i = 0; i < n; i += 16) { /* RSH(-u, 10) = -((u + 511) >> 10), u = m - x unsigned */
        const __m512i u = _mm512_sub_epi32(top, _mm512_maskz_loadu_epi32(lanes(n - i), x + i));
        const __m512i s = _mm512_srli_epi32(u, 9);
        const __m512i up =
            _mm512_mask_add_epi32(s, _mm512_test_epi32_mask(u, _mm512_set1_epi32(511)), s, one);
        const __m512i v = _mm512_add_epi32(_mm512_srli_epi32(up, 1), ln);
        _mm512_mask_storeu_epi32(y + i, lanes(n - i), _mm512_sub_epi32(_mm512_setzero_si512(), v));
    }
}
