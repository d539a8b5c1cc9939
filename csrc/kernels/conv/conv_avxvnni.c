/* conv_avxvnni.c - sums by vpdpbusd on 256 bits: code + 128 is unsigned, 128 * sum(w) is taken back in the initial sums.
 * The tests build it with LGR_VNNI_EVEX, the same instruction in the encoding of AVX-512 processors. */
#define ELEMENT uint8_t
#if defined(LGR_VNNI_EVEX)
#define DOT(acc, x, w) __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(x), "v"(w))
#else /* an intrinsic would let gcc 12 copy the sums around, as in conv_avx512vnni.c */
#define DOT(acc, x, w) __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(acc) : "x"(x), "x"(w))
#endif
#include "kernels/conv/conv_256.h"

static void copy_u8(const int8_t *x, int64_t n, void *dst)
{
    const __m256i flip = _mm256_set1_epi8((char)0x80);
    uint8_t *d = dst;
    int64_t i = 0;
    for (; i + 32 <= n; i += 32)
        _mm256_storeu_si256((void *)(d + i),
                            _mm256_xor_si256(_mm256_loadu_si256((const void *)(x + i)), flip));
    for (; i < n; ++i) d[i] = (uint8_t)(x[i] ^ 0x80);
}

/* 32 channels of a pixel, or the last 16: scratch holds whole groups of 16. */
INLINE __m256i channels(const uint8_t *x, int64_t left)
{
    return left > 16 ? _mm256_loadu_si256((const void *)x)
                     : _mm256_castsi128_si256(_mm_loadu_si128((const void *)x));
}

/* One channel per group: 32 channels of a pixel, four taps per vpdpbusd, interleaved by unpacking. The weights lie as
 * the 512-bit engine reads them: a vector holds two lanes for each half of 64 channels. */
static void depthwise(void *state, const lgr_conv_span *s)
{
    (void)state;
    const int64_t quads = (s->n_taps + 3) / 4;
    for (int64_t ch = 0; ch < s->outputs; ch += 32) {
        const char *w = (const char *)s->w + ch / 64 * quads * 256 + ch % 64;
        const int64_t left = s->outputs - ch;
        for (int64_t m = 0; m < s->count; ++m) {
            const uint8_t *x = (const uint8_t *)s->x + m * s->step + ch;
            int32_t *sums = s->sums + m * s->sums_stride + ch;
            __m256i a[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(),
                            _mm256_setzero_si256()};
            for (int64_t q = 0; q < quads; ++q) {
                const int64_t *t = s->taps + 4 * q;
                const __m256i xa = channels(x + t[0], left), xb = channels(x + t[1], left);
                const __m256i xc = channels(x + t[2], left), xd = channels(x + t[3], left);
                const __m256i ab[2] = {_mm256_unpacklo_epi8(xa, xb), _mm256_unpackhi_epi8(xa, xb)};
                const __m256i cd[2] = {_mm256_unpacklo_epi8(xc, xd), _mm256_unpackhi_epi8(xc, xd)};
#pragma GCC unroll 4
                for (int j = 0; j < 4; ++j) {
                    const __m256i v = j % 2 ? _mm256_unpackhi_epi16(ab[j / 2], cd[j / 2])
                                            : _mm256_unpacklo_epi16(ab[j / 2], cd[j / 2]);
                    DOT(a[j], v, _mm256_loadu_si256((const void *)(w + 256 * q + 64 * j)));
                }
            }
#pragma GCC unroll 2
            for (int l = 0; l < 2; ++l) { /* lane l: channels 16 l .. 16 l + 15, four of each sum */
                if (16 * l >= left) break;
                const int32_t *init = s->init + ch + 16 * l;
                const __m256i lo = l ? _mm256_permute2x128_si256(a[0], a[1], 0x31)
                                     : _mm256_permute2x128_si256(a[0], a[1], 0x20);
                const __m256i hi = l ? _mm256_permute2x128_si256(a[2], a[3], 0x31)
                                     : _mm256_permute2x128_si256(a[2], a[3], 0x20);
                const __m256i both[2] = {_mm256_add_epi32(lo, LOAD(init)),
                                         _mm256_add_epi32(hi, LOAD(init + 8))};
                store(sums + 16 * l, both, left - 16 * l);
            }
        }
    }
}

const lgr_conv_isa lgr_conv_isa_avxvnni = {.quantum = 4,
                                           .element = 1,
                                           .zero = 0x80,
                                           .fuses = 0,
                                           .copy = copy_u8,
                                           .begin = begin,
                                           .span = span,
                                           .depthwise = depthwise,
                                           .end = end};
