/* quantize_cuda.cu - range, state and codes on the device; nothing is read back. */
#include "kernels/cuda/flat.h"
#include "kernels/quantize/quantize_one.h"
#include "lgr/quantize_cuda.h"

namespace {
struct decided { /* the scratch: zeroed before the first launch */
    lgr_range range, bias;
    int32_t exp2, no_slope;
};
static_assert(sizeof(decided) <= LGR_QUANTIZE_CUDA_SCRATCH, "scratch size is part of the contract");

__global__ void __launch_bounds__(lgr::FLAT)
    find_range(const float *LGR_RESTRICT x, int64_t n, lgr_range *to)
{
    const int64_t step = (int64_t)gridDim.x * lgr::FLAT;
    lgr_range r = {0, 0};
    for (int64_t i = (int64_t)blockIdx.x * lgr::FLAT + threadIdx.x; i < n; i += step) {
        const int32_t bits = __float_as_int(x[i]);
        const lgr_range one = {bits & 0x7fffffff, bits};
        r = lgr_range_merge(r, one);
    }
    r.abs = lgr::warp_max(r.abs);
    r.max = lgr::warp_max(r.max);
    if ((threadIdx.x & 31) == 0) {
        atomicMax(&to->abs, r.abs);
        atomicMax(&to->max, r.max);
    }
}
lgr_status range_of(const float *x, int64_t n, lgr_range *to, void *stream)
{
    return n > 0
               ? lgr::launch(find_range, lgr::blocks_for(n, lgr::FLAT), lgr::FLAT, stream, x, n, to)
               : LGR_OK;
}

/* biased: the exponent keeps a bias, seen before, inside 32 bits; x_scale then says the exponent of the operand. */
struct question {
    lgr_stats state;
    int32_t bits, relu, observe, biased;
    float clamp;
    const float *x_scale;
};
__global__ void decide(question q, decided *d, float *scale)
{
    const float bias = lgr_range_peak(d->bias, 0, 0.0f);
    const int32_t cap =
        q.biased && q.x_scale ? lgr_bias_cap_one(bias, lgr_scale_exp2(*q.x_scale)) : LGR_EXP2_MAX;
    d->exp2 =
        lgr_stats_step(&q.state, q.bits, cap, q.observe, lgr_range_peak(d->range, q.relu, q.clamp));
    d->no_slope = q.state.threshold && !lgr_threshold_moves(*q.state.threshold, q.bits, cap);
    *scale = lgr_exp2_scale(q.biased && bias != bias ? LGR_EXP2_NAN : d->exp2);
}

struct quantizer {
    const float *x;
    lgr_quantize_params p; /* exp2: where d and scale are NULL */
    lgr_quantize_out out;
    const decided *d;
    const float *scale;
    struct kept {
        lgr_quantize_params p;
        lgr_quantize_consts c;
    };
    __device__ kept start() const
    {
        kept k = {};
        k.p = p;
        if (d) {
            k.p.exp2 = d->exp2;
            k.p.no_slope = d->no_slope;
        } else if (scale) {
            k.p.exp2 = lgr_scale_exp2(*scale);
        }
        if (k.p.exp2 != LGR_EXP2_NAN && p.bits <= 16) k.c = lgr_quantize_make_consts(&k.p);
        return k;
    }
    __device__ int operator()(const kept &k, int64_t i) const
    {
        const lgr_quantized q = k.p.exp2 == LGR_EXP2_NAN ? lgr_quantize_nothing()
                                : p.bits > 16            ? lgr_quantize_one_f64(x[i], &k.p)
                                                         : lgr_quantize_one_f32(x[i], &k.c);
        if (out.value) out.value[i] = q.value;
        if (out.codes) lgr_put_code(out.codes, p.bits > 8, i, q.code);
        if (out.slope) out.slope[i] = q.slope;
        return q.pass;
    }
};

struct masked {
    const float *grad;
    const uint8_t *mask;
    int64_t row, row_bytes;
    float *out;
    __device__ lgr::nothing_kept start() const { return {}; }
    __device__ void operator()(lgr::nothing_kept, int64_t i) const
    {
        const int64_t c = row ? i % row : i, at = row ? i / row * row_bytes : 0;
        out[i] = mask[at + (c >> 3)] >> (c & 7) & 1 ? grad[i] : 0.0f;
    }
};

struct slopes {
    const float *grad, *slope;
    __device__ lgr::nothing_kept start() const { return {}; }
    __device__ double operator()(lgr::nothing_kept, int64_t i) const
    {
        return (double)grad[i] * (double)slope[i];
    }
};
__global__ void add_parts(const double *parts, int64_t n_parts, const float *scale, float *out)
{
    const int32_t e = lgr_scale_exp2(*scale);
    double sum = 0.0;
    for (int64_t i = 0; i < n_parts; ++i) sum += parts[i];
    *out = e == LGR_EXP2_NAN ? 0.0f : lgr_threshold_slope(sum, e);
}

struct value_of {
    const void *codes;
    int32_t bytes, saved;
    const float *scale;
    float *value;
    __device__ int32_t start() const
    {
        const int32_t e = lgr_scale_exp2(*scale);
        return saved && e == LGR_EXP2_NAN ? 0 : e; /* the codes behind a NaN are 0 */
    }
    __device__ void operator()(int32_t e, int64_t i) const
    {
        value[i] = e == LGR_EXP2_NAN ? lgr_exp2_scale(e)
                                     : (float)lgr_code_at(codes, bytes, i) * lgr_exp2_scale(-e);
    }
};

struct bias_codes {
    const float *bias, *x_scale, *w_scale;
    int32_t *codes;
    __device__ int32_t start() const
    {
        return lgr_sum_exp2(lgr_scale_exp2(*x_scale), lgr_scale_exp2(*w_scale));
    }
    __device__ void operator()(int32_t e, int64_t i) const { codes[i] = lgr_bias_code(bias[i], e); }
};

int bad(const lgr_quantize_params *p)
{
    return p->bits < 2 || p->bits > 32 || p->rounding < LGR_FLOOR || p->rounding > LGR_CEIL;
}
lgr_status run(const quantizer &f, const question &q, const float *bias, int64_t n_bias, int64_t n,
               float *scale, decided *d, void *stream)
{
    lgr_status r = lgr::clear(d, sizeof *d, stream);
    if (r == LGR_OK) r = range_of(f.x, n, &d->range, stream);
    if (r == LGR_OK && bias) r = range_of(bias, n_bias, &d->bias, stream);
    if (r == LGR_OK) r = lgr::launch(decide, 1, 1, stream, q, d, scale);
    return r == LGR_OK ? lgr::flat_mask(f, n, f.out.mask, stream) : r;
}
} // namespace

extern "C" lgr_status lgr_quantize_state_f32_cuda(const float *x, int64_t n, const lgr_stats *state,
                                                  const struct lgr_quantize_params *p, int observe,
                                                  const struct lgr_quantize_out *out, float *scale,
                                                  void *scratch, void *stream)
{
    if (state == NULL || p == NULL || out == NULL || scale == NULL || scratch == NULL)
        return LGR_E_NULL;
    if (n < 0 || bad(p)) return LGR_E_RANGE;
    if (n > 0 && x == NULL) return LGR_E_NULL;
    decided *const d = (decided *)scratch;
    const question q = {*state, p->bits, p->relu, observe && n > 0, 0, p->clamp, NULL};
    return run({x, *p, *out, d, NULL}, q, NULL, 0, n, scale, d, stream);
}

extern "C" lgr_status lgr_quantize_weight_f32_cuda(const float *w, int64_t n, const float *bias,
                                                   int64_t n_bias, const float *x_scale,
                                                   const lgr_stats *state, int32_t bits,
                                                   int observe, const struct lgr_quantize_out *out,
                                                   float *scale, void *scratch, void *stream)
{
    if (state == NULL || out == NULL || scale == NULL || scratch == NULL) return LGR_E_NULL;
    lgr_quantize_params p = {};
    p.bits = bits;
    p.rounding = LGR_HALF_EVEN;
    if (n < 0 || n_bias < 0 || bad(&p)) return LGR_E_RANGE;
    if (n > 0 && w == NULL) return LGR_E_NULL;
    decided *const d = (decided *)scratch;
    const question q = {*state, bits, 0, observe && n > 0, bias != NULL, 0.0f, x_scale};
    return run({w, p, *out, d, NULL}, q, bias, n_bias, n, scale, d, stream);
}

extern "C" lgr_status lgr_quantize_at_f32_cuda(const float *x, int64_t n, const float *scale,
                                               const struct lgr_quantize_params *p, void *codes,
                                               void *stream)
{
    if (p == NULL || (n > 0 && (x == NULL || codes == NULL))) return LGR_E_NULL;
    if (n < 0 || bad(p)) return LGR_E_RANGE;
    if (!scale && (p->exp2 < -LGR_EXP2_MAX || p->exp2 > LGR_EXP2_MAX)) return LGR_E_RANGE;
    lgr_quantize_out out = {};
    out.codes = codes;
    return lgr::flat(quantizer{x, *p, out, NULL, scale}, n, stream);
}

extern "C" lgr_status lgr_quantize_bias_f32_s32_cuda(const float *bias, int64_t n,
                                                     const float *x_scale, const float *w_scale,
                                                     int32_t *codes, void *stream)
{
    if (n < 0) return LGR_E_RANGE;
    if (x_scale == NULL || w_scale == NULL || (n > 0 && (bias == NULL || codes == NULL)))
        return LGR_E_NULL;
    return lgr::flat(bias_codes{bias, x_scale, w_scale, codes}, n, stream);
}

extern "C" lgr_status lgr_dequantize_f32_cuda(const void *codes, int32_t bytes, int64_t n,
                                              const float *scale, int saved, float *value,
                                              void *stream)
{
    if (n < 0 || (bytes != 1 && bytes != 4)) return LGR_E_RANGE;
    if (scale == NULL || (n > 0 && (codes == NULL || value == NULL))) return LGR_E_NULL;
    return lgr::flat(value_of{codes, bytes, saved, scale, value}, n, stream);
}

extern "C" lgr_status lgr_mask_grad_f32_cuda(const float *grad, const uint8_t *mask, int64_t n,
                                             int64_t row, float *out, void *stream)
{
    if (n < 0 || row < 0 || (row > 0 && n % row != 0)) return LGR_E_RANGE;
    if (n == 0) return LGR_OK;
    if (grad == NULL || mask == NULL || out == NULL) return LGR_E_NULL;
    return lgr::flat(masked{grad, mask, row, lgr_mask_row_bytes(row), out}, n, stream);
}

extern "C" lgr_status lgr_threshold_grad_f32_cuda(const float *grad, const float *slope, int64_t n,
                                                  const float *scale, double *parts, float *out,
                                                  void *stream)
{
    if (n < 0) return LGR_E_RANGE;
    if (scale == NULL || out == NULL || (n > 0 && (grad == NULL || slope == NULL || parts == NULL)))
        return LGR_E_NULL;
    const lgr_status r = lgr::sums(slopes{grad, slope}, n, parts, stream);
    return r == LGR_OK ? lgr::launch(add_parts, 1, 1, stream, parts, lgr::sum_parts(n), scale, out)
                       : r;
}
