/* activation.c - int8 operands have 256 values: the function is evaluated for those, then looked up. */
#include "common/older_exp.h"
#include "kernels/activation/activation_one.h"

enum { BLOCK = 1024 }; /* a multiple of 16; its sums stay in L1 */

double lgr_activation_value(int table, double x) { return lgr_activation_value_one(table, x); }
double lgr_activation_slope(int table, double x) { return lgr_activation_slope_one(table, x); }

static void evaluate(int table, int width, int32_t exp2, int64_t n, int32_t *v)
{
    for (int64_t i = 0; i < n; ++i) v[i] = lgr_table_operand(&lgr_chip_tables[table], v[i], exp2);
    lgr_chip_function(table, width, v, n, v);
}
/* Returns the largest magnitude. */
static int64_t all_codes(int table, int width, int32_t exp2, int32_t lut[256])
{
    int64_t most = 0;
    for (int i = 0; i < 256; ++i) lut[i] = i - 128;
    evaluate(table, width, exp2, 256, lut);
    for (int i = 0; i < 256; ++i) {
        const int64_t v = lut[i] < 0 ? -(int64_t)lut[i] : lut[i];
        most = v > most ? v : most;
    }
    return most;
}

static int valid(int table, int32_t bytes, int64_t n)
{
    return n >= 0 && (bytes == 1 || bytes == 4) && table >= 0 && table < LGR_N_TABLES;
}

lgr_status lgr_activation(int table, int width, const void *x, int32_t bytes, int32_t exp2,
                          int64_t n, int64_t at, int64_t total, const lgr_epilogue *ep,
                          const lgr_outputs *out, int64_t amax[2])
{
    if (!valid(table, bytes, n) || !lgr_chip_function_has(table, width)) return LGR_E_RANGE;
    if (at < 0 || at % 16 != 0 || at + n > total) return LGR_E_RANGE;
    if (n == 0) return LGR_OK;
    if (x == NULL || ep == NULL || out == NULL || amax == NULL) return LGR_E_NULL;
    const int8_t *x8 = x;
    const int32_t *x32 = x;
    const int look = bytes == 1 && n > 256;
    int32_t lut[256], sums[BLOCK];
    const int64_t most = look ? all_codes(table, width, exp2, lut) : (int64_t)1 << (width - 1);
    const int narrow = lgr_epilogue_narrow(ep, most);
    for (int64_t i = 0; i < n; i += BLOCK) {
        const int64_t count = n - i < BLOCK ? n - i : BLOCK;
        for (int64_t j = 0; j < count; ++j)
            sums[j] = look ? lut[x8[i + j] + 128] : bytes == 1 ? x8[i + j] : x32[i + j];
        if (!look) evaluate(table, width, exp2, count, sums);
        lgr_epilogue_rows(ep, narrow, sums, count, NULL, 1, count, at + i, total, 0, out, amax);
    }
    return LGR_OK;
}

lgr_status lgr_activation_grad(int table, const float *g, const void *x, int32_t bytes,
                               int32_t exp2, int64_t n, float *dx)
{
    if (!valid(table, bytes, n)) return LGR_E_RANGE;
    if (n == 0) return LGR_OK;
    if (g == NULL || x == NULL || dx == NULL) return LGR_E_NULL;
    const int8_t *x8 = x;
    const int32_t *x32 = x;
    const int nan = exp2 == LGR_EXP2_NAN, look = bytes == 1 && n > 256;
    const double one = nan ? 0.0 : lgr_exp2_f64(-exp2);
    float lut[256];
    for (int i = 0; look && i < 256; ++i)
        lut[i] = nan ? 0.0f : (float)lgr_activation_slope(table, (i - 128) * one);
    for (int64_t i = 0; i < n; ++i) {
        const int32_t code = bytes == 1 ? x8[i] : x32[i];
        const float slope = look  ? lut[code + 128]
                            : nan ? 0.0f
                                  : (float)lgr_activation_slope(table, code * one);
        dx[i] = nan ? 0.0f : g[i] * slope;
    }
    return LGR_OK;
}
