/* finish.h - the slices' sums become the gradients: scaled, masked, in the weight's memory order. In the lanes of the including
 * twin. */

/* Sums of all slices, in their order; the result is in the first. */
static void add_slices(const lgr_conv_grad *g, float *sum, int64_t n)
{
    for (int64_t s = 1; s < g->slices; ++s) {
        const float *more = sum + s * g->sums;
        for (int64_t i = 0; i < n; i += FL)
            f_store_n(sum + i, f_load_n(sum + i, n - i) + f_load_n(more + i, n - i), n - i);
    }
}

/* `n` channels of one tap of one output. */
static void put_channels(const lgr_conv_grad *g, const float *sum, int64_t n, int64_t at,
                         float step)
{
    const uint8_t *mask = g->w_mask;
    int64_t c = 0;
    if (g->ws_c == 1 && (mask == NULL || at % 8 == 0))
        for (; c + FL <= n; c += FL) {
            vf v = f_load(sum + c) * f_set(step);
            if (mask) v = f_pass(v, mask + at / 8, c);
            f_store(g->gw + at + c, v);
        }
    for (; c < n; ++c) {
        const int64_t to = at + c * g->ws_c;
        g->gw[to] = !mask || (mask[to >> 3] >> (to & 7) & 1) ? sum[c] * step : 0.0f;
    }
}

static void finish(const lgr_conv_grad *g, int64_t o0, int64_t o1)
{
    const lgr_conv_params *p = &g->p;
    const int64_t padded = (p->o + 15) / 16 * 16, taps = p->kh * p->kw / g->runs;
    const float step = g->x_exp2 == LGR_EXP2_NAN ? 0.0f : lgr_exp2_scale(-g->x_exp2);
    float *sums = g->shared + g->packed, *gb = sums + g->sums - padded;
    add_slices(g, gb + o0, o1 - o0);
    if (g->gb) memcpy(g->gb + o0, gb + o0, (size_t)(o1 - o0) * 4);
    if (g->gw == NULL) return;
    for (int64_t r = 0; r < g->runs; ++r) {
        if (g->depthwise) add_slices(g, sums + r * padded + o0, o1 - o0);
        for (int64_t o = o0; o < o1; ++o) {
            float *sum = sums + (g->depthwise ? r * padded + o : (r * p->o + o) * g->run_pad);
            if (!g->depthwise) add_slices(g, sum, g->run);
            /* a run is tap columns (patches: taps) x channels */
            for (int64_t i = 0; i < taps; ++i) {
                const int64_t t = r * taps + i,
                              at = o * g->ws_o + t / p->kw * g->ws_h + t % p->kw * g->ws_w;
                put_channels(g, sum + i * g->cg, g->cg, at, step);
            }
        }
    }
}
