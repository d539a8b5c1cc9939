"""Gradients of many small convolutions next to float64, in a process of its own: faults of oneDNN depend on processor, threads.

Run as ``python -m tests.nn.float_gradients <threads>``; prints a line for each that differs.
"""

import copy
import itertools
import sys

import torch
from torch import nn
from torch.nn import functional as F

import linger
from linger import ops

KERNELS = ((1, 1), (1, 2), (2, 2))
STRIDES = ((1, 1), (2, 1), (1, 3), (2, 2))


def differ(got, want, what):
    """Print ``what`` where two gradients are further apart than float32 sums of some hundred products of about 1 are."""
    for name, g, w in zip(("x", "weight", "bias"), got, want, strict=False):
        if g is not None and not (g.double() - w).norm() <= 1e-4 * w.norm().clamp(min=10):
            print(f"{what}: gradient of {name} is off by {float((g.double() - w).norm() / w.norm())}")


def shapes():
    """Channels, outputs, kernel, stride, groups, padding."""
    for c, k, s in itertools.product((1, 2, 3, 4, 7, 8), KERNELS, STRIDES):
        for o, g in ((1, 1), (8, 1), (2 * c, c)):
            for p in ((0, 0), (1, 1)):
                if k != (1, 1) and p != (0, 0):
                    continue
                yield c, o, k, s, g, p


def operators():
    """The float convolution: first and second gradients."""
    for c, o, k, s, g, p in shapes():
        torch.manual_seed(c)
        x = torch.randn(16, c, 8, 9).contiguous(memory_format=torch.channels_last)
        w = torch.randn(o, c // g, *k)
        b = torch.zeros(o)
        wide = [t.double().requires_grad_() for t in (x, w, b)]
        y = F.conv2d(*wide, s, p, 1, g)
        grad = torch.randn(y.shape).contiguous(memory_format=torch.channels_last)
        want = torch.autograd.grad(y, wide, grad.double(), create_graph=True)
        case = f"channels {c}, outputs {o}, kernel {k}, stride {s}, groups {g}, padding {p}"

        narrow = [t.clone().requires_grad_() for t in (x, w, b)]
        y = ops.float_conv2d(*narrow, s, p, 1, g)
        if not torch.equal(y, F.conv2d(x, w, b, s, p, 1, g)):
            print(f"float, {case}: the forward is not torch's")
        got = torch.autograd.grad(y, narrow, grad, create_graph=True)
        differ([t.detach() for t in got], want, f"float, {case}")
        twice = [
            torch.autograd.grad(a[0].pow(2).sum() + a[1].pow(2).sum(), i[:2]) for a, i in ((got, narrow), (want, wide))
        ]
        differ(*twice, f"float, {case}, second")


class Island(nn.Module):
    """A convolution of user code behind a quantized layer, which makes its input channels-last."""

    def __init__(self, c, stride):
        super().__init__()
        self.first, self.stride = nn.Conv2d(3, c, 3, padding=1), stride
        self.kernel = nn.Parameter(torch.randn(16, c, 1, 1))

    def forward(self, x):
        return F.conv2d(self.first(x) * 1.0, self.kernel, None, self.stride)


def plain(c, stride, **rest):
    """A convolution behind another."""
    return nn.Sequential(nn.Conv2d(3, c, 3, padding=1), nn.ReLU(), nn.Conv2d(c, 16, 1, stride, **rest))


def normalised(c, stride):
    """The same with a BatchNorm behind it."""
    return nn.Sequential(*plain(c, stride), nn.BatchNorm2d(16))


MODELS = {
    "quantized": lambda c, s: linger.init(plain(c, s)),
    "constrained": lambda c, s: linger.constrain(plain(c, s)),
    "constrained, circular": lambda c, s: linger.constrain(plain(c, s, padding_mode="circular")),
    "constrained with BatchNorm": lambda c, s: linger.constrain(normalised(c, s)),
    "BatchNorm folded in every step": lambda c, s: linger.init(normalised(c, s), fold_bn="step"),
    "island": lambda c, s: linger.init(Island(c, s)),
    "transposed": lambda c, s: linger.constrain(nn.Sequential(nn.Conv2d(3, 16, 3), nn.ConvTranspose2d(16, c, 1, s))),
}


def models():
    """Layers with and without oneDNN."""
    cases = [(name, c, s) for name in MODELS for c in (1, 4, 7) for s in (2, (1, 3))]
    cases += [("quantized", c, s) for c in range(1, 9) for s in (3, (2, 1))]
    for name, c, s in cases:
        torch.manual_seed(0)
        model = MODELS[name](c, s).train().to(memory_format=torch.channels_last)
        x = torch.randn(32, 3, 16, 16).contiguous(memory_format=torch.channels_last)
        model(x)
        found = []
        for enabled in (False, True):
            one = copy.deepcopy(model)
            with torch.backends.mkldnn.flags(enabled=enabled):
                one(x).pow(2).mean().backward()
            found.append([p.grad.double() for p in one.parameters() if p.grad is not None])
        whole = torch.cat([g.flatten() for g in found[0]]).norm()
        # a code may flip where a float statistic rounds otherwise; the fault is a matter of factors
        if not all((a - b).norm() <= 0.05 * max(a.norm(), 0.01 * whole) for a, b in zip(*found, strict=True)):
            print(f"{name}, channels {c}, stride {s}: oneDNN changes the gradients")


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    operators()
    models()
