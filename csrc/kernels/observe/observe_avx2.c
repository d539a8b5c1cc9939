/* observe_avx2.c - float bits compared as integers; order does not matter. */
#include "kernels/observe/observe_isa.h"
#include <immintrin.h>

static int32_t highest(__m256i v)
{
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1));
    return _mm_cvtsi128_si32(m);
}

void lgr_observe_f32_avx2(const float *x, int64_t n, lgr_range *range)
{
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    __m256i abs0 = _mm256_set1_epi32(range->abs), abs1 = abs0;
    __m256i max0 = _mm256_set1_epi32(range->max), max1 = max0;
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        const __m256i a = _mm256_loadu_si256((const __m256i *)(const void *)(x + i));
        const __m256i b = _mm256_loadu_si256((const __m256i *)(const void *)(x + i + 8));
        abs0 = _mm256_max_epi32(abs0, _mm256_and_si256(a, magnitude));
        abs1 = _mm256_max_epi32(abs1, _mm256_and_si256(b, magnitude));
        max0 = _mm256_max_epi32(max0, a);
        max1 = _mm256_max_epi32(max1, b);
    }
    *range =
        (lgr_range){highest(_mm256_max_epi32(abs0, abs1)), highest(_mm256_max_epi32(max0, max1))};
    lgr_observe_f32_ref(x + i, n - i, range);
}
