/* conv_dotprod.c - sums by sdot on 128 bits (ARMv8.2 and later): codes stay signed. */
#include <arm_neon.h>

#define ELEMENT int8_t
#define VECTOR int32x4_t
#define LANES 4
#define LOAD(from) vreinterpretq_s32_s8(vld1q_s8((const int8_t *)(const void *)(from)))
#define STORE(to, v) vst1q_s8((int8_t *)(void *)(to), vreinterpretq_s8_s32(v))
#define SPLAT(word) vdupq_n_s32(word)
#define DOT(acc, x, w) (acc) = vdotq_s32(acc, vreinterpretq_s8_s32(w), vreinterpretq_s8_s32(x))
#include "kernels/conv/conv_tile.h"

static void copy_s8(const int8_t *x, int64_t n, void *dst) { memcpy(dst, x, (size_t)n); }

/* One channel per group: 16 channels of a pixel, four taps per sdot, interleaved by zipping. The weights lie as the x86
 * engines read them: 16 bytes of each of four vectors belong to 16 of 64 channels. */
static void depthwise(void *state, const lgr_conv_span *s)
{
    (void)state;
    const int64_t quads = (s->n_taps + 3) / 4;
    for (int64_t ch = 0; ch < s->outputs; ch += 16) {
        const char *w = (const char *)s->w + ch / 64 * quads * 256 + ch % 64;
        for (int64_t m = 0; m < s->count; ++m) {
            const int8_t *x = (const int8_t *)s->x + m * s->step + ch;
            int32x4_t a[4];
#pragma GCC unroll 4
            for (int j = 0; j < 4; ++j) a[j] = LOAD(s->init + ch + 4 * j);
            for (int64_t q = 0; q < quads; ++q) {
                const int64_t *t = s->taps + 4 * q;
                const int8x16_t x0 = vld1q_s8(x + t[0]), x1 = vld1q_s8(x + t[1]);
                const int8x16_t x2 = vld1q_s8(x + t[2]), x3 = vld1q_s8(x + t[3]);
                const int8x16x2_t ab = vzipq_s8(x0, x1), cd = vzipq_s8(x2, x3);
#pragma GCC unroll 2
                for (int half = 0; half < 2; ++half) {
                    const int16x8x2_t v = vzipq_s16(vreinterpretq_s16_s8(ab.val[half]),
                                                    vreinterpretq_s16_s8(cd.val[half]));
#pragma GCC unroll 2
                    for (int i = 0; i < 2; ++i) {
                        const int j = 2 * half + i;
                        DOT(a[j], vreinterpretq_s32_s16(v.val[i]), LOAD(w + 256 * q + 64 * j));
                    }
                }
            }
            store(s->sums + m * s->sums_stride + ch, a, s->outputs - ch);
        }
    }
}

const lgr_conv_isa lgr_conv_isa_dotprod = {.quantum = 4,
                                           .element = 1,
                                           .zero = 0,
                                           .fuses = 0,
                                           .copy = copy_s8,
                                           .begin = begin,
                                           .span = span,
                                           .depthwise = depthwise,
                                           .end = end};
