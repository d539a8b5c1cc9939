/* test_recurrent.c - LSTM and GRU: each engine gives the reference's integers and, within rounding, its gradients; nothing is
 * read or written outside what the sizes promise. */
#include "harness.h"
#include "kernels/recurrent/recurrent_sizes.h"
#include "lgr/gru.h"
#include "lgr/lstm.h"

enum { MAX_STEPS = 7, SAVED = 4, N_OUT = 5, N_GRADS = 6 };

struct shape {
    int32_t batch, d, h;
};
static const struct shape shapes[] = {{1, 1, 1}, {3, 5, 7}, {9, 33, 20}, {17, 16, 48}, {130, 4, 3}};

struct net {
    int lstm, gates;
    lgr_recurrent p;
    int64_t off[MAX_STEPS], units;
    int32_t n[MAX_STEPS];
    struct block x, w_ih, w_hh, h0, c0, bias[2];
};

static int8_t *s8(struct block b) { return (int8_t *)b.data; }
static int32_t *s32(struct block b) { return (int32_t *)(void *)b.data; }
static float *f32(struct block b) { return (float *)(void *)b.data; }

static void fill_bias(struct block b, int wide)
{
    for (size_t i = 0; i < b.bytes / 4; ++i)
        s32(b)[i] = wide ? (int32_t)random_bits() : (int32_t)(random_bits() % 16384) - 8192;
}

/* A packed batch (ragged) or a batch-first one. */
static struct net net_new(int lstm, int chip, struct shape s, int ragged, int wide)
{
    struct net k = {.lstm = lstm, .gates = lstm ? 4 : 3};
    int64_t rows = 0;
    k.p = (lgr_recurrent){.chip = chip,
                          .steps = MAX_STEPS,
                          .batch = s.batch,
                          .d = s.d,
                          .h = s.h,
                          .reverse = (int32_t)(random_bits() % 2),
                          .exp2_ih = 11 + (int32_t)(random_bits() % 4),
                          .exp2_hh = 12 + (int32_t)(random_bits() % 4),
                          .q_h = 6 + (int32_t)(random_bits() % 3),
                          .row_stride = ragged ? 1 : MAX_STEPS};
    for (int32_t t = 0; t < MAX_STEPS; ++t) {
        k.n[t] = ragged ? s.batch - t * (s.batch - 1) / MAX_STEPS : s.batch;
        k.off[t] = ragged ? rows : t;
        rows += k.n[t];
    }
    k.p.rows = rows;
    k.units = (s.h + LGR_UNITS - 1) / LGR_UNITS * LGR_UNITS;
    k.x = block_new(rows * s.d, 1);
    k.w_ih = block_new((int64_t)k.gates * s.h * s.d, 0);
    k.w_hh = block_new((int64_t)k.gates * s.h * s.h, 0);
    k.h0 = block_new((int64_t)s.batch * s.h, 1);
    k.c0 = block_new((int64_t)s.batch * s.h * 4, 4);
    fill_bytes(s8(k.x), (int64_t)k.x.bytes);
    fill_bytes(s8(k.w_ih), (int64_t)k.w_ih.bytes);
    fill_bytes(s8(k.w_hh), (int64_t)k.w_hh.bytes);
    fill_bytes(s8(k.h0), (int64_t)k.h0.bytes);
    for (size_t i = 0; i < k.c0.bytes / 4; ++i)
        s32(k.c0)[i] = (int32_t)(random_bits() % 65536) - 32768;
    for (int i = 0; i < 2; ++i) {
        k.bias[i] = block_new((int64_t)k.gates * s.h * 4, 0);
        fill_bias(k.bias[i], wide);
    }
    return k;
}
static void net_end(struct net *k)
{
    struct block all[] = {k->x, k->w_ih, k->w_hh, k->h0, k->c0, k->bias[0], k->bias[1]};
    for (size_t i = 0; i < sizeof all / sizeof *all; ++i) block_end(all[i]);
}

/* y, value, hn, cn and what backward needs of one engine, run in two shares of the batch */
static lgr_recurrent_seen run_forward(struct net *k, enum lgr_recurrent_engine engine,
                                      struct block out[N_OUT])
{
    const int64_t vectors = k->units * k->gates;
    struct block packed[2], v = block_new(4 * vectors * 4, 0);
    int64_t most = 0;
    for (int i = 0; i < 2; ++i) {
        const int32_t columns = i ? k->p.h : k->p.d;
        packed[i] = block_new(lgr_recurrent_packed_bytes(engine, k->gates, k->p.h, columns), 0);
        lgr_recurrent_pack(engine, k->gates, s8(i ? k->w_hh : k->w_ih), k->p.h, columns,
                           packed[i].data, s32(v) + i * vectors);
        const int64_t peak =
            lgr_recurrent_vector(k->gates, s32(k->bias[i]), k->p.h, s32(v) + (2 + i) * vectors);
        most = peak > most ? peak : most;
    }
    const int32_t longest = k->p.h > k->p.d ? k->p.h : k->p.d;
    const lgr_recurrent_weights w = {packed[0].data,
                                     packed[1].data,
                                     s32(v),
                                     s32(v) + vectors,
                                     s32(v) + 2 * vectors,
                                     s32(v) + 3 * vectors,
                                     most + ((int64_t)longest << 14) > INT32_MAX};
    const lgr_lstm_io io = {s8(k->x),    s8(k->h0),  s32(k->c0),  s8(out[0]),
                            f32(out[1]), s8(out[2]), s32(out[3]), out[SAVED].data};
    const lgr_gru_io gru = {s8(k->x),    s8(k->h0),  s8(out[0]),
                            f32(out[1]), s8(out[2]), out[SAVED].data};
    lgr_recurrent_seen seen = {0, 0};
    const int32_t cuts[] = {0, k->p.batch / 2, k->p.batch};
    for (int i = 0; i < 2; ++i) {
        const int32_t r0 = cuts[i], r1 = cuts[i + 1];
        if (r0 == r1) continue;
        struct block scratch = block_new(lgr_recurrent_forward_bytes(&k->p, k->gates, r1 - r0), 1);
        if (k->lstm) lgr_lstm_forward(engine, &k->p, &w, &io, r0, r1, scratch.data, &seen);
        else lgr_gru_forward(engine, &k->p, &w, &gru, r0, r1, scratch.data, &seen);
        block_end(scratch);
    }
    block_end(packed[0]);
    block_end(packed[1]);
    block_end(v);
    return seen;
}

static void outputs_new(const struct net *k, struct block out[N_OUT])
{
    const int64_t rows = k->p.rows, states = (int64_t)k->p.batch * k->p.h;
    const int64_t bytes[N_OUT] = {rows * k->p.h, rows * k->p.h * 4, states, states * 4,
                                  lgr_recurrent_saved_bytes(&k->p, k->gates)};
    for (int i = 0; i < N_OUT; ++i) {
        out[i] = block_new(bytes[i], i ? 4 : 0);
        memset(out[i].data, 0, out[i].bytes);
    }
}
/* Padded units of the saved tensors are each engine's own. */
static void forget_padding(const struct net *k, struct block out[N_OUT])
{
    const lgr_saved_planes n = lgr_saved(k->p.chip, k->gates);
    const int64_t size = lgr_saved_block(k->p.chip, k->gates), blocks = k->units / LGR_UNITS;
    const int64_t real = k->p.h - (blocks - 1) * LGR_UNITS; /* units of the last block */
    for (int64_t row = 0; row < k->p.rows; ++row) {
        int8_t *at = s8(out[SAVED]) + ((row + 1) * blocks - 1) * size;
        for (int plane = 0; plane < n.n32 + n.n16 + n.n8; ++plane) {
            const int bytes = plane < n.n32 ? 4 : plane < n.n32 + n.n16 ? 2 : 1;
            memset(at + real * bytes, 0, (size_t)((LGR_UNITS - real) * bytes));
            at += LGR_UNITS * bytes;
        }
    }
}

/* dx, dh0, dc0, sums of dW_ih, dW_hh, db */
static void run_backward(struct net *k, enum lgr_recurrent_engine engine, struct block out[N_OUT],
                         struct block dy, struct block grads[N_GRADS])
{
    static const int order[] = {0, 1, 2, 3}, hidden[] = {2, 0, 1};
    const int *second = k->lstm ? order : hidden;
    struct block pi = block_new(lgr_recurrent_panel_floats(k->gates, k->p.h, k->p.d) * 4, 0),
                 ph = block_new(lgr_recurrent_panel_floats(k->gates, k->p.h, k->p.h) * 4, 0);
    lgr_recurrent_panels(k->gates, order, s8(k->w_ih), k->p.h, k->p.d, 0x1p-8f, f32(pi));
    lgr_recurrent_panels(k->gates, second, s8(k->w_hh), k->p.h, k->p.h, 0x1p-8f, f32(ph));
    double slope = 0.0;
    const float inv_h = lgr_exp2_scale(-k->p.q_h);
    const lgr_lstm_grad lstm = {s8(k->x),        s8(out[0]),    s8(k->h0),     s32(k->c0),
                                out[SAVED].data, 0x1p-5f,       inv_h,         f32(pi),
                                f32(ph),         f32(dy),       NULL,          NULL,
                                f32(grads[0]),   f32(grads[1]), f32(grads[2]), f32(grads[3]),
                                f32(grads[4]),   f32(grads[5]), &slope};
    const lgr_gru_grad gru = {s8(k->x),      s8(out[0]),    s8(k->h0),     out[SAVED].data,
                              0x1p-5f,       inv_h,         f32(pi),       f32(ph),
                              f32(dy),       NULL,          f32(grads[0]), f32(grads[1]),
                              f32(grads[3]), f32(grads[4]), f32(grads[5]), &slope};
    const int32_t cuts[] = {0, k->p.batch / 3, k->p.batch};
    for (int together = 0; together < 2; ++together) { /* entries of one round of chunks */
        const int32_t first = cuts[together], n = cuts[together + 1] - first;
        if (n == 0) continue;
        struct block scratch = block_new(lgr_recurrent_backward_bytes(&k->p, k->gates, n), 1);
        lgr_recurrent_chunk c = lgr_recurrent_chunks(&k->p, k->gates, first, n, scratch.data);
        const int64_t blocks = 4 * k->units / LGR_UNITS, at[] = {0, blocks / 3, blocks};
        while (lgr_recurrent_chunk_next(&k->p, &c)) {
            const int32_t r[] = {first, first + n / 3, first + n};
            for (int i = 0; i < 2; ++i) {
                if (r[i] == r[i + 1]) continue;
                if (k->lstm) lgr_lstm_backward(engine, &k->p, &lstm, &c, r[i], r[i + 1]);
                else lgr_gru_backward(engine, &k->p, &gru, &c, r[i], r[i + 1]);
            }
            for (int i = 0; i < 2; ++i)
                if (k->lstm) lgr_lstm_sums(engine, &k->p, &lstm, &c, at[i], at[i + 1]);
                else lgr_gru_sums(engine, &k->p, &gru, &c, at[i], at[i + 1]);
        }
        block_end(scratch);
    }
    CHECK(slope == slope);
    block_end(pi);
    block_end(ph);
}
static void gradients_new(const struct net *k, struct block grads[N_GRADS])
{
    const int64_t states = (int64_t)k->p.batch * k->p.h;
    const int64_t floats[N_GRADS] = {k->p.rows * k->p.d,
                                     states,
                                     states,
                                     lgr_recurrent_panel_floats(k->gates, k->p.h, k->p.d),
                                     lgr_recurrent_panel_floats(k->gates, k->p.h, k->p.h),
                                     4 * k->units};
    for (int i = 0; i < N_GRADS; ++i) {
        grads[i] = block_new(floats[i] * 4, 0);
        memset(grads[i].data, 0, grads[i].bytes);
    }
}
static void close_to(struct block got, struct block want)
{
    double error = 0.0, norm = 1e-12;
    for (size_t i = 0; i < want.bytes / 4; ++i) {
        const double a = (double)f32(got)[i], b = (double)f32(want)[i];
        error += (a - b) * (a - b);
        norm += b * b;
    }
    CHECK(error <= 1e-10 * norm); /* float32 sums in another order: 1e-5 */
}

static void engines_equal_reference(void)
{
    for (int i = 0; i < 2 * 3 * 5 * 2 * 2; ++i) {
        const int lstm = i % 2, chip = i / 2 % 3, ragged = i / 30 % 2, wide = i / 60;
        struct net k = net_new(lstm, chip, shapes[i / 6 % 5], ragged, wide);
        struct block want[N_OUT], grads[N_GRADS];
        k.p.off = k.off;
        k.p.n = k.n;
        CHECK(lgr_recurrent_check(&k.p, k.gates) == LGR_OK);
        outputs_new(&k, want);
        gradients_new(&k, grads);
        struct block dy = block_new(k.p.rows * k.p.h * 4, 4);
        for (int64_t j = 0; j < k.p.rows * k.p.h; ++j) f32(dy)[j] = random_unit();
        const lgr_recurrent_seen seen = run_forward(&k, LGR_RECURRENT_REF, want);
        run_backward(&k, LGR_RECURRENT_REF, want, dy, grads);
        for (int e = 0; e < N_ISA; ++e) {
            struct block got[N_OUT], mine[N_GRADS];
            if (!isa_use(isa_masks[e])) continue;
            const enum lgr_recurrent_engine engine = lgr_recurrent_pick();
            outputs_new(&k, got);
            gradients_new(&k, mine);
            const lgr_recurrent_seen now = run_forward(&k, engine, got);
            CHECK(now.peak == seen.peak && now.saturated == seen.saturated);
            run_backward(&k, engine, got, dy, mine);
            forget_padding(&k, got);
            for (int j = 0; j < N_OUT; ++j) {
                if (lstm || j != 3) CHECK(memcmp(got[j].data, want[j].data, want[j].bytes) == 0);
                block_end(got[j]);
            }
            for (int j = 0; j < N_GRADS; ++j) {
                if (lstm || j != 2) close_to(mine[j], grads[j]);
                block_end(mine[j]);
            }
        }
        for (int j = 0; j < N_OUT; ++j) block_end(want[j]);
        for (int j = 0; j < N_GRADS; ++j) block_end(grads[j]);
        block_end(dy);
        net_end(&k);
    }
}

static void walks_outside_are_refused(void)
{
    struct net k = net_new(1, LGR_ARCS, shapes[1], 1, 0);
    k.p.off = k.off;
    k.p.n = k.n;
    CHECK(lgr_recurrent_check(NULL, 4) == LGR_E_NULL);
    CHECK(lgr_recurrent_check(&k.p, 2) == LGR_E_RANGE);
    lgr_recurrent bad[8];
    for (int i = 0; i < 8; ++i) bad[i] = k.p;
    bad[0].rows -= 1;
    bad[1].row_stride = 0;
    bad[2].batch = 2;
    bad[3].exp2_ih = -4;
    bad[4].q_h = 24;
    bad[5].h = 1 << 16;
    bad[6].steps = 0;
    bad[7].chip = 3;
    for (int i = 0; i < 8; ++i) CHECK(lgr_recurrent_check(&bad[i], 4) == LGR_E_RANGE);
    k.n[3] = 0;
    CHECK(lgr_recurrent_check(&k.p, 4) == LGR_E_RANGE);
    net_end(&k);
}

int main(void)
{
    engines_equal_reference();
    walks_outside_are_refused();
    puts("test_recurrent: ok");
    return 0;
}
