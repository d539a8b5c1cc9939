/* conv_cuda.cu - implicit matrix product of int8 codes on the tensor cores, output quantizer fused.
 *
 * A block computes 64 pixels x 64 outputs of one group, its four warps 32 x 32 each. K runs over (tap, channel) in steps of 64
 * codes: while the tensor cores work on one step in shared memory, the next one is on its way in registers. Sums of products fit
 * int32, longer ones go one by one; everything behind them is the reference's own text (epilogue_one.h) in 64 bits.
 */
#include "kernels/cuda/quantized.h"
#include "lgr/conv_cuda.h"

namespace {
enum {
    TILE = 64,
    STEP = 64,
    ROW = STEP + 16 /* bytes: no two lanes of a fragment share a bank */,
    THREADS = 128,
    WIDE = 256
};

struct call { /* what every kernel gets, by value */
    lgr_conv_cuda_job j;
    int32_t oh, ow, pixels, cg, og, taps, k;
};

/* V codes that lie side by side: 16, 4 or 1. */
template <int V> struct piece;
template <> struct piece<16> {
    using type = uint4;
};
template <> struct piece<4> {
    using type = uint32_t;
};
template <> struct piece<1> {
    using type = int8_t;
};

struct tiles {
    alignas(16) int8_t a[2][TILE * ROW], b[2][TILE * ROW];
};
struct shared {
    union {
        tiles in;
        int32_t sums[TILE][TILE + 4];
    };
};

/* Each thread carries COUNT pieces of both operands of a step: 64 rows x 64 codes. */
template <int V> struct loader {
    using type = typename piece<V>::type;
    static constexpr int PER_ROW = STEP / V, COUNT = TILE * PER_ROW / THREADS;
    type a[COUNT], b[COUNT];

    __device__ void load(const call &c, int64_t m0, int32_t group, int32_t n0, int32_t k0)
    {
        const lgr_conv_params &p = c.j.p;
        for (int i = 0; i < COUNT; ++i) {
            const int at = threadIdx.x + i * THREADS, r = at / PER_ROW;
            const int32_t k = k0 + at % PER_ROW * V, tap = k / c.cg, ch = k - tap * c.cg;
            const int32_t m = (int32_t)m0 + r, o = n0 + r;
            a[i] = b[i] = type();
            if (k >= c.k) continue;
            if (o < c.og) b[i] = *(const type *)(c.j.w + ((int64_t)(group * c.og + o) * c.k + k));
            if (m >= c.pixels) continue;
            const int32_t n = m / (c.oh * c.ow), rest = m - n * (c.oh * c.ow), oy = rest / c.ow,
                          ox = rest - oy * c.ow, ky = tap / (int32_t)p.kw,
                          kx = tap - ky * (int32_t)p.kw;
            const int64_t y = oy * p.stride_h + ky * p.dil_h - p.pad_t,
                          x = ox * p.stride_w + kx * p.dil_w - p.pad_l;
            if (y >= 0 && y < p.h && x >= 0 && x < p.w)
                a[i] = *(const type *)(c.j.x + (n * p.xs_n + y * p.xs_h + x * p.xs_w +
                                                (int64_t)(group * c.cg + ch) * p.xs_c));
        }
    }
    __device__ void store(int8_t *to_a, int8_t *to_b) const
    {
        for (int i = 0; i < COUNT; ++i) {
            const int at = threadIdx.x + i * THREADS, to = at / PER_ROW * ROW + at % PER_ROW * V;
            *(type *)(to_a + to) = a[i];
            *(type *)(to_b + to) = b[i];
        }
    }
};

template <int V> __global__ void __launch_bounds__(THREADS) product(call c, int again)
{
    if (again && lgr::plan_of(c.j.q)->done) return;
    LGR_SHARED(shared, s);
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, row = lane >> 2,
              word = (lane & 3) * 4;
    const int wm = (warp & 1) * 32, wn = (warp >> 1) * 32;
    const int64_t m0 = (int64_t)blockIdx.x * TILE;
    const int32_t n0 = blockIdx.y * TILE, group = blockIdx.z;
    int32_t sum[2][4][4] = {};
    loader<V> next;
    next.load(c, m0, group, n0, 0);
    next.store(s.in.a[0], s.in.b[0]);
    __syncthreads();
    for (int32_t k0 = 0, turn = 0; k0 < c.k; k0 += STEP, turn ^= 1) {
        const bool more = k0 + STEP < c.k;
        if (more) next.load(c, m0, group, n0, k0 + STEP);
        for (int k = 0; k < STEP; k += 32) {
            const int8_t *pa = s.in.a[turn] + k + word, *pb = s.in.b[turn] + k + word;
            uint32_t a[2][4], b[4][2];
            for (int i = 0; i < 2; ++i)
                for (int r = 0; r < 4; ++r)
                    a[i][r] = *(const uint32_t *)(pa + (wm + 16 * i + row + 8 * (r & 1)) * ROW +
                                                  16 * (r >> 1));
            for (int i = 0; i < 4; ++i)
                for (int r = 0; r < 2; ++r)
                    b[i][r] = *(const uint32_t *)(pb + (wn + 8 * i + row) * ROW + 16 * r);
            for (int i = 0; i < 2; ++i)
                for (int n = 0; n < 4; ++n) lgr::mma_s8(sum[i][n], a[i], b[n]);
        }
        if (more) next.store(s.in.a[turn ^ 1], s.in.b[turn ^ 1]);
        __syncthreads();
    }
    for (int i = 0; i < 2; ++i)
        for (int n = 0; n < 4; ++n)
            for (int r = 0; r < 4; ++r)
                s.sums[wm + 16 * i + row + 8 * (r >> 1)][wn + 8 * n + (lane & 3) * 2 + (r & 1)] =
                    sum[i][n][r];
    __syncthreads();

    const bool write = c.j.sums == NULL && lgr::writes(lgr::plan_of(c.j.q), again);
    const int32_t from = group * c.og + n0, end = (group + 1) * c.og;
    int64_t seen[2] = {0, 0};
    for (int r = warp; r < TILE && m0 + r < c.pixels; r += THREADS / 32)
        for (int h = 0; h < TILE && n0 + h < c.og; h += 32) {
            const int32_t v = s.sums[r][h + lane];
            if (c.j.sums == NULL) lgr::output_row(c.j.q, write, m0 + r, from + h, end, v, seen);
            else if (from + h + lane < end) c.j.sums[(m0 + r) * c.j.p.o + from + h + lane] = v;
        }
    if (c.j.sums == NULL) lgr::merge(lgr::plan_of(c.j.q), again, seen);
}

/* The sum of one output, in 64 bits. */
__device__ int64_t direct(const call &c, int64_t pixel, int64_t o)
{
    const lgr_conv_params &p = c.j.p;
    const int64_t n = pixel / (c.oh * c.ow), rest = pixel - n * (c.oh * c.ow), oy = rest / c.ow,
                  ox = rest % c.ow;
    const int8_t *x = c.j.x + n * p.xs_n + o / c.og * c.cg * p.xs_c, *w = c.j.w + o * c.k;
    int64_t sum = 0;
    for (int32_t t = 0; t < c.taps; ++t, w += c.cg) {
        const int64_t y = oy * p.stride_h + t / p.kw * p.dil_h - p.pad_t,
                      z = ox * p.stride_w + t % p.kw * p.dil_w - p.pad_l;
        if (y < 0 || y >= p.h || z < 0 || z >= p.w) continue;
        for (int32_t i = 0; i < c.cg; ++i) sum += x[y * p.xs_h + z * p.xs_w + i * p.xs_c] * w[i];
    }
    return sum;
}
/* One warp: 32 channels of one pixel, from sums in memory, or one by one: depthwise, and sums that need 64 bits. */
template <bool DIRECT> __global__ void __launch_bounds__(WIDE) rows(call c, int again)
{
    if (again && lgr::plan_of(c.j.q)->done) return;
    const bool write = lgr::writes(lgr::plan_of(c.j.q), again);
    const int64_t channels = c.j.p.o, across = (channels + 31) / 32, all = c.pixels * across,
                  step = (int64_t)gridDim.x * (WIDE / 32);
    int64_t seen[2] = {0, 0};
    for (int64_t i = (int64_t)blockIdx.x * (WIDE / 32) + (threadIdx.x >> 5); i < all; i += step) {
        const int64_t m = i / across, first = i % across * 32, o = first + (threadIdx.x & 31);
        const int64_t v = o >= channels ? 0 : DIRECT ? direct(c, m, o) : c.j.sums[m * channels + o];
        lgr::output_row(c.j.q, write, m, first, channels, v, seen);
    }
    lgr::merge(lgr::plan_of(c.j.q), again, seen);
}

bool aligned(const void *p, int64_t v) { return (uintptr_t)p % (uintptr_t)v == 0; }
int width_of(const lgr_conv_cuda_job *j)
{
    const lgr_conv_params *p = &j->p;
    for (int v = 16; v > 1; v /= 4)
        if (p->xs_c == 1 && p->c / p->groups % v == 0 && p->xs_w % v == 0 && p->xs_h % v == 0 &&
            p->xs_n % v == 0 && aligned(j->x, v) && aligned(j->w, v))
            return v;
    return 1;
}
call call_of(const lgr_conv_cuda_job &j)
{
    const lgr_conv_params &p = j.p;
    const int64_t oh = lgr_conv_out_h(&p), ow = lgr_conv_out_w(&p), cg = p.c / p.groups;
    return {j,
            (int32_t)oh,
            (int32_t)ow,
            (int32_t)(p.n * oh * ow),
            (int32_t)cg,
            (int32_t)(p.o / p.groups),
            (int32_t)(p.kh * p.kw),
            (int32_t)(cg * p.kh * p.kw)};
}
lgr_status products(const call &c, int again, void *stream)
{
    const dim3 grid((unsigned)((c.pixels + TILE - 1) / TILE), (unsigned)((c.og + TILE - 1) / TILE),
                    (unsigned)c.j.p.groups);
    switch (width_of(&c.j)) {
    case 16: return lgr::launch(product<16>, grid, THREADS, stream, c, again);
    case 4: return lgr::launch(product<4>, grid, THREADS, stream, c, again);
    default: return lgr::launch(product<1>, grid, THREADS, stream, c, again);
    }
}
/* What the tiles do not do, or do badly. */
bool one_by_one(const lgr_conv_params *p)
{
    const int64_t k = p->c / p->groups * p->kh * p->kw;
    return (p->groups > 1 && p->c == p->groups) || k >= 1 << 17 || p->groups > 65535 ||
           p->o / p->groups > 65535 * TILE;
}
} // namespace

extern "C" int lgr_conv_cuda_has(const lgr_conv_params *p)
{
    const int64_t k = p->c / p->groups * p->kh * p->kw,
                  pixels = p->n * lgr_conv_out_h(p) * lgr_conv_out_w(p);
    return k <= INT32_MAX && pixels <= INT32_MAX - TILE && p->o <= INT32_MAX;
}
extern "C" int lgr_conv_cuda_apart(const lgr_conv_params *p)
{
    return p->groups > 1 && !one_by_one(p) && p->o / p->groups % 16 != 0;
}

extern "C" lgr_status lgr_conv_cuda(const lgr_conv_cuda_job *job, void *stream)
{
    if (job == NULL) return LGR_E_NULL;
    const lgr_conv_params *p = &job->p;
    lgr_status bad = lgr_conv_check(p);
    if (bad == LGR_OK) bad = lgr_output_cuda_check(&job->q);
    if (bad != LGR_OK) return bad;
    if (!lgr_conv_cuda_has(p) || job->q.o != p->o) return LGR_E_RANGE;
    call c = call_of(*job);
    c.j.q.observe = job->q.observe && c.pixels > 0 && p->o > 0;
    const bool empty = c.pixels == 0 || p->o == 0, channels = one_by_one(p),
               apart = job->sums != NULL;
    if (!empty && (job->x == NULL || job->w == NULL || (lgr_conv_cuda_apart(p) && !apart)))
        return LGR_E_NULL;
    const unsigned warps = lgr::blocks_for(c.pixels * ((p->o + 31) / 32), WIDE / 32, 65536);
    return lgr::quantized(c.j.q, stream, [&](int again) {
        lgr_status s = LGR_OK;
        if (empty) return s;
        if (channels) return lgr::launch(rows<true>, warps, WIDE, stream, c, again);
        if (!(again && apart)) /* the sums in memory are the same */
            s = products(c, again, stream);
        return s == LGR_OK && apart ? lgr::launch(rows<false>, warps, WIDE, stream, c, again) : s;
    });
}

extern "C" lgr_status lgr_product_cuda(const int8_t *x, const int8_t *w, int64_t rows, int64_t k,
                                       int64_t o, int32_t *sums, void *stream)
{
    if (rows < 0 || k < 1 || o < 1) return LGR_E_RANGE;
    if (rows == 0) return LGR_OK;
    if (x == NULL || w == NULL || sums == NULL) return LGR_E_NULL;
    lgr_conv_cuda_job j = {};
    j.p = {rows, k, 1, 1, o, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, k, 1, k, k};
    if (!lgr_conv_cuda_has(&j.p) || one_by_one(&j.p)) return LGR_E_RANGE;
    j.x = x;
    j.w = w;
    j.sums = sums;
    return products(call_of(j), 0, stream);
}
