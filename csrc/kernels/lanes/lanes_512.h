/* lanes_512.h - 16 words of 32 bits in one AVX-512 register (F and BW); the names of lanes_256.h, which says what they do. */
#ifndef LGR_LANES_512_H
#define LGR_LANES_512_H
#include <immintrin.h>
#include <stdint.h>

#define LGR_VEC static inline __attribute__((always_inline))
enum { LANES = 16 };
typedef __m512i vi;

LGR_VEC vi v_load(const int32_t *p) { return _mm512_loadu_si512(p); }
LGR_VEC void v_store(int32_t *p, vi v) { _mm512_storeu_si512(p, v); }
LGR_VEC vi v_set(int32_t v) { return _mm512_set1_epi32(v); }
/* a bit for each of the first n lanes */
LGR_VEC __mmask16 v_first(int64_t n)
{
    return n >= 16 ? 0xffff : n <= 0 ? 0 : (__mmask16)((1u << n) - 1);
}
LGR_VEC vi v_load_n(const int32_t *p, int64_t n, int32_t fill)
{
    return _mm512_mask_loadu_epi32(v_set(fill), v_first(n), p);
}
LGR_VEC void v_store_n(int32_t *p, vi v, int64_t n) { _mm512_mask_storeu_epi32(p, v_first(n), v); }
LGR_VEC vi v_keep(vi v, int64_t n) { return _mm512_maskz_mov_epi32(v_first(n), v); }

LGR_VEC vi v_add(vi a, vi b) { return _mm512_add_epi32(a, b); }
LGR_VEC vi v_sub(vi a, vi b) { return _mm512_sub_epi32(a, b); }
LGR_VEC vi v_mul(vi a, vi b) { return _mm512_mullo_epi32(a, b); }
LGR_VEC vi v_and(vi a, vi b) { return _mm512_and_si512(a, b); }
LGR_VEC vi v_or(vi a, vi b) { return _mm512_or_si512(a, b); }
LGR_VEC vi v_min(vi a, vi b) { return _mm512_min_epi32(a, b); }
LGR_VEC vi v_max(vi a, vi b) { return _mm512_max_epi32(a, b); }
LGR_VEC vi v_abs(vi a) { return _mm512_abs_epi32(a); }
LGR_VEC vi v_down(vi v, const int s) { return _mm512_srai_epi32(v, (unsigned)s); }
LGR_VEC vi v_down_by(vi v, vi s) { return _mm512_srav_epi32(v, s); }
LGR_VEC vi v_right(vi v, const int s) { return _mm512_srli_epi32(v, (unsigned)s); }
LGR_VEC vi v_right_by(vi v, vi s) { return _mm512_srlv_epi32(v, s); }
LGR_VEC vi v_above(vi a, vi b, vi yes, vi no)
{
    return _mm512_mask_mov_epi32(no, _mm512_cmpgt_epi32_mask(a, b), yes);
}
LGR_VEC int32_t v_top(vi v) { return _mm512_reduce_max_epi32(v); }

LGR_VEC vi v_set64(int64_t v) { return _mm512_set1_epi64(v); }
LGR_VEC vi v_add64(vi a, vi b) { return _mm512_add_epi64(a, b); }
LGR_VEC vi v_mul64(vi a, vi b) { return _mm512_mul_epi32(a, b); }
LGR_VEC vi v_mul64_unsigned(vi a, vi b) { return _mm512_mul_epu32(a, b); }
LGR_VEC vi v_left64(vi v, const int s) { return _mm512_slli_epi64(v, (unsigned)s); }
LGR_VEC vi v_right64(vi v, const int s) { return _mm512_srli_epi64(v, (unsigned)s); }
LGR_VEC vi v_right64_by(vi v, vi s) { return _mm512_srlv_epi64(v, s); }
LGR_VEC vi v_mix(vi even, vi odd) { return _mm512_mask_mov_epi32(even, 0xaaaa, odd); }
LGR_VEC int64_t v_sum64(vi v) { return _mm512_reduce_add_epi64(v); }
#include "kernels/lanes/lanes_any.h"
#endif
