/* recurrent_sizes.h - block sizes that the kernels and the sizes of their scratch memory share. */
#ifndef LGR_RECURRENT_SIZES_H
#define LGR_RECURRENT_SIZES_H
#include "lgr/recurrent.h"

enum {
    LGR_PANEL = 32,            /* columns of one panel of a float matrix */
    LGR_TILE_ROWS = 8,         /* batch entries of one tile of sums */
    LGR_PROJECTED = 96,        /* most rows projected together in forward, */
    LGR_PROJECTED_SUMS = 1 << 16, /* and most sums: they stay in the L2 cache */
    LGR_CHUNK_ROWS = 128,      /* rows of gate gradients that the L2 cache holds */
};

/* What backward needs of 16 units of one row: planes of 16 int32, then of int16, then of bytes.
 *
 * A number "in 24 bits" of Q27 is an int16 (the upper half) and a byte: its upper 6 bits follow, the lower 2 are those of the chip's
 * value, so that backward finds that value exactly and the pre-activation to 2^-18. (Where no such value is rounded: 8 bits.)
 *
 * LSTM   arcs, venusA: i f g o and the input of tanh in 24 bits. venus: i f g o in 16; the input of tanh in 24 bits, exact.
 * GRU    arcs: z n in 32 bits, r in 24, the code of r * h. venusA: z n b in 32 bits, r in 24. venus: r z n b in 16.
 */
typedef struct lgr_saved_planes {
    int n32, n16, n8;
} lgr_saved_planes;
LGR_INLINE lgr_saved_planes lgr_saved(int chip, int gates)
{
    const int venus = chip == LGR_VENUS, arcs = chip == LGR_ARCS, lstm = gates == 4;
    lgr_saved_planes n;
    n.n32 = lstm || venus ? 0 : arcs ? 2 : 3;
    n.n16 = lstm ? 5 : venus ? 4 : 1;
    n.n8 = lstm ? (venus ? 1 : 5) : arcs ? 2 : venus ? 0 : 1;
    return n;
}
LGR_INLINE int64_t lgr_saved_block(int chip, int gates) /* bytes */
{
    const lgr_saved_planes n = lgr_saved(chip, gates);
    return LGR_UNITS * (4 * n.n32 + 2 * n.n16 + n.n8);
}

LGR_INLINE int64_t lgr_padded(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
/* Rows projected together: whole steps of `rows` entries, at least one step. */
static inline int64_t lgr_forward_rows(int64_t sums, int64_t rows)
{
    const int64_t fit = LGR_PROJECTED_SUMS / sums,
                  most = fit < LGR_PROJECTED ? fit : (int64_t)LGR_PROJECTED;
    return most > rows ? most / rows * rows : rows;
}
/* Odd: the blocks of gate gradients do not fall on the same cache sets. */
static inline int64_t lgr_chunk_rows(int64_t entries)
{
    const int64_t most = LGR_CHUNK_ROWS;
    return (2 * entries > most ? 2 * entries : most) | 1;
}
#endif
