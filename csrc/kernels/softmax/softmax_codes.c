/* softmax_codes.c - softmax of codes with its output quantizer, block by block, and its gradient. */
#include "lgr/softmax.h"

enum { BLOCK = 1024 }; /* elements brought to Q25 together: as many rows as fit */

int64_t lgr_softmax_scratch(int64_t n) { return n > BLOCK ? n : BLOCK; }

lgr_status lgr_softmax_codes(int chip, int log, const void *x, int32_t bytes, int32_t exp2,
                             int64_t row, int64_t rows, int64_t n, int32_t *scratch,
                             const lgr_epilogue *ep, const lgr_outputs *out, int64_t amax[2])
{
    if (row < 0 || rows < 0 || n < (rows > 0) || (bytes != 1 && bytes != 4)) return LGR_E_RANGE;
    if (rows == 0) return LGR_OK;
    if (x == NULL || scratch == NULL || ep == NULL || out == NULL || amax == NULL)
        return LGR_E_NULL;
    const int8_t *x8 = x;
    const int32_t *x32 = x;
    const int64_t step = n > BLOCK ? 1 : BLOCK / n;
    /* a sum that saturates gives more than 32768, a logarithm less than -2^22 - 2^20: never 2^23 */
    const int narrow = lgr_epilogue_narrow(ep, 1 << 23);
    for (int64_t r = 0; r < rows; r += step) {
        const int64_t many = rows - r < step ? rows - r : step, from = r * n;
        for (int64_t i = 0; i < many * n; ++i)
            scratch[i] = lgr_to_fixed(bytes == 1 ? x8[from + i] : x32[from + i], exp2, 25, 32);
        const lgr_status s = log ? lgr_log_softmax(scratch, many, n, scratch)
                                 : lgr_softmax(chip, scratch, many, n, scratch);
        if (s != LGR_OK) return s;
        lgr_epilogue_rows(ep, narrow, scratch, n, NULL, many, n, 0, n, row + r, out, amax);
    }
    return LGR_OK;
}

static int32_t code_at(const void *x, int32_t bytes, int64_t i)
{
    return bytes == 1 ? ((const int8_t *)x)[i] : ((const int32_t *)x)[i];
}
static lgr_status refused(const float *g, const void *x, int32_t bytes, int64_t rows, int64_t n,
                          const float *dx)
{
    if (rows < 0 || n < 0 || (bytes != 1 && bytes != 4)) return LGR_E_RANGE;
    if (rows == 0 || n == 0) return LGR_OK;
    return g == NULL || x == NULL || dx == NULL ? LGR_E_NULL : LGR_OK;
}

lgr_status lgr_softmax_grad(const float *g, const void *y, int32_t bytes, int32_t exp2,
                            int64_t rows, int64_t n, float *dx)
{
    const lgr_status s = refused(g, y, bytes, rows, n, dx);
    const int nan = exp2 == LGR_EXP2_NAN;
    const double one = nan ? 0.0 : lgr_exp2_f64(-exp2);
    for (int64_t r = 0; s == LGR_OK && r < rows; ++r) {
        const int64_t from = r * n, to = from + n;
        double sum = 0.0;
        for (int64_t i = from; i < to; ++i) sum += g[i] * (code_at(y, bytes, i) * one);
        for (int64_t i = from; i < to; ++i)
            dx[i] = nan ? 0.0f : (float)(code_at(y, bytes, i) * one * (g[i] - sum));
    }
    return s;
}

lgr_status lgr_log_softmax_grad(const float *g, const void *x, int32_t bytes, int32_t exp2,
                                int64_t rows, int64_t n, float *dx)
{
    const lgr_status s = refused(g, x, bytes, rows, n, dx);
    const int nan = exp2 == LGR_EXP2_NAN;
    const double one = nan ? 0.0 : lgr_exp2_f64(-exp2);
    double near[256]; /* terms by distance to the maximum, all there are for int8 */
    for (int i = 0; i < 256; ++i) near[i] = exp(-i * one);
    for (int64_t r = 0; s == LGR_OK && r < rows; ++r) {
        const int64_t from = r * n, to = from + n;
        int64_t top = INT32_MIN;
        for (int64_t i = from; i < to; ++i)
            top = code_at(x, bytes, i) > top ? code_at(x, bytes, i) : top;
        double sum = 0.0, terms = 0.0;
        for (int64_t i = from; i < to; ++i) {
            const int64_t d = top - code_at(x, bytes, i);
            terms += d < 256 ? near[d] : exp((double)-d * one);
            sum += g[i];
        }
        for (int64_t i = from; i < to; ++i) {
            const int64_t d = top - code_at(x, bytes, i);
            const double t = d < 256 ? near[d] : exp((double)-d * one);
            dx[i] = nan ? 0.0f : (float)(g[i] - t / terms * sum);
        }
    }
    return s;
}
