/* recurrent.h - what LSTM and GRU kernels share: the walk over time steps, packed weights, sizes of scratch memory.
 *
 * Batch entries are independent: every kernel works on entries [r0, r1), so that threads share nothing and never wait.
 * Units come in blocks of 16, the last one padded with zeros. Source: docs/numerics.md, "Recurrent layers".
 */
#ifndef LGR_RECURRENT_H
#define LGR_RECURRENT_H
#include "lgr/chip_functions.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { LGR_UNITS = 16 /* of one block */ };

/* One direction of one layer over a batch. Entry r of step t is row off[t] + r * row_stride of x and y. */
typedef struct lgr_recurrent {
    int32_t chip; /* enum lgr_chip */
    int32_t steps, batch, d, h; /* d inputs, h units */
    int32_t reverse; /* non-zero: from the last step to the first */
    int32_t exp2_ih, exp2_hh, q_h; /* exponents of W_ih x, of W_hh h, and of h */
    int64_t rows, row_stride; /* rows of x; stride 1: time-major or packed, steps: batch-first */
    const int64_t *off; /* [steps] */
    const int32_t *n; /* [steps] entries that have a step t, entries [0, n[t]): 1..batch, falling */
} lgr_recurrent;

/* Weights of one call, packed by lgr_recurrent_pack for the engine that runs. Vectors hold [unit block][gate][16]. */
typedef struct lgr_recurrent_weights {
    const void *w_ih, *w_hh;
    const int32_t *sum_ih, *sum_hh; /* -128 * sum of the row: the AVX-512 engine adds 128 to x */
    const int32_t *b_ih, *b_hh;
    int32_t wide; /* |bias| + k * 2^14 may leave int32 */
} lgr_recurrent_weights;

/* What the hidden states of one call, or of one thread's share, were. */
typedef struct lgr_recurrent_seen {
    int32_t peak; /* float bits of max|h| before rounding, in real units */
    int64_t saturated; /* LSTM: cells whose c * f left int32 */
} lgr_recurrent_seen;

enum lgr_recurrent_engine { LGR_RECURRENT_REF, LGR_RECURRENT_AVX2, LGR_RECURRENT_AVX512VNNI };
/* The fastest engine that this processor has and the mask allows. */
enum lgr_recurrent_engine lgr_recurrent_pick(void);

/**
 * Whether every row that a kernel will touch exists, and every shift is one that the chip has.
 *
 * @param[in] gates  4: LSTM, 3: GRU.
 * @return LGR_OK; LGR_E_RANGE; LGR_E_NULL. Kernels rely on it: a stale `off` or `n` would corrupt memory.
 */
lgr_status lgr_recurrent_check(const lgr_recurrent *p, int gates);

/* Bytes of one packed matrix of `gates` * h rows of k codes. */
int64_t lgr_recurrent_packed_bytes(enum lgr_recurrent_engine engine, int gates, int32_t h,
                                   int32_t k);
/* w [gates * h][k] -> packed; sum [unit block][gate][16], 0 where the engine needs none. */
void lgr_recurrent_pack(enum lgr_recurrent_engine engine, int gates, const int8_t *w, int32_t h,
                        int32_t k, void *packed, int32_t *sum);
/* Row g * h + u of v -> [unit block][gate][16], padding 0. Returns max|v|. */
int64_t lgr_recurrent_vector(int gates, const int32_t *v, int32_t h, int32_t *out);
/* Scratch bytes of a forward call over `rows` entries. */
int64_t lgr_recurrent_forward_bytes(const lgr_recurrent *p, int gates, int32_t rows);

/* Backward goes through chunks of steps, the last step first. In each, threads take entries (lgr_lstm_backward), and when all are
 * done unit blocks of the weight gradients (lgr_lstm_sums): one accumulator serves all, its order is that of the rows. */
typedef struct lgr_recurrent_chunk {
    int32_t first, entries; /* entries [first, first + entries) */
    int32_t from, to; /* of the steps, counted from the one that ran last */
    int64_t rows, cap; /* rows now, and at most */
    float *dg; /* [gate][unit block][cap][16] gate gradients */
    float *cols_h, *cols_r, *cols_x; /* [column / 32][cap][32] codes of h, r * h (GRU) and x */
    float *dh, *dc; /* [entry][h padded to 32] gradients of the states; GRU: of h and r * h */
    int64_t *row_of; /* [cap] row of x */
} lgr_recurrent_chunk;
int64_t lgr_recurrent_backward_bytes(const lgr_recurrent *p, int gates, int32_t entries);
/* Before the first chunk of entries [first, first + entries). */
lgr_recurrent_chunk lgr_recurrent_chunks(const lgr_recurrent *p, int gates, int32_t first,
                                         int32_t entries, void *scratch);
/* Moves to the next chunk; 0: there is none. */
int lgr_recurrent_chunk_next(const lgr_recurrent *p, lgr_recurrent_chunk *c);

/* Bytes that forward saves for backward, at a multiple of 4: rows of unit blocks, planes of 16 units inside. */
int64_t lgr_recurrent_saved_bytes(const lgr_recurrent *p, int gates);

/* Floats of the panels of a matrix with k columns in backward, and of a gradient of it, gates * h rows. */
int64_t lgr_recurrent_panel_floats(int gates, int32_t h, int32_t k);
/* codes [gates * h][k] * inv -> [k / 32][gate in this order][unit block][16][32] float, padding 0. */
void lgr_recurrent_panels(int gates, const int *order, const int8_t *w, int32_t h, int32_t k,
                          float inv, float *panels);
/* Gradient [gate in this order][unit block][16][k padded to 32] * inv -> [gates * h][k]. */
void lgr_recurrent_store(int gates, const int *order, const float *grad, int32_t h, int32_t k,
                         float inv, float *out);

#ifdef __cplusplus
}
#endif
#endif
