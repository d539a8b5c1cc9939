/* gru.h - one direction of one GRU layer: the chip's integers forward, float gradients backward through time.
 *
 * The chips differ in more than formats: arcs applies the reset gate to h before the product, venus gives the update gate to the
 * candidate. Source: docs/numerics.md, "GRU".
 */
#ifndef LGR_GRU_H
#define LGR_GRU_H
#include "lgr/recurrent.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Whether a chip applies the reset gate to h before the product; else to the product. */
static inline int lgr_gru_resets_state(int32_t chip) { return chip == LGR_ARCS; }

/* Rows are those of lgr_recurrent; a pointer marked * may be NULL. */
typedef struct lgr_gru_io {
    const int8_t *x; /* [rows][d] */
    const int8_t *h0; /* * [batch][h], Q.q_h; NULL: zero */
    int8_t *y; /* [rows][h], Q.q_h */
    float *value; /* * [rows][h], y / 2^q_h */
    int8_t *hn; /* [batch][h] after the last step of each entry */
    void *
        saved; /* * lgr_recurrent_saved_bytes(p, 3) for backward: pre-activations r z n and, b, the recurrent sum of n in
                    the format of the gates (venusA: max(exp2_ih, exp2_hh)), on arcs the codes of r * h */
} lgr_gru_io;

/* As lgr_lstm_forward; lgr_recurrent_check(p, 3). */
void lgr_gru_forward(enum lgr_recurrent_engine engine, const lgr_recurrent *p,
                     const lgr_recurrent_weights *w, const lgr_gru_io *io, int32_t r0, int32_t r1,
                     void *scratch, lgr_recurrent_seen *seen);

typedef struct lgr_gru_grad {
    const int8_t *x, *y, *h0; /* as in lgr_gru_io */
    const void *saved;
    float inv_x, inv_h; /* 2^-q_x, 2^-q_h */
    const float *w_ih, *w_hh; /* lgr_recurrent_panels in the order r z n; n r z */
    const float *dy, *dhn; /* * [rows][h], * [batch][h] */
    float *dx; /* * [rows][d] */
    float *dh0; /* [batch][h] */
    float *dw_ih, *dw_hh; /* accumulators in the orders r z n and n r z */
    float *db; /* [n of W_hh, r, z, n of W_ih][unit block][16] */
    double *slope; /* * sum of dh * (code - value * 2^q_h) over all states */
} lgr_gru_grad;

/* As lgr_lstm_backward and lgr_lstm_sums. */
void lgr_gru_backward(enum lgr_recurrent_engine engine, const lgr_recurrent *p,
                      const lgr_gru_grad *g, const lgr_recurrent_chunk *c, int32_t r0, int32_t r1);
void lgr_gru_sums(enum lgr_recurrent_engine engine, const lgr_recurrent *p, const lgr_gru_grad *g,
                  const lgr_recurrent_chunk *c, int64_t b0, int64_t b1);

#ifdef __cplusplus
}
#endif
#endif
