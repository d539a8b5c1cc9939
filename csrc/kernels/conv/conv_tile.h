/* conv_tile.h - the dense loops of the engines whose sums go through the row buffer. An engine defines, and then includes
 * this file:
 *   ELEMENT, its scratch element;
 *   VECTOR and LANES, a vector and how many sums it holds; LOAD, STORE and SPLAT of 32-bit lanes, at any address;
 *   DOT(acc, x, w), which adds the products of 4 bytes of a pixel and LANES outputs to LANES sums. */
#include "kernels/conv/conv_isa.h"

#define INLINE static inline __attribute__((always_inline))
#define PARTS (16 / LANES) /* vectors of a block of 16 outputs */

INLINE void store(int32_t *dst, const VECTOR *sums, int64_t left)
{
    int32_t t[16];
    int32_t *to = left >= 16 ? dst : t;
#pragma GCC unroll 4
    for (int i = 0; i < PARTS; ++i) STORE(to + LANES * i, sums[i]);
    if (left < 16) memcpy(dst, t, (size_t)left * 4);
}

/* M pixels x 16 outputs: the inner loop of every dense shape. x and w advance by the 4 and 64 bytes of a dot product. */
INLINE void tile(const int M, const lgr_conv_span *s, const ELEMENT *x, const char *w,
                 const int32_t *init, int32_t *sums, int64_t left)
{
    const int64_t step = s->step, kq = s->kq, four = 4 / (int64_t)sizeof *x;
    VECTOR acc[6][PARTS];
#pragma GCC unroll 6
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
        for (int i = 0; i < PARTS; ++i) acc[m][i] = LOAD(init + LANES * i);
    for (int64_t i = 0; i < s->ni; ++i) {
        for (int64_t j = 0; j < s->nj; ++j) {
            const ELEMENT *p0 = x + i * s->row + j * s->col, *p1 = p0 + 3 * step;
            for (int64_t q = 0; q < kq; ++q, p0 += four, p1 += four, w += 64) {
                VECTOR v[PARTS];
#pragma GCC unroll 4
                for (int k = 0; k < PARTS; ++k) v[k] = LOAD(w + 4 * LANES * k);
#pragma GCC unroll 6
                for (int m = 0; m < M; ++m) {
                    int32_t four_bytes;
                    memcpy(&four_bytes, (m < 3 ? p0 : p1) + m % 3 * step, 4);
                    const VECTOR b = SPLAT(four_bytes);
#pragma GCC unroll 4
                    for (int k = 0; k < PARTS; ++k) DOT(acc[m][k], b, v[k]);
                }
            }
        }
    }
#pragma GCC unroll 6
    for (int m = 0; m < M; ++m) store(sums + m * s->sums_stride, acc[m], left);
}

static void span(void *state, const lgr_conv_span *s)
{
    (void)state;
    const int64_t block = s->ni * s->nj * s->kq * 64;
    /* tiles of nearly equal widths: 8 pixels are 4 + 4, not 6 and 6 of which 4 were there before */
    const int64_t tiles = (s->count + 5) / 6;
    const char *w = s->w;
    for (int64_t ch = 0; ch < s->outputs; ch += 16, w += block) {
        const int64_t outputs = s->outputs - ch;
        for (int64_t t = 0; t < tiles; ++t) {
            const int64_t at = t * s->count / tiles, width = (t + 1) * s->count / tiles - at;
            const ELEMENT *x = (const ELEMENT *)s->x + at * s->step;
            int32_t *sums = s->sums + at * s->sums_stride + ch;
            if (width == 6) tile(6, s, x, w, s->init + ch, sums, outputs);
            else if (width == 5) tile(5, s, x, w, s->init + ch, sums, outputs);
            else if (width == 4) tile(4, s, x, w, s->init + ch, sums, outputs);
            else if (width == 3) tile(3, s, x, w, s->init + ch, sums, outputs);
            else if (width == 2) tile(2, s, x, w, s->init + ch, sums, outputs);
            else tile(1, s, x, w, s->init + ch, sums, outputs);
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
