/* lstm.h - one direction of one LSTM layer: the chip's integers forward, float gradients backward through time.
 *
 * Source: docs/numerics.md, "LSTM".
 */
#ifndef LGR_LSTM_H
#define LGR_LSTM_H
#include "lgr/recurrent.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Format of the cell state: exponent and width. */
typedef struct lgr_lstm_cell {
    int32_t exp2, bits;
} lgr_lstm_cell;
lgr_lstm_cell lgr_lstm_cell_format(int32_t chip);

/* Rows are those of lgr_recurrent; a pointer marked * may be NULL. */
typedef struct lgr_lstm_io {
    const int8_t *x; /* [rows][d] */
    const int8_t *h0; /* * [batch][h], Q.q_h; NULL: zero */
    const int32_t *c0; /* * [batch][h], Q15 (venus: int16, Q7); NULL: zero */
    int8_t *y; /* [rows][h], Q.q_h */
    float *value; /* * [rows][h], y / 2^q_h */
    int8_t *hn; /* [batch][h] after the last step of each entry */
    int32_t *cn; /* [batch][h] */
    void *
        saved; /* * lgr_recurrent_saved_bytes(p, 4) for backward: pre-activations and the input of tanh */
} lgr_lstm_io;

/**
 * Runs the steps of entries [r0, r1).
 *
 * @param[in]  p, w     Checked by lgr_recurrent_check(p, 4); packed for `engine`.
 * @param[in]  scratch  lgr_recurrent_forward_bytes(p, 4, r1 - r0) bytes, any alignment; unused by the reference.
 * @param[in,out] seen  Raised and counted up.
 *
 * Every engine gives the same bits. No allocation, thread-safe.
 */
void lgr_lstm_forward(enum lgr_recurrent_engine engine, const lgr_recurrent *p,
                      const lgr_recurrent_weights *w, const lgr_lstm_io *io, int32_t r0, int32_t r1,
                      void *scratch, lgr_recurrent_seen *seen);

typedef struct lgr_lstm_grad {
    const int8_t *x, *y, *h0; /* as in lgr_lstm_io */
    const int32_t *c0;
    const void *saved;
    float inv_x, inv_h; /* 2^-q_x, 2^-q_h */
    const float *w_ih, *w_hh; /* lgr_recurrent_panels in the order i f g o; w_ih only with dx */
    const float *dy, *dhn, *dcn; /* * [rows][h], * [batch][h], * [batch][h] */
    float *dx; /* * [rows][d] */
    float *dh0, *dc0; /* [batch][h] */
    float *dw_ih, *dw_hh; /* accumulators, layout of lgr_recurrent_store */
    float *db; /* [i f g o][unit block][16], an accumulator too */
    double *slope; /* * sum of dh * (code - value * 2^q_h) over all states */
} lgr_lstm_grad;

/**
 * Backward through time of the steps of one chunk, entries [r0, r1) of its: identity through roundings, shifts and saturations,
 * true derivatives of sigmoid and tanh at the saved pre-activations, the chip's own values as factors. dx, dh0 and dc0 are written
 * here. Entries share nothing; a thread may take any of them.
 */
void lgr_lstm_backward(enum lgr_recurrent_engine engine, const lgr_recurrent *p,
                       const lgr_lstm_grad *g, const lgr_recurrent_chunk *c, int32_t r0,
                       int32_t r1);
/**
 * After lgr_lstm_backward of all its entries: adds the chunk to rows of dw_ih, dw_hh and db.
 *
 * @param[in] b0, b1  Blocks [b0, b1) of the 4 * unit blocks; a thread may take any of them.
 *
 * Float sums in an order fixed by the entries: the same bits in every run on one processor; engines differ in the last places.
 */
void lgr_lstm_sums(enum lgr_recurrent_engine engine, const lgr_recurrent *p, const lgr_lstm_grad *g,
                   const lgr_recurrent_chunk *c, int64_t b0, int64_t b1);

#ifdef __cplusplus
}
#endif
#endif
