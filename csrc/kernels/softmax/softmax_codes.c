/* softmax_codes.c - softmax of codes with its output quantizer, block by block, and its gradient. */
#include "common/older_exp.h"
#include "lgr/softmax.h"

enum { BLOCK = 1024 }; /* elements brought to Q25 together: as many rows as fit */

/* Compiled once for each width of a code. */
#define EACH static inline __attribute__((always_inline))

EACH int32_t code_at(const void *x, const int bytes, int64_t i)
{
    return bytes == 1 ? ((const int8_t *)x)[i] : ((const int32_t *)x)[i];
}

static void to_q25(const void *x, int32_t bytes, int32_t exp2, int64_t from, int64_t n, int32_t *y)
{
    const int left = 25 - exp2;
    if (bytes == 1 && left >= 0 && left <= 24) { /* never saturates */
        const int32_t factor = 1 << left;
        for (int64_t i = 0; i < n; ++i) y[i] = code_at(x, 1, from + i) * factor;
        return;
    }
    for (int64_t i = 0; i < n; ++i) {
        const int32_t code = bytes == 1 ? code_at(x, 1, from + i) : code_at(x, 4, from + i);
        y[i] = lgr_to_fixed(code, exp2, 25, 32);
    }
}

int64_t lgr_softmax_scratch(int64_t n) { return n > BLOCK ? n : BLOCK; }

lgr_status lgr_softmax_codes(int chip, int log, const void *x, int32_t bytes, int32_t exp2,
                             int64_t row, int64_t rows, int64_t n, int32_t *scratch,
                             const lgr_epilogue *ep, const lgr_outputs *out, int64_t amax[2])
{
    if (row < 0 || rows < 0 || n < (rows > 0) || (bytes != 1 && bytes != 4)) return LGR_E_RANGE;
    if (rows == 0) return LGR_OK;
    if (x == NULL || scratch == NULL || ep == NULL || out == NULL || amax == NULL)
        return LGR_E_NULL;
    const int64_t step = n > BLOCK ? 1 : BLOCK / n;
    /* a sum that saturates gives more than 32768, a logarithm less than -2^22 - 2^20: never 2^23 */
    const int narrow = lgr_epilogue_narrow(ep, 1 << 23);
    for (int64_t r = 0; r < rows; r += step) {
        const int64_t many = rows - r < step ? rows - r : step, from = r * n;
        to_q25(x, bytes, exp2, from, many * n, scratch);
        const lgr_status s = log ? lgr_log_softmax(scratch, many, n, scratch)
                                 : lgr_softmax(chip, scratch, many, n, scratch);
        if (s != LGR_OK) return s;
        lgr_epilogue_rows(ep, narrow, scratch, n, NULL, many, n, 0, n, row + r, out, amax);
    }
    return LGR_OK;
}

static lgr_status refused(const float *g, const void *x, int32_t bytes, int64_t rows, int64_t n,
                          const float *dx)
{
    if (rows < 0 || n < 0 || (bytes != 1 && bytes != 4)) return LGR_E_RANGE;
    if (rows == 0 || n == 0) return LGR_OK;
    return g == NULL || x == NULL || dx == NULL ? LGR_E_NULL : LGR_OK;
}

EACH void softmax_rows(const float *g, const void *y, const int bytes, double one, int64_t rows,
                       int64_t n, float *dx)
{
    for (int64_t r = 0; r < rows; ++r) {
        const int64_t from = r * n, to = from + n;
        double sum = 0.0;
        for (int64_t i = from; i < to; ++i) sum += g[i] * (code_at(y, bytes, i) * one);
        for (int64_t i = from; i < to; ++i)
            dx[i] = (float)(code_at(y, bytes, i) * one * (g[i] - sum));
    }
}

lgr_status lgr_softmax_grad(const float *g, const void *y, int32_t bytes, int32_t exp2,
                            int64_t rows, int64_t n, float *dx)
{
    const lgr_status s = refused(g, y, bytes, rows, n, dx);
    if (s != LGR_OK || rows * n == 0) return s;
    if (exp2 == LGR_EXP2_NAN) memset(dx, 0, (size_t)(rows * n) * sizeof *dx);
    else if (bytes == 1) softmax_rows(g, y, 1, lgr_exp2_f64(-exp2), rows, n, dx);
    else softmax_rows(g, y, 4, lgr_exp2_f64(-exp2), rows, n, dx);
    return s;
}

/* near: terms by distance to the maximum, all there are for int8 */
EACH double term(const double near[256], const int bytes, int64_t d, double one)
{
    return bytes == 1 || d < 256 ? near[d] : exp((double)-d * one);
}
EACH void log_rows(const float *g, const void *x, const int bytes, double one, int64_t rows,
                   int64_t n, float *dx)
{
    double near[256];
    for (int i = 0; i < 256; ++i) near[i] = exp(-i * one);
    for (int64_t r = 0; r < rows; ++r) {
        const int64_t from = r * n, to = from + n;
        int32_t top = INT32_MIN;
        for (int64_t i = from; i < to; ++i)
            top = code_at(x, bytes, i) > top ? code_at(x, bytes, i) : top;
        double sum = 0.0, terms = 0.0;
        for (int64_t i = from; i < to; ++i) {
            terms += term(near, bytes, (int64_t)top - code_at(x, bytes, i), one);
            sum += g[i];
        }
        const double share = sum / terms;
        for (int64_t i = from; i < to; ++i)
            dx[i] =
                (float)(g[i] - term(near, bytes, (int64_t)top - code_at(x, bytes, i), one) * share);
    }
}

lgr_status lgr_log_softmax_grad(const float *g, const void *x, int32_t bytes, int32_t exp2,
                                int64_t rows, int64_t n, float *dx)
{
    const lgr_status s = refused(g, x, bytes, rows, n, dx);
    if (s != LGR_OK || rows * n == 0) return s;
    if (exp2 == LGR_EXP2_NAN) memset(dx, 0, (size_t)(rows * n) * sizeof *dx);
    else if (bytes == 1) log_rows(g, x, 1, lgr_exp2_f64(-exp2), rows, n, dx);
    else log_rows(g, x, 4, lgr_exp2_f64(-exp2), rows, n, dx);
    return s;
}
