/* clamp_avx2.c */
#include "kernels/clamp/clamp_isa.h"
#include <immintrin.h>

void lgr_clamp_f32_avx2(const float *x, int64_t n, float limit, float *y, uint8_t *mask)
{
    const __m256 top = _mm256_set1_ps(limit), bottom = _mm256_set1_ps(-limit);
    const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256 v = _mm256_loadu_ps(x + i),
                     in = _mm256_cmp_ps(_mm256_and_ps(v, magnitude), top, _CMP_LE_OQ);
        if (mask) mask[i >> 3] = (uint8_t)_mm256_movemask_ps(in);
        /* the second operand is returned for NaN, and for equal zeros */
        _mm256_storeu_ps(y + i, _mm256_min_ps(top, _mm256_max_ps(bottom, v)));
    }
    lgr_clamp_f32_ref(x + i, n - i, limit, y + i, mask ? mask + (i >> 3) : NULL);
}

void lgr_abs_sum_f32_avx2(const float *x, int64_t n, double lane[8])
{
    const __m128 magnitude = _mm_castsi128_ps(_mm_set1_epi32(0x7fffffff));
    __m256d low = _mm256_loadu_pd(lane), high = _mm256_loadu_pd(lane + 4);
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        low = _mm256_add_pd(low, _mm256_cvtps_pd(_mm_and_ps(_mm_loadu_ps(x + i), magnitude)));
        high = _mm256_add_pd(high, _mm256_cvtps_pd(_mm_and_ps(_mm_loadu_ps(x + i + 4), magnitude)));
    }
    _mm256_storeu_pd(lane, low);
    _mm256_storeu_pd(lane + 4, high);
    lgr_abs_sum_f32_ref(x + i, n - i, lane);
}
