/* conv_avx512vnni.c - sums by vpdpbusd: code + 128 is unsigned, 128 * sum(w) is taken back in the initial sums.
 * vpdpbusd (unlike vpdpbusds) does not saturate: exact modulo 2^32. The output quantizer works on the registers. */
#include "kernels/conv/conv_isa.h"
#include "kernels/epilogue/epilogue_isa.h"
#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

/* Where 16 sums go. Copied to a local in every span: byte stores must not reload it. */
typedef struct sink {
    lgr_outputs out;
    __m512i add, lo, hi, t0, span, c0, c1, max, min;
    __m512 inv, slope_one;
    __m128i shift;
    int64_t o, row_bytes;
    int quantize, stream, flat; /* flat: rows of 16-channel groups continue in the next pixel */
} sink;
_Static_assert(sizeof(sink) <= LGR_CONV_STATE_BYTES, "engine state does not fit the scratch");

static void begin(const lgr_conv_job *job, void *state)
{
    const lgr_epilogue *e = job->ep;
    sink *s = state;
    *s = (sink){.o = job->p.o,
                .row_bytes = lgr_mask_row_bytes(job->p.o),
                .quantize = job->fused && e != NULL};
    s->flat = job->depthwise && lgr_conv_is_flat(&job->p);
    if (!job->fused) return;
    s->out = job->out;
    if (e == NULL) return;
    s->out.acc = NULL;
    s->stream =
        s->out.stream && s->out.value && s->o % 16 == 0 && (uintptr_t)s->out.value % 64 == 0;
    s->add = _mm512_set1_epi32((int32_t)lgr_epilogue_add(e));
    s->lo = _mm512_set1_epi32((int32_t)e->lo);
    s->hi = _mm512_set1_epi32((int32_t)e->hi);
    s->t0 = _mm512_set1_epi32(lgr_epilogue_s32(e->t0));
    s->span = _mm512_set1_epi32(
        (int32_t)((uint32_t)lgr_epilogue_s32(e->t1) - (uint32_t)lgr_epilogue_s32(e->t0)));
    s->c0 = _mm512_set1_epi32(lgr_epilogue_s32(e->c0));
    s->c1 = _mm512_set1_epi32(lgr_epilogue_s32(e->c1));
    s->shift = _mm_cvtsi32_si128(e->shift);
    s->inv = _mm512_set1_ps(e->inv);
    s->slope_one = _mm512_set1_ps(e->slope_one);
}
static void end(void *state, int64_t amax[2])
{
    const sink *s = state;
    if (!s->quantize) return;
    if (s->stream) _mm_sfence();
    const int64_t up = _mm512_reduce_max_epi32(s->max),
                  down = -(int64_t)_mm512_reduce_min_epi32(s->min);
    amax[0] = up > amax[0] ? up : amax[0];
    amax[1] = down > amax[1] ? down : amax[1];
}

/* 16 sums: at = pixel * o + channel, byte = their place in the mask, k = valid lanes. */
INLINE void emit(sink *s, __m512i a, int64_t at, int64_t byte, __mmask16 k)
{
    const __mmask16 pass = _mm512_cmple_epu32_mask(_mm512_sub_epi32(a, s->t0), s->span);
    s->max =
        _mm512_max_epi32(s->max, a); /* lanes past the last channel are 0: no weights, no bias */
    s->min = _mm512_min_epi32(s->min, a);
    __m512i r = _mm512_sra_epi32(_mm512_add_epi32(a, s->add), s->shift);
    r = _mm512_min_epi32(_mm512_max_epi32(r, s->lo), s->hi);
    const __m512 f = _mm512_cvtepi32_ps(r);
    if (s->out.code8) _mm_mask_storeu_epi8(s->out.code8 + at, k, _mm512_cvtepi32_epi8(r));
    if (s->out.code32) _mm512_mask_storeu_epi32(s->out.code32 + at, k, r);
    if (s->stream) _mm512_stream_ps(s->out.value + at, _mm512_mul_ps(f, s->inv));
    else if (s->out.value) _mm512_mask_storeu_ps(s->out.value + at, k, _mm512_mul_ps(f, s->inv));
    if (s->out.slope) {
        const __mmask16 whole =
            _mm512_cmple_epi32_mask(s->c0, a) & _mm512_cmple_epi32_mask(a, s->c1);
        const __m512i rest = _mm512_sub_epi32(_mm512_sll_epi32(r, s->shift), a);
        const __m512 v = _mm512_mask_mul_ps(f, pass, _mm512_cvtepi32_ps(rest), s->slope_one);
        _mm512_mask_storeu_ps(s->out.slope + at, k, _mm512_maskz_mov_ps(whole, v));
    }
    if (s->out.mask) {
        const uint16_t m = pass & k;
        memcpy(s->out.mask + byte, &m, 2);
    }
}
/* One vector of sums of a span: pixel m, channel c. Flat spans count on through the pixels. */
INLINE void put(sink *s, const lgr_conv_span *p, __m512i a, int64_t m, int64_t c, __mmask16 k)
{
    const int64_t pixel = p->pixel + m, ch = p->ch + c, at = pixel * s->o + ch;
    if (s->quantize) emit(s, a, at, pixel * s->row_bytes + (ch >> 3), k);
    else if (s->out.acc) _mm512_mask_storeu_epi32(s->out.acc + at, k, a);
    else _mm512_mask_storeu_epi32(p->sums + m * p->sums_stride + c, k, a);
}
INLINE __mmask16 valid(int64_t left)
{
    return left >= 16 ? (__mmask16)0xffff : (__mmask16)((1u << left) - 1);
}

/* gcc 12 copies and spills the accumulators around _mm512_dpbusd_epi32 (more than twice slower) */
#define DOT(acc, x, w) __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(x), "v"(w))

INLINE __m512i broadcast(const uint8_t *p)
{
    int32_t v;
    memcpy(&v, p, 4);
    return _mm512_set1_epi32(v);
}

/* M pixels x NB blocks of 16 outputs: the inner loop of every dense shape. */
INLINE void tile(const int M, const int NB, sink *out, const lgr_conv_span *s, int64_t at,
                 int64_t ch, const int8_t *w)
{
    const int64_t step = s->step, kq = s->kq, block = s->ni * s->nj * kq * 64;
    const uint8_t *x = (const uint8_t *)s->x + at * step;
    __m512i acc[16][2];
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
        for (int b = 0; b < NB; ++b) acc[m][b] = _mm512_loadu_si512(s->init + ch + 16 * b);
    for (int64_t i = 0; i < s->ni; ++i)
        for (int64_t j = 0; j < s->nj; ++j) {
            const uint8_t *p0 = x + i * s->row + j * s->col, *p1 = p0 + 4 * step,
                          *p2 = p0 + 8 * step, *p3 = p0 + 12 * step;
            const int64_t s2 = 2 * step, s3 = 3 * step;
            for (int64_t q = 0; q < kq; ++q, p0 += 4, p1 += 4, p2 += 4, p3 += 4, w += 64) {
                __m512i wv[2];
#pragma GCC unroll 2
                for (int b = 0; b < NB; ++b) wv[b] = _mm512_loadu_si512(w + b * block);
#pragma GCC unroll 16
                for (int m = 0; m < M; ++m) {
                    const uint8_t *p = m < 4 ? p0 : m < 8 ? p1 : m < 12 ? p2 : p3;
                    const __m512i v = broadcast(p + (m % 4 == 0   ? 0
                                                     : m % 4 == 1 ? step
                                                     : m % 4 == 2 ? s2
                                                                  : s3));
#pragma GCC unroll 2
                    for (int b = 0; b < NB; ++b) DOT(acc[m][b], v, wv[b]);
                }
            }
        }
    sink t = *out;
    const __mmask16 last = valid(s->outputs - ch - 16 * (NB - 1));
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
        for (int b = 0; b < NB; ++b)
            put(&t, s, acc[m][b], at + m, ch + 16 * b, b == NB - 1 ? last : (__mmask16)0xffff);
    out->max = t.max;
    out->min = t.min;
}

static void span(void *state, const lgr_conv_span *s)
{
    const int64_t block = s->ni * s->nj * s->kq * 64;
    const int8_t *w = s->w;
    for (int64_t ch = 0; ch < s->outputs;) {
        const int two = s->outputs - ch > 16;
        for (int64_t m = 0; m < s->count;) {
            const int64_t left = s->count - m, most = two ? 12 : 16;
            /* the narrowest tile that covers the rest; the last one may repeat pixels: same results */
            int64_t width = left >= most ? most : left > 8 ? most : left > 4 ? 8 : left > 1 ? 4 : 1;
            while (width > s->count) width = width > 8 ? 8 : width > 4 ? 4 : 1;
            const int64_t at = left < width ? s->count - width : m;
            if (two) {
                if (width == 12) tile(12, 2, state, s, at, ch, w);
                else if (width == 8) tile(8, 2, state, s, at, ch, w);
                else if (width == 4) tile(4, 2, state, s, at, ch, w);
                else tile(1, 2, state, s, at, ch, w);
            } else {
                if (width == 16) tile(16, 1, state, s, at, ch, w);
                else if (width == 8) tile(8, 1, state, s, at, ch, w);
                else if (width == 4) tile(4, 1, state, s, at, ch, w);
                else tile(1, 1, state, s, at, ch, w);
            }
            m = at + width;
        }
        ch += two ? 32 : 16;
        w += two ? 2 * block : block;
    }
}

/* 64 outputs of one channel each: four taps per vpdpbusd, interleaved by unpacking. r[l] = outputs
 * 16 l .. 16 l + 15. */
INLINE void channels64(const uint8_t *x, const int64_t *taps, const int64_t quads, __mmask64 k,
                       const int8_t *w, __m512i r[4])
{
    __m512i a0 = _mm512_setzero_si512(), a1 = a0, a2 = a0, a3 = a0;
#pragma GCC unroll 4
    for (int64_t q = 0; q < quads; ++q) {
        const int64_t *t = taps + 4 * q;
        const int8_t *v = w + 256 * q;
        const __m512i xa = _mm512_maskz_loadu_epi8(k, x + t[0]);
        const __m512i xb = _mm512_maskz_loadu_epi8(k, x + t[1]);
        const __m512i xc = _mm512_maskz_loadu_epi8(k, x + t[2]);
        const __m512i xd = _mm512_maskz_loadu_epi8(k, x + t[3]);
        const __m512i ab0 = _mm512_unpacklo_epi8(xa, xb), ab1 = _mm512_unpackhi_epi8(xa, xb);
        const __m512i cd0 = _mm512_unpacklo_epi8(xc, xd), cd1 = _mm512_unpackhi_epi8(xc, xd);
        DOT(a0, _mm512_unpacklo_epi16(ab0, cd0), _mm512_loadu_si512(v));
        DOT(a1, _mm512_unpackhi_epi16(ab0, cd0), _mm512_loadu_si512(v + 64));
        DOT(a2, _mm512_unpacklo_epi16(ab1, cd1), _mm512_loadu_si512(v + 128));
        DOT(a3, _mm512_unpackhi_epi16(ab1, cd1), _mm512_loadu_si512(v + 192));
    }
    const __m512i x0 = _mm512_shuffle_i32x4(a0, a1, 0x44), x1 = _mm512_shuffle_i32x4(a0, a1, 0xee);
    const __m512i y0 = _mm512_shuffle_i32x4(a2, a3, 0x44), y1 = _mm512_shuffle_i32x4(a2, a3, 0xee);
    r[0] = _mm512_shuffle_i32x4(x0, y0, 0x88);
    r[1] = _mm512_shuffle_i32x4(x0, y0, 0xdd);
    r[2] = _mm512_shuffle_i32x4(x1, y1, 0x88);
    r[3] = _mm512_shuffle_i32x4(x1, y1, 0xdd);
}

/* `length` consecutive outputs from pixel m on; sets of weights and c initial sums repeat. */
INLINE void stretch(sink *t, const lgr_conv_span *s, const int64_t quads, int64_t m, int64_t length,
                    int64_t sets)
{
    const uint8_t *x = (const uint8_t *)s->x + m * s->step;
    const int64_t c = s->outputs;
    int64_t set = 0, ch = 0;
    for (int64_t f = 0; f < length; f += 64) {
        const int64_t left = length - f;
        const __mmask64 k = left >= 64 ? ~0ull : ~0ull >> (64 - left);
        __m512i r[4];
        channels64(x + f, s->taps, quads, k, (const int8_t *)s->w + set * quads * 256, r);
#pragma GCC unroll 4
        for (int64_t l = 0; l < 4; ++l) {
            if (16 * l >= left) break;
            const __m512i start = _mm512_loadu_si512(s->init + ch);
            put(t, s, _mm512_add_epi32(r[l], start), m, f + 16 * l, valid(left - 16 * l));
            ch = ch + 16 >= c ? 0 : ch + 16;
        }
        set = set + 1 == sets ? 0 : set + 1;
    }
}

/* Flat: stride 1 and whole vectors of channels, so a row of pixels is one long stretch of outputs.
 * Otherwise pixel by pixel. */
static void depthwise(void *state, const lgr_conv_span *s)
{
    sink t = *(const sink *)state;
    const int64_t c = s->outputs, quads = (s->n_taps + 3) / 4;
    const int64_t pixels = t.flat ? 1 : s->count, length = t.flat ? s->count * c : c;
    const int64_t sets = t.flat ? c / lgr_conv_gcd(c, 64) : (c + 63) / 64;
    for (int64_t m = 0; m < pixels; ++m) {
        if (quads == 3) stretch(&t, s, 3, m, length, sets); /* 3x3: unrolled */
        else stretch(&t, s, quads, m, length, sets);
    }
    ((sink *)state)->max = t.max;
    ((sink *)state)->min = t.min;
}

static void copy_u8(const int8_t *x, int64_t n, void *dst)
{
    const __m512i flip = _mm512_set1_epi8((char)0x80);
    uint8_t *d = dst;
    int64_t i = 0;
    for (; i + 64 <= n; i += 64)
        _mm512_storeu_si512(d + i, _mm512_xor_si512(_mm512_loadu_si512(x + i), flip));
    if (i < n) {
        const __mmask64 k = ~0ull >> (64 - (n - i));
        _mm512_mask_storeu_epi8(d + i, k,
                                _mm512_xor_si512(_mm512_maskz_loadu_epi8(k, x + i), flip));
    }
}

const lgr_conv_isa lgr_conv_isa_avx512vnni = {.quantum = 4,
                                              .element = 1,
                                              .zero = 0x80,
                                              .fuses = 1,
                                              .copy = copy_u8,
                                              .begin = begin,
                                              .span = span,
                                              .depthwise = depthwise,
                                              .end = end};
