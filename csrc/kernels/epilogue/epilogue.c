/* epilogue.c - making an epilogue, the reference, and the choice between the twins. */
#include "kernels/epilogue/epilogue_isa.h"
#include "lgr/cpu.h"

#define LIMIT ((int64_t)1 << 62) /* beyond every sum */

/* Smallest sum whose rounded quotient is at least v. */
static int64_t least(int64_t v, int shift, int rounding)
{
    if (shift < 0) { /* code = A * 2^-shift: the least A with A * 2^-shift >= v */
        const int k = -shift > 62 ? 62 : -shift;
        return -((-v) >> k);
    }
    if (shift == 0) return v;
    const int64_t half = (int64_t)1 << (shift - 1),
                  at = lgr_clamp_s64(lgr_lsh_s64(v, shift), -LIMIT, LIMIT);
    switch (rounding) {
    case LGR_FLOOR: return at;
    case LGR_CEIL: return lgr_clamp_s64(lgr_lsh_s64(v - 1, shift), -LIMIT, LIMIT) + 1;
    case LGR_HALF_EVEN: return at - half + (v & 1);
    default: return at - half;
    }
}

lgr_status lgr_epilogue_make(const lgr_epilogue_spec *s, lgr_epilogue *ep)
{
    if (s == NULL || ep == NULL) return LGR_E_NULL;
    const int32_t shift = s->acc_exp2 - s->out_exp2;
    if (s->bits < 2 || s->bits > 32 || s->rounding < LGR_FLOOR || s->rounding > LGR_CEIL)
        return LGR_E_RANGE;
    if (s->acc_exp2 < -504 || s->acc_exp2 > 504 || s->out_exp2 < -126 || s->out_exp2 > 126)
        return LGR_E_RANGE;
    if (shift > 63 || (shift < 0 && s->bits != 32) || !(s->clamp >= 0.0)) return LGR_E_RANGE;

    const int64_t code_lo = lgr_code_lo(s->bits), code_hi = lgr_code_hi(s->bits);
    ep->a0 = s->sat32 ? INT32_MIN : -LIMIT;
    ep->a1 = s->sat32 ? INT32_MAX : LIMIT;
    if (s->clamp > 0.0) {
        const double c = floor(s->clamp * lgr_exp2_f64(s->acc_exp2));
        const int64_t limit = c < (double)LIMIT ? (int64_t)c : LIMIT;
        ep->a0 = ep->a0 > -limit ? ep->a0 : -limit;
        ep->a1 = ep->a1 < limit ? ep->a1 : limit;
    }
    const int64_t r0 = lgr_shift_mode_s64(ep->a0, shift, s->rounding),
                  r1 = lgr_shift_mode_s64(ep->a1, shift, s->rounding);
    const int64_t bottom = s->relu ? 0 : code_lo;
    ep->shift = shift;
    ep->rounding = s->rounding;
    ep->relu = s->relu != 0;
    ep->lo = r0 > bottom ? r0 : bottom;
    ep->hi = r1 < code_hi ? r1 : code_hi;
    const int64_t first = least(s->relu ? 1 : code_lo, shift, s->rounding),
                  last = least(code_hi + 1, shift, s->rounding) - 1;
    ep->t0 = first > ep->a0 ? first : ep->a0;
    ep->t1 = last < ep->a1 ? last : ep->a1;
    ep->c0 = s->relu && first > ep->a0 ? first : ep->a0;
    ep->c1 = ep->a1;
    ep->inv = lgr_exp2_scale(-s->out_exp2);
    ep->slope_one = shift < 0 ? 0.0f : lgr_exp2_scale(-shift);
    return LGR_OK;
}

float lgr_epilogue_peak(const lgr_epilogue *ep, int32_t acc_exp2, const int64_t amax[2])
{
    const int64_t up = amax[0] < ep->a1 ? amax[0] : ep->a1,
                  down = amax[1] < -ep->a0 ? amax[1] : -ep->a0;
    const int64_t m = ep->relu || up > down ? up : down;
    return (float)((double)m * lgr_exp2_f64(-acc_exp2));
}

int lgr_epilogue_narrow(const lgr_epilogue *ep, int64_t bound)
{
    if (ep->shift < 0 || ep->shift > 30 || ep->t0 > ep->t1 || ep->lo > ep->hi) return 0;
    if (ep->rounding == LGR_HALF_EVEN && ep->shift > 0) return 0;
    return bound + lgr_epilogue_add(ep) <= INT32_MAX;
}

int lgr_epilogue_one(const lgr_epilogue *ep, int64_t a, int64_t at, const lgr_outputs *out)
{
    const int64_t a_sat = lgr_clamp_s64(a, ep->a0, ep->a1);
    const int64_t r =
        lgr_clamp_s64(lgr_shift_mode_s64(a_sat, ep->shift, ep->rounding), ep->lo, ep->hi);
    const int pass = a >= ep->t0 && a <= ep->t1;
    if (out->acc) out->acc[at] = (int32_t)(uint32_t)(uint64_t)a;
    if (out->code8) out->code8[at] = (int8_t)r;
    if (out->code16) out->code16[at] = (int16_t)r;
    if (out->code32) out->code32[at] = (int32_t)r;
    if (out->value) out->value[at] = (float)r * ep->inv;
    if (out->slope) {
        const int cut = a < ep->c0 || a > ep->c1;
        /* a passing sum is within one code of r * 2^shift: the difference is exact */
        const uint64_t rest = ((uint64_t)r << (ep->shift > 0 ? ep->shift : 0)) - (uint64_t)a;
        out->slope[at] = cut ? 0.0f : pass ? (float)(int64_t)rest * ep->slope_one : (float)r;
    }
    return pass;
}

void lgr_epilogue_rows_ref(const lgr_epilogue *ep, const int32_t *sums, int64_t stride,
                           const int32_t *bias, int64_t rows, int64_t n, int64_t ch, int64_t o,
                           int64_t pixel, const lgr_outputs *out, int64_t amax[2])
{
    const int64_t row_bytes = lgr_mask_row_bytes(o);
    int64_t up = amax[0], down = amax[1];
    for (int64_t r = 0; r < rows; ++r) {
        const int64_t at = (pixel + r) * o + ch;
        uint8_t *mask = out->mask ? out->mask + (pixel + r) * row_bytes + ch / 8 : NULL;
        if (mask) memset(mask, 0, (size_t)(n + ch == o ? row_bytes - ch / 8 : n / 8));
        for (int64_t i = 0; i < n; ++i) {
            const int64_t a = (int64_t)sums[r * stride + i] + (bias ? bias[i] : 0);
            up = a > up ? a : up;
            down = -a > down ? -a : down;
            const int pass = lgr_epilogue_one(ep, a, at + i, out);
            if (mask && pass) mask[i / 8] = (uint8_t)(mask[i / 8] | 1u << i % 8);
        }
    }
    amax[0] = up;
    amax[1] = down;
}

void lgr_epilogue_rows(const lgr_epilogue *ep, int narrow, const int32_t *sums, int64_t stride,
                       const int32_t *bias, int64_t rows, int64_t n, int64_t ch, int64_t o,
                       int64_t pixel, const lgr_outputs *out, int64_t amax[2])
{
#if LGR_HAVE_AVX2
    if (narrow && bias == NULL && out->code16 == NULL && out->acc == NULL &&
        lgr_cpu_flags() & LGR_CPU_AVX2) {
        lgr_epilogue_rows_avx2(ep, sums, stride, rows, n, ch, o, pixel, out, amax);
        return;
    }
#else
    (void)narrow;
#endif
    lgr_epilogue_rows_ref(ep, sums, stride, bias, rows, n, ch, o, pixel, out, amax);
}
