/* softmax_ref.h - one element of a softmax row at a time; also the tails of the twins. */
#ifndef LGR_SOFTMAX_REF_H
#define LGR_SOFTMAX_REF_H
#include "kernels/softmax/softmax_one.h"

/* How the last step of the polynomial rounds. */
enum { LGR_EXP_TWICE, LGR_EXP_ONCE };

static inline int32_t lgr_max_ref(const int32_t *x, int64_t n, int32_t m)
{
    for (int64_t i = 0; i < n; ++i) m = x[i] > m ? x[i] : m;
    return m;
}
/* Terms of a row and their sum. */
static inline int64_t lgr_terms_ref(const int once, const int32_t *x, int64_t n, int32_t m,
                                    int32_t *e)
{
    int64_t sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += e[i] = lgr_softmax_term(once, x[i], m);
    return sum;
}
static inline void lgr_divide_ref(int32_t *e, int64_t n, int64_t c)
{
    for (int64_t i = 0; i < n; ++i) e[i] = lgr_softmax_share(c, e[i]);
}
static inline int32_t lgr_half_ln(int64_t sum) { return lgr_half_ln_one(lgr_ln_table, sum); }
#endif
