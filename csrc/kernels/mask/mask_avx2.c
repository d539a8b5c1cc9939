/* mask_avx2.c */
#include "kernels/mask/mask_isa.h"
#include <immintrin.h>

static inline void keep8(const float *grad, uint8_t mask, float *out)
{
    const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const __m256i on = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(mask), bit), bit);
    _mm256_storeu_ps(out, _mm256_and_ps(_mm256_loadu_ps(grad), _mm256_castsi256_ps(on)));
}

void lgr_mask_grad_f32_avx2(const float *grad, const uint8_t *mask, int64_t n, float *out)
{
    const int in_place = out == grad;
    int64_t i = 0;
    for (; i + 64 <= n; i += 64) { /* a branch per byte would be mispredicted too often */
        uint64_t all;
        memcpy(&all, mask + (i >> 3), sizeof all);
        if (in_place && all == UINT64_MAX) continue; /* often: neither read nor written */
        for (int64_t j = 0; j < 64; j += 8) keep8(grad + i + j, mask[(i + j) >> 3], out + i + j);
    }
    for (; i + 8 <= n; i += 8) keep8(grad + i, mask[i >> 3], out + i);
    lgr_mask_grad_f32_ref(grad + i, mask + (i >> 3), n - i, out + i);
}

void lgr_slope_sum_f32_avx2(const float *grad, const float *slope, int64_t n, double lane[8])
{
    __m256d low = _mm256_loadu_pd(lane), high = _mm256_loadu_pd(lane + 4);
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256d g0 = _mm256_cvtps_pd(_mm_loadu_ps(grad + i));
        const __m256d g1 = _mm256_cvtps_pd(_mm_loadu_ps(grad + i + 4));
        const __m256d s0 = _mm256_cvtps_pd(_mm_loadu_ps(slope + i));
        const __m256d s1 = _mm256_cvtps_pd(_mm_loadu_ps(slope + i + 4));
        low = _mm256_add_pd(low, _mm256_mul_pd(g0, s0));
        high = _mm256_add_pd(high, _mm256_mul_pd(g1, s1));
    }
    _mm256_storeu_pd(lane, low);
    _mm256_storeu_pd(lane + 4, high);
    lgr_slope_sum_f32_ref(grad + i, slope + i, n - i, lane);
}
