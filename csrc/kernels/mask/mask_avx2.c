/* mask_avx2.c */
#include "kernels/mask/mask_isa.h"
#include <immintrin.h>

void lgr_mask_grad_f32_avx2(const float *grad, const uint8_t *mask, int64_t n, float *out)
{
    const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const int in_place = out == grad;
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        if (in_place &&
            mask[i >> 3] == 0xff) { /* nearly all of a weight: neither read nor written */
            uint64_t all;
            for (; i + 72 <= n; i += 64) {
                memcpy(&all, mask + (i >> 3) + 1, sizeof all);
                if (all != UINT64_MAX) break;
            }
            continue;
        }
        const __m256i byte = _mm256_set1_epi32(mask[i >> 3]);
        const __m256i on = _mm256_cmpeq_epi32(_mm256_and_si256(byte, bit), bit);
        _mm256_storeu_ps(out + i,
                         _mm256_and_ps(_mm256_loadu_ps(grad + i), _mm256_castsi256_ps(on)));
    }
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
