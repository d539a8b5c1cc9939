/* recurrent_sizes.h - block sizes that the kernels and the sizes of their scratch memory share. */
#ifndef LGR_RECURRENT_SIZES_H
#define LGR_RECURRENT_SIZES_H
#include <stdint.h>

enum {
    LGR_PANEL = 32,            /* columns of one panel of a float matrix */
    LGR_TILE_ROWS = 8,         /* batch entries of one tile of sums */
    LGR_PROJECTED = 96,        /* most rows projected together in forward, */
    LGR_PROJECTED_SUMS = 1 << 16, /* and most sums: they stay in the L2 cache */
    LGR_CHUNK_ROWS = 128,      /* rows of one chunk of gate gradients */
};

static inline int64_t lgr_padded(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
/* Rows projected together: whole steps of `rows` entries, at least one step. */
static inline int64_t lgr_forward_rows(int64_t sums, int64_t rows)
{
    const int64_t fit = LGR_PROJECTED_SUMS / sums, most = fit < LGR_PROJECTED ? fit : LGR_PROJECTED;
    return most > rows ? most / rows * rows : rows;
}
/* Odd: the blocks of gate gradients do not fall on the same cache sets. */
static inline int64_t lgr_chunk_rows(int64_t rows)
{
    return (rows > LGR_CHUNK_ROWS ? rows : LGR_CHUNK_ROWS) | 1;
}
#endif
