/* glu.c - the gate is looked up: 256 values. */
#include "kernels/glu/glu_one.h"

enum { BLOCK = 1024 }; /* a multiple of 16; its sums stay in L1 */

int lgr_glu_gate_exp2(int chip) { return chip == LGR_ARCS ? 31 : chip == LGR_VENUSA ? 15 : 7; }

static void gates(int chip, int32_t exp2, int32_t lut[256])
{
    const lgr_pwl *p = &lgr_chip_tables[lgr_glu_table(chip)];
    for (int i = 0; i < 256; ++i) lut[i] = lgr_glu_gate(chip, p, i - 128, exp2);
}

typedef struct walk {
    const int8_t *x;
    int64_t half;
    const int32_t *lut;
    int left;
} walk;
static int64_t product(const walk *w, int64_t i)
{
    const int8_t *row = w->x + i / w->half * 2 * w->half, *a = row + i % w->half;
    return lgr_glu_product(*a, w->left, w->lut[a[w->half] + 128]);
}

static void block_s32(const walk *w, int64_t at, int64_t n, int64_t total, const lgr_epilogue *ep,
                      const lgr_outputs *out, int64_t amax[2])
{
    const int narrow = lgr_epilogue_narrow(ep, 1 << 22);
    int32_t sums[BLOCK];
    for (int64_t i = 0; i < n; ++i) sums[i] = (int32_t)product(w, at + i);
    lgr_epilogue_rows(ep, narrow, sums, n, NULL, 1, n, at, total, 0, out, amax);
}
static void block_s64(const walk *w, int64_t at, int64_t n, const lgr_epilogue *ep,
                      const lgr_outputs *out, int64_t amax[2])
{
    for (int64_t k = at; k < at + n; ++k) {
        const int64_t a = product(w, k);
        const unsigned pass = (unsigned)lgr_epilogue_one(ep, a, k, out);
        if (out->mask) {
            if ((k & 7) == 0) out->mask[k >> 3] = 0;
            out->mask[k >> 3] = (uint8_t)(out->mask[k >> 3] | pass << (k & 7));
        }
        amax[0] = a > amax[0] ? a : amax[0];
        amax[1] = -a > amax[1] ? -a : amax[1];
    }
}

lgr_status lgr_glu(int chip, const int8_t *x, int32_t exp2, int64_t rows, int64_t half, int left,
                   int64_t at, int64_t n, const lgr_epilogue *ep, const lgr_outputs *out,
                   int64_t amax[2])
{
    if (chip < LGR_ARCS || chip > LGR_VENUS || rows < 0 || half < 0 || left < 0 || left > 31)
        return LGR_E_RANGE;
    const int64_t total = rows * half;
    if (at < 0 || at % 16 != 0 || n < 0 || at + n > total) return LGR_E_RANGE;
    if (n == 0) return LGR_OK;
    if (x == NULL || ep == NULL || out == NULL || amax == NULL) return LGR_E_NULL;
    int32_t lut[256];
    gates(chip, exp2, lut);
    const walk w = {x, half, lut, left};
    const int wide = chip == LGR_ARCS || left > 0; /* otherwise |A| <= 2^22 */
    for (int64_t i = 0; i < n; i += BLOCK) {
        const int64_t count = n - i < BLOCK ? n - i : BLOCK;
        if (wide) block_s64(&w, at + i, count, ep, out, amax);
        else block_s32(&w, at + i, count, total, ep, out, amax);
    }
    return LGR_OK;
}

lgr_status lgr_glu_grad(const float *g, const int8_t *x, int32_t exp2, int64_t rows, int64_t half,
                        float *dx)
{
    if (rows < 0 || half < 0) return LGR_E_RANGE;
    if (rows == 0 || half == 0) return LGR_OK;
    if (g == NULL || x == NULL || dx == NULL) return LGR_E_NULL;
    const int nan = exp2 == LGR_EXP2_NAN;
    const double one = nan ? 0.0 : lgr_exp2_f64(-exp2);
    float gate[256], slope[256];
    for (int i = 0; i < 256; ++i) {
        gate[i] = (float)lgr_activation_value(LGR_ARCS_SIGMOID, (i - 128) * one);
        slope[i] = (float)lgr_activation_slope(LGR_ARCS_SIGMOID, (i - 128) * one);
    }
    for (int64_t r = 0; r < rows; ++r) {
        const int8_t *a = x + r * 2 * half, *b = a + half;
        float *da = dx + r * 2 * half, *db = da + half;
        for (int64_t i = 0; i < half; ++i) {
            const float v = nan ? 0.0f : g[r * half + i];
            da[i] = v * gate[b[i] + 128];
            db[i] = v * (lgr_glu_value(a[i], one) * slope[b[i] + 128]);
        }
    }
    return LGR_OK;
}
