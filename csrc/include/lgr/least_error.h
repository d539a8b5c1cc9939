/* least_error.h - the exponent of least error for the codes of a chip (0..23), and a quantizer's state that follows it.
 *
 * Source: docs/numerics.md, "Least error".
 */
#ifndef LGR_LEAST_ERROR_H
#define LGR_LEAST_ERROR_H
#include "lgr/observe.h"
#include "lgr/squared_error.h"

/* The candidates for a weight of this maximum (finite, >= 0): the coarsest exponent that holds it, and the next finer one where there
 * is one. Weights round half to even. */
LGR_INLINE struct lgr_squared_error_params lgr_least_error_candidates(float peak, int bits)
{
    const int32_t e = lgr_holding_exp2(peak, bits), coarse = e < 0 ? 0 : e > 23 ? 23 : e;
    const struct lgr_squared_error_params p = {coarse, coarse < 23 ? 2 : 1, bits, LGR_HALF_EVEN};
    return p;
}
/* A step of the state (MOM): the errors at the candidates decide, no average. A maximum that is NaN or infinite counts as skipped
 * and moves nothing. */
LGR_INLINE void lgr_least_error_step(const lgr_stats *s, int bits, float peak,
                                     const struct lgr_squared_error_params *p, const double *error)
{
    if (!(peak < INFINITY)) {
        ++*s->n_skipped;
        return;
    }
    const int32_t e = p->n_exp2 == 2 ? lgr_less_error_exp2(p->exp2, error) : p->exp2;
    *s->running = peak > 1e-6f ? lgr_exp2_scale(bits - 1 - e) : 1e-6f; /* zeros are no range */
    *s->scale = lgr_exp2_scale(e);
    if (!*s->is_init) *s->is_init = 1;
    ++*s->n_batches;
}
#endif
