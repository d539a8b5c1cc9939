/* softmax_cuda.cu - a warp per row: maximum, sum, results; a term is computed anew where it is needed. */
#include "kernels/cuda/quantized.h"
#include "kernels/cuda/rows.h"
#include "kernels/softmax/softmax_one.h"
#include "lgr/softmax_cuda.h"

namespace {
struct logarithms { /* lgr_ln_table, as an argument: in constant memory */
    int32_t v[512];
};
struct no_logarithms {};
__device__ inline const int32_t *table_of(const logarithms &t) { return t.v; }
__device__ inline const int32_t *table_of(const no_logarithms &) { return NULL; }

/* T: logarithms for log-softmax. Operands in Q25: bytes == 0, or codes that are brought there. */
template <class T> struct soft {
    T table;
    const void *x;
    const float *x_scale;
    int64_t n;
    int32_t bytes, exp2, once;
    static constexpr bool LOG = sizeof(T) == sizeof(logarithms);

    struct kept {
        int32_t exp2, top;
        int64_t factor; /* of the terms; the logarithm of their sum */
    };
    __device__ int32_t at(int32_t e, int64_t i) const
    {
        return bytes == 0 ? ((const int32_t *)x)[i]
                          : lgr_to_fixed((int32_t)lgr_code_at(x, bytes, i), e, 25, 32);
    }
    __device__ kept row(int64_t r) const
    {
        const int lane = threadIdx.x & 31;
        kept k = {x_scale ? lgr_scale_exp2(*x_scale) : exp2, INT32_MIN, 0};
        for (int64_t i = lane; i < n; i += 32) {
            const int32_t v = at(k.exp2, r * n + i);
            k.top = v > k.top ? v : k.top;
        }
        k.top = lgr::warp_max(k.top);
        if (LOG || once) k.top = lgr_softmax_top(k.top);
        int64_t sum = 0;
        for (int64_t i = lane; i < n; i += 32)
            sum += lgr_softmax_term(LOG || once, at(k.exp2, r * n + i), k.top);
        sum = lgr::warp_sum(sum);
        k.factor = LOG ? lgr_half_ln_one(table_of(table), sum) : lgr_reciprocal(sum);
        return k;
    }
    __device__ int64_t operator()(const kept &k, int64_t r, int64_t i) const
    {
        const int32_t v = at(k.exp2, r * n + i);
        return LOG ? lgr_log_softmax_one(v, k.top, (int32_t)k.factor)
                   : lgr_softmax_share(k.factor, lgr_softmax_term(once, v, k.top));
    }
};
soft<no_logarithms> plain(int chip, const void *x, const float *x_scale, int64_t n, int32_t bytes,
                          int32_t exp2)
{
    return {{}, x, x_scale, n, bytes, exp2, chip == LGR_VENUSA};
}
soft<logarithms> logarithmic(const void *x, const float *x_scale, int64_t n, int32_t bytes,
                             int32_t exp2)
{
    soft<logarithms> f = {{}, x, x_scale, n, bytes, exp2, 1};
    memcpy(f.table.v, lgr_ln_table, sizeof f.table.v);
    return f;
}

template <class S> struct alone { /* results as they are */
    S f;
    int32_t *y;
    __device__ void row(int64_t r) const
    {
        const auto k = f.row(r);
        for (int64_t i = threadIdx.x & 31; i < f.n; i += 32) y[r * f.n + i] = (int32_t)f(k, r, i);
    }
};
template <class S> lgr_status run_alone(const S &f, int64_t rows, int32_t *y, void *stream)
{
    return lgr::rows(alone<S>{f, y}, rows, stream);
}

struct gradient {
    int32_t log, bytes;
    const float *g;
    const void *codes;
    const float *scale;
    int64_t n;
    float *dx;
    __device__ double term(int64_t top, int64_t i, double one) const
    {
        return exp((double)(lgr_code_at(codes, bytes, i) - top) * one);
    }
    __device__ void row(int64_t r) const
    {
        const int lane = threadIdx.x & 31;
        const int64_t from = r * n, to = from + n;
        const int32_t e = lgr_scale_exp2(*scale);
        const bool nan = e == LGR_EXP2_NAN;
        const double one = nan ? 0.0 : lgr_exp2_f64(-e);
        int64_t top = INT32_MIN;
        for (int64_t i = from + lane; log && i < to; i += 32) {
            const int64_t v = lgr_code_at(codes, bytes, i);
            top = v > top ? v : top;
        }
        top = lgr::warp_max((long long)top);
        double sum = 0.0, terms = 0.0;
        for (int64_t i = from + lane; i < to; i += 32) {
            sum += log ? (double)g[i] : g[i] * ((double)lgr_code_at(codes, bytes, i) * one);
            if (log) terms += term(top, i, one);
        }
        sum = lgr::warp_sum(sum);
        const double share = log ? sum / lgr::warp_sum(terms) : 0.0;
        for (int64_t i = from + lane; i < to; i += 32) {
            const double v = log ? g[i] - term(top, i, one) * share
                                 : (double)lgr_code_at(codes, bytes, i) * one * (g[i] - sum);
            dx[i] = nan ? 0.0f : (float)v;
        }
    }
};
bool bad(int chip, int log) { return !log && chip != LGR_ARCS && chip != LGR_VENUSA; }
} // namespace

extern "C" lgr_status lgr_softmax_codes_cuda(int chip, int log, const void *x, int32_t bytes,
                                             const float *x_scale, int32_t exp2, int64_t rows,
                                             const lgr_output_cuda *q, void *stream)
{
    if (q == NULL || (rows > 0 && x == NULL)) return LGR_E_NULL;
    if (bad(chip, log) || rows < 0 || (rows > 0 && q->o < 1) || (bytes != 1 && bytes != 4))
        return LGR_E_RANGE;
    if (log)
        return lgr::rows_quantized(*q, logarithmic(x, x_scale, q->o, bytes, exp2), rows, stream);
    return lgr::rows_quantized(*q, plain(chip, x, x_scale, q->o, bytes, exp2), rows, stream);
}

extern "C" lgr_status lgr_softmax_cuda(int chip, int log, const int32_t *x, int64_t rows, int64_t n,
                                       int32_t *y, void *stream)
{
    if (bad(chip, log) || rows < 0 || n < 0 || (n == 0 && rows > 0)) return LGR_E_RANGE;
    if (rows > 0 && (x == NULL || y == NULL)) return LGR_E_NULL;
    return log ? run_alone(logarithmic(x, NULL, n, 0, 0), rows, y, stream)
               : run_alone(plain(chip, x, NULL, n, 0, 0), rows, y, stream);
}

extern "C" lgr_status lgr_softmax_grad_cuda(int log, const float *g, const void *codes,
                                            int32_t bytes, const float *scale, int64_t rows,
                                            int64_t n, float *dx, void *stream)
{
    if (rows < 0 || n < 0 || (bytes != 1 && bytes != 4)) return LGR_E_RANGE;
    if (scale == NULL || (rows * n > 0 && (g == NULL || codes == NULL || dx == NULL)))
        return LGR_E_NULL;
    return lgr::rows(gradient{log, bytes, g, codes, scale, n, dx}, n > 0 ? rows : 0, stream);
}
