"""The chips' recurrent steps in int64, and their gradients in float64, written from the documented formulas step by step."""

import math

import torch

from linger.chip import LIMITS
from linger.ops.recurrent import Formulas, Walk

D64 = torch.float64
TABLES = {("arcs", 0): 0, ("arcs", 1): 1, ("venusA", 0): 2, ("venusA", 1): 3, ("venus", 0): 4, ("venus", 1): 5}


def rhu(v, s):
    return v if s <= 0 else ((v >> (s - 1)) & 1) + (v >> (s - 1) >> 1)


def sat(v, bits):
    return v.clamp(-(1 << (bits - 1)), (1 << (bits - 1)) - 1)


def chip(platform, is_tanh, x):
    """Full-width chip function: Q31 of Q27, or Q15 of Q11 on venus."""
    table = TABLES[platform, is_tanh]
    return torch.ops.linger.chip_function(x.to(torch.int32), table, 16 if platform == "venus" else 32).long()


def to(g, q, base):
    return sat(g << (base - q), 32) if q < base else sat(rhu(g, q - base), 32)


class Gate(torch.autograd.Function):
    """The chip's value of a code; the true derivative at the dequantized pre-activation."""

    @staticmethod
    def forward(ctx, real, value, is_tanh):
        t = torch.tanh(real) if is_tanh else torch.sigmoid(real)
        ctx.save_for_backward(1 - t * t if is_tanh else t * (1 - t))
        return value.clone()

    @staticmethod
    def backward(ctx, g):
        return g * ctx.saved_tensors[0], None, None


class Carry(torch.autograd.Function):
    """A number with the gradient of another: identity through rounding and saturation."""

    @staticmethod
    def forward(ctx, real, number):
        return number.clone()

    @staticmethod
    def backward(ctx, g):
        return g, None


def carry(real, codes, q):
    return Carry.apply(real, codes.to(D64) / 2.0**q)


def gate(platform, is_tanh, real, codes, q):
    """Chip function of codes in Q27 or Q11, brought to Q.q with rounding (and 8 bits where q is 7)."""
    full = chip(platform, is_tanh, codes)
    out = rhu(full, (15 if platform == "venus" else 31) - q)
    out = sat(out, 8) if q == 7 else out
    at = Carry.apply(real, codes.to(D64) / 2.0 ** (11 if platform == "venus" else 27))
    return Gate.apply(at, out.to(D64) / 2.0**q, is_tanh), out


class Layer:
    """Codes and exponents of one direction of one layer: x (T, B, D), exponents of x, w_ih, w_hh, h."""

    def __init__(self, platform, x, w_ih, w_hh, b_ih, b_hh, exp2, reverse=False, lengths=None):
        self.platform, self.reverse = platform, reverse
        self.x, self.w_ih, self.w_hh, self.b_ih, self.b_hh = (t.long() for t in (x, w_ih, w_hh, b_ih, b_hh))
        self.qx, self.qi, self.qw, self.qh = exp2
        self.threshold = None  # float64 leaf: log2 of the state's threshold
        self.base = 11 if platform == "venus" else 27
        self.lengths = torch.full((x.shape[1],), len(x)) if lengths is None else lengths

    def state(self, real, codes, before):
        """A state: its code, with the gradients of `real` and, from the value before rounding, of the threshold."""
        if self.threshold is not None:
            off = codes.to(D64) - before.detach() * 2.0**self.qh
            cut = (codes.to(D64) - real.detach() * 2.0**self.qh).abs() > 0.5001  # behind all roundings but the last
            off = torch.where(cut, codes.to(D64), off)  # saturated: the limit follows the threshold
            real = real + (self.threshold - self.threshold.detach()) * math.log(2.0) * off / 2.0**self.qh
        return carry(real, codes, self.qh)

    def reals(self, leaves):
        """x, w_ih, w_hh as dequantized codes with the gradients of the given float64 leaves."""
        return [
            carry(t, c, q)
            for t, c, q in zip(leaves, (self.x, self.w_ih, self.w_hh), (self.qx, self.qi, self.qw), strict=False)
        ]

    def steps(self):
        times = range(len(self.x))
        return reversed(times) if self.reverse else times


def lstm(layer, leaves, h, c, state_codes):
    """Values (T, B, H), last states, peak of |h| before rounding, saturated cells; with float64 autograd.

    leaves: x, w_ih, w_hh, b_ih, b_hh as float64 tensors that may require gradients; h, c likewise; state_codes: their codes.
    """
    k, p = layer, layer.platform
    venus = p == "venus"
    q = 7 if venus else 15
    x, w_ih, w_hh = k.reals(leaves)
    b_ih, b_hh = leaves[3:]
    hc, cc = (t.long() for t in state_codes)
    h, c = carry(h, hc, k.qh), carry(c, cc, q)
    ys, peak, cut = [None] * len(k.x), 0.0, 0
    for t in k.steps():
        live = (k.lengths > t).view(-1, 1)
        gi, gh = sat(k.x[t] @ k.w_ih.T + k.b_ih, 32), sat(hc @ k.w_hh.T + k.b_hh, 32)
        codes = sat(to(gi, k.qx + k.qi, k.base) + to(gh, k.qh + k.qw, k.base), 16 if venus else 32)
        real = (x[t] @ w_ih.T + b_ih + h @ w_hh.T + b_hh).chunk(4, 1)
        (i, ic), (f, fc), (g, gc), (o, oc) = (
            gate(p, n == 2, real[n], part, q) for n, part in enumerate(codes.chunk(4, 1))
        )
        if venus:
            s = sat(cc * fc + ic * gc, 32)
            arg, arg_q, new_c = sat(rhu(s, 3), 16), 14, sat(rhu(s, 7), 16)
        else:
            cut += int((live & (sat(cc * fc, 32) != cc * fc)).sum())
            s = sat(rhu(sat(cc * fc, 32) + sat(ic * gc, 32), 3), 32)
            arg, arg_q, new_c = s, 27, rhu(s, 12)
        full = chip(p, 1, arg)
        tc = sat(rhu(full, 8), 8) if venus else rhu(full, 16)
        cell = carry(c * f + i * g, s, arg_q)
        th = Gate.apply(cell, tc.to(D64) / 2.0**q, True)
        out = oc * tc
        peak = max(peak, float((out.abs() * live).max()) / 2.0 ** (2 * q))
        new_h = sat(rhu(out, 2 * q - k.qh), 8)
        h = torch.where(live, k.state(o * th, new_h, o * th), h)
        c = torch.where(live, carry(cell, new_c, q), c)
        hc, cc = torch.where(live, new_h, hc), torch.where(live, new_c, cc)
        ys[t] = torch.where(live, h, 0.0)
    return torch.stack(ys), h, c, peak, cut


def gru(layer, leaves, h, state_codes):
    """Values (T, B, H), last state, peak of |h| before rounding; with float64 autograd. Arguments as lstm's."""
    k, p = layer, layer.platform
    x, w_ih, w_hh = k.reals(leaves)
    b_ih, b_hh = leaves[3:]
    hidden, bits, fine = k.w_hh.shape[1], 16 if p == "venus" else 32, 15 if p == "venus" else 31
    ib, hb = k.qx + k.qi, k.qh + k.qw
    base = max(ib, hb) if p == "venusA" else k.base
    hc = state_codes.long()
    h = carry(h, hc, k.qh)
    ys, peak = [None] * len(k.x), 0.0
    rz = slice(0, 2 * hidden)

    def squash(real, codes, is_tanh):
        full = chip(p, is_tanh, codes)
        at = Carry.apply(real, codes.to(D64) / 2.0**k.base)
        return Gate.apply(at, full.to(D64) / 2.0**fine, is_tanh), full

    def brought(codes):  # venusA adds in the finer format of the two sums
        return to(codes, base, 27) if p == "venusA" else codes

    for t in k.steps():
        live = (k.lengths > t).view(-1, 1)
        a = to(sat(k.x[t] @ k.w_ih.T + k.b_ih, 32), ib, base)
        real_a, real_b = x[t] @ w_ih.T + b_ih, h @ w_hh.T + b_hh
        b = to(sat(hc @ k.w_hh.T + k.b_hh, 32), hb, base)
        gates = brought(sat(a[:, rz] + b[:, rz], bits))
        r, rc = squash((real_a + real_b)[:, :hidden], gates[:, :hidden], 0)
        z, zc = squash((real_a + real_b)[:, hidden : 2 * hidden], gates[:, hidden:], 0)
        real_n, real_bn, an, bn = (v[:, 2 * hidden :] for v in (real_a, real_b, a, b))
        if p == "arcs":
            rh = sat(rhu(rc * hc, 31), 8)
            real_rh = carry(r * h, rh, k.qh)
            bn = to(sat(rh @ k.w_hh[2 * hidden :].T + k.b_hh[2 * hidden :], 32), hb, 27)
            pre, real_n = sat(an + bn, 32), real_n + real_rh @ w_hh[2 * hidden :].T + b_hh[2 * hidden :]
        else:
            bn = sat(bn, bits)
            kept = sat(rhu(rc * bn, fine), bits)
            pre = brought(sat(sat(an, bits) + kept, bits))
            real_n = real_n + r * Carry.apply(real_bn, bn.to(D64) / 2.0**base)
        n, nc = squash(real_n, pre, 1)
        nq = sat(rhu(nc, fine - k.qh), bits)
        nv = carry(n, nq, k.qh)
        if p == "venus":
            far, start, mixed = sat(nq - hc, 16), hc, z * (nv - h) + h
        else:
            far, start, mixed = sat(hc - nq, 32), nq, z * (h - nv) + nv
        new_h = sat(sat(rhu(zc * far, fine), bits) + start, 8)
        share = (zc.float() / 2.0**fine) * far.float() + start.float()
        peak = max(peak, float((share.abs() * live).max()) / 2.0**k.qh)
        before = z * (n - h) + h if p == "venus" else z * (h - n) + n
        h = torch.where(live, k.state(mixed, new_h, before), h)
        hc = torch.where(live, new_h, hc)
        ys[t] = torch.where(live, h, 0.0)
    return torch.stack(ys), h, peak


def formulas(platform, gates=4):
    """A chip's row, as the layers of LSTM (4) and GRU (3) give it."""
    row = LIMITS[platform]
    return Formulas(row.formulas, row.lstm_state_exp2 if gates == 4 else row.gru_state_exp2, row.cell_exp2)


def packed_walk(lengths, platform, reverse=False, gates=4):
    """Walk of a packed batch, entries in falling order of length, and the (step, entry) of each row."""
    steps = int(lengths.max())
    counts = torch.tensor([int((lengths > t).sum()) for t in range(steps)], dtype=torch.int32)
    rows = [(t, r) for t in range(steps) for r in range(int(counts[t]))]
    offsets = torch.cumsum(counts.long(), 0) - counts
    return Walk(offsets, counts, len(lengths), 1, formulas(platform, gates), reverse), rows
