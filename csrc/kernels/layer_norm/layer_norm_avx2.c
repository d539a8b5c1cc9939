/* layer_norm_avx2.c - 32 codes per step of the sums, 8 per step of the products. */
#include "kernels/layer_norm/layer_norm_isa.h"
#include <immintrin.h>

static int64_t total_epi64(__m256i v)
{
    int64_t lanes[4];
    _mm256_storeu_si256((__m256i *)(void *)lanes, v);
    return lanes[0] + lanes[1] + lanes[2] + lanes[3];
}

static int64_t total_epi32(__m256i v)
{
    const __m256i low = _mm256_cvtepi32_epi64(_mm256_castsi256_si128(v)),
                  high = _mm256_cvtepi32_epi64(_mm256_extracti128_si256(v, 1));
    return total_epi64(_mm256_add_epi64(low, high));
}

int64_t lgr_norm_sums_avx2(const int8_t *x, int64_t n, int64_t *sum, int64_t *squares)
{
    const __m256i flip = _mm256_set1_epi8(-128), zero = _mm256_setzero_si256();
    __m256i s = zero, s2 = zero;
    int64_t i = 0;
    for (; i + 32 <= n; i += 32) {
        const __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)(x + i));
        const __m256i low = _mm256_cvtepi8_epi16(_mm256_castsi256_si128(v)),
                      high = _mm256_cvtepi8_epi16(_mm256_extracti128_si256(v, 1));
        s = _mm256_add_epi64(s, _mm256_sad_epu8(_mm256_xor_si256(v, flip), zero)); /* x + 128 */
        s2 = _mm256_add_epi32(s2, _mm256_madd_epi16(low, low));
        s2 = _mm256_add_epi32(s2, _mm256_madd_epi16(high, high));
    }
    *sum += total_epi64(s) - 128 * i;
    *squares += total_epi32(s2);
    return i;
}

/* The shift in float64: the product has at most 46 bits, so that it, its power of two and the half are exact. */
static __m256i shifted_wide(__m256i num, __m256d factor)
{
    const __m256d half = _mm256_set1_pd(0.5);
    const __m256d low = _mm256_mul_pd(_mm256_cvtepi32_pd(_mm256_castsi256_si128(num)), factor);
    const __m256d high =
        _mm256_mul_pd(_mm256_cvtepi32_pd(_mm256_extracti128_si256(num, 1)), factor);
    const __m128i a = _mm256_cvtpd_epi32(_mm256_floor_pd(_mm256_add_pd(low, half))),
                  b = _mm256_cvtpd_epi32(_mm256_floor_pd(_mm256_add_pd(high, half)));
    return _mm256_inserti128_si256(_mm256_castsi128_si256(a), b, 1);
}

int64_t lgr_norm_scale_avx2(const int8_t *x, const struct lgr_norm_row *row, const int32_t *gamma,
                            const int32_t *beta, int32_t *y)
{
    const __m256i n = _mm256_set1_epi32(row->n), sum = _mm256_set1_epi32(row->sum),
                  factor = _mm256_set1_epi32(row->factor), one = _mm256_set1_epi32(1);
    const __m256d real = _mm256_set1_pd(row->factor * lgr_exp2_f64(-row->shift));
    const __m128i shift = _mm_cvtsi32_si128(row->shift), before = _mm_cvtsi32_si128(row->shift - 1);
    const int narrow = row->narrow;
    int64_t i = 0;
    for (; i + 8 <= row->n; i += 8) {
        const __m128i bytes = _mm_loadl_epi64((const __m128i *)(const void *)(x + i));
        const __m256i num =
            _mm256_sub_epi32(_mm256_mullo_epi32(_mm256_cvtepi8_epi32(bytes), n), sum);
        __m256i v;
        if (narrow) {
            const __m256i p = _mm256_mullo_epi32(num, factor);
            const __m256i up = _mm256_and_si256(_mm256_sra_epi32(p, before), one);
            v = _mm256_add_epi32(_mm256_sra_epi32(p, shift), up);
        } else v = shifted_wide(num, real);
        const __m256i g = _mm256_loadu_si256((const __m256i *)(const void *)(gamma + i));
        const __m256i b = _mm256_loadu_si256((const __m256i *)(const void *)(beta + i));
        const __m256i r = _mm256_add_epi32(_mm256_mullo_epi32(v, g), b);
        _mm256_storeu_si256((__m256i *)(void *)(y + i), r);
    }
    return i;
}
