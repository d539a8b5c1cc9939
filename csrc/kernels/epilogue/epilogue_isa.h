/* epilogue_isa.h - private to the epilogue's twins and to engines that fuse it. */
#ifndef LGR_EPILOGUE_ISA_H
#define LGR_EPILOGUE_ISA_H
#include "lgr/epilogue.h"

/* round(A / 2^shift) = (A + add) >> shift for every rounding but half-to-even. */
static inline int64_t lgr_epilogue_add(const lgr_epilogue *ep)
{
    const int64_t one = (int64_t)1 << ep->shift;
    return ep->rounding == LGR_FLOOR ? 0 : ep->rounding == LGR_CEIL ? one - 1 : one >> 1;
}

/* t0 and t1 as int32: narrow sums cannot tell the difference. */
static inline int32_t lgr_epilogue_s32(int64_t v) { return lgr_sat_s32(v); }

/* Contracts of lgr_epilogue_rows. The AVX2 twin: narrow sums, no bias, no acc, no code16. */
void lgr_epilogue_rows_ref(const lgr_epilogue *ep, const int32_t *sums, int64_t stride,
                           const int32_t *bias, int64_t rows, int64_t n, int64_t ch, int64_t o,
                           int64_t pixel, const lgr_outputs *out, int64_t amax[2]);
void lgr_epilogue_rows_avx2(const lgr_epilogue *ep, const int32_t *sums, int64_t stride,
                            int64_t rows, int64_t n, int64_t ch, int64_t o, int64_t pixel,
                            const lgr_outputs *out, int64_t amax[2]);
#endif
