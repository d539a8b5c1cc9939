/* lstm.c - dispatch and the scalar reference. */
#include "lgr/lstm.h"
#include "kernels/chip_functions/chip_functions_ref.h"
#include "kernels/lstm/lstm_isa.h"
#include "kernels/lstm/lstm_one.h"
#include "kernels/recurrent/recurrent_ref.h"
#include "kernels/recurrent/recurrent_twin.h"
#include <string.h>

lgr_lstm_cell lgr_lstm_cell_format(int32_t chip)
{
    return chip == LGR_VENUS ? (lgr_lstm_cell){7, 16} : (lgr_lstm_cell){15, 32};
}

void lgr_lstm_forward_ref(const lgr_recurrent *p, const lgr_recurrent_weights *w,
                          const lgr_lstm_io *io, int32_t r0, int32_t r1, void *scratch,
                          lgr_recurrent_seen *seen)
{
    const int64_t h = p->h, d = p->d, blocks = lgr_blocks(h), block = lgr_saved_block(p->chip, 4);
    const int venus = p->chip == LGR_VENUS;
    const lgr_pwl *tables = lgr_chip_tables + 2 * p->chip;
    int32_t peak = 0;
    (void)scratch;
    for (int32_t r = r0; r < r1; ++r) {
        int8_t *hn = io->hn + r * h;
        int32_t *cn = io->cn + r * h;
        lgr_start_s8(io->h0, r, h, hn);
        for (int64_t u = 0; u < h; ++u) cn[u] = io->c0 ? io->c0[r * h + u] : 0;
        for (int32_t i = 0; i < p->steps; ++i) {
            const int32_t t = p->reverse ? p->steps - 1 - i : i;
            if (r >= p->n[t]) continue;
            const int64_t row = p->off[t] + r * p->row_stride;
            for (int64_t u = 0; u < h; ++u) {
                int32_t pre[4];
                for (int g = 0; g < 4; ++g) {
                    const int32_t a = lgr_gate(w->w_ih, w->b_ih, 4, g, u, io->x + row * d, d);
                    const int32_t b = lgr_gate(w->w_hh, w->b_hh, 4, g, u, hn, h);
                    pre[g] = lgr_lstm_pre(venus, a, b, p->exp2_ih, p->exp2_hh);
                }
                lgr_lstm_unit now = {.c = cn[u]};
                const int32_t out = lgr_lstm_one(p->chip, tables, pre, p->q_h, &now);
                cn[u] = now.c;
                io->y[row * h + u] = (int8_t)now.h; /* hn is still the other units' input */
                peak = out > peak ? out : -out > peak ? -out : peak;
                seen->saturated += now.saturated;
                if (io->value) io->value[row * h + u] = (float)now.h * lgr_exp2_scale(-p->q_h);
                if (io->saved)
                    lgr_lstm_save((char *)io->saved + (row * blocks + u / LGR_UNITS) * block, venus,
                                  u, pre, &now);
            }
            memcpy(hn, io->y + row * h, (size_t)h);
        }
    }
    lgr_lstm_seen(p, peak, seen);
}

void lgr_lstm_forward(enum lgr_recurrent_engine engine, const lgr_recurrent *p,
                      const lgr_recurrent_weights *w, const lgr_lstm_io *io, int32_t r0, int32_t r1,
                      void *scratch, lgr_recurrent_seen *seen)
{
    LGR_RECURRENT_TWIN(engine, lgr_lstm_forward, _avx2)(p, w, io, r0, r1, scratch, seen);
}

void lgr_lstm_backward(enum lgr_recurrent_engine engine, const lgr_recurrent *p,
                       const lgr_lstm_grad *g, const lgr_recurrent_chunk *c, int32_t r0, int32_t r1)
{
    LGR_RECURRENT_TWIN(engine, lgr_lstm_backward, _avx2fma)(p, g, c, r0, r1);
}

void lgr_lstm_sums(enum lgr_recurrent_engine engine, const lgr_recurrent *p, const lgr_lstm_grad *g,
                   const lgr_recurrent_chunk *c, int64_t b0, int64_t b1)
{
    LGR_RECURRENT_TWIN(engine, lgr_lstm_sums, _avx2fma)(p, g, c, b0, b1);
}
