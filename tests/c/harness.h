/* harness.h - buffers with guard bytes, edge-case data, and one run for each instruction set against the reference. */
#ifndef LGR_TEST_HARNESS_H
#define LGR_TEST_HARNESS_H
#include "lgr/cpu.h"
#include "lgr/qmath.h"
#include <stdio.h>
#include <stdlib.h>

#define CHECK(what)                                                                                \
    do {                                                                                           \
        if (!(what)) {                                                                             \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, __func__, #what);               \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

/* Around vector widths and past one unrolled step. */
static const int64_t sizes[] = {0, 1, 7, 8, 9, 15, 16, 31, 32, 33, 63, 65, 1000};
enum { N_SIZES = sizeof sizes / sizeof *sizes };

static uint64_t random_state = 88172645463325252u;
static inline uint32_t random_bits(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)(random_state >> 16);
}
static inline float random_unit(void) { return (float)(random_bits() >> 8) / 8388608.0f - 1.0f; }

/* A block whose end is the end of the allocation (ASan sees one byte too far) behind 32 guard bytes. It starts `shift`
 * bytes behind a multiple of 32. */
enum { GUARD = 32 };
struct block {
    unsigned char *all, *data;
    size_t bytes;
};
static inline struct block block_new(int64_t bytes, int shift)
{
    struct block b;
    b.bytes = (size_t)bytes;
    void *all = NULL;
    CHECK(posix_memalign(&all, GUARD, GUARD + (size_t)shift + b.bytes) == 0);
    b.all = all;
    b.data = b.all + GUARD + shift;
    memset(b.all, 0xa5, GUARD + (size_t)shift + b.bytes);
    return b;
}
/* Guards are intact; then frees. */
static inline void block_end(struct block b)
{
    for (const unsigned char *p = b.all; p < b.data; ++p) CHECK(*p == 0xa5);
    free(b.all);
}

/* Limits, ties, zeros, infinities and (when asked) NaN of both signs, then random values up to +-span. */
static inline void fill_floats(float *x, int64_t n, float span, int with_nan)
{
    static const float edges[] = {0.0f,   -0.0f,        0.5f,   -0.5f,   1.5f,      -1.5f,
                                  2.5f,   0.49999997f,  127.0f, 127.5f,  -128.5f,   -128.0f,
                                  1e-30f, -0.49999997f, 1e30f,  -1e30f,  INFINITY,  -INFINITY,
                                  8.0f,   -8.0f,        1e-45f, -126.5f, 1.401e37f, 3.0f};
    enum { N_EDGES = sizeof edges / sizeof *edges };
    for (int64_t i = 0; i < n; ++i)
        x[i] = random_bits() % 3 == 0 ? edges[random_bits() % N_EDGES] : span * random_unit();
    if (with_nan && n > 0) {
        x[random_bits() % (uint64_t)n] = lgr_float_from_bits(0x7fc00000);
        x[random_bits() % (uint64_t)n] = lgr_float_from_bits((int32_t)0xffc00001u);
    }
}
static inline void fill_bytes(int8_t *x, int64_t n)
{
    static const int8_t edges[] = {-128, -127, -1, 0, 1, 127};
    for (int64_t i = 0; i < n; ++i)
        x[i] = random_bits() % 4 == 0 ? edges[random_bits() % 6] : (int8_t)(random_bits() & 0xff);
}

/* The instruction sets to compare with the reference (mask 0): AVX2, each newer one on top of it, and ARM's. */
static const unsigned isa_masks[] = {LGR_CPU_AVX2, LGR_CPU_AVX2 | LGR_CPU_AVXVNNI,
                                     LGR_CPU_AVX2 | LGR_CPU_AVX512VNNI, LGR_CPU_DOTPROD};
enum { N_ISA = sizeof isa_masks / sizeof *isa_masks };
static inline int isa_use(unsigned mask)
{
    lgr_cpu_set_mask(mask);
    return lgr_cpu_flags() == mask;
}
#endif
