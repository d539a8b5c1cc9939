/* epilogue_avx2.c - 32-bit twin: 16 channels of a pixel at a time. */
#include "kernels/epilogue/epilogue_isa.h"
#include <immintrin.h>

typedef struct lanes {
    __m256i add, lo, hi, t0, t1, c0, c1;
    __m128i shift;
    __m256 inv, slope_one;
} lanes;

/* 8 sums -> codes, value, slope; returns the 8 mask bits. `at` addresses buffers with room for 8 elements. */
static inline int emit8(const lanes *k, __m256i a, int64_t at, const lgr_outputs *out, int stream,
                        __m256i *code)
{
    const __m256i raw = _mm256_sra_epi32(_mm256_add_epi32(a, k->add), k->shift);
    const __m256i r = _mm256_min_epi32(_mm256_max_epi32(raw, k->lo), k->hi);
    const __m256i fail =
        _mm256_or_si256(_mm256_cmpgt_epi32(k->t0, a), _mm256_cmpgt_epi32(a, k->t1));
    const __m256 r_f32 = _mm256_cvtepi32_ps(r);
    *code = r;
    if (out->code32) _mm256_storeu_si256((void *)(out->code32 + at), r);
    if (out->value) {
        const __m256 v = _mm256_mul_ps(r_f32, k->inv);
        if (stream) _mm256_stream_ps(out->value + at, v);
        else _mm256_storeu_ps(out->value + at, v);
    }
    if (out->slope) {
        const __m256i cut =
            _mm256_or_si256(_mm256_cmpgt_epi32(k->c0, a), _mm256_cmpgt_epi32(a, k->c1));
        const __m256i rest = _mm256_sub_epi32(_mm256_sll_epi32(r, k->shift), a);
        const __m256 in = _mm256_mul_ps(_mm256_cvtepi32_ps(rest), k->slope_one);
        const __m256 v = _mm256_blendv_ps(in, r_f32, _mm256_castsi256_ps(fail));
        _mm256_storeu_ps(out->slope + at, _mm256_andnot_ps(_mm256_castsi256_ps(cut), v));
    }
    return ~_mm256_movemask_ps(_mm256_castsi256_ps(fail)) & 0xff;
}

/* 16 sums of one pixel, with their int8 codes and mask bytes. */
static inline void emit16(const lanes *k, __m256i a, __m256i b, int64_t at, const lgr_outputs *out,
                          int stream, uint8_t *mask, uint16_t valid)
{
    __m256i ra, rb;
    const int low = emit8(k, a, at, out, stream, &ra), high = emit8(k, b, at + 8, out, stream, &rb);
    if (out->code8) {
        const __m256i pairs = _mm256_permute4x64_epi64(_mm256_packs_epi32(ra, rb), 0xd8);
        const __m128i bytes =
            _mm_packs_epi16(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
        _mm_storeu_si128((void *)(out->code8 + at), bytes);
    }
    if (mask) {
        const uint16_t m = (uint16_t)((low | high << 8) & valid);
        memcpy(mask, &m, 2);
    }
}

static inline int32_t top(__m256i v)
{
    int32_t t[8], m;
    _mm256_storeu_si256((void *)t, v);
    m = t[0];
    for (int i = 1; i < 8; ++i) m = t[i] > m ? t[i] : m;
    return m;
}

void lgr_epilogue_rows_avx2(const lgr_epilogue *ep, const int32_t *sums, int64_t stride,
                            int64_t rows, int64_t n, int64_t ch, int64_t o, int64_t pixel,
                            const lgr_outputs *out, int64_t amax[2])
{
    const lanes k = {.add = _mm256_set1_epi32((int32_t)lgr_epilogue_add(ep)),
                     .lo = _mm256_set1_epi32((int32_t)ep->lo),
                     .hi = _mm256_set1_epi32((int32_t)ep->hi),
                     .t0 = _mm256_set1_epi32(lgr_epilogue_s32(ep->t0)),
                     .t1 = _mm256_set1_epi32(lgr_epilogue_s32(ep->t1)),
                     .c0 = _mm256_set1_epi32(lgr_epilogue_s32(ep->c0)),
                     .c1 = _mm256_set1_epi32(lgr_epilogue_s32(ep->c1)),
                     .shift = _mm_cvtsi32_si128(ep->shift),
                     .inv = _mm256_set1_ps(ep->inv),
                     .slope_one = _mm256_set1_ps(ep->slope_one)};
    const lgr_outputs to = *out; /* a local: byte stores must not reload it */
    const int64_t row_bytes = lgr_mask_row_bytes(o);
    const int stream =
        to.stream && to.value && (o | ch | n) % 16 == 0 && (uintptr_t)to.value % 32 == 0;
    __m256i up = _mm256_setzero_si256(), down = _mm256_setzero_si256();

    for (int64_t r = 0; r < rows; ++r) {
        const int32_t *src = sums + r * stride;
        const int64_t at = (pixel + r) * o + ch;
        uint8_t *mask = to.mask ? to.mask + (pixel + r) * row_bytes + ch / 8 : NULL;
        int64_t i = 0;
        for (; i + 16 <= n; i += 16) {
            const __m256i a = _mm256_loadu_si256((const void *)(src + i)),
                          b = _mm256_loadu_si256((const void *)(src + i + 8));
            up = _mm256_max_epi32(up, _mm256_max_epi32(a, b));
            down = _mm256_min_epi32(down, _mm256_min_epi32(a, b));
            emit16(&k, a, b, at + i, &to, stream, mask ? mask + i / 8 : NULL, 0xffff);
        }
        if (i < n) { /* the rest through small arrays: no store past the last channel */
            const size_t left = (size_t)(n - i);
            int32_t s[16] = {0}, code32[16];
            int8_t code8[16];
            float value[16], slope[16];
            uint8_t bits[2];
            memcpy(s, src + i, 4 * left);
            const __m256i a = _mm256_loadu_si256((const void *)s),
                          b = _mm256_loadu_si256((const void *)(s + 8));
            up = _mm256_max_epi32(up, _mm256_max_epi32(a, b));
            down = _mm256_min_epi32(down, _mm256_min_epi32(a, b));
            const lgr_outputs small = {.code8 = to.code8 ? code8 : NULL,
                                       .code32 = to.code32 ? code32 : NULL,
                                       .value = to.value ? value : NULL,
                                       .slope = to.slope ? slope : NULL};
            emit16(&k, a, b, 0, &small, 0, bits, (uint16_t)((1u << left) - 1));
            if (to.code8) memcpy(to.code8 + at + i, code8, left);
            if (to.code32) memcpy(to.code32 + at + i, code32, 4 * left);
            if (to.value) memcpy(to.value + at + i, value, 4 * left);
            if (to.slope) memcpy(to.slope + at + i, slope, 4 * left);
            if (mask) memcpy(mask + i / 8, bits, 2);
        }
    }
    if (stream) _mm_sfence();
    const int64_t high = top(up), low = top(_mm256_sub_epi32(_mm256_setzero_si256(), down));
    amax[0] = high > amax[0] ? high : amax[0];
    amax[1] = low > amax[1] ? low : amax[1];
}
