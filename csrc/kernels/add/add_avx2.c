/* add_avx2.c - the float sum is rounded once, as (float)(double sum) is: |code| < 2^8. */
#include "kernels/add/add_isa.h"
#include <immintrin.h>

static __m256i widen(const int8_t *p)
{
    return _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
}

static __m256i splat(int64_t v) { return _mm256_set1_epi32(lgr_sat_s32(v)); }

static int32_t highest(__m256i v)
{
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1));
    return _mm_cvtsi128_si32(m);
}

int64_t lgr_add_s8_avx2(const int8_t *x, const int8_t *y, int64_t n, const struct lgr_add_consts *c,
                        const struct lgr_quantize_out *out, lgr_range *range)
{
    /* an int8 code shifted by 9 or more is 0 */
    const int sx = c->shift_x < 15 ? c->shift_x : 15, sy = c->shift_y < 15 ? c->shift_y : 15;
    const __m128i nx = _mm_cvtsi32_si128(sx), ny = _mm_cvtsi32_si128(sy);
    const __m256i hx = _mm256_set1_epi32(sx ? 1 << (sx - 1) : 0),
                  hy = _mm256_set1_epi32(sy ? 1 << (sy - 1) : 0);
    const __m256i sat_lo = splat(c->sat_lo), sat_hi = splat(c->sat_hi), lo = splat(c->lo),
                  hi = splat(c->hi);
    const __m256i under = splat(c->pass_lo - 1), keep_under = splat(c->keep_lo - 1),
                  keep_hi = splat(c->keep_hi);
    const __m256 ix = _mm256_set1_ps(c->inv_x), iy = _mm256_set1_ps(c->inv_y);
    const __m256 mul = _mm256_set1_ps(c->mul), inv = _mm256_set1_ps(c->inv);
    const __m256i sign = _mm256_set1_epi32(c->sign);
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    __m256i peak = _mm256_setzero_si256(), top = peak;
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        __m256i code[2];
        unsigned pass[2];
        for (int j = 0; j < 2; ++j) {
            const int64_t at = i + 8 * j;
            const __m256i xq = widen(x + at), yq = widen(y + at);
            const __m256 exact = _mm256_add_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(xq), ix),
                                               _mm256_mul_ps(_mm256_cvtepi32_ps(yq), iy));
            peak = _mm256_max_epi32(peak, _mm256_and_si256(_mm256_castps_si256(exact), magnitude));
            top = _mm256_max_epi32(top, _mm256_castps_si256(exact));
            __m256i a = _mm256_sra_epi32(_mm256_add_epi32(xq, hx), nx);
            __m256i b = _mm256_sra_epi32(_mm256_add_epi32(yq, hy), ny);
            a = _mm256_min_epi32(_mm256_max_epi32(a, sat_lo), sat_hi);
            b = _mm256_min_epi32(_mm256_max_epi32(b, sat_lo), sat_hi);
            const __m256i t = _mm256_add_epi32(a, _mm256_sign_epi32(b, sign));
            code[j] = _mm256_min_epi32(_mm256_max_epi32(t, lo), hi);
            const __m256 real = _mm256_cvtepi32_ps(code[j]);
            if (out->value) _mm256_storeu_ps(out->value + at, _mm256_mul_ps(real, inv));
            const __m256i in =
                _mm256_andnot_si256(_mm256_cmpgt_epi32(t, hi), _mm256_cmpgt_epi32(t, under));
            pass[j] = (unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(in));
            if (out->slope) {
                const __m256i keep = _mm256_andnot_si256(_mm256_cmpgt_epi32(t, keep_hi),
                                                         _mm256_cmpgt_epi32(t, keep_under));
                const __m256i inside =
                    _mm256_cmpeq_epi32(t, _mm256_min_epi32(_mm256_max_epi32(t, sat_lo), sat_hi));
                const __m256 near = _mm256_sub_ps(real, _mm256_mul_ps(exact, mul));
                const __m256 s = _mm256_blendv_ps(real, near, _mm256_castsi256_ps(inside));
                _mm256_storeu_ps(out->slope + at, c->slope_on
                                                      ? _mm256_and_ps(s, _mm256_castsi256_ps(keep))
                                                      : _mm256_setzero_ps());
            }
        }
        if (out->codes) {
            const __m256i words =
                _mm256_permute4x64_epi64(_mm256_packs_epi32(code[0], code[1]), 0xd8);
            const __m128i all =
                _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
            _mm_storeu_si128((__m128i *)(void *)((int8_t *)out->codes + i), all);
        }
        if (out->mask) {
            const uint16_t m = (uint16_t)(pass[0] | pass[1] << 8);
            memcpy(out->mask + i / 8, &m, sizeof m);
        }
    }
    if (range) *range = lgr_range_merge(*range, (lgr_range){highest(peak), highest(top)});
    return i;
}
