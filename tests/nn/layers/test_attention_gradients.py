"""Gradients of attention against float64: identity through roundings, every factor at its dequantized value."""

import math

import pytest
import torch
from torch import nn

import linger
from linger.runtime import info

E, HEADS, L, N = 8, 2, 5, 3
PLATFORMS = ("arcs", "mars", "venusA")


def through(exact, computed):
    """The computed value with the gradient of the exact one."""
    return exact + (computed.double() - exact).detach()


def softmax_at(scores, shares):
    """The computed softmax, and its Jacobian product there."""
    p, moved = shares.double().detach(), scores - scores.detach()
    return p + p * moved - p * (p * moved).sum(-1, keepdim=True)


def _stacked(t):
    """(L, N, E) -> (N * heads, L, head_dim)."""
    return t.reshape(L, N * HEADS, E // HEADS).transpose(0, 1)


def reference(x, weights, values, mask):
    """The same chain in float64 on dequantized parameters; ``values`` are what the chip computed in between."""
    (w_in, b_in, w_out, b_out), (*projected, scores, masked, shares, mixed) = weights, values
    factors, parts = (1.0 / math.sqrt(E // HEADS), 1.0, 1.0), []
    for w, b, factor, computed in zip(w_in, b_in, factors, projected, strict=True):
        t = factor * (x @ w.T + b)
        parts.append(through(_stacked(t), _stacked(computed)))
    s = through(parts[0] @ parts[1].transpose(1, 2), scores)
    if mask:
        s = through(s, masked)
    out = through(softmax_at(s, shares) @ parts[2], mixed)
    return out.transpose(0, 1).reshape(L, N, E) @ w_out.T + b_out


def on_grid(t, quantizer, factor=1.0):
    """A parameter as the products see it (its factor is part of the codes), carrying the gradient of the parameter."""
    exact = t.detach().double().requires_grad_()
    scale = float(quantizer.scale)
    code = (exact.detach() * factor * scale).round().clamp(-128, 127)
    return exact, exact + (code / scale / factor - exact).detach()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("platform", PLATFORMS)
def test_gradients_agree_with_float64(platform, masked, tmp_path):
    torch.manual_seed(0)
    config = tmp_path / "config.yaml"
    config.write_text(f"platform: {platform}\nclamp_info: {{clamp_factor_value: null, clamp_activation_value: null}}\n")
    layer = nn.MultiheadAttention(E, HEADS)
    nn.init.normal_(layer.in_proj_bias, std=0.2)
    model = linger.init(nn.Sequential(layer), str(config))[0]
    given = torch.randn(L, N, E)
    mask = torch.ones(L, L, dtype=torch.bool).triu_(1) if masked else None
    model(given, given, given, attn_mask=mask)
    with linger.calibration(a_calibrate_name="abs_max"):
        model(given, given, given, attn_mask=mask)
    for m in model.modules():  # nothing saturates: every range twice what was seen
        if getattr(m, "role", "bias") != "bias" and m.ready:
            m.set_range(2.0 * m.running_data)
    linger.freeze_statistics(model)
    seen = {}
    hooks = [m.register_forward_hook(lambda m, a, y, n=n: seen.setdefault(n, y)) for n, m in model.named_modules() if n]
    x = given.clone().requires_grad_()
    y, _ = model(x, x, x, attn_mask=mask)
    for hook in hooks:
        hook.remove()
    codes = [(t.detach() * info(t).scale).abs().max() for n, t in seen.items() if "softmax" not in n]
    assert max(codes) < 127
    loss = torch.randn_like(y)
    (y * loss).sum().backward()

    computed = [seen[f"{c}_proj"].detach() for c in "qkv"]
    operators = [
        t.detach() for n, t in seen.items() if "qtensor" in n
    ]  # product, (sum with the mask), softmax, product
    added = operators[1] if masked else None
    values = (*computed, operators[0], added, operators[-2], operators[-1])
    leaf, quantizer = given.double().requires_grad_(), model.q_proj.input_quantizer
    grid = leaf + ((given.double() * quantizer.scale + 0.5).floor() / quantizer.scale - leaf).detach()
    factor = 1.0 / math.sqrt(E // HEADS)
    projections = [model.q_proj, model.k_proj, model.v_proj]
    pairs = [
        on_grid(w, p.weight_quantizer, factor if i == 0 else 1.0)
        for i, (w, p) in enumerate(zip(model.in_proj_weight.chunk(3), projections, strict=True))
    ]
    out, out_grid = on_grid(model.out_proj.weight, model.out_proj.weight_quantizer)
    biases = model.in_proj_bias.detach().double().chunk(3)
    weights = ([g for _, g in pairs], biases, out_grid, model.out_proj.bias.detach().double())
    exact = reference(grid, weights, values, masked)
    torch.testing.assert_close(exact.detach(), y.detach().double(), atol=0.6 / float(info(y).scale), rtol=0)
    (exact * loss.double()).sum().backward()
    found = {
        "x": (x.grad, leaf.grad),
        "in": (model.in_proj_weight.grad, torch.cat([e.grad for e, _ in pairs])),
        "out": (model.out_proj.weight.grad, out.grad),
    }
    for name, (ours, theirs) in found.items():
        assert float((ours.double() - theirs).norm()) <= 1e-5 * float(theirs.norm()), name
