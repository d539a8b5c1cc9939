/* lanes_any.h - what follows from the names of lanes_256.h and lanes_512.h, which include this. */

LGR_VEC vi v_half(vi v) { return v_down(v, 1); }
LGR_VEC vi v_odd(vi v) { return v_right64(v, 32); }
LGR_VEC vi v_clamp(vi v, int lo, int hi) { return v_min(v_max(v, v_set(lo)), v_set(hi)); }
/* floor(v / 2^s + 1/2), s >= 1, no overflow */
LGR_VEC vi v_round(vi v, const int s) { return v_half(v_add(v_down(v, s - 1), v_set(1))); }
/* low 32 bits of (even >> s) and (odd >> s), 0 < s < 32; a logical shift will do */
LGR_VEC vi v_join(vi even, vi odd, const int s)
{
    return v_mix(v_right64(even, s), v_left64(odd, 32 - s));
}
/* floor(a * b / 2^s + 1/2), 0 < s < 32; the result fits */
LGR_VEC vi v_mul_round(vi a, vi b, const int s)
{
    const vi half = v_set64((int64_t)1 << (s - 1));
    return v_join(v_add64(v_mul64(a, b), half), v_add64(v_mul64(v_odd(a), v_odd(b)), half), s);
}
