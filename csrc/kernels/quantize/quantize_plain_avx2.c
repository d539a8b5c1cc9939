/* quantize_plain_avx2.c - the short loop. */
#include "kernels/quantize/quantize_avx2.h"

LGR_ALWAYS int64_t run(const float *x, int64_t n, const struct lgr_quantize_consts *c,
                       const struct lgr_quantize_out *out, lgr_range *range, int rounding,
                       int masked)
{
    const __m256 mul = _mm256_set1_ps(c->mul), inv = _mm256_set1_ps(c->inv);
    const __m256 lo = _mm256_set1_ps(c->lo), hi = _mm256_set1_ps(c->hi);
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    __m256i top = _mm256_setzero_si256(), peak = top;
    float *const value = out->value;
    int8_t *const codes = out->codes;
    const int stream = c->stream && value && (((uintptr_t)value | (uintptr_t)codes) & 31) == 0;
    int64_t i = 0;
    for (; i + 32 <= n; i += 32) {
        __m256i code[4];
        uint32_t mask = 0;
        for (int j = 0; j < 4; ++j) {
            const __m256 v = _mm256_loadu_ps(x + i + 8 * j);
            const __m256i bits = _mm256_castps_si256(v);
            peak = _mm256_max_epi32(peak, _mm256_and_si256(bits, magnitude));
            top = _mm256_max_epi32(top, bits);
            const __m256 r = round8(_mm256_mul_ps(v, mul), rounding);
            const __m256 q = _mm256_min_ps(_mm256_max_ps(r, lo), hi); /* NaN would be lo */
            code[j] = _mm256_cvtps_epi32(q);
            /* floor(v + 0.5) is never -0, rint is */
            const __m256 exact = rounding == LGR_FLOOR_ADD ? q : _mm256_cvtepi32_ps(code[j]);
            const __m256 y = _mm256_mul_ps(exact, inv);
            if (stream) _mm256_stream_ps(value + i + 8 * j, y);
            else if (value) _mm256_storeu_ps(value + i + 8 * j, y);
            if (masked)
                mask |= (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(q, r, _CMP_EQ_OQ)) << 8 * j;
        }
        if (codes) store_codes(codes + i, code, stream);
        if (masked) memcpy(out->mask + i / 8, &mask, sizeof mask);
    }
    if (stream) _mm_sfence();
    const lgr_range seen = {highest(peak), highest(top)};
    if (seen.abs > 0x7f800000) return 0;
    if (range) *range = lgr_range_merge(*range, seen);
    return i;
}

int64_t lgr_quantize_plain_avx2(const float *x, int64_t n, const struct lgr_quantize_consts *c,
                                const struct lgr_quantize_out *out, lgr_range *range)
{
    if (out->slope || c->wide || c->clamp < INFINITY || c->pass_lo != c->lo) return 0;
    if (c->rounding == LGR_FLOOR_ADD)
        return out->mask ? run(x, n, c, out, range, LGR_FLOOR_ADD, 1)
                         : run(x, n, c, out, range, LGR_FLOOR_ADD, 0);
    if (c->rounding == LGR_HALF_EVEN)
        return out->mask ? run(x, n, c, out, range, LGR_HALF_EVEN, 1)
                         : run(x, n, c, out, range, LGR_HALF_EVEN, 0);
    return 0;
}
