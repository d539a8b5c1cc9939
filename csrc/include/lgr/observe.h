/* observe.h - maxima, moving statistics and the exponent that follows from them.
 *
 * The rules are inline: the CPU adapters and the one-thread CUDA kernel that moves the state run the same text.
 * Source: docs/numerics.md, "Where the exponent comes from".
 */
#ifndef LGR_OBSERVE_H
#define LGR_OBSERVE_H
#include "lgr/qmath.h"

/* flags of the quantizing operators */
enum {
    LGR_OBSERVE = 1, /* move the statistics */
    LGR_RELU = 2,    /* a ReLU is fused: statistics use max(x), the lowest code is 0 */
    LGR_GRAD = 4,    /* also write the gradient mask, and the slope when there is a threshold */
};

/* Largest |x| and largest x as float bits ordered as integers: Inf above every finite value, NaN above Inf.
 * {0, 0} is the empty range; ranges merge by integer maximum, in any order. */
typedef struct lgr_range {
    int32_t abs, max;
} lgr_range;

LGR_INLINE lgr_range lgr_range_merge(lgr_range a, lgr_range b)
{
    lgr_range r;
    r.abs = a.abs > b.abs ? a.abs : b.abs;
    r.max = a.max > b.max ? a.max : b.max;
    return r;
}
/* The maximum that enters the statistics: max|x|, or max(x, 0) under a fused ReLU, at most clamp (0: none).
 * NaN when any element was NaN. */
LGR_INLINE float lgr_range_peak(lgr_range r, int relu, float clamp)
{
    float m = lgr_float_from_bits(relu ? r.max : r.abs);
    if (r.abs > 0x7f800000) return lgr_float_from_bits(0x7fc00000);
    return clamp > 0.0f && m > clamp ? clamp : m;
}

/* The state of one quantizer; every pointer is one element. threshold == NULL: MOM, otherwise TQT, where running is 0 or the range
 * that stands for a threshold at its floor. */
typedef struct lgr_stats {
    float *running;
    uint8_t *is_init;
    float *scale;
    int64_t *n_batches, *n_skipped;
    const float *threshold;
} lgr_stats;

/* min(e, cap), kept where 2^e is a normal float32. */
LGR_INLINE int32_t lgr_capped(int32_t e, int32_t cap)
{
    const int32_t m = e < cap ? e : cap;
    return m < -LGR_EXP2_MAX ? -LGR_EXP2_MAX : m;
}
/* MOM: e = clip(bits - 1 - log2_nearest(max(m, 1e-6)), 0, 23). m >= 0, not NaN; infinity gives 0. */
LGR_INLINE int32_t lgr_peak_exp2(float m, int bits)
{
    const int32_t e = bits - 1 - lgr_log2_nearest(m > 1e-6f ? m : 1e-6f);
    return e < 0 ? 0 : e > 23 ? 23 : e;
}
/* TQT: rint(bits - 1 - t) before clipping, as a float; NaN stays NaN. */
LGR_INLINE float lgr_threshold_raw(float t, int bits) { return rintf((float)(bits - 1) - t); }
/* TQT: e = min(clip(rint(bits - 1 - t), 0, 23), cap); LGR_EXP2_NAN for a NaN threshold. */
LGR_INLINE int32_t lgr_threshold_exp2(float t, int bits, int32_t cap)
{
    const float raw = lgr_threshold_raw(t, bits);
    if (raw != raw) return LGR_EXP2_NAN;
    const int32_t e = raw < 0.0f ? 0 : raw > 23.0f ? 23 : (int32_t)raw;
    return lgr_capped(e, cap);
}
/* Whether the threshold gets a gradient: its exponent was neither clipped nor lowered by cap. */
LGR_INLINE int lgr_threshold_moves(float t, int bits, int32_t cap)
{
    const float raw = lgr_threshold_raw(t, bits);
    return raw >= 0.0f && raw <= 23.0f && raw <= (float)cap;
}

/* A range at its floor has seen only zeros: it is no average, and the first real maximum replaces it. What starts at zero grows
 * from step to step, and what is cut does not train: a trained threshold is raised by larger maxima for the next LGR_YOUNG
 * batches too. is_init counts them: 1 + those that are left. */
enum { LGR_YOUNG = 100 };
/* log2(1e-6) = -19.93157: what a calibration writes; nobody else does. */
LGR_INLINE int lgr_threshold_at_floor(float t) { return t >= -19.94f && t <= -19.93f; }
/* TQT: the threshold in force. For one at its floor, or young, the maximum in running stands when it is larger: the caller writes
 * it into the parameter before the next forward (a kernel does not move parameters, and processes have to agree on it). */
LGR_INLINE float lgr_threshold_now(const lgr_stats *s)
{
    const float t = *s->threshold;
    if (!s->running || !(*s->running > 1e-6f)) return t;
    const float k = (float)lgr_log2_nearest(*s->running);
    return lgr_threshold_at_floor(t) || (*s->is_init > 1 && k > t) ? k : t;
}
/* Whether m > 1e-6 replaces the range that s has instead of entering its average; s counts. */
LGR_INLINE int lgr_stats_replaced(const lgr_stats *s, int at_floor, float m)
{
    if (m > 1e-6f && at_floor) *s->is_init = 1 + LGR_YOUNG;
    else if (*s->is_init > 1) --*s->is_init;
    return m > 1e-6f && (at_floor || (*s->is_init > 1 && m > *s->running));
}

/* The exponent that is known before the data has been seen: the threshold's, or the stored one (a guess when the
 * statistics are about to move). LGR_EXP2_NONE when there is none; LGR_EXP2_NAN for a damaged state. A scale that is no
 * power of two is an average of states (EMA copies of a model): the averaged maximum then says the exponent. */
LGR_INLINE int32_t lgr_stats_guess(const lgr_stats *s, int bits, int32_t cap)
{
    if (s->threshold) return lgr_threshold_exp2(lgr_threshold_now(s), bits, cap);
    if (!*s->is_init) return LGR_EXP2_NONE;
    const int32_t e = lgr_scale_exp2(*s->scale);
    if (e == LGR_EXP2_NAN) return e;
    const int averaged = (lgr_float_bits(*s->scale) & 0x7fffff) != 0 && s->running;
    return lgr_capped(averaged ? lgr_peak_exp2(*s->running, bits) : e, cap);
}

/* The exponent of a state that feeds back, for a whole pass: the one known before it, bits - 1 before any data. */
LGR_INLINE int32_t lgr_stats_known(const lgr_stats *s, int bits, int32_t cap)
{
    const int32_t e = lgr_stats_guess(s, bits, cap);
    return e == LGR_EXP2_NONE ? lgr_capped(bits - 1, cap) : e;
}

/**
 * The exponent of this call, and the statistics moved when observe is set.
 *
 * @param[in,out] s     State of the quantizer. Written only when observe is set.
 * @param[in] bits      2..32.
 * @param[in] cap       Largest exponent the chip allows here (LGR_EXP2_MAX: none).
 * @param[in] observe   Non-zero: move running, is_init, scale, n_batches, or count the batch in n_skipped.
 * @param[in] peak      lgr_range_peak of the tensor before rounding, or NaN when an operand or its scale is NaN.
 * @return exponent, or LGR_EXP2_NAN: the result is NaN everywhere and no statistics have moved.
 *
 * An infinite peak is skipped and counted; the exponent is then the stored one.
 */
LGR_INLINE int32_t lgr_stats_step(const lgr_stats *s, int bits, int32_t cap, int observe,
                                  float peak)
{
    const int finite = peak < INFINITY; /* false for NaN */
    if (s->threshold && s->running && observe && finite &&
        lgr_stats_replaced(s, lgr_threshold_at_floor(*s->threshold) && !(*s->running > 1e-6f),
                           peak))
        *s->running = peak;
    const int32_t t = s->threshold ? lgr_threshold_exp2(lgr_threshold_now(s), bits, cap) : 0;
    if (peak != peak || t == LGR_EXP2_NAN) {
        if (observe) ++*s->n_skipped;
        return LGR_EXP2_NAN;
    }
    if (observe && !finite) ++*s->n_skipped;
    if (s->threshold) {
        if (observe && finite) {
            *s->scale = lgr_exp2_scale(t);
            if (!*s->is_init) *s->is_init = 1;
            ++*s->n_batches;
        }
        return t;
    }
    if (observe && finite) {
        const float m = peak > 1e-6f ? peak : 1e-6f, old = *s->running;
        const int known = *s->is_init && old > 0.0f && old < INFINITY;
        *s->running = known && old > 1e-6f ? 0.9f * old + 0.1f * m : m;
        const int32_t e = lgr_peak_exp2(*s->running, bits), capped = lgr_capped(e, cap);
        *s->scale = lgr_exp2_scale(capped);
        if (!*s->is_init) *s->is_init = 1;
        ++*s->n_batches;
        return capped;
    }
    const int32_t known = lgr_stats_guess(s, bits, cap);
    if (known != LGR_EXP2_NONE) return known;
    return lgr_capped(lgr_peak_exp2(peak, bits), cap);
}

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Merge max|x| and max(x) into *range.
 *
 * @param[in]     x      [n] float32, any value, any alignment.
 * @param[in]     n      >= 0; zero is a no-op.
 * @param[in,out] range  Start with {0, 0}.
 * @return LGR_OK; LGR_E_RANGE for n; LGR_E_NULL.
 *
 * Integer comparison of float bits: the result does not depend on order, ISA or threads, and shows NaN.
 */
lgr_status lgr_observe_f32(const float *x, int64_t n, lgr_range *range);

#ifdef __cplusplus
}
#endif
#endif
