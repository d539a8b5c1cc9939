/* relu_avx2.c - 32 codes at a time: the comparison's sign bits are the mask. */
#include "kernels/relu/relu_isa.h"
#include <immintrin.h>

int64_t lgr_relu_s8_avx2(const int8_t *x, int64_t n, const struct lgr_relu_consts *c, int8_t *codes,
                         float *value, uint8_t *mask)
{
    const __m256i zero = _mm256_setzero_si256(), high = _mm256_set1_epi8((int8_t)c->high);
    const __m256i whole = c->limited ? zero : _mm256_set1_epi8(-1); /* no limit: high passes too */
    const __m256 inv = _mm256_set1_ps(c->inv);
    const int stream = c->stream && ((uintptr_t)value & 31) == 0;
    int64_t i = 0;
    for (; i + 32 <= n; i += 32) {
        const __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)(x + i));
        const __m256i q = _mm256_min_epi8(_mm256_max_epi8(v, zero), high);
        const __m256i below = _mm256_or_si256(_mm256_cmpgt_epi8(high, v), whole);
        const __m256i pass = _mm256_and_si256(_mm256_cmpgt_epi8(v, zero), below);
        _mm256_storeu_si256((__m256i *)(void *)(codes + i), q);
        if (mask) {
            const uint32_t m = (uint32_t)_mm256_movemask_epi8(pass);
            memcpy(mask + i / 8, &m, sizeof m);
        }
        __m128i part = _mm256_castsi256_si128(q);
        for (int j = 0; j < 4; ++j) {
            const __m256 y = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(part)), inv);
            if (stream) _mm256_stream_ps(value + i + 8 * j, y);
            else _mm256_storeu_ps(value + i + 8 * j, y);
            part = j == 1 ? _mm256_extracti128_si256(q, 1) : _mm_srli_si128(part, 8);
        }
    }
    if (stream) _mm_sfence();
    return i;
}
