/* softmax_lanes.h - the rows of softmax, one vector of terms at a time. A twin includes its lanes_256.h or lanes_512.h, defines
 * TWIN(name), and includes this file. Products are formed in 64 bits, in two halves. */
#include "kernels/softmax/softmax_isa.h"

/* sat_32(x - m), never positive: it can only fall below the range */
LGR_VEC vi distance(vi x, vi m)
{
    const vi d = v_sub(x, m);
    return v_above(d, v_set(0), v_set(INT32_MIN), d);
}
LGR_VEC vi terms(const int once, vi d)
{
    const vi v = v_mul_round(d, v_set(LGR_LOG2E), 31);
    const vi down = v_sub(v_set(0), v_down(v, 23));
    const vi f = v_sub(v_and(v, v_set(0x7fffff)), v_set(1 << 23));
    vi y = v_add(v_mul_round(v_set(LGR_EXP_P0), f, 23), v_set(LGR_EXP_P1));
    y = v_add(v_mul_round(y, f, 23), v_set(LGR_EXP_P2));
    y = v_add(v_mul_round(y, f, 23), v_set(LGR_EXP_P3));
    if (!once) {
        y = v_add(v_mul_round(y, f, 23), v_set(LGR_EXP_P4));
        return v_right_by(v_add(y, y), down); /* 0 from 32 on */
    }
    const vi top = v_set64((int64_t)LGR_EXP_P4 << 23), one = v_set64(1);
    const vi s = v_add(down, v_set(21)); /* then half of the rest */
    vi even = v_add64(v_mul64(y, f), top), odd = v_add64(v_mul64(v_odd(y), v_odd(f)), top);
    even = v_add64(v_right64_by(even, v_and(s, v_set64(0xffffffff))), one);
    odd = v_add64(v_right64_by(odd, v_odd(s)), one);
    return v_join(even, odd, 1);
}

LGR_VEC vi divided(vi e, vi factor)
{
    const vi half = v_set64((int64_t)1 << 37);
    const vi even = v_add64(v_mul64_unsigned(e, factor), half),
             odd = v_add64(v_mul64_unsigned(v_odd(e), factor), half);
    return v_right(v_mix(v_odd(even), odd), 6);
}
/* RSH(x - m, 10) - ln; RSH(-u, 10) = -((u + 511) >> 10), u = m - x unsigned */
LGR_VEC vi logarithm(vi x, vi m, vi ln)
{
    const vi u = v_sub(m, x), s = v_right(u, 9), none = v_set(0);
    const vi up = v_above(v_and(u, v_set(511)), none, v_add(s, v_set(1)), s);
    return v_sub(none, v_add(v_right(up, 1), ln));
}

static int32_t top_of(const int32_t *x, int64_t n)
{
    vi top = v_set(INT32_MIN);
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) top = v_max(top, v_load(x + i));
    if (i < n) top = v_max(top, v_load_n(x + i, n - i, INT32_MIN));
    return v_top(top);
}
LGR_VEC vi plus_terms(vi sum, vi t)
{
    return v_add64(sum, v_add64(v_odd(t), v_and(t, v_set64(0xffffffff))));
}
/* Returns the sum of the terms. Those of whole vectors go to e when it is not NULL, those behind them to `rest`: a partly
 * written vector is slow to read back. */
LGR_VEC int64_t sum_terms(const int once, const int32_t *x, int64_t n, int32_t m, int32_t *e,
                          vi *rest)
{
    const vi top = v_set(m);
    vi sum = v_set(0);
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        const vi t = terms(once, distance(v_load(x + i), top));
        if (e) v_store(e + i, t);
        sum = plus_terms(sum, t);
    }
    if (i < n) {
        *rest = v_keep(terms(once, distance(v_load_n(x + i, n - i, 0), top)), n - i);
        sum = plus_terms(sum, *rest);
    }
    return v_sum64(sum);
}

void TWIN(lgr_softmax)(int chip, const int32_t *x, int64_t n, int32_t *y)
{
    const int32_t m = top_of(x, n);
    vi rest = v_set(0);
    const int64_t sum = chip == LGR_ARCS
                            ? sum_terms(LGR_EXP_TWICE, x, n, m, y, &rest)
                            : sum_terms(LGR_EXP_ONCE, x, n, lgr_softmax_top(m), y, &rest);
    const vi factor = v_set64(lgr_reciprocal(sum));
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) v_store(y + i, divided(v_load(y + i), factor));
    if (i < n) v_store_n(y + i, divided(rest, factor), n - i);
}

void TWIN(lgr_log_softmax)(const int32_t *x, int64_t n, int32_t *y)
{
    const int32_t m = lgr_softmax_top(top_of(x, n));
    vi rest;
    const vi ln = v_set(lgr_half_ln(sum_terms(LGR_EXP_ONCE, x, n, m, NULL, &rest))), top = v_set(m);
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) v_store(y + i, logarithm(v_load(x + i), top, ln));
    if (i < n) v_store_n(y + i, logarithm(v_load_n(x + i, n - i, 0), top, ln), n - i);
}
