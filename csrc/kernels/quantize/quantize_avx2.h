/* quantize_avx2.h - what the two AVX2 loops share. Include only from files compiled with AVX2. */
#ifndef LGR_QUANTIZE_AVX2_H
#define LGR_QUANTIZE_AVX2_H
#include "kernels/quantize/quantize_isa.h"
#include <immintrin.h>

#define LGR_ALWAYS static inline __attribute__((always_inline))

/* The short loop for what nearly every call is: at most 8 bits, half up or half to even, no clamp, ReLU or slope. Returns how many
 * elements it did: all full groups of 32, or none when the call is not of that kind or holds a NaN. */
int64_t lgr_quantize_plain_avx2(const float *x, int64_t n, const struct lgr_quantize_consts *c,
                                const struct lgr_quantize_out *out, lgr_range *range);

LGR_ALWAYS __m256 round8(__m256 v, int rounding)
{
    switch (rounding) { /* constant after inlining */
    case LGR_FLOOR: return _mm256_floor_ps(v);
    case LGR_HALF_EVEN: return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    case LGR_CEIL: return _mm256_ceil_ps(v);
    default: return _mm256_floor_ps(_mm256_add_ps(v, _mm256_set1_ps(0.5f)));
    }
}

LGR_ALWAYS int32_t highest(__m256i v)
{
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1));
    return _mm_cvtsi128_si32(m);
}

/* 32 codes as bytes. */
LGR_ALWAYS void store_codes(int8_t *to, const __m256i code[4], int stream)
{
    const __m256i low = _mm256_packs_epi32(code[0], code[1]);
    const __m256i high = _mm256_packs_epi32(code[2], code[3]);
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    const __m256i all = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), order);
    if (stream) _mm256_stream_si256((__m256i *)(void *)to, all);
    else _mm256_storeu_si256((__m256i *)(void *)to, all);
}
#endif
