/* grad_lanes_cuda.h - one float at a time, a thread's; the names of grad_lanes_avx512vnni.h. */
#ifndef LGR_GRAD_LANES_H
#define LGR_GRAD_LANES_H
#include "kernels/chip_functions/chip_functions_one.h"
#include "kernels/cuda/device.h"
#include "kernels/recurrent/recurrent_ref.h"

#define LGR_VEC static __device__ inline
enum { LGR_IS_SIGMOID = 0, LGR_IS_TANH = 1 };
enum { FL = 1 };
typedef float vf;
typedef int32_t vg;

/* Sigmoid and tanh of the chip, in shared memory: filled by grad_tables_begin, which all threads of a block call. */
struct grad_tables {
    lgr_pwl v[2];
};
LGR_VEC grad_tables *tables_of_block()
{
    LGR_SHARED(grad_tables, held);
    return &held;
}
LGR_VEC void grad_tables_begin(const grad_tables &t)
{
    if (threadIdx.x < 2) tables_of_block()->v[threadIdx.x] = t.v[threadIdx.x];
    __syncthreads();
}

LGR_VEC vf f_set(float v) { return v; }
LGR_VEC vf f_load(const float *p) { return *p; }
LGR_VEC vf f_load_n(const float *p, int64_t n) { return n > 0 ? *p : 0.0f; }
LGR_VEC void f_store(float *p, vf v) { *p = v; }
LGR_VEC vf f_keep(vf v, int64_t n) { return n > 0 ? v : 0.0f; }
LGR_VEC vf f_fma(vf a, vf b, vf c) { return a * b + c; }
LGR_VEC vg g_load(const int32_t *p) { return *p; }
LGR_VEC vg g_load_n(const int32_t *p, int64_t n) { return n > 0 ? *p : 0; }
LGR_VEC vg g_load16(const void *p) { return *(const int16_t *)p; }
LGR_VEC vg g_load8(const void *p) { return *(const uint8_t *)p; }
LGR_VEC vg g_and(vg v, int bits) { return v & bits; }
LGR_VEC vg g_up(vg v, int s) { return (int32_t)((uint32_t)v << s); }
LGR_VEC vg g_add(vg a, vg b) { return a + b; }
LGR_VEC vg g_sub(vg a, vg b) { return a - b; }
LGR_VEC vg g_plus(vg v, int n) { return v + n; }
LGR_VEC vg g_codes_n(const int8_t *p, int64_t n) { return n > 0 ? *p : 0; }
LGR_VEC vg g_clamp(vg v, int lo, int hi) { return v < lo ? lo : v > hi ? hi : v; }
LGR_VEC vg g_round(vg v, int s) { return lgr_rsh_s32(v, s); }
LGR_VEC vf f_from(vg v, float scale) { return (float)v * scale; }
LGR_VEC vg g_pwl27(int, const int is_tanh, const int, vg x)
{
    return lgr_pwl_one(&tables_of_block()->v[is_tanh], x);
}
LGR_VEC vg g_pwl11(int table, const int is_tanh, vg x) { return g_pwl27(table, is_tanh, 0, x); }
LGR_VEC vf f_dsigmoid(vf x) { return lgr_dsigmoid_ref(x); }
#endif
