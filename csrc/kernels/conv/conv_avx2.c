/* conv_avx2.c - sums by vpmaddwd on int16 pairs. Exact: a pair is at most 2 * 2^14. */
#define ELEMENT int16_t
#define DOT(acc, x, w) (acc) = _mm256_add_epi32(acc, _mm256_madd_epi16(x, w))
#include "kernels/conv/conv_256.h"

static void copy_s16(const int8_t *x, int64_t n, void *dst)
{
    int16_t *d = dst;
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        _mm256_storeu_si256((void *)(d + i),
                            _mm256_cvtepi8_epi16(_mm_loadu_si128((const void *)(x + i))));
    for (; i < n; ++i) d[i] = x[i];
}

/* One channel per group: 16 channels of a pixel, two taps per vpmaddwd. */
static void depthwise(void *state, const lgr_conv_span *s)
{
    (void)state;
    const int64_t pairs = (s->n_taps + 1) / 2;
    for (int64_t ch = 0; ch < s->outputs; ch += 16) {
        const int16_t *w = (const int16_t *)s->w + ch / 16 * pairs * 32;
        const __m256i i0 = _mm256_loadu_si256((const void *)(s->init + ch));
        const __m256i i1 = _mm256_loadu_si256((const void *)(s->init + ch + 8));
        for (int64_t m = 0; m < s->count; ++m) {
            const int16_t *x = (const int16_t *)s->x + m * s->step + ch;
            __m256i a = _mm256_setzero_si256(), b = a;
            for (int64_t q = 0; q < pairs; ++q) {
                const __m256i x0 = _mm256_loadu_si256((const void *)(x + s->taps[2 * q]));
                const __m256i x1 = _mm256_loadu_si256((const void *)(x + s->taps[2 * q + 1]));
                const __m256i w0 = _mm256_loadu_si256((const void *)(w + 32 * q));
                const __m256i w1 = _mm256_loadu_si256((const void *)(w + 32 * q + 16));
                a = _mm256_add_epi32(a, _mm256_madd_epi16(_mm256_unpacklo_epi16(x0, x1), w0));
                b = _mm256_add_epi32(b, _mm256_madd_epi16(_mm256_unpackhi_epi16(x0, x1), w1));
            }
            const __m256i both[2] = {_mm256_add_epi32(_mm256_permute2x128_si256(a, b, 0x20), i0),
                                     _mm256_add_epi32(_mm256_permute2x128_si256(a, b, 0x31), i1)};
            store(s->sums + m * s->sums_stride + ch, both, s->outputs - ch);
        }
    }
}

const lgr_conv_isa lgr_conv_isa_avx2 = {.quantum = 2,
                                        .element = 2,
                                        .zero = 0,
                                        .fuses = 0,
                                        .copy = copy_s16,
                                        .begin = begin,
                                        .span = span,
                                        .depthwise = depthwise,
                                        .end = end};
