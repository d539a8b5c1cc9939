/* layer_norm.c - the engine's integer statistics and reciprocal root, row by row. */
#include "kernels/layer_norm/layer_norm_isa.h"
#include "kernels/layer_norm/layer_norm_one.h"
#include "lgr/cpu.h"

int64_t lgr_layer_norm_eps(int32_t x_exp2, int64_t n) { return lgr_norm_eps(x_exp2, n); }

static void sums(const int8_t *restrict x, int64_t n, int64_t *sum, int64_t *squares)
{
    enum { BLOCK = 1 << 16 }; /* its squares fit 32 bits */
    *sum = *squares = 0;
    for (int64_t at = 0; at < n; at += BLOCK) {
        const int64_t count = n - at < BLOCK ? n - at : BLOCK;
        const int8_t *from = x + at;
        int64_t i = 0;
#if LGR_HAVE_AVX2
        if (lgr_cpu_flags() & LGR_CPU_AVX2) i = lgr_norm_sums_avx2(from, count, sum, squares);
#endif
        int32_t a = 0, b = 0;
        for (; i < count; ++i) {
            a += from[i];
            b += from[i] * from[i];
        }
        *sum += a;
        *squares += b;
    }
}

/* y = sat_32(sat(RSH((n x - sum) * factor, shift)) * gamma). */
static void scale_wide(const int8_t *restrict x, int64_t n, int64_t sum, int32_t factor, int shift,
                       const struct lgr_layer_norm_params *p, int32_t *restrict y)
{
    for (int64_t i = 0; i < n; ++i) {
        y[i] = lgr_norm_one(x[i], n, sum, factor, shift, p->bits, p->gamma[i]);
    }
}

/* The same plus beta, where nothing saturates and the results fit 32 bits. */
static void scale(const int8_t *restrict x, const struct lgr_norm_row *row,
                  const int32_t *restrict gamma, const int32_t *restrict beta, int32_t *restrict y)
{
    int64_t i = 0;
#if LGR_HAVE_AVX2
    if (lgr_cpu_flags() & LGR_CPU_AVX2) i = lgr_norm_scale_avx2(x, row, gamma, beta, y);
#endif
    for (; i < row->n; ++i) {
        const int64_t product = (int64_t)(row->n * x[i] - row->sum) * row->factor;
        y[i] = (int32_t)lgr_rsh_s64(product, row->shift) * gamma[i] + beta[i];
    }
}

/* Largest |gamma| and |beta|. */
struct bounds {
    int64_t gamma, beta;
};

static struct bounds bounds_of(const struct lgr_layer_norm_params *p)
{
    struct bounds b = {0, 0};
    for (int64_t i = 0; i < p->n; ++i) {
        const int64_t g = p->gamma[i], o = p->beta[i];
        b.gamma = b.gamma > (g < 0 ? -g : g) ? b.gamma : (g < 0 ? -g : g);
        b.beta = b.beta > (o < 0 ? -o : o) ? b.beta : (o < 0 ? -o : o);
    }
    return b;
}

static void row(const int8_t *x, int64_t at, const struct lgr_layer_norm_params *p,
                struct bounds most, const lgr_epilogue *ep, const lgr_outputs *out, int32_t *y,
                int64_t amax[2])
{
    const int64_t n = p->n;
    int64_t sum, squares;
    sums(x, n, &sum, &squares);
    const struct lgr_norm_root r = lgr_norm_root(n, sum, squares, p->eps);
    const int64_t spread = 128 * n + (sum < 0 ? -sum : sum), product = spread * r.factor;
    const int shift = r.shift;
    const int64_t norm = lgr_rsh_s64(product, shift) + 1, bound = norm * most.gamma + most.beta;
    if (norm > INT16_MAX || bound > INT32_MAX) {
        scale_wide(x, n, sum, r.factor, shift, p, y);
        lgr_epilogue_rows(ep, 0, y, n, p->beta, 1, n, 0, n, at, out, amax);
        return;
    }
    const struct lgr_norm_row one = {(int32_t)n, (int32_t)sum, r.factor, shift,
                                     product <= INT32_MAX && shift < 32};
    scale(x, &one, p->gamma, p->beta, y);
    lgr_epilogue_rows(ep, lgr_epilogue_narrow(ep, bound), y, n, NULL, 1, n, 0, n, at, out, amax);
}

lgr_status lgr_layer_norm(const int8_t *x, int64_t from, int64_t to,
                          const struct lgr_layer_norm_params *p, const lgr_epilogue *ep,
                          const lgr_outputs *out, int32_t *scratch, int64_t amax[2])
{
    if (p == NULL) return LGR_E_NULL;
    if (p->n < 1 || p->n > LGR_LAYER_NORM_MAX || from < 0 || to < from) return LGR_E_RANGE;
    if (p->eps < 0 || p->eps > (int64_t)1 << LGR_NORM_EPS_EXP2 || (p->bits != 16 && p->bits != 32))
        return LGR_E_RANGE;
    if (from == to) return LGR_OK;
    if (x == NULL || p->gamma == NULL || p->beta == NULL) return LGR_E_NULL;
    if (ep == NULL || out == NULL || scratch == NULL || amax == NULL) return LGR_E_NULL;
    const struct bounds most = bounds_of(p);
    for (int64_t r = from; r < to; ++r) row(x + r * p->n, r, p, most, ep, out, scratch, amax);
    return LGR_OK;
}
