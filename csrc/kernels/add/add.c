/* add.c - checks, dispatch and the scalar reference; shifts of codes, which share its operand loads. */
#include "lgr/add.h"
#include "kernels/add/add_isa.h"
#include "lgr/cpu.h"

static int64_t load(const void *codes, int32_t bytes, int64_t i)
{
    return bytes == 1 ? ((const int8_t *)codes)[i] : ((const int32_t *)codes)[i];
}

static void store(void *codes, int wide, int64_t i, int64_t v)
{
    if (wide) ((int32_t *)codes)[i] = (int32_t)v;
    else ((int8_t *)codes)[i] = (int8_t)v;
}

static void add_ref(const void *x, const void *y, int64_t from, int64_t n,
                    const struct lgr_add_params *p, const struct lgr_add_consts *c,
                    const struct lgr_quantize_out *out, lgr_range *range)
{
    lgr_range r = {0, 0};
    for (int64_t i = from; i < n; ++i) {
        const int64_t xq = load(x, p->bytes, i), yq = load(y, p->bytes, i);
        const float exact = (float)((double)xq * (double)c->inv_x + (double)yq * (double)c->inv_y);
        const int32_t seen = lgr_float_bits(exact);
        const int64_t a = lgr_shift_mode_s64(xq, c->shift_x, c->rounding);
        const int64_t b = lgr_shift_mode_s64(yq, c->shift_y, c->rounding);
        const int64_t t = lgr_clamp_s64(a, c->sat_lo, c->sat_hi) +
                          c->sign * lgr_clamp_s64(b, c->sat_lo, c->sat_hi);
        const int64_t code = lgr_clamp_s64(t, c->lo, c->hi);
        r = lgr_range_merge(r, (lgr_range){seen & 0x7fffffff, seen});
        if (out->value) out->value[i] = (float)code * c->inv;
        if (out->codes) store(out->codes, p->bits > 8, i, code);
        if (out->mask) {
            const unsigned pass = t >= c->pass_lo && t <= c->hi;
            if ((i & 7) == 0) out->mask[i >> 3] = 0;
            out->mask[i >> 3] = (uint8_t)(out->mask[i >> 3] | pass << (i & 7));
        }
        if (out->slope) {
            const int keep = c->slope_on && t >= c->keep_lo && t <= c->keep_hi;
            const int inside = t >= c->sat_lo && t <= c->sat_hi;
            out->slope[i] = !keep ? 0.0f : inside ? (float)code - exact * c->mul : (float)code;
        }
    }
    if (range) *range = lgr_range_merge(*range, r);
}

static struct lgr_add_consts consts(const struct lgr_add_params *p)
{
    const int64_t far = (int64_t)1 << 40; /* beyond every sum of two codes */
    const int64_t sat_lo = lgr_code_lo(p->bits), sat_hi = lgr_code_hi(p->bits);
    int64_t limit = far;
    if (p->clamp > 0.0f && (double)p->clamp < lgr_exp2_f64(40 - p->exp2))
        limit = (int64_t)floor((double)p->clamp * lgr_exp2_f64(p->exp2));
    const int64_t lo = p->relu ? 0 : sat_lo, pass_lo = p->relu ? 1 : sat_lo,
                  cut = p->relu ? 1 : -far;
    const int32_t finest = p->exp2_x > p->exp2_y ? p->exp2_x : p->exp2_y;
    return (struct lgr_add_consts){
        .shift_x = p->exp2_x - p->exp2,
        .shift_y = p->exp2_y - p->exp2,
        .sat_lo = sat_lo,
        .sat_hi = sat_hi,
        .lo = lo > -limit ? lo : -limit,
        .hi = sat_hi < limit ? sat_hi : limit,
        .pass_lo = pass_lo > -limit ? pass_lo : -limit,
        .keep_lo = cut > -limit ? cut : -limit,
        .keep_hi = limit,
        .inv_x = lgr_exp2_scale(-p->exp2_x),
        .inv_y = p->minus ? -lgr_exp2_scale(-p->exp2_y) : lgr_exp2_scale(-p->exp2_y),
        .sign = p->minus ? -1 : 1,
        .mul = lgr_exp2_scale(p->exp2),
        .inv = lgr_exp2_scale(-p->exp2),
        .up_x = finest - p->exp2_x,
        .up_y = finest - p->exp2_y,
        .unit = lgr_exp2_scale(-finest),
        .rounding = p->rounding,
        .slope_on = !p->no_slope,
        .stream = p->stream,
    };
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

    const struct lgr_add_consts c = consts(p);
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
        store(out, bits > 8, i, lgr_sat(lgr_shift_s64(load(x, bytes, i), shift), bits));
    return LGR_OK;
}
