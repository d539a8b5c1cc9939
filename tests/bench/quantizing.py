"""Fake-quant of one tensor, statistics included, against ``Tensor.copy_`` and torch's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from linger.quantizers import Quantizer

from .rows import Row, Settings
from .timing import compare

SIZES = (16, 1 << 12, 1 << 16, 1 << 20, 1 << 24)


def _check(q: Quantizer, x: Tensor) -> None:
    got = q(x)
    want = torch.floor(x * got.scale + 0.5).clamp(-128, 127)
    assert torch.equal(got.value.detach(), want / got.scale), "fake-quant: wrong values"


def rows(settings: Settings) -> Iterator[Row]:
    """Forward and forward+backward at every size."""
    for n in SIZES[:-1] if settings.quick else SIZES:
        torch.manual_seed(0)
        source = torch.randn(min(n, 64), n // min(n, 64))
        x, grad, target = source.clone().requires_grad_(), torch.randn_like(source), torch.empty_like(source)
        ours = Quantizer(8).train()
        _check(ours, source)
        built_in = torch.ao.quantization.default_fused_wt_fake_quant()

        def both(f: Callable[[Tensor], Tensor], x: Tensor = x, grad: Tensor = grad) -> Callable[[], None]:
            def run() -> None:
                x.grad = None
                f(x).backward(grad)

            return run

        def value(x: Tensor, q: Quantizer = ours) -> Tensor:
            return q(x).value

        copy = {"copy_": lambda t=target, s=source: t.copy_(s)}
        forward = {
            "linger": lambda q=ours, s=source: q(s),
            "torch.ao fused observer": lambda m=built_in, s=source: m(s),
        }
        backward = {"linger": both(value), "torch.ao fused observer": both(built_in)}
        for kind, calls in (("forward", forward), ("forward+backward", backward)):
            times = compare(
                copy | calls, "copy_", rounds=settings.rounds, block_s=0.004, budget_s=settings.budget_s / 3
            )
            for who, t in times.items():
                yield Row(f"fake-quant {kind} n={n}", who, t)
