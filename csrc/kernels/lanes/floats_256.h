/* floats_256.h - 8 float32 in one register of AVX2 with FMA, for gradients. floats_512.h has the same names for 16,
 * floats_ref.h in plain C for 4. */
#ifndef LGR_FLOATS_H
#define LGR_FLOATS_H
#include "kernels/lanes/lanes_256.h"
#include <string.h>

enum { FL = 8 };
typedef __m256 vf;

LGR_VEC size_t f_first(int64_t n) { return n >= 8 ? 8 : n <= 0 ? 0 : (size_t)n; }
LGR_VEC vf f_set(float v) { return _mm256_set1_ps(v); }
LGR_VEC vf f_load(const float *p) { return _mm256_loadu_ps(p); }
LGR_VEC void f_store(float *p, vf v) { _mm256_storeu_ps(p, v); }
/* the first n lanes; the others are not read and become 0, are not written */
LGR_VEC vf f_load_n(const float *p, int64_t n)
{
    return n >= 8 ? f_load(p) : _mm256_maskload_ps(p, v_first(n));
}
LGR_VEC void f_store_n(float *p, vf v, int64_t n)
{
    if (n >= 8) f_store(p, v);
    else _mm256_maskstore_ps(p, v_first(n), v);
}
LGR_VEC vf f_keep(vf v, int64_t n) { return _mm256_and_ps(v, _mm256_castsi256_ps(v_first(n))); }
/* a * b + c, rounded once */
LGR_VEC vf f_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
/* FL codes as whole numbers; the first n, 0 in the others */
LGR_VEC vf f_codes(const int8_t *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)p)));
}
LGR_VEC vf f_codes_n(const int8_t *p, int64_t n)
{
    int8_t lane[8] = {0};
    if (n > 0) memcpy(lane, p, f_first(n));
    return f_codes(lane);
}
/* lanes whose bit is set, from bit `at` (a multiple of FL) of a row on; 0 in the others */
LGR_VEC vf f_pass(vf v, const uint8_t *row, int64_t at)
{
    const vi bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128),
             on = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(row[at >> 3]), bit), bit);
    return _mm256_and_ps(v, _mm256_castsi256_ps(on));
}
#endif
