/* lstm_isa.h - one signature for every twin. */
#ifndef LGR_LSTM_ISA_H
#define LGR_LSTM_ISA_H
#include "lgr/lstm.h"

typedef void lgr_lstm_forward_fn(const lgr_recurrent *p, const lgr_recurrent_weights *w,
                                 const lgr_lstm_io *io, int32_t r0, int32_t r1, void *scratch,
                                 lgr_recurrent_seen *seen);
typedef void lgr_lstm_backward_fn(const lgr_recurrent *p, const lgr_lstm_grad *g,
                                  const lgr_recurrent_chunk *c, int32_t r0, int32_t r1);
typedef void lgr_lstm_sums_fn(const lgr_recurrent *p, const lgr_lstm_grad *g,
                              const lgr_recurrent_chunk *c, int64_t b0, int64_t b1);
lgr_lstm_forward_fn lgr_lstm_forward_ref, lgr_lstm_forward_avx2, lgr_lstm_forward_avx512vnni;
lgr_lstm_backward_fn lgr_lstm_backward_ref, lgr_lstm_backward_avx2fma, lgr_lstm_backward_avx512vnni;
lgr_lstm_sums_fn lgr_lstm_sums_ref, lgr_lstm_sums_avx2fma, lgr_lstm_sums_avx512vnni;

/* The largest |o * tanh(c)| of this call, an integer of at most 31 bits, as a real number. */
LGR_INLINE void lgr_lstm_seen(const lgr_recurrent *p, int32_t peak, lgr_recurrent_seen *seen)
{
    const float real = (float)peak * lgr_exp2_scale(p->chip == LGR_VENUS ? -14 : -30);
    if (lgr_float_bits(real) > seen->peak) seen->peak = lgr_float_bits(real);
}
#endif
