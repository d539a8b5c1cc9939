/* floats_512.h - 16 float32 in one AVX-512 register (F, BW and VL), for gradients; the names of floats_256.h, which says what
 * they do. */
#ifndef LGR_FLOATS_H
#define LGR_FLOATS_H
#include "kernels/lanes/lanes_512.h"
#include <string.h>

enum { FL = 16 };
typedef __m512 vf;

LGR_VEC __mmask16 f_first(int64_t n) { return v_first(n); }
LGR_VEC vf f_set(float v) { return _mm512_set1_ps(v); }
LGR_VEC vf f_load(const float *p) { return _mm512_loadu_ps(p); }
LGR_VEC void f_store(float *p, vf v) { _mm512_storeu_ps(p, v); }
LGR_VEC vf f_load_n(const float *p, int64_t n)
{
    const __mmask16 k = f_first(n);
    return k ? _mm512_maskz_loadu_ps(k, p) : _mm512_setzero_ps();
}
LGR_VEC void f_store_n(float *p, vf v, int64_t n)
{
    const __mmask16 k = f_first(n);
    if (k) _mm512_mask_storeu_ps(p, k, v);
}
LGR_VEC vf f_keep(vf v, int64_t n) { return _mm512_maskz_mov_ps(f_first(n), v); }
LGR_VEC vf f_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
LGR_VEC vf f_codes(const int8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)p)));
}
LGR_VEC vf f_codes_n(const int8_t *p, int64_t n)
{
    const __mmask16 k = f_first(n);
    const __m128i v = k ? _mm_maskz_loadu_epi8(k, p) : _mm_setzero_si128();
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(v));
}
LGR_VEC vf f_pass(vf v, const uint8_t *row, int64_t at)
{
    uint16_t k;
    memcpy(&k, row + (at >> 3), sizeof k);
    return _mm512_maskz_mov_ps(k, v);
}
#endif
