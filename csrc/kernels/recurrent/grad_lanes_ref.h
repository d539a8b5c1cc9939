/* grad_lanes_ref.h - plain C, 4 floats at a time as loops; the names of grad_lanes_avx512vnni.h. */
#ifndef LGR_GRAD_LANES_H
#define LGR_GRAD_LANES_H
#include "kernels/chip_functions/chip_functions_ref.h"
#include "kernels/lanes/floats_ref.h"
#include "kernels/recurrent/recurrent_ref.h"
#include <math.h>
#include <string.h>

#define LGR_TWIN(name) name##_ref
enum { LGR_IS_SIGMOID = 0, LGR_IS_TANH = 1 };
enum { TILE_M = 4 /* rows of a register tile */ };
typedef int32_t vg __attribute__((vector_size(16))); /* integers, one for each float */

LGR_VEC vg g_load_n(const int32_t *p, int64_t n)
{
    vg v = {0, 0, 0, 0};
    for (int i = 0; i < f_first(n); ++i) v[i] = p[i];
    return v;
}
LGR_VEC vg g_load(const int32_t *p) { return g_load_n(p, FL); }
/* 16-bit and byte planes of what forward saved */
LGR_VEC vg g_load16(const void *p)
{
    int16_t v[FL];
    memcpy(v, p, sizeof v);
    return (vg){v[0], v[1], v[2], v[3]};
}
LGR_VEC vg g_load8(const void *p)
{
    uint8_t v[FL];
    memcpy(v, p, sizeof v);
    return (vg){v[0], v[1], v[2], v[3]};
}
LGR_VEC vg g_and(vg v, int bits)
{
    for (int i = 0; i < FL; ++i) v[i] &= bits;
    return v;
}
LGR_VEC vg g_up(vg v, int s)
{
    for (int i = 0; i < FL; ++i) v[i] = (int32_t)((uint32_t)v[i] << s);
    return v;
}
LGR_VEC vg g_add(vg a, vg b) { return a + b; }
LGR_VEC vg g_sub(vg a, vg b) { return a - b; }
LGR_VEC vg g_plus(vg v, int n) { return v + n; }
LGR_VEC vg g_codes_n(const int8_t *p, int64_t n)
{
    vg v = {0, 0, 0, 0};
    for (int i = 0; i < f_first(n); ++i) v[i] = p[i];
    return v;
}
LGR_VEC vg g_clamp(vg v, int lo, int hi)
{
    for (int i = 0; i < FL; ++i) v[i] = v[i] < lo ? lo : v[i] > hi ? hi : v[i];
    return v;
}
LGR_VEC vg g_round(vg v, int s)
{
    for (int i = 0; i < FL; ++i) v[i] = lgr_rsh_s32(v[i], s);
    return v;
}
LGR_VEC vf f_from(vg v, float scale) { return __builtin_convertvector(v, vf) * f_set(scale); }
LGR_VEC vg g_pwl27(int table, const int is_tanh, const int venusa, vg x)
{
    (void)is_tanh, (void)venusa;
    for (int i = 0; i < FL; ++i) x[i] = lgr_pwl_ref(table, x[i]);
    return x;
}
LGR_VEC vg g_pwl11(int table, const int is_tanh, vg x) { return g_pwl27(table, is_tanh, 0, x); }
LGR_VEC vf f_dsigmoid(vf x)
{
    for (int i = 0; i < FL; ++i) x[i] = lgr_dsigmoid_ref(x[i]);
    return x;
}
#endif
