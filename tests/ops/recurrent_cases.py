"""Float operands of one recurrent layer, a loss on all it returns, and its gradients by the rule."""

import math

import numpy as np
import ops_oracle
import pytest
import recurrent_oracle as oracle
import torch

from linger import ops
from linger.ops.gru import gru
from linger.ops.lstm import lstm
from linger.ops.recurrent import Weights, hidden_scale

PLATFORMS = ("arcs", "venusA", "venus")
each_platform = pytest.mark.parametrize("platform", PLATFORMS)


def random_codes(g, *shape, extreme=False):
    if extreme:
        return torch.tensor([-128, 127, 0], dtype=torch.int8)[torch.randint(0, 3, shape, generator=g)]
    return torch.randint(-128, 128, shape, generator=g, dtype=torch.int8)


class Float:
    """Float operands of one layer with quantizers that clip a few weights, and a loss on everything it returns."""

    def __init__(self, kind, platform, shape, seed, reverse=False, packed=False, given=True, method="MOM"):
        batch, steps, d, hidden = shape
        self.kind, n = kind, 4 if kind == "lstm" else 3
        g = torch.Generator().manual_seed(seed)
        self.platform, self.reverse, self.given = platform, reverse, given
        self.lengths = torch.full((batch,), steps)
        if packed:
            self.lengths = torch.randint(1, steps + 1, (batch,), generator=g).sort(descending=True).values
            self.lengths[0] = steps
        self.walk, self.rows = oracle.packed_walk(self.lengths, platform, reverse, n)
        self.padded = torch.randn(steps, batch, d, generator=g)
        bound = 2.0 * hidden**-0.5
        self.x_scale = torch.tensor(2.0**5)
        codes = (self.padded * self.x_scale + 0.5).floor().clamp(-128, 127)
        self.codes = torch.stack([codes[t, r] for t, r in self.rows]).to(torch.int8)
        self.x = (self.codes / self.x_scale).requires_grad_()
        sizes = (n * hidden, d), (n * hidden, hidden), (n * hidden,), (n * hidden,)
        self.w = [((torch.rand(s, generator=g) * 2 - 1) * bound).requires_grad_() for s in sizes]
        self.h0 = (torch.rand(batch, hidden, generator=g) - 0.5).requires_grad_()
        self.c0 = (torch.rand(batch, hidden, generator=g) * 2 - 1).requires_grad_()
        finest = 7 - round(math.log2(bound / 1.5))
        known = [ops_oracle.fixed(finest), ops_oracle.fixed(finest), ops_oracle.stats()]
        self.outs = [
            ops_oracle.output(s, threshold=t) for s, t in zip(known, self.thresholds(method, bound), strict=True)
        ]
        self.loss_weights = [torch.randn(s, generator=g) for s in ((len(self.rows), hidden), *[(1, batch, hidden)] * 2)]

    def thresholds(self, method, bound):
        if method == "MOM":
            return [None] * 3
        return [torch.tensor([float(np.log2(v))], requires_grad=True) for v in (bound, bound / 2, 0.8)]

    @property
    def leaves(self):
        states = [self.h0, self.c0][: 2 if self.kind == "lstm" else 1] if self.given else []
        return [self.x, *self.w, *states, *(o.threshold for o in self.outs if o.threshold is not None)]

    def run(self):
        ih, hh, out = self.outs
        self.h_scale = hidden_scale(out, self.walk.chip.state_exp2)
        w = Weights(*self.w, ih, hh)
        x = ops.Coded(self.x, self.codes, self.x_scale)
        states = (self.h0, self.c0) if self.given else (None, None)
        if self.kind == "lstm":
            self.result = lstm(x, w, self.h_scale, out, self.walk, *states)
        else:
            self.result = gru(x, w, self.h_scale, out, self.walk, states[0])
        return self.result.out, self.result.h, self.result.c

    def loss(self, y, h, c):
        a, b, d = self.loss_weights
        return (y.value * a).sum() + (h.value * b).sum() + (0.0 if c is None else (c.value * d).sum())

    def exp2(self):
        scales = (self.x_scale, *(self.weight_codes(i)[1] for i in (0, 1)), self.h_scale)
        return [int(s.log2()) for s in scales]

    def weight_codes(self, i):
        x_scale = self.h_scale if i else self.x_scale
        spec = self.outs[i]._replace(observe=False)
        return ops.quantize_weight(self.w[i].detach(), spec, self.w[2 + i].detach(), x_scale)[:2]

    def reference(self):
        """Gradients of the same loss by the rule, in float64, in the order of x, w, h0, c0."""
        q = self.exp2()
        codes = torch.zeros_like(self.padded)
        for (t, r), row in zip(self.rows, self.codes, strict=True):
            codes[t, r] = row
        pairs = [self.weight_codes(i) for i in (0, 1)]
        biases = [(self.w[2 + i].detach().double() * 2.0 ** (q[3 * i] + q[1 + i])).round() for i in (0, 1)]
        layer = oracle.Layer(self.platform, codes, *(p[0] for p in pairs), *biases, q, self.reverse, self.lengths)
        if self.outs[2].threshold is not None:
            layer.threshold = self.outs[2].threshold.detach().double().requires_grad_()
        leaves = [t.detach().double().requires_grad_() for t in (codes / self.x_scale, *self.w)]
        cell = 7 if self.platform == "venus" else 15
        given = [self.h0, self.c0] if self.given else [torch.zeros_like(self.h0), torch.zeros_like(self.c0)]
        states = [t.detach().double().requires_grad_() for t in given]
        state_codes = [
            (t.detach() * 2.0**e + 0.5).floor().clamp(-(2.0 ** (b - 1)), 2.0 ** (b - 1) - 1)
            for t, e, b in zip(given, (q[3], cell), (8, 16 if cell == 7 else 32), strict=True)
        ]
        masked = [leaves[0], *(_inside(w, p[1]) for w, p in zip(leaves[1:3], pairs, strict=True)), *leaves[3:]]
        if self.kind == "gru":
            y, h, peak = oracle.gru(layer, masked, states[0], state_codes[0])
            c, cut, states = None, 0, states[:1]
        else:
            y, h, c, peak, cut = oracle.lstm(layer, masked, *states, state_codes)
        flat = torch.stack([y[t, r] for t, r in self.rows])
        a, b, d = (t.double() for t in self.loss_weights)
        loss = (flat * a).sum() + (h * b[0]).sum() + (0.0 if c is None else (c * d[0]).sum())
        learned = [] if layer.threshold is None else [layer.threshold]
        grads = list(torch.autograd.grad(loss, [*leaves, *states, *learned]))
        grads[0] = torch.stack([grads[0][t, r] for t, r in self.rows])
        return (flat, h, c, peak, cut), grads


def _inside(w, scale):
    """The gradient of a weight passes where its code did not saturate."""
    r = (w.detach().float() * scale).round()
    return w * ((r >= -128) & (r <= 127))
