/* quantize_avx2.c - 32 elements at a time: one store of codes, one of the mask. */
#include "kernels/quantize/quantize_avx2.h"

struct vectors {
    __m256 mul, inv, lo, hi, pass_lo, cut, clamp, minus_clamp, slope_on;
};
struct lane8 {
    __m256i code;
    __m256 value, slope;
    unsigned pass;
};

LGR_ALWAYS struct lane8 quantize8(__m256 x, const struct vectors *k, int rounding, int slope)
{
    struct lane8 out = {0};
    const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    /* second operand of max and min is returned for NaN: NaN survives the clamp */
    const __m256 held = _mm256_min_ps(k->clamp, _mm256_max_ps(k->minus_clamp, x));
    const __m256 v = _mm256_mul_ps(held, k->mul), r = round8(v, rounding);
    __m256 q = _mm256_min_ps(_mm256_max_ps(r, k->lo), k->hi);
    q = _mm256_and_ps(q, _mm256_cmp_ps(r, r, _CMP_ORD_Q)); /* NaN: code 0 */
    out.code = _mm256_cvtps_epi32(q);
    const __m256 code = _mm256_cvtepi32_ps(out.code); /* +0 where q is -0 */
    out.value = _mm256_mul_ps(code, k->inv);
    const __m256 uncut = _mm256_cmp_ps(_mm256_and_ps(x, magnitude), k->clamp, _CMP_LE_OQ);
    const __m256 below = _mm256_cmp_ps(r, k->hi, _CMP_LE_OQ);
    const __m256 pass = _mm256_and_ps(_mm256_cmp_ps(r, k->pass_lo, _CMP_GE_OQ), below);
    out.pass = (unsigned)_mm256_movemask_ps(_mm256_and_ps(pass, uncut));
    if (slope) {
        const __m256 inside = _mm256_and_ps(_mm256_cmp_ps(r, k->lo, _CMP_GE_OQ), below);
        const __m256 keep =
            _mm256_and_ps(_mm256_and_ps(uncut, k->slope_on), _mm256_cmp_ps(r, k->cut, _CMP_GE_OQ));
        out.slope = _mm256_and_ps(keep, _mm256_blendv_ps(code, _mm256_sub_ps(code, v), inside));
    }
    return out;
}

LGR_ALWAYS void run(const float *x, int64_t n, const struct lgr_quantize_consts *c,
                    const struct lgr_quantize_out *out, lgr_range *range, int rounding, int slope)
{
    const struct vectors k = {
        _mm256_set1_ps(c->mul),
        _mm256_set1_ps(c->inv),
        _mm256_set1_ps(c->lo),
        _mm256_set1_ps(c->hi),
        _mm256_set1_ps(c->pass_lo),
        _mm256_set1_ps(c->cut),
        _mm256_set1_ps(c->clamp),
        _mm256_set1_ps(-c->clamp),
        _mm256_castsi256_ps(_mm256_set1_epi32(c->slope_on ? -1 : 0)),
    };
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    __m256i top = _mm256_setzero_si256(), peak = top;
    float *const value = out->value;
    int8_t *const s8 = c->wide ? NULL : out->codes;
    int32_t *const s32 = c->wide ? out->codes : NULL;
    const int stream = c->stream && (((uintptr_t)value | (uintptr_t)s8) & 31) == 0;
    int64_t i = 0;
    for (; i + 32 <= n; i += 32) {
        struct lane8 q[4];
        for (int j = 0; j < 4; ++j) {
            const __m256 v = _mm256_loadu_ps(x + i + 8 * j);
            const __m256i bits = _mm256_castps_si256(v);
            peak = _mm256_max_epi32(peak, _mm256_and_si256(bits, magnitude));
            top = _mm256_max_epi32(top, bits);
            q[j] = quantize8(v, &k, rounding, slope);
            if (stream && value) _mm256_stream_ps(value + i + 8 * j, q[j].value);
            else if (value) _mm256_storeu_ps(value + i + 8 * j, q[j].value);
            if (s32) _mm256_storeu_si256((__m256i *)(void *)(s32 + i + 8 * j), q[j].code);
            if (slope) _mm256_storeu_ps(out->slope + i + 8 * j, q[j].slope);
        }
        if (s8) {
            const __m256i code[4] = {q[0].code, q[1].code, q[2].code, q[3].code};
            store_codes(s8 + i, code, stream);
        }
        if (out->mask) {
            const uint32_t m = q[0].pass | q[1].pass << 8 | q[2].pass << 16 | q[3].pass << 24;
            memcpy(out->mask + i / 8, &m, sizeof m);
        }
    }
    if (stream) _mm_sfence();
    if (range) *range = lgr_range_merge(*range, (lgr_range){highest(peak), highest(top)});
    const struct lgr_quantize_out rest = lgr_quantize_out_at(*out, i, c->wide ? 32 : 8);
    lgr_quantize_f32_ref(x + i, n - i, c, &rest, range);
}

static void run_any(const float *x, int64_t n, const struct lgr_quantize_consts *c,
                    const struct lgr_quantize_out *out, lgr_range *range)
{
    const int slope = out->slope != NULL;
    switch (c->rounding * 2 + slope) { /* one loop for each combination */
    case LGR_FLOOR * 2: return run(x, n, c, out, range, LGR_FLOOR, 0);
    case LGR_FLOOR * 2 + 1: return run(x, n, c, out, range, LGR_FLOOR, 1);
    case LGR_HALF_EVEN * 2: return run(x, n, c, out, range, LGR_HALF_EVEN, 0);
    case LGR_HALF_EVEN * 2 + 1: return run(x, n, c, out, range, LGR_HALF_EVEN, 1);
    case LGR_CEIL * 2: return run(x, n, c, out, range, LGR_CEIL, 0);
    case LGR_CEIL * 2 + 1: return run(x, n, c, out, range, LGR_CEIL, 1);
    case LGR_FLOOR_ADD * 2 + 1: return run(x, n, c, out, range, LGR_FLOOR_ADD, 1);
    default: return run(x, n, c, out, range, LGR_FLOOR_ADD, 0);
    }
}

void lgr_quantize_f32_avx2(const float *x, int64_t n, const struct lgr_quantize_consts *c,
                           const struct lgr_quantize_out *out, lgr_range *range)
{
    const int64_t done = lgr_quantize_plain_avx2(x, n, c, out, range);
    const struct lgr_quantize_out rest = lgr_quantize_out_at(*out, done, c->wide ? 32 : 8);
    run_any(x + done, n - done, c, &rest, range);
}

void lgr_dequantize_s8_f32_avx2(const int8_t *codes, int64_t n, float inv, float *value)
{
    const __m256 k = _mm256_set1_ps(inv);
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256i q =
            _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)(codes + i)));
        _mm256_storeu_ps(value + i, _mm256_mul_ps(_mm256_cvtepi32_ps(q), k));
    }
    lgr_dequantize_s8_f32_ref(codes + i, n - i, inv, value + i);
}
