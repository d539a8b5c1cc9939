/* floats_ref.h - 4 float32 in plain C, as loops and GCC's vectors; the names of floats_256.h, which says what they do. */
#ifndef LGR_FLOATS_H
#define LGR_FLOATS_H
#include <stddef.h>
#include <stdint.h>

#define LGR_VEC static inline __attribute__((always_inline))
enum { FL = 4 };
typedef float vf __attribute__((vector_size(16)));

LGR_VEC int f_first(int64_t n) { return n >= FL ? FL : n <= 0 ? 0 : (int)n; }
LGR_VEC vf f_set(float v) { return (vf){v, v, v, v}; }
LGR_VEC vf f_load(const float *p) { return (vf){p[0], p[1], p[2], p[3]}; }
LGR_VEC vf f_load_n(const float *p, int64_t n)
{
    vf v = f_set(0.0f);
    for (int i = 0; i < f_first(n); ++i) v[i] = p[i];
    return v;
}
LGR_VEC void f_store_n(float *p, vf v, int64_t n)
{
    for (int i = 0; i < f_first(n); ++i) p[i] = v[i];
}
LGR_VEC void f_store(float *p, vf v) { f_store_n(p, v, FL); }
LGR_VEC vf f_keep(vf v, int64_t n)
{
    for (int i = f_first(n); i < FL; ++i) v[i] = 0.0f;
    return v;
}
/* rounded twice: the one name that may differ in its last bits */
LGR_VEC vf f_fma(vf a, vf b, vf c) { return a * b + c; }
LGR_VEC vf f_codes(const int8_t *p)
{
    return (vf){(float)p[0], (float)p[1], (float)p[2], (float)p[3]};
}
LGR_VEC vf f_codes_n(const int8_t *p, int64_t n)
{
    vf v = f_set(0.0f);
    for (int i = 0; i < f_first(n); ++i) v[i] = (float)p[i];
    return v;
}
LGR_VEC vf f_pass(vf v, const uint8_t *row, int64_t at)
{
    for (int i = 0; i < FL; ++i) v[i] = row[(at + i) >> 3] >> ((at + i) & 7) & 1 ? v[i] : 0.0f;
    return v;
}
#endif
