/* recurrent_cuda.h - CUDA twins of lstm.h and gru.h: one direction of one layer; the rules of output_cuda.h.
 *
 * The input product of all steps runs first, then every block of 16 entries walks through all steps by itself: entries are
 * independent, no block waits for another. Exponents come from the scales on the device; where one is NaN or outside
 * lgr_recurrent_check's limits (the CPU's adapters raise an error), or a bias or a given state holds a NaN, every result is NaN.
 */
#ifndef LGR_RECURRENT_CUDA_H
#define LGR_RECURRENT_CUDA_H
#include "lgr/recurrent.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A vector or a state: real numbers, or codes; both NULL: zero. */
typedef struct lgr_real_or_codes {
    const float *real;
    const void *codes;
} lgr_real_or_codes;

typedef struct lgr_recurrent_cuda_job {
    lgr_recurrent
        p; /* exp2_ih, exp2_hh and q_h are not read; off and n: device pointers, rows that leave x are skipped */
    const float *x_scale, *ih_scale, *hh_scale, *h_scale;
    const int8_t *x; /* [rows][d] */
    const int8_t *w_ih, *w_hh; /* [gates * h][d], [gates * h][h] */
    lgr_real_or_codes b_ih, b_hh; /* [gates * h], codes int32 */
    lgr_real_or_codes h0, c0; /* [batch][h], codes int8 and int32 */
    int8_t *y; /* [rows][h] */
    float *value; /* [rows][h] */
    int8_t *h_codes, *h0_codes; /* [batch][h]: behind the last step; the codes of h0 */
    float *h_value; /* [batch][h] */
    int32_t *c_codes, *c0_codes; /* LSTM */
    float *c_value;
    void *saved; /* lgr_recurrent_saved_bytes(p, gates), or NULL */
    float *scale; /* the state's, or NaN */
    float *peak;
    int64_t *saturated; /* LSTM */
    void *scratch; /* lgr_recurrent_cuda_bytes(p, gates) bytes, aligned to 16 */
} lgr_recurrent_cuda_job;
int64_t lgr_recurrent_cuda_bytes(const lgr_recurrent *p, int gates);
lgr_status lgr_lstm_cuda(const lgr_recurrent_cuda_job *job, void *stream);
lgr_status lgr_gru_cuda(const lgr_recurrent_cuda_job *job, void *stream);

typedef struct lgr_recurrent_cuda_grad {
    lgr_recurrent p; /* as above */
    const float *x_scale, *ih_scale, *hh_scale, *h_scale;
    const int8_t *w_hh;
    const int8_t *y, *h0; /* codes; h0, c0: NULL where none were given */
    const int32_t *c0;
    const void *saved;
    const float *dy, *dhn, *dcn; /* [rows][h], [batch][h]; NULL: zero */
    float *
        dg; /* [planes][rows][h padded to 16]: gradients of the gates, LSTM i f g o; GRU: n of W_hh, r, z, n of W_ih */
    float *h_before; /* [rows][h]: the state that a step read, in real units */
    float *reset; /* GRU on arcs: [rows][h], r * h in real units */
    float *dh0, *dc0; /* [batch][h] */
    double *slope_parts; /* [batch / 16, rounded up] scratch */
    float *
        slope; /* sum of dh * (code - value * 2^q_h) over all states, one number; NULL: not wanted */
    void *scratch; /* lgr_recurrent_cuda_grad_bytes */
} lgr_recurrent_cuda_grad;
int64_t lgr_recurrent_cuda_grad_bytes(const lgr_recurrent *p, int gates);
/* Gates' gradients of all steps; what follows from them are matrix products of the caller's: dW_hh = dg^T h_before,
 * dW_ih = dg^T x, dx = dg W_ih, db = sums of dg. Rows of no step are 0. A NaN passes no gradient. */
lgr_status lgr_lstm_backward_cuda(const lgr_recurrent_cuda_grad *job, void *stream);
lgr_status lgr_gru_backward_cuda(const lgr_recurrent_cuda_grad *job, void *stream);

#ifdef __cplusplus
}
#endif
#endif
