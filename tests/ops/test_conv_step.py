"""A convolution's training step as one operator: the same bits as the operators that it joins, and nothing moved by a refusal."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import linger
from linger import ops
from linger.ops import Coded, Geometry

from . import bilinear_oracle as oracle

native = torch.ops.linger
CASES = {
    "plain": ((2, 5, 7, 6), (4, 5, 3, 3), Geometry([1, 1], [1, 1, 1, 1], [1, 1], 1)),
    "strided uneven": ((3, 4, 9, 8), (6, 4, 2, 3), Geometry([2, 3], [1, 0, 0, 2], [1, 2], 1)),
    "grouped": ((2, 6, 5, 5), (9, 2, 3, 2), Geometry([1, 1], [0, 0, 0, 0], [1, 1], 3)),
    "depthwise": ((2, 20, 6, 5), (20, 1, 3, 3), Geometry([1, 2], [1, 1, 1, 1], [1, 1], 20)),
    "pointwise": ((1, 3, 4, 4), (18, 3, 1, 1), Geometry()),
    "signal": ((3, 8, 15), (5, 8, 4), Geometry([1, 2], [0, 2, 0, 1], [1, 1], 1)),
    "signal depthwise": ((2, 17, 11), (17, 1, 3), Geometry([1, 1], [0, 1, 0, 1], [1, 2], 17)),
}


def arguments(name, layout=None):
    shape, w_shape, geometry = CASES[name]
    torch.manual_seed(len(name))
    x = oracle.codes("random", shape)
    x = x.transpose(1, -1).contiguous().transpose(1, -1) if layout == "last" else x
    return x, torch.tensor(32.0), torch.randn(w_shape), torch.randn(w_shape[0]), geometry


def lifted(t):
    return t.unsqueeze(2) if t.dim() == 3 else t


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("layout", ["first", "last"])
@pytest.mark.parametrize("name", CASES)
def test_the_step_is_its_parts(name, layout, bits, biased, relu, isa):
    x, scale, w, bias, geometry = arguments(name, layout)
    bias = bias if biased else None
    outs = [(oracle.output(), oracle.output(bits=bits, relu=relu, clamp=8.0)) for _ in range(2)]
    for _ in range(2):  # before any data, then with a guess
        (w_mine, mine), (w_parts, parts) = outs
        leaf, v = w.clone().requires_grad_(), (x / scale).requires_grad_()
        y = ops.conv(Coded(v, x, scale), leaf, bias, geometry, w_mine, mine)
        wq, w_scale, w_mask, _ = ops.quantize_weight(w, w_parts, bias, scale, grad=True)
        settings = (*parts.stats, None, bits, 8.0, int(parts.rounding), ops.spec.flags_of(parts, True))
        want = native.conv(lifted(x), scale, lifted(wq), w_scale, bias, *geometry, *settings)
        assert torch.equal(lifted(y.value), want[0]) and torch.equal(lifted(y.codes), want[1])
        assert torch.equal(y.scale, want[2])
        assert all(torch.equal(a, b) for a, b in zip(mine.stats, parts.stats, strict=True))
        assert all(torch.equal(a, b) for a, b in zip(w_mine.stats, w_parts.stats, strict=True))
        dy = torch.randn_like(y.value)
        gx, gw = torch.autograd.grad(y.value, (v, leaf), dy)
        gradients = native.conv_grad(lifted(dy), want[3], lifted(x), scale, lifted(wq), w_scale, w_mask, *geometry, 3)
        assert torch.equal(lifted(gx), gradients[0]) and torch.equal(lifted(gw), gradients[1])


@pytest.mark.parametrize("broken", ["scale", "weight", "bias"])
def test_a_nan_makes_everything_nan_and_no_gradient(broken):
    x, scale, w, bias, geometry = arguments("plain")
    where = {"scale": scale, "weight": w, "bias": bias}[broken]
    where.view(-1)[0] = math.nan
    leaf, out = w.clone().requires_grad_(), oracle.output()
    y = ops.conv(Coded(x / 32, x, scale), leaf, bias, geometry, oracle.output(), out)
    assert y.value.isnan().all() and not y.codes.any() and y.scale.isnan() and not out.stats.is_init
    y.value.sum().backward()
    assert not leaf.grad.any()


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"x": torch.zeros(2, 5, 7, 6, dtype=torch.int32)}, linger.UnsupportedError, "at most 8 bits"),
        ({"w": torch.randn(4, 3, 3, 3)}, ValueError, "does not fit weight"),
        ({"w": torch.randn(4, 5, 9, 9)}, ValueError, "larger than the padded input"),
        ({"bias": torch.randn(3)}, ValueError, r"bias must have shape \(4,\)"),
        ({"bits": 9}, linger.UnsupportedError, "the weight must have at most 8 bits"),
    ],
)
def test_a_refusal_moves_no_state(change, error, match):
    x, scale, w, bias, geometry = arguments("plain")
    x, w, bias = change.get("x", x), change.get("w", w), change.get("bias", bias)
    w_out, out = oracle.output(bits=change.get("bits", 8)), oracle.output()
    with pytest.raises(error, match=match):
        ops.conv(Coded(x / 32, x, scale), w.requires_grad_(), bias, geometry, w_out, out, ops.KeptWeight())
    assert not w_out.stats.is_init and not out.stats.is_init


def test_a_layer_notices_another_geometry():
    torch.manual_seed(0)
    layer = nn.Conv1d(3, 4, 3)
    model = linger.init(nn.Sequential(layer)).train()
    x = torch.randn(2, 3, 12)
    model(x)
    model[0].stride, model[0].padding = (2,), (1,)
    assert model(x).shape == (2, 4, 6)


def test_opcheck():
    x, scale, w, bias, g = arguments("signal")
    states, numbers = [*oracle.stats(), *oracle.stats()], [*g.stride, *g.padding, *g.dilation, g.groups]
    call = (x, scale, w, bias, states, numbers, 8 | 2 << 8 | 1 << 16, 8 | 1 << 8 | 5 << 16, 8.0)
    torch.library.opcheck(native.conv_step.default, call)
    value, _, _, mask, kept = native.conv_step(*call)
    with pytest.raises(RuntimeError, match="kept is not what conv_step made"):
        native.conv_step_backward(value, x, mask, kept[1:].clone(), numbers, 7)
    with pytest.raises(RuntimeError, match="geometry needs 9 numbers, got 8"):
        native.conv_step_backward(value, x, mask, kept, numbers[1:], 7)
