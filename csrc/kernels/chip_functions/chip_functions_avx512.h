/* chip_functions_avx512.h - 16 lanes of one function; a table of 16 is one register. For files built with AVX-512 F and BW. */
#ifndef LGR_CHIP_FUNCTIONS_AVX512_H
#define LGR_CHIP_FUNCTIONS_AVX512_H
#include "kernels/lanes/lanes_512.h"
#include "lgr/chip_functions.h"

/* t[j] */
LGR_VEC vi lgr_look(const void *t, vi j)
{
    return _mm512_permutexvar_epi32(j, _mm512_load_si512(t));
}
/* t[j] for x >= 0, t[16 + j] for x < 0 */
LGR_VEC vi lgr_signed(const int32_t *t, vi j, vi x)
{
    const vi s = _mm512_mask_or_epi32(j, _mm512_cmplt_epi32_mask(x, v_set(0)), j, v_set(16));
    return _mm512_permutex2var_epi32(_mm512_load_si512(t), s, _mm512_load_si512(t + 16));
}
/* j + 1 where a > b, unsigned */
LGR_VEC vi lgr_past(vi j, vi a, vi b)
{
    return _mm512_mask_add_epi32(j, _mm512_cmpgt_epu32_mask(a, b), j, v_set(1));
}
/* j0[min(a >> bucket, 31)] */
LGR_VEC vi lgr_start(const lgr_pwl *p, const int bucket, vi a)
{
    const vi b = _mm512_min_epu32(v_right(a, bucket), v_set(31));
    return _mm512_permutexvar_epi16(b, _mm512_load_si512(p->j0)); /* high words: entry 0 is 0 */
}
#include "kernels/chip_functions/chip_functions_lanes.h"
#endif
