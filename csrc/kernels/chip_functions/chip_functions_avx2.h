/* chip_functions_avx2.h - 8 lanes of one function; a table of 16 is two permutes and a blend. For files built with -mavx2. */
#ifndef LGR_CHIP_FUNCTIONS_AVX2_H
#define LGR_CHIP_FUNCTIONS_AVX2_H
#include "kernels/lanes/lanes_256.h"
#include "lgr/chip_functions.h"

/* b where the sign bit of `sign` is set */
LGR_VEC vi lgr_blend8(vi a, vi b, vi sign)
{
    return _mm256_castps_si256(_mm256_blendv_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b),
                                                _mm256_castsi256_ps(sign)));
}
/* t[j] */
LGR_VEC vi lgr_look(const void *t, vi j)
{
    const vi *v = t, high = _mm256_slli_epi32(j, 28); /* bit 3 of j as the sign */
    return lgr_blend8(_mm256_permutevar8x32_epi32(_mm256_load_si256(v), j),
                      _mm256_permutevar8x32_epi32(_mm256_load_si256(v + 1), j), high);
}
/* t[j] for x >= 0, t[16 + j] for x < 0 */
LGR_VEC vi lgr_signed(const int32_t *t, vi j, vi x)
{
    return lgr_blend8(lgr_look(t, j), lgr_look(t + 16, j), x);
}
/* j + 1 where a > b, unsigned */
LGR_VEC vi lgr_past(vi j, vi a, vi b)
{
    const vi bias = v_set(INT32_MIN);
    return v_sub(j, _mm256_cmpgt_epi32(_mm256_xor_si256(a, bias), _mm256_xor_si256(b, bias)));
}
/* j0[min(a >> bucket, 31)] */
LGR_VEC vi lgr_start(const lgr_pwl *p, const int bucket, vi a)
{
    const vi b = _mm256_min_epu32(v_right(a, bucket), v_set(31));
    const vi t = _mm256_packus_epi16(_mm256_load_si256((const void *)p->j0),
                                     _mm256_load_si256((const void *)(p->j0 + 16)));
    /* t holds 0-7 16-23 | 8-15 24-31 */
    const vi lo = _mm256_permute4x64_epi64(t, 0x88), hi = _mm256_permute4x64_epi64(t, 0xdd);
    const vi found = lgr_blend8(_mm256_shuffle_epi8(lo, b), _mm256_shuffle_epi8(hi, b),
                                _mm256_slli_epi32(b, 27));
    return v_and(found, v_set(255));
}
#include "kernels/chip_functions/chip_functions_lanes.h"
#endif
