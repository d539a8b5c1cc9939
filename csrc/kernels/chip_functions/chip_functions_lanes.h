/* chip_functions_lanes.h - the functions on a vector, in the names of lanes_256.h and lanes_512.h and with the tables' look-ups of
 * chip_functions_avx2.h and chip_functions_avx512.h, which include this. */

/* Which function, a compile-time constant: how segments are found, what else differs. */
enum { LGR_IS_SIGMOID = 0, LGR_IS_TANH = 1, LGR_IS_GELU = 2 /* and swish */ };

/* bucket 0: count the thresholds below */
LGR_VEC vi lgr_segment(const lgr_pwl *p, const int bucket, vi a)
{
    if (bucket == 0) {
        vi j = v_set(0);
        for (int k = 0; k < 15; ++k) j = lgr_past(j, a, v_set((int32_t)p->thr[k]));
        return j;
    }
    const vi j = lgr_start(p, bucket, a);
    return lgr_past(j, a, lgr_look(p->thr, j));
}
/* slope * x, the two halves of a vector in 64 bits */
typedef struct lgr_wide {
    vi even, odd, icpt;
} lgr_wide;
LGR_VEC lgr_wide lgr_line(const lgr_pwl *p, const int is, vi x)
{
    const int bucket = is == LGR_IS_GELU ? 0 : is == LGR_IS_TANH ? 24 : 25;
    const vi j = lgr_segment(p, bucket, v_abs(x));
    const vi s = is == LGR_IS_GELU ? lgr_signed(p->slope, j, x) : lgr_look(p->slope, j);
    lgr_wide w;
    w.icpt = lgr_signed(p->icpt, j, x);
    if (is != LGR_IS_SIGMOID) x = v_max(x, v_set(-INT32_MAX));
    w.even = v_mul64(x, s);
    w.odd = v_mul64(v_odd(x), v_odd(s));
    return w;
}
/* arcs, venusA: Q27 -> Q31 (GELU, swish: Q27) */
LGR_VEC vi v_pwl27(const lgr_pwl *p, const int is, const int venusa, vi x)
{
    lgr_wide w = lgr_line(p, is, x);
    if (venusa) {
        const vi half = v_set64(1 << 26);
        w.even = v_add64(w.even, half);
        w.odd = v_add64(w.odd, half);
    }
    return v_add(v_join(w.even, w.odd, 27), w.icpt);
}
/* venusA: Q27 -> 8 or 16 bits, rounded once from the exact sum, whose upper half suffices */
LGR_VEC vi v_pwl27_narrow(const lgr_pwl *p, const int is, const int bits, vi x)
{
    const lgr_wide w = lgr_line(p, is, x);
    const vi one = v_set(1 << 27);
    const vi even = v_add64(w.even, v_mul64(w.icpt, one)),
             odd = v_add64(w.odd, v_mul64(v_odd(w.icpt), one));
    return v_clamp(v_round(v_mix(v_odd(even), odd), 27 - bits), -(1 << (bits - 1)),
                   (1 << (bits - 1)) - 1);
}
/* venus: Q11 -> Q15, both in 32-bit lanes */
LGR_VEC vi v_pwl11(const lgr_pwl *p, const int is, vi x)
{
    const vi j = lgr_segment(p, is == LGR_IS_TANH ? 8 : 9, v_abs(x)), c = lgr_signed(p->icpt, j, x);
    if (is == LGR_IS_TANH) x = v_max(x, v_set(-32767));
    const vi v = v_down_by(v_mul(x, lgr_look(p->slope, j)), lgr_look(p->shift, j));
    return v_clamp(v_add(v, c), -32768, 32767);
}
