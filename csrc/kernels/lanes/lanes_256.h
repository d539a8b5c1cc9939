/* lanes_256.h - 8 words of 32 bits in one AVX2 register. lanes_512.h has the same names for 16: loops that differ in the width
 * alone are written in these names, once, and included by a twin per width. */
#ifndef LGR_LANES_256_H
#define LGR_LANES_256_H
#include <immintrin.h>
#include <stdint.h>

#define LGR_VEC static inline __attribute__((always_inline))
enum { LANES = 8 };
typedef __m256i vi;

LGR_VEC vi v_load(const int32_t *p) { return _mm256_loadu_si256((const void *)p); }
LGR_VEC void v_store(int32_t *p, vi v) { _mm256_storeu_si256((void *)p, v); }
LGR_VEC vi v_set(int32_t v) { return _mm256_set1_epi32(v); }
/* all bits of the first n lanes */
LGR_VEC vi v_first(int64_t n)
{
    return _mm256_cmpgt_epi32(v_set(n < 8 ? (int32_t)n : 8),
                              _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
/* the first n lanes; the others read `fill`, are not written, become 0 */
LGR_VEC vi v_load_n(const int32_t *p, int64_t n, int32_t fill)
{
    if (n >= 8) return v_load(p);
    const vi k = v_first(n);
    return _mm256_blendv_epi8(v_set(fill), _mm256_maskload_epi32(p, k), k);
}
LGR_VEC void v_store_n(int32_t *p, vi v, int64_t n)
{
    if (n >= 8) v_store(p, v);
    else _mm256_maskstore_epi32(p, v_first(n), v);
}
LGR_VEC vi v_keep(vi v, int64_t n) { return n >= 8 ? v : _mm256_and_si256(v, v_first(n)); }

LGR_VEC vi v_add(vi a, vi b) { return _mm256_add_epi32(a, b); }
LGR_VEC vi v_sub(vi a, vi b) { return _mm256_sub_epi32(a, b); }
LGR_VEC vi v_mul(vi a, vi b) { return _mm256_mullo_epi32(a, b); }
LGR_VEC vi v_and(vi a, vi b) { return _mm256_and_si256(a, b); }
LGR_VEC vi v_or(vi a, vi b) { return _mm256_or_si256(a, b); }
LGR_VEC vi v_min(vi a, vi b) { return _mm256_min_epi32(a, b); }
LGR_VEC vi v_max(vi a, vi b) { return _mm256_max_epi32(a, b); }
LGR_VEC vi v_abs(vi a) { return _mm256_abs_epi32(a); }
/* shifts: arithmetic, logical; by a number, by a number per lane (from 32 on all bits leave) */
LGR_VEC vi v_down(vi v, const int s) { return _mm256_srai_epi32(v, s); }
LGR_VEC vi v_down_by(vi v, vi s) { return _mm256_srav_epi32(v, s); }
LGR_VEC vi v_right(vi v, const int s) { return _mm256_srli_epi32(v, s); }
LGR_VEC vi v_right_by(vi v, vi s) { return _mm256_srlv_epi32(v, s); }
/* a > b ? yes : no */
LGR_VEC vi v_above(vi a, vi b, vi yes, vi no)
{
    return _mm256_blendv_epi8(no, yes, _mm256_cmpgt_epi32(a, b));
}
LGR_VEC int32_t v_top(vi v)
{
    int32_t lane[8], top = INT32_MIN;
    v_store(lane, v);
    for (int i = 0; i < 8; ++i) top = lane[i] > top ? lane[i] : top;
    return top;
}

/* 64 bits: products of the even words, shifts; the odd words of `odd` beside the even ones of `even` */
LGR_VEC vi v_set64(int64_t v) { return _mm256_set1_epi64x(v); }
LGR_VEC vi v_add64(vi a, vi b) { return _mm256_add_epi64(a, b); }
LGR_VEC vi v_mul64(vi a, vi b) { return _mm256_mul_epi32(a, b); }
LGR_VEC vi v_mul64_unsigned(vi a, vi b) { return _mm256_mul_epu32(a, b); }
LGR_VEC vi v_left64(vi v, const int s) { return _mm256_slli_epi64(v, s); }
LGR_VEC vi v_right64(vi v, const int s) { return _mm256_srli_epi64(v, s); }
LGR_VEC vi v_right64_by(vi v, vi s) { return _mm256_srlv_epi64(v, s); }
LGR_VEC vi v_mix(vi even, vi odd) { return _mm256_blend_epi32(even, odd, 0xaa); }
LGR_VEC int64_t v_sum64(vi v)
{
    int64_t lane[4];
    _mm256_storeu_si256((void *)lane, v);
    return lane[0] + lane[1] + lane[2] + lane[3];
}
#include "kernels/lanes/lanes_any.h"
#endif
