/* conv_avx2.c - sums by vpmaddwd on int16 pairs. Exact: a pair is at most 2 * 2^14. Sums go through the row buffer. */
#include "kernels/conv/conv_isa.h"
#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

static void copy_s16(const int8_t *x, int64_t n, void *dst)
{
    int16_t *d = dst;
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        _mm256_storeu_si256((void *)(d + i),
                            _mm256_cvtepi8_epi16(_mm_loadu_si128((const void *)(x + i))));
    for (; i < n; ++i) d[i] = x[i];
}

INLINE void store(int32_t *dst, __m256i a, __m256i b, int64_t left)
{
    if (left >= 16) {
        _mm256_storeu_si256((void *)dst, a);
        _mm256_storeu_si256((void *)(dst + 8), b);
    } else {
        int32_t t[16];
        _mm256_storeu_si256((void *)t, a);
        _mm256_storeu_si256((void *)(t + 8), b);
        memcpy(dst, t, (size_t)left * 4);
    }
}

/* M pixels x 16 outputs: the inner loop of every dense shape. */
INLINE void tile(const int M, const lgr_conv_span *s, const int16_t *x, const int16_t *w,
                 const int32_t *init, int32_t *sums, int64_t left)
{
    const int64_t step = s->step, kq = s->kq;
    __m256i acc[6][2];
#pragma GCC unroll 6
    for (int m = 0; m < M; ++m) {
        acc[m][0] = _mm256_loadu_si256((const void *)init);
        acc[m][1] = _mm256_loadu_si256((const void *)(init + 8));
    }
    for (int64_t i = 0; i < s->ni; ++i) {
        for (int64_t j = 0; j < s->nj; ++j) {
            const int16_t *p0 = x + i * s->row + j * s->col, *p1 = p0 + 3 * step;
            for (int64_t q = 0; q < kq; ++q, p0 += 2, p1 += 2, w += 32) {
                const __m256i w0 = _mm256_loadu_si256((const void *)w),
                              w1 = _mm256_loadu_si256((const void *)(w + 16));
#pragma GCC unroll 6
                for (int m = 0; m < M; ++m) {
                    int32_t v;
                    memcpy(&v, (m < 3 ? p0 : p1) + m % 3 * step, 4);
                    const __m256i b = _mm256_set1_epi32(v);
                    acc[m][0] = _mm256_add_epi32(acc[m][0], _mm256_madd_epi16(b, w0));
                    acc[m][1] = _mm256_add_epi32(acc[m][1], _mm256_madd_epi16(b, w1));
                }
            }
        }
    }
#pragma GCC unroll 6
    for (int m = 0; m < M; ++m) store(sums + m * s->sums_stride, acc[m][0], acc[m][1], left);
}

static void span(void *state, const lgr_conv_span *s)
{
    (void)state;
    const int64_t block = s->ni * s->nj * s->kq * 32;
    const int16_t *w = s->w;
    for (int64_t ch = 0; ch < s->outputs; ch += 16, w += block) {
        for (int64_t m = 0; m < s->count;) {
            const int64_t left = s->count - m, outputs = s->outputs - ch;
            const int64_t width = left >= 6       ? 6
                                  : s->count >= 6 ? 6
                                  : left >= 4     ? 4
                                  : left >= 2     ? 2
                                                  : 1;
            const int64_t at = left < width ? s->count - width
                                            : m; /* the last tile may repeat pixels: same results */
            const int16_t *x = (const int16_t *)s->x + at * s->step;
            int32_t *sums = s->sums + at * s->sums_stride + ch;
            if (width == 6) tile(6, s, x, w, s->init + ch, sums, outputs);
            else if (width == 4) tile(4, s, x, w, s->init + ch, sums, outputs);
            else if (width == 2) tile(2, s, x, w, s->init + ch, sums, outputs);
            else tile(1, s, x, w, s->init + ch, sums, outputs);
            m = at + width;
        }
    }
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
            store(s->sums + m * s->sums_stride + ch,
                  _mm256_add_epi32(_mm256_permute2x128_si256(a, b, 0x20), i0),
                  _mm256_add_epi32(_mm256_permute2x128_si256(a, b, 0x31), i1), s->outputs - ch);
        }
    }
}

static void begin(const lgr_conv_job *job, void *state)
{
    (void)job;
    (void)state;
}
static void end(void *state, int64_t amax[2])
{
    (void)state;
    (void)amax;
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
