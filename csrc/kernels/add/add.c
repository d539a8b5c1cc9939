/* add.c - checks, dispatch and the scalar reference; shifts of codes, which share its operand loads. */
#include "lgr/add.h"
#include "kernels/add/add_isa.h"
#include "lgr/cpu.h"

static void add_ref(const void *x, const void *y, int64_t from, int64_t n,
                    const struct lgr_add_params *p, const struct lgr_add_consts *c,
                    const struct lgr_quantize_out *out, lgr_range *range)
{
    lgr_range r = {0, 0};
    for (int64_t i = from; i < n; ++i) {
        const int64_t xq = lgr_code_at(x, p->bytes, i), yq = lgr_code_at(y, p->bytes, i);
        const float exact = lgr_add_exact(xq, yq, c);
        const int32_t seen = lgr_float_bits(exact);
        const int64_t t = lgr_add_sum(xq, yq, c), code = lgr_add_code(t, c);
        r = lgr_range_merge(r, (lgr_range){seen & 0x7fffffff, seen});
        if (out->value) out->value[i] = (float)code * c->inv;
        if (out->codes) lgr_put_code(out->codes, p->bits > 8, i, code);
        if (out->mask) {
            const unsigned pass = (unsigned)lgr_add_passes(t, c);
            if ((i & 7) == 0) out->mask[i >> 3] = 0;
            out->mask[i >> 3] = (uint8_t)(out->mask[i >> 3] | pass << (i & 7));
        }
        if (out->slope) out->slope[i] = lgr_add_slope(t, exact, c);
    }
    if (range) *range = lgr_range_merge(*range, r);
}

static int bad_exp2(int32_t e) { return e < -LGR_EXP2_MAX || e > LGR_EXP2_MAX; }

lgr_status lgr_add(const void *x, const void *y, int64_t n, const struct lgr_add_params *p,
                   const struct lgr_quantize_out *out, lgr_range *range)
{
    if (p == NULL || out == NULL) return LGR_E_NULL;
    if (n < 0 || p->bits < 2 || p->bits > 32 || (p->bytes != 1 && p->bytes != 4))
        return LGR_E_RANGE;
    if (p->exp2 == LGR_EXP2_NAN) { /* the same nothing as any other quantizer; x is not read */
        const struct lgr_quantize_params q = {
            .exp2 = p->exp2, .bits = p->bits, .rounding = p->rounding};
        return lgr_quantize_f32((const float *)x, n, &q, out, NULL);
    }
    if (bad_exp2(p->exp2) || bad_exp2(p->exp2_x) || bad_exp2(p->exp2_y)) return LGR_E_RANGE;
    if (p->exp2 > p->exp2_x || p->exp2 > p->exp2_y) return LGR_E_RANGE;
    if (p->rounding < LGR_FLOOR || p->rounding > LGR_CEIL) return LGR_E_RANGE;
    if (n == 0) return LGR_OK;
    if (x == NULL || y == NULL) return LGR_E_NULL;

    const struct lgr_add_consts c = lgr_add_make_consts(p);
    int64_t done = 0;
#if LGR_HAVE_AVX2
    const int near = p->exp2_x <= 64 && p->exp2_x >= -64 && p->exp2_y <= 64 && p->exp2_y >= -64;
    const int fits =
        (range == NULL && out->slope == NULL) || (near && c.up_x <= 23 && c.up_y <= 23);
    if (p->bytes == 1 && p->bits <= 8 && p->rounding == LGR_FLOOR_ADD && fits &&
        (lgr_cpu_flags() & LGR_CPU_AVX2))
        done = lgr_add_s8_avx2(x, y, n, &c, out, range);
#endif
    add_ref(x, y, done, n, p, &c, out, range);
    return LGR_OK;
}

lgr_status lgr_add_codes(const void *x, const void *y, int32_t bytes, int64_t n, int32_t shift_x,
                         int32_t shift_y, int32_t bits, int32_t minus, void *out)
{
    if (n < 0 || bits < 2 || bits > 32 || (bytes != 1 && bytes != 4)) return LGR_E_RANGE;
    if (shift_x < 0 || shift_x > 63 || shift_y < 0 || shift_y > 63) return LGR_E_RANGE;
    const struct lgr_add_params p = {.exp2_x = shift_x,
                                     .exp2_y = shift_y,
                                     .exp2 = 0,
                                     .bits = bits,
                                     .bytes = bytes,
                                     .rounding = LGR_FLOOR_ADD,
                                     .minus = minus};
    const struct lgr_quantize_out to = {.codes = out};
    if (n > 0 && out == NULL) return LGR_E_NULL;
    return lgr_add(x, y, n, &p, &to, NULL);
}

lgr_status lgr_requant(const void *x, int32_t bytes, int64_t n, int32_t shift, int32_t bits,
                       void *out)
{
    if (n < 0 || bits < 2 || bits > 32 || (bytes != 1 && bytes != 4)) return LGR_E_RANGE;
    if (shift < -63 || shift > 63) return LGR_E_RANGE;
    if (n == 0) return LGR_OK;
    if (x == NULL || out == NULL) return LGR_E_NULL;
    for (int64_t i = 0; i < n; ++i)
        lgr_put_code(out, bits > 8, i,
                     lgr_sat(lgr_shift_s64(lgr_code_at(x, bytes, i), shift), bits));
    return LGR_OK;
}
