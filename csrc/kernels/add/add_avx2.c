/* add_avx2.c - codes in 16 bits. The exact sum, for statistics and slope, is one integer at the finer operand's exponent:
 * rounding it to float once gives what (float)(double sum) gives. */
#include "kernels/add/add_isa.h"
#include <immintrin.h>

static inline __m256i widen(const int8_t *p)
{
    return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)p));
}
static inline __m256i widen32(const int8_t *p)
{
    return _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
}
static inline __m256i splat(int64_t v)
{
    return _mm256_set1_epi16((int16_t)lgr_clamp_s64(v, INT16_MIN, INT16_MAX));
}
/* Half up, then the saturation of an operand. */
static inline __m256i shifted(__m256i v, __m256i half, __m128i n, __m256i lo, __m256i hi)
{
    const __m256i r = _mm256_sra_epi16(_mm256_add_epi16(v, half), n);
    return _mm256_min_epi16(_mm256_max_epi16(r, lo), hi);
}
/* 16 words to bytes: codes saturate nowhere, comparisons stay 0 and -1. */
static inline __m128i bytes(__m256i words)
{
    return _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
}
static inline __m256i half_of(__m256i words, int j)
{
    return _mm256_cvtepi16_epi32(j ? _mm256_extracti128_si256(words, 1)
                                   : _mm256_castsi256_si128(words));
}
static int32_t highest(__m256i v)
{
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1));
    return _mm_cvtsi128_si32(m);
}

int64_t lgr_add_s8_avx2(const int8_t *x, const int8_t *y, int64_t n, const struct lgr_add_consts *c,
                        const struct lgr_quantize_out *to, lgr_range *range)
{
    const struct lgr_quantize_out out = *to; /* a local: byte stores must not reload it */
    int8_t *codes = out.codes;
    /* an int8 code shifted by 9 or more is 0 */
    const int sx = c->shift_x < 15 ? c->shift_x : 15, sy = c->shift_y < 15 ? c->shift_y : 15;
    const __m128i nx = _mm_cvtsi32_si128(sx), ny = _mm_cvtsi32_si128(sy);
    const __m256i hx = splat(sx ? 1 << (sx - 1) : 0), hy = splat(sy ? 1 << (sy - 1) : 0);
    const __m256i sat_lo = splat(c->sat_lo), sat_hi = splat(c->sat_hi), lo = splat(c->lo),
                  hi = splat(c->hi);
    const __m256i under = splat(c->pass_lo - 1), keep_under = splat(c->keep_lo - 1),
                  keep_hi = splat(c->keep_hi);
    const __m256i sign = splat(c->sign), sign32 = _mm256_set1_epi32(c->sign);
    const __m128i ux = _mm_cvtsi32_si128(c->up_x), uy = _mm_cvtsi32_si128(c->up_y);
    const __m256 unit = _mm256_set1_ps(c->unit), mul = _mm256_set1_ps(c->mul),
                 inv = _mm256_set1_ps(c->inv);
    const int stream = c->stream && ((uintptr_t)out.value & 31) == 0;
    const int exact = range != NULL || out.slope != NULL;
    __m256i top = _mm256_setzero_si256(), bottom = top;
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        const __m256i a = shifted(widen(x + i), hx, nx, sat_lo, sat_hi),
                      b = shifted(widen(y + i), hy, ny, sat_lo, sat_hi);
        const __m256i t = _mm256_add_epi16(a, _mm256_sign_epi16(b, sign));
        const __m256i code = _mm256_min_epi16(_mm256_max_epi16(t, lo), hi);
        if (codes) _mm_storeu_si128((__m128i *)(void *)(codes + i), bytes(code));
        if (out.value)
            for (int j = 0; j < 2; ++j) {
                const __m256 v = _mm256_mul_ps(_mm256_cvtepi32_ps(half_of(code, j)), inv);
                if (stream) _mm256_stream_ps(out.value + i + 8 * j, v);
                else _mm256_storeu_ps(out.value + i + 8 * j, v);
            }
        if (out.mask) {
            const __m256i in =
                _mm256_andnot_si256(_mm256_cmpgt_epi16(t, hi), _mm256_cmpgt_epi16(t, under));
            const uint16_t m = (uint16_t)_mm_movemask_epi8(bytes(in));
            memcpy(out.mask + i / 8, &m, sizeof m);
        }
        if (!exact) continue;
        const __m256i keep =
            _mm256_andnot_si256(_mm256_cmpgt_epi16(t, keep_hi), _mm256_cmpgt_epi16(t, keep_under));
        const __m256i inside =
            _mm256_cmpeq_epi16(t, _mm256_min_epi16(_mm256_max_epi16(t, sat_lo), sat_hi));
        for (int j = 0; j < 2; ++j) {
            const __m256i sum = _mm256_add_epi32(
                _mm256_sll_epi32(widen32(x + i + 8 * j), ux),
                _mm256_sign_epi32(_mm256_sll_epi32(widen32(y + i + 8 * j), uy), sign32));
            top = _mm256_max_epi32(top, sum);
            bottom = _mm256_min_epi32(bottom, sum);
            if (!out.slope) continue;
            const __m256 real = _mm256_cvtepi32_ps(half_of(code, j));
            const __m256 v = _mm256_mul_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(sum), unit), mul);
            const __m256 s = _mm256_blendv_ps(real, _mm256_sub_ps(real, v),
                                              _mm256_castsi256_ps(half_of(inside, j)));
            _mm256_storeu_ps(out.slope + i + 8 * j,
                             c->slope_on ? _mm256_and_ps(s, _mm256_castsi256_ps(half_of(keep, j)))
                                         : _mm256_setzero_ps());
        }
    }
    if (stream) _mm_sfence();
    if (range) {
        const int32_t up = highest(top),
                      down = highest(_mm256_sub_epi32(_mm256_setzero_si256(), bottom));
        const float max = (float)up * c->unit, abs = (float)(up > down ? up : down) * c->unit;
        *range = lgr_range_merge(*range, (lgr_range){lgr_float_bits(abs), lgr_float_bits(max)});
    }
    return i;
}
