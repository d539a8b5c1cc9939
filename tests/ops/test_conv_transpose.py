"""Transposed convolution on codes: exact sums for every spacing, what is kept for backward, errors."""

import math
import random

import pytest
import torch
from torch.nn import functional as F

from linger import UnsupportedError, ops
from linger.ops import Coded, Spacing

from . import bilinear_oracle as oracle


@pytest.mark.parametrize("seed", range(30))
def test_it_equals_the_written_rule(seed, isa):
    r = random.Random(seed)
    torch.manual_seed(seed)
    groups = r.choice([1, 2, 4])
    stride, dilation = [r.randint(1, 3), r.randint(1, 3)], [r.randint(1, 2), r.randint(1, 2)]
    extra = [r.randint(0, max(s, d) - 1) for s, d in zip(stride, dilation, strict=True)]
    kernel = r.randint(1, 4), r.randint(1, 4)
    padding = [r.randint(0, d * (k - 1)) for k, d in zip(kernel, dilation, strict=True)]
    g = Spacing(stride, padding, extra, dilation, groups)
    x = Coded(torch.zeros(2, 4, 5, 6), oracle.codes("random", (2, 4, 5, 6)), torch.tensor(32.0))
    w = torch.randn(4, 3, *kernel)
    bias = torch.randn(3 * groups) if r.random() < 0.7 else None
    out = oracle.output(relu=r.random() < 0.5, bits=r.choice([8, 8, 4, 16]), clamp=r.choice([0.0, 4.0]))
    got = ops.conv_transpose(x, w, bias, g, oracle.output(), out)
    wq, w_scale, *_ = ops.quantize_weight(w, oracle.output(), bias, x.scale)
    sums = F.conv_transpose2d(x.codes.double(), wq.double(), None, stride, padding, extra, groups, dilation).long()
    if bias is not None:
        sums += ops.quantize_bias(bias, x.scale, w_scale).long().view(1, -1, 1, 1)
    want = oracle.quantized(sums, int(math.log2(x.scale) + math.log2(w_scale)), out, True)
    assert math.log2(got.scale) == want.exp2
    assert torch.equal(got.codes.long(), want.codes)
    assert got.codes.is_contiguous(memory_format=torch.channels_last)


def test_codes_are_kept_as_they_came():
    x = Coded(torch.zeros(1, 3, 8, 8, requires_grad=True), oracle.codes("random", (1, 3, 8, 8)), torch.tensor(16.0))
    w = torch.randn(3, 4, 2, 2, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        ops.conv_transpose(x, w, None, Spacing((4, 4)), oracle.output(), oracle.output())
    assert any(t is x.codes for t in kept) and all(t.numel() <= 32 * 32 * 2 for t in kept)


@pytest.mark.parametrize(
    ("error", "match", "change"),
    [
        (ValueError, "4 dimensions", {"w": torch.randn(3, 2, 2)}),
        (ValueError, "does not fit weight", {"w": torch.randn(4, 2, 2, 2)}),
        (ValueError, "must not be empty", {"w": torch.randn(3, 2, 0, 2)}),
        (ValueError, r"bias must have shape \(2,\)", {"bias": torch.randn(3)}),
        (ValueError, "need 2 numbers", {"g": Spacing((1, 1, 1))}),
        (ValueError, "at least 1", {"g": Spacing((0, 1))}),
        (ValueError, "smaller than stride or dilation", {"g": Spacing(output_padding=(1, 0))}),
        (ValueError, "would have size", {"g": Spacing(padding=(9, 0))}),
        (UnsupportedError, "at most 8 bits", {"codes": torch.zeros(1, 3, 4, 4, dtype=torch.int32)}),
        (TypeError, "weight", {"w": torch.ones(3, 2, 2, 2, dtype=torch.int32)}),
    ],
)
def test_errors(error, match, change):
    codes = change.get("codes", torch.zeros(1, 3, 4, 4, dtype=torch.int8))
    x = Coded(torch.zeros(codes.shape), codes, torch.tensor(1.0))
    w, g = change.get("w", torch.randn(3, 2, 2, 2)), change.get("g", Spacing())
    with pytest.raises(error, match=match):
        ops.conv_transpose(x, w, change.get("bias"), g, oracle.output(), oracle.output())
