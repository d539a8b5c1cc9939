/* conv_256.h - the dense loops of the 256-bit engines. An engine defines ELEMENT, its scratch element, and DOT(acc, x, w),
 * which adds the products of 4 bytes of a pixel and 8 outputs to 8 sums, and includes this file. Sums go through the row
 * buffer. */
#include "kernels/conv/conv_isa.h"
#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

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

/* M pixels x 16 outputs: the inner loop of every dense shape. x and w advance by the 4 and 64 bytes of a dot product. */
INLINE void tile(const int M, const lgr_conv_span *s, const ELEMENT *x, const char *w,
                 const int32_t *init, int32_t *sums, int64_t left)
{
    const int64_t step = s->step, kq = s->kq, four = 4 / (int64_t)sizeof *x;
    __m256i acc[6][2];
#pragma GCC unroll 6
    for (int m = 0; m < M; ++m) {
        acc[m][0] = _mm256_loadu_si256((const void *)init);
        acc[m][1] = _mm256_loadu_si256((const void *)(init + 8));
    }
    for (int64_t i = 0; i < s->ni; ++i) {
        for (int64_t j = 0; j < s->nj; ++j) {
            const ELEMENT *p0 = x + i * s->row + j * s->col, *p1 = p0 + 3 * step;
            for (int64_t q = 0; q < kq; ++q, p0 += four, p1 += four, w += 64) {
                const __m256i w0 = _mm256_loadu_si256((const void *)w),
                              w1 = _mm256_loadu_si256((const void *)(w + 32));
#pragma GCC unroll 6
                for (int m = 0; m < M; ++m) {
                    int32_t v;
                    memcpy(&v, (m < 3 ? p0 : p1) + m % 3 * step, 4);
                    const __m256i b = _mm256_set1_epi32(v);
                    DOT(acc[m][0], b, w0);
                    DOT(acc[m][1], b, w1);
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
    const int64_t block = s->ni * s->nj * s->kq * 64;
    const char *w = s->w;
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
            const ELEMENT *x = (const ELEMENT *)s->x + at * s->step;
            int32_t *sums = s->sums + at * s->sums_stride + ch;
            if (width == 6) tile(6, s, x, w, s->init + ch, sums, outputs);
            else if (width == 4) tile(4, s, x, w, s->init + ch, sums, outputs);
            else if (width == 2) tile(2, s, x, w, s->init + ch, sums, outputs);
            else tile(1, s, x, w, s->init + ch, sums, outputs);
            m = at + width;
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
