/* squared_error_avx2.c - eight vectors at a time; the tree above them is a binary counter. */
#include "kernels/quantize/quantize_avx2.h"
#include "kernels/squared_error/squared_error_isa.h"

typedef struct sums { /* of lanes 0..3 and 4..7 */
    __m256d low, high;
} sums;

LGR_ALWAYS sums add(sums a, sums b)
{
    a.low = _mm256_add_pd(a.low, b.low);
    a.high = _mm256_add_pd(a.high, b.high);
    return a;
}

LGR_ALWAYS sums square8(__m256 v, const struct lgr_quantize_consts *c, int rounding)
{
    const __m256 r = round8(_mm256_mul_ps(v, _mm256_set1_ps(c->mul)), rounding);
    const __m256 q = _mm256_min_ps(_mm256_max_ps(r, _mm256_set1_ps(c->lo)), _mm256_set1_ps(c->hi));
    const __m256 d = _mm256_sub_ps(v, _mm256_mul_ps(q, _mm256_set1_ps(c->inv))); /* NaN stays */
    sums s = {_mm256_cvtps_pd(_mm256_castps256_ps128(d)),
              _mm256_cvtps_pd(_mm256_extractf128_ps(d, 1))};
    s.low = _mm256_mul_pd(s.low, s.low);
    s.high = _mm256_mul_pd(s.high, s.high);
    return s;
}

LGR_ALWAYS sums square64(const float *x, const struct lgr_quantize_consts *c, int rounding)
{
    sums s[8];
    for (int j = 0; j < 8; ++j) s[j] = square8(_mm256_loadu_ps(x + 8 * j), c, rounding);
    return add(add(add(s[0], s[1]), add(s[2], s[3])), add(add(s[4], s[5]), add(s[6], s[7])));
}

LGR_ALWAYS double run(const float *x, int64_t n, const struct lgr_quantize_consts *c, int rounding)
{
    enum { LEVELS = 9 }; /* 2^8 groups of 64 in a block */
    sums tree[LEVELS];
    unsigned done = 0; /* groups; bit k: tree[k] holds the sum of 2^k of them */
    for (int64_t i = 0; i < n; i += 64, ++done) {
        float rest[64] = {0};
        const int whole = n - i >= 64;
        if (!whole) memcpy(rest, x + i, (size_t)(n - i) * sizeof *rest);
        sums s = square64(whole ? x + i : rest, c, rounding);
        int k = 0;
        for (; done >> k & 1; ++k) s = add(tree[k], s);
        tree[k] = s;
    }
    sums all = {_mm256_setzero_pd(), _mm256_setzero_pd()};
    for (int k = 0; k < LEVELS; ++k)
        if (done >> k & 1) all = add(tree[k], all);
    double v[4];
    _mm256_storeu_pd(v, _mm256_add_pd(all.low, all.high)); /* 0 + 4, 1 + 5, 2 + 6, 3 + 7 */
    return (v[0] + v[2]) + (v[1] + v[3]);
}

double lgr_squared_error_f32_avx2(const float *x, int64_t n, const struct lgr_quantize_consts *c)
{
    switch (c->rounding) {
    case LGR_FLOOR: return run(x, n, c, LGR_FLOOR);
    case LGR_HALF_EVEN: return run(x, n, c, LGR_HALF_EVEN);
    case LGR_CEIL: return run(x, n, c, LGR_CEIL);
    default: return run(x, n, c, LGR_FLOOR_ADD);
    }
}
