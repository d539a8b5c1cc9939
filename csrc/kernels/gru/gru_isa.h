/* gru_isa.h - one signature for every twin. */
#ifndef LGR_GRU_ISA_H
#define LGR_GRU_ISA_H
#include "lgr/gru.h"

typedef void lgr_gru_forward_fn(const lgr_recurrent *p, const lgr_recurrent_weights *w,
                                const lgr_gru_io *io, int32_t r0, int32_t r1, void *scratch,
                                lgr_recurrent_seen *seen);
typedef void lgr_gru_backward_fn(const lgr_recurrent *p, const lgr_gru_grad *g,
                                 const lgr_recurrent_chunk *c, int32_t r0, int32_t r1);
typedef void lgr_gru_sums_fn(const lgr_recurrent *p, const lgr_gru_grad *g,
                             const lgr_recurrent_chunk *c, int64_t b0, int64_t b1);
lgr_gru_forward_fn lgr_gru_forward_ref, lgr_gru_forward_avx2, lgr_gru_forward_avx512vnni;
lgr_gru_backward_fn lgr_gru_backward_ref, lgr_gru_backward_avx2fma, lgr_gru_backward_avx512vnni;
lgr_gru_sums_fn lgr_gru_sums_ref, lgr_gru_sums_avx2fma, lgr_gru_sums_avx512vnni;

/* The format that both sums of the gates are brought to before they are added. */
LGR_INLINE int lgr_gru_base(const lgr_recurrent *p)
{
    if (p->chip == LGR_ARCS) return 27;
    if (p->chip == LGR_VENUS) return 11;
    return p->exp2_ih > p->exp2_hh ? p->exp2_ih : p->exp2_hh;
}
/* peak: float bits of the largest |h| before rounding, in units of its code */
LGR_INLINE void lgr_gru_seen(const lgr_recurrent *p, int32_t peak, lgr_recurrent_seen *seen)
{
    const float real = lgr_float_from_bits(peak) * lgr_exp2_scale(-p->q_h);
    if (lgr_float_bits(real) > seen->peak) seen->peak = lgr_float_bits(real);
}
#endif
