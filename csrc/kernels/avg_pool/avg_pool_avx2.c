/* avg_pool_avx2.c - the divider in float64: |sum| <= 2^21 and recip < 2^31, so that the product, its half and the
 * power of two are exact. */
#include "kernels/avg_pool/avg_pool_isa.h"
#include <immintrin.h>

static __m128i divide4(__m128i sum, __m256d factor)
{
    const __m256d q = _mm256_mul_pd(_mm256_cvtepi32_pd(sum), factor);
    return _mm256_cvtpd_epi32(_mm256_floor_pd(_mm256_add_pd(q, _mm256_set1_pd(0.5))));
}

int64_t lgr_avg_pool_s8_avx2(const int8_t *x, struct lgr_window win, int64_t c, lgr_divider v,
                             float inv, int8_t *codes, float *value)
{
    const __m256d factor = _mm256_set1_pd((double)v.recip * lgr_exp2_f64(-v.shift));
    int64_t ch = 0;
    for (; ch + 8 <= c; ch += 8) {
        __m256i sum = _mm256_setzero_si256();
        for (int64_t i = 0; i < win.rows; ++i) {
            const int8_t *row = x + i * win.row_step + ch;
            for (int64_t j = 0; j < win.cols; ++j, row += c)
                sum = _mm256_add_epi32(
                    sum, _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)row)));
        }
        const __m128i low = divide4(_mm256_castsi256_si128(sum), factor);
        const __m128i high = divide4(_mm256_extracti128_si256(sum, 1), factor);
        const __m128i words = _mm_packs_epi32(low, high), bytes = _mm_packs_epi16(words, words);
        _mm_storel_epi64((__m128i *)(void *)(codes + ch), bytes);
        if (value) {
            const __m256 real = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
            _mm256_storeu_ps(value + ch, _mm256_mul_ps(real, _mm256_set1_ps(inv)));
        }
    }
    return ch;
}
