/* fake_quantize.h - 8-bit values with a range of their own: what the package dopt computes with, in torch and in TensorFlow.
 *
 * The rules are inline and serve both adapters. Source: docs/numerics.md, "Ranges of dopt".
 */
#ifndef LGR_FAKE_QUANTIZE_H
#define LGR_FAKE_QUANTIZE_H
#include "lgr/quantize.h"
#include "lgr/squared_error.h"

/* Flags of a call, with LGR_OBSERVE and LGR_GRAD. */
enum { LGR_CALIBRATE = 8 };

/* Exponents go from LGR_RANGE_LOW on, so that images of 0..255 fit. The state of one activation: */
enum {
    LGR_RANGE_BITS = 8,
    LGR_RANGE_LOW = -16,
    LGR_RANGE_EXPS = LGR_ERROR_EXPS, /* up to 23 */
    LGR_RANGE_PEAK = 0, /* [0] running maximum, 0: nothing seen */
    LGR_RANGE_BATCHES = 1, /* [1] calibration batches */
    LGR_RANGE_ERROR = 2, /* [2 + k] their squared error at exponent LGR_RANGE_LOW + k */
    LGR_RANGE_STATE = 2 + LGR_RANGE_EXPS
};

LGR_INLINE int32_t lgr_range_clip(int32_t e)
{
    const int32_t high = LGR_RANGE_LOW + LGR_RANGE_EXPS - 1;
    return e < LGR_RANGE_LOW ? LGR_RANGE_LOW : e > high ? high : e;
}
/* The nearest exponent for a maximum that is not NaN. */
LGR_INLINE int32_t lgr_range_exp2(float peak)
{
    const float m = peak > 1e-6f ? peak : 1e-6f;
    return lgr_range_clip(LGR_RANGE_BITS - 1 - lgr_log2_nearest(m));
}
/* The exponent before the data has been seen: a guess when the range is about to move. LGR_EXP2_NONE when there is none. */
LGR_INLINE int32_t lgr_range_guess(const float *state)
{
    return state[LGR_RANGE_PEAK] > 0.0f ? lgr_range_exp2(state[LGR_RANGE_PEAK]) : LGR_EXP2_NONE;
}
/* The exponent of a call on data with this maximum; observe: the running maximum moves, and calibration starts anew. A running
 * maximum of 1e-6 saw zeros only and is replaced. Infinity moves nothing; NaN neither, and gives LGR_EXP2_NAN. */
LGR_INLINE int32_t lgr_range_step(float *state, int observe, float peak)
{
    if (peak != peak) return LGR_EXP2_NAN;
    const float m = peak > 1e-6f ? peak : 1e-6f, old = state[LGR_RANGE_PEAK];
    if (observe && peak < INFINITY) {
        state[LGR_RANGE_PEAK] = old > 1e-6f ? 0.9f * old + 0.1f * m : m;
        if (state[LGR_RANGE_BATCHES] != 0.0f)
            memset(state + LGR_RANGE_BATCHES, 0,
                   sizeof *state * (LGR_RANGE_STATE - LGR_RANGE_BATCHES));
    }
    return lgr_range_exp2(state[LGR_RANGE_PEAK] > 0.0f ? state[LGR_RANGE_PEAK] : m);
}
/* The same for a calibration batch with these squared errors: the exponent of least error over all batches counts, the finest of
 * equal ones, and the running maximum is set so that it follows. */
LGR_INLINE int32_t lgr_range_calibrate(float *state, float peak, const double error[LGR_RANGE_EXPS])
{
    if (!(peak < INFINITY)) return lgr_range_step(state, 0, peak);
    int best = 0;
    for (int k = 0; k < LGR_RANGE_EXPS; ++k) {
        float *const all = state + LGR_RANGE_ERROR;
        all[k] += (float)error[k];
        if (all[k] <= all[best] && all[k] < INFINITY) best = k;
    }
    state[LGR_RANGE_BATCHES] += 1.0f;
    state[LGR_RANGE_PEAK] = lgr_exp2_scale(LGR_RANGE_BITS - 1 - LGR_RANGE_LOW - best);
    return LGR_RANGE_LOW + best;
}

/* How a weight is quantized, at the exponent its maximum holds; the errors at that exponent and the next say which it becomes. */
LGR_INLINE struct lgr_squared_error_params lgr_range_weight_errors(float peak)
{
    const struct lgr_squared_error_params p = {
        lgr_range_clip(lgr_holding_exp2(peak, LGR_RANGE_BITS)), 2, LGR_RANGE_BITS, LGR_HALF_EVEN};
    return p;
}
LGR_INLINE int32_t lgr_range_weight_exp2(int32_t coarse, const double error[2])
{
    return lgr_range_clip(lgr_less_error_exp2(coarse, error));
}
/* All errors of a calibration batch. */
LGR_INLINE struct lgr_squared_error_params lgr_range_errors(void)
{
    const struct lgr_squared_error_params p = {LGR_RANGE_LOW, LGR_RANGE_EXPS, LGR_RANGE_BITS,
                                               LGR_FLOOR_ADD};
    return p;
}
#endif
